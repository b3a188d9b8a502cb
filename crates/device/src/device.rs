//! The handle a program holds.

use std::fmt;
use std::sync::Arc;

use osap::{Code, Serial, SystemRandom};
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use crate::builder::{Builder, StartError};
use crate::driver::Driver;
use crate::event::{Body, EventPath, InvalidEvent, Receipt, ReportError};
use crate::operation::OperationPath;
use crate::outbox::PushError;
use crate::shared::{Counters, Shared};
use crate::state::{LinkFault, State, StopReason};
use crate::storage::{Storage, StorageError};

/// A device that runs: it authenticates, stays connected and reports events on its own.
///
/// A cheap handle; clones mean the same device. When the last one is dropped the device stops in
/// the background; [`stop`](Self::stop) stops it and says when it is done.
#[derive(Clone)]
pub struct Device {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    damage: Option<StorageError>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.request_stop();
    }
}

/// A device did not part from the platform in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The connection broke during the goodbye: the platform notices by itself.
    #[error("the connection broke during the goodbye: {0}")]
    LinkLost(LinkFault),
    /// See [`StopReason::Crashed`].
    #[error("the device had failed before")]
    Crashed,
}

impl Device {
    /// Begins a device with this serial and the verification code that belongs to it.
    #[must_use]
    pub fn builder(serial: &str, code: &str) -> Builder {
        Builder::new(serial, code)
    }

    pub(crate) fn start(shared: Shared, code: Code, storage: Arc<dyn Storage>) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let serial = &shared.profile.serial;
        let (credentials, damage) = match storage.load(serial) {
            Ok(credentials) => (credentials, None),
            Err(damage @ StorageError::Damaged { .. }) => {
                tracing::warn!(%serial, %damage, "starting without credentials");
                (None, Some(damage))
            }
            Err(error) => return Err(StartError::Storage(error)),
        };
        let shared = Arc::new(shared);
        let driver = Driver::new(Arc::clone(&shared), code, storage, credentials);
        runtime.spawn(driver.run());
        Ok(Self { handle: Arc::new(Handle { shared, damage }) })
    }

    /// The serial of this device.
    #[must_use]
    pub fn serial(&self) -> &Serial {
        &self.shared().profile.serial
    }

    /// An event of this device: `/{resource}/{index}/{area}/event/{name}` in the platform.
    /// The device's own areas live in resource `global`, index 0.
    #[must_use]
    pub fn event(&self, resource: &str, index: u16, area: &str, name: &str) -> Event<'_> {
        let path = EventPath { resource: resource.into(), index, area: area.into(), name: name.into() };
        Event { device: self, path }
    }

    /// An attribute of this device, to be reported.
    #[must_use]
    pub fn attribute(&self, resource: &str, index: u16, area: &str, name: &str) -> Attribute<'_> {
        let path = EventPath { resource: resource.into(), index, area: area.into(), name: name.into() };
        Attribute { device: self, path: path.into() }
    }

    /// What the device is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared().state.borrow().clone()
    }

    /// Follows what the device is doing. A slow reader sees the newest state, not every one.
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<State> {
        self.shared().state.subscribe()
    }

    /// What happened so far, in numbers.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared().counters()
    }

    /// Events that were reported and are not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.shared().outbox.lock().len()
    }

    /// What was wrong with the stored credentials at the start, if they were damaged. The device
    /// then authenticates as a new one, which the platform may refuse until an operator opens an
    /// enrolment window; the damaged credentials stay where they are until it succeeded.
    #[must_use]
    pub fn storage_damage(&self) -> Option<&StorageError> {
        self.handle.damage.as_ref()
    }

    /// Stops the device: unsubscribes and disconnects when it is online (osap-wire 9.9), and ends
    /// its task. Unacknowledged events are given up: whoever awaits them gets
    /// [`ReportError::Stopped`]. Returns at once when the device has stopped already, and within 20 seconds however the
    /// server behaves.
    ///
    /// # Errors
    /// [`StopError`]; the device is stopped nevertheless.
    pub async fn stop(&self) -> Result<(), StopError> {
        let shared = self.shared();
        let mut state = shared.state.subscribe();
        shared.request_stop();
        // The sender lives in `shared`, so the channel outlives this wait.
        let stopped = state.wait_for(|state| matches!(state, State::Stopped(_))).await;
        if stopped.is_ok_and(|state| *state == State::Stopped(StopReason::Crashed)) {
            return Err(StopError::Crashed);
        }
        match shared.farewell.get() {
            Some(fault) => Err(StopError::LinkLost(*fault)),
            None => Ok(()),
        }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

/// An event to be reported. Made by [`Device::event`].
#[derive(Debug, Clone)]
pub struct Event<'a> {
    device: &'a Device,
    path: EventPath,
}

impl Event<'_> {
    /// Reports the event with this body, a JSON object, and waits until the platform has stored it.
    ///
    /// `basic` with `dateTime` (now) and `UUID` is added where the body lacks it; under that id
    /// the event is sent until it is acknowledged, over any number of connections, and stored once.
    /// The call may be dropped: the event stays in the queue. It is lost when the device stops
    /// before the acknowledgement came.
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn report<T: Serialize + ?Sized>(&self, body: &T) -> Result<Receipt, ReportError> {
        let (id, acknowledged) = self.enqueue(body)?;
        match acknowledged.await {
            Ok(()) => Ok(Receipt { id: id.into() }),
            Err(_) => Err(ReportError::Stopped),
        }
    }

    fn enqueue<T: Serialize + ?Sized>(&self, body: &T) -> Result<(Box<str>, oneshot::Receiver<()>), ReportError> {
        let shared = self.device.shared();
        let topic = self.path.topic(&shared.profile.serial).map_err(InvalidEvent::from)?;
        let body = Body::compose(body, &*shared.clock, &mut SystemRandom)?;
        let (token, acknowledged) = oneshot::channel();
        match shared.outbox.lock().push(topic, body.json, token) {
            Ok(()) => {}
            Err(PushError::Full { events, bytes }) => return Err(ReportError::Full { events, bytes }),
            Err(PushError::Closed) => return Err(ReportError::Stopped),
        }
        shared.wake.notify_one();
        Ok((body.id, acknowledged))
    }
}

/// An attribute to be reported. Made by [`Device::attribute`].
#[derive(Debug, Clone)]
pub struct Attribute<'a> {
    device: &'a Device,
    path: OperationPath,
}

impl Attribute<'_> {
    /// Reports the attribute's value, any JSON, and waits until the platform has stored it. A value that is known to the
    /// platform, or on its way, is not sent again, and the call returns at once. After a login under a new session key
    /// the device reports all values by itself.
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn report<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), ReportError> {
        let Some(acknowledged) = self.enqueue(value)? else { return Ok(()) };
        acknowledged.await.map_err(|_| ReportError::Stopped)
    }

    fn enqueue<T: Serialize + ?Sized>(&self, value: &T) -> Result<Option<oneshot::Receiver<()>>, ReportError> {
        let shared = self.device.shared();
        let mut attributes = shared.attributes.lock();
        let Some(message) = attributes.report(&shared.profile.serial, &self.path, value)? else { return Ok(None) };
        let (token, acknowledged) = oneshot::channel();
        let pushed = shared.outbox.lock().push(message.topic, message.body, token);
        if let Err(error) = pushed {
            attributes.not_queued(&self.path);
            return Err(match error {
                PushError::Full { events, bytes } => ReportError::Full { events, bytes },
                PushError::Closed => ReportError::Stopped,
            });
        }
        drop(attributes);
        shared.wake.notify_one();
        Ok(Some(acknowledged))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("serial", self.serial()).field("state", &self.state()).finish_non_exhaustive()
    }
}
