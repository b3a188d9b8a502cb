//! The handle a program holds.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use osap::das::base::Ntp as TimeServer;
use osap::das::topic::GLOBAL;
use osap::{Serial, SystemRandom};
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use crate::attribute::Message;
use crate::builder::{Builder, Speech, StartError};
use crate::cache::{Cache, CacheStatus, EventCache, Keeper, Ledger, Options};
use crate::child::{Child, ChildBuilder, ChildError};
use crate::driver::{Driver, now};
use crate::event::{Body, EventPath, InvalidEvent, Receipt, ReportError};
use crate::firmware::FirmwareModule;
use crate::hub::Hub;
use crate::keyring::Keyring;
use crate::operation::OperationPath;
use crate::owner::{self, BindError, OwnerError};
use crate::pass;
use crate::picture::{self, Picture, UploadError, WithPictures};
use crate::shared::{Counters, Shared};
use crate::state::{LinkFault, State, StopReason};
use crate::storage::{Credentials, Storage, StorageError};

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
    /// Begins a device with this serial and the verification code that belongs to it; the code is empty for a device that has
    /// a ticket or a certificate instead.
    #[must_use]
    pub fn builder(serial: &str, code: &str) -> Builder {
        Builder::new(serial, code)
    }

    pub(crate) fn start(
        mut shared: Shared,
        speech: Speech,
        storage: Arc<dyn Storage>,
        cache: Option<(Box<dyn EventCache>, Options)>,
    ) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let serial = &shared.profile.serial;
        let (mut credentials, damage) = match storage.load(serial) {
            Ok(credentials) => (credentials.unwrap_or_default(), None),
            Err(damage @ StorageError::Damaged { .. }) => {
                tracing::warn!(%serial, %damage, "starting without credentials");
                (Credentials::default(), Some(damage))
            }
            Err(error) => return Err(StartError::Storage(error)),
        };
        speech.provision(&mut credentials);
        let keyring = Arc::new(Keyring::new(Arc::clone(&shared.profile), storage, credentials));
        let entrance = speech.entrance(serial, keyring)?;
        shared.web = entrance.web();
        let mut medium = None;
        if let Some((mut cache, options)) = cache {
            let now_ms = shared.clock.now_ms();
            let ledger = Ledger::load(serial.as_str(), options, now(), now_ms, &mut *cache);
            let ledger = ledger.map_err(StartError::Cache)?;
            shared.cache = Some(Box::new(Cache::new(ledger)));
            medium = Some(cache);
        }
        let shared = Arc::new(shared);
        let keeper = medium.map(|medium| runtime.spawn(Keeper::new(Arc::clone(&shared), medium).run()));
        let driver = Driver::new(Arc::clone(&shared), entrance, keeper);
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
        Event::new(self, GLOBAL, resource, index, area, name)
    }

    /// An attribute of this device, to be reported.
    #[must_use]
    pub fn attribute(&self, resource: &str, index: u16, area: &str, name: &str) -> Attribute<'_> {
        Attribute::new(self, GLOBAL, resource, index, area, name)
    }

    /// Passes bytes to an application, which the platform carries and does not read, and waits until the platform has
    /// stored them. `media_type` says what they are (RFC 9110 8.3.1).
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn pass(
        &self,
        resource: &str,
        index: u16,
        area: &str,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), ReportError> {
        self.pass_of(&OperationPath::new(GLOBAL, resource, index, area, name), media_type, bytes).await
    }

    pub(crate) async fn pass_of(
        &self,
        path: &OperationPath,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), ReportError> {
        let shared = self.shared();
        let message = pass::message(&shared.profile.serial, path, media_type, bytes)?;
        let acknowledged = shared.enqueue(&path.sub, message)?;
        shared.outcome(acknowledged).await
    }

    /// Sends a picture and waits until the platform has it, over any number of connections: what has come is not sent again.
    /// The picture is named by its id, in an event ([`Event::picture`] does both), an attribute or the answer to an operation.
    /// Up to 16 pictures are on their way at once.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn upload_picture(&self, picture: &Picture) -> Result<(), UploadError> {
        picture::send(self.shared(), GLOBAL, picture).await
    }

    /// Where and how often the platform wants the device to ask for the time (osap-wire 10.4); `None` until it has said
    /// so. The SDK itself does not ask.
    #[must_use]
    pub fn time_server(&self) -> Option<TimeServer> {
        self.shared().steering.lock().time_server.clone()
    }

    /// A module of the firmware that was declared with [`Builder::firmware_module`]; `None` for another name.
    #[must_use]
    pub fn firmware_module(&self, name: &str) -> Option<FirmwareModule<'_>> {
        FirmwareModule::of(self.shared(), name)
    }

    /// Asks the platform whose the device is (osap-wire 10.4): a user of the platform, or nobody. Changes that follow are
    /// told to [`Builder::on_binding`].
    ///
    /// # Errors
    /// [`OwnerError`]. The question is sent once, and its answer waited for up to 10 seconds.
    pub async fn owner(&self) -> Result<Option<String>, OwnerError> {
        owner::ask(self.shared()).await
    }

    /// Gives the platform the token of a user, whose the device then is (osap-wire 10.4). It is sent once, and nothing
    /// acknowledges it: that the binding came about is told to [`Builder::on_binding`].
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(&self, token: &str) -> Result<(), BindError> {
        owner::bind(self.shared(), token)
    }

    /// Adds a child while the device runs, which makes it a hub if it was none.
    ///
    /// # Errors
    /// [`ChildError`].
    pub fn add_child(&self, child: ChildBuilder) -> Result<Child, ChildError> {
        let (serial, entry) = child.build(self.serial())?;
        let child = Child::of(self, &serial, &entry);
        self.become_hub();
        self.with_hub(|hub, now| hub.add(now, serial, entry)).transpose()?;
        Ok(child)
    }

    /// Takes a child away: the platform is told, and what the child reported and is not acknowledged is given up.
    /// `false` when there is none.
    pub fn remove_child(&self, serial: &str) -> bool {
        let shared = self.shared();
        let gone = self.with_hub(|hub, _| {
            let gone = hub.remove(serial)?;
            shared.give_up(serial, gone.lane);
            Some(())
        });
        if gone.flatten().is_none() {
            return false;
        }
        shared.attributes.lock().forget(serial);
        true
    }

    /// The child of that serial.
    #[must_use]
    pub fn child(&self, serial: &str) -> Option<Child> {
        let hub = self.shared().hub.lock();
        hub.as_ref()?.child(serial).map(|entry| Child::of(self, serial, entry))
    }

    /// All children, by their serials.
    #[must_use]
    pub fn children(&self) -> Vec<Child> {
        let hub = self.shared().hub.lock();
        let Some(hub) = hub.as_ref() else { return Vec::new() };
        hub.serials().filter_map(|serial| Some(Child::of(self, serial, hub.child(serial)?))).collect()
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

    /// Events that were reported and are not acknowledged, those of former starts in the cache included.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        let shared = self.shared();
        let waiting = shared.cache.as_ref().map_or(0, |cache| cache.waiting());
        waiting + shared.outbox.lock().len()
    }

    /// How the cache of events is doing; `None` without one.
    #[must_use]
    pub fn cache_status(&self) -> Option<CacheStatus> {
        self.shared().cache.as_ref().map(|cache| cache.status())
    }

    /// What was wrong with the stored credentials at the start, if they were damaged. The device
    /// then authenticates as a new one, which the platform may refuse until an operator opens an
    /// enrolment window; the damaged credentials stay where they are until it succeeded.
    #[must_use]
    pub fn storage_damage(&self) -> Option<&StorageError> {
        self.handle.damage.as_ref()
    }

    /// Stops the device: unsubscribes and disconnects when it is online (osap-wire 9.9), and ends
    /// its task. Unacknowledged events are written to the cache; without one they are given up: whoever awaits them gets
    /// [`ReportError::Stopped`]. Returns at once when the device has stopped already, and within 20 seconds however the
    /// server behaves, to which a cache may add ten. After that the cache is free for another device.
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

    /// Changes something about the children and lets the task see it; `None` when the device is no hub.
    pub(crate) fn with_hub<T>(&self, change: impl FnOnce(&mut Hub, Instant) -> T) -> Option<T> {
        let shared = self.shared();
        let changed = shared.hub.lock().as_mut().map(|hub| change(hub, now()));
        shared.wake.notify_one();
        changed
    }

    /// From now on the device is a hub.
    fn become_hub(&self) {
        let shared = self.shared();
        let mut hub = shared.hub.lock();
        if hub.is_none() {
            let online = *shared.state.borrow() == State::Online;
            let hub = hub.get_or_insert_default();
            if online {
                hub.handle_ready(now(), true);
            }
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
    pictures: Vec<(Box<str>, Picture)>,
}

impl<'a> Event<'a> {
    pub(crate) fn new(device: &'a Device, sub: &str, resource: &str, index: u16, area: &str, name: &str) -> Self {
        let (resource, area, name) = (resource.into(), area.into(), name.into());
        Self { device, path: EventPath { sub: sub.into(), resource, index, area, name }, pictures: Vec::new() }
    }

    /// Names a picture in the event, as this member of its body. The event is delivered at once and the picture follows:
    /// [`Receipt::pictures`] waits for that, and the platform says that it is pending until then. The picture is in
    /// memory only, and lost when the device stops before the platform has it.
    #[must_use]
    pub fn picture(mut self, member: &str, picture: Picture) -> Self {
        self.pictures.push((member.into(), picture));
        self
    }

    /// Reports the event with this body, a JSON object, and waits until it is safe: the platform has stored it, or, with
    /// [`Builder::cache`](crate::Builder::cache), it is in the cache and will be sent whatever happens, in the order of
    /// reports, unless it is dropped for want of room. [`Receipt::delivered`] waits for the platform then.
    ///
    /// `basic` with `dateTime` (now) and `UUID` is added where the body lacks it; under that id
    /// the event is sent until it is acknowledged, over any number of connections, and stored once.
    /// The call may be dropped: an event that was taken stays in the queue. Without a cache it is lost when the device
    /// stops before the acknowledgement came. With one, the call waits while too many events are on their way to the
    /// medium; one that is dropped then has reported nothing.
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn report<T: Serialize + ?Sized>(&self, body: &T) -> Result<Receipt, ReportError> {
        let shared = self.device.shared();
        let topic = self.path.topic(&shared.profile.serial).map_err(InvalidEvent::from)?;
        let Body { json, id } = match &*self.pictures {
            [] => Body::compose(body, &*shared.clock, &mut SystemRandom)?,
            pictures => Body::compose(&WithPictures { body, pictures }, &*shared.clock, &mut SystemRandom)?,
        };
        let (id, message) = (id.into(), Message { topic, body: json.into() });
        let Some(cache) = &shared.cache else {
            let acknowledged = shared.enqueue(&self.path.sub, message)?;
            // On their way by themselves from here on, as the event is.
            let pictures = self.send_pictures();
            shared.outcome(acknowledged).await?;
            return Ok(Receipt { id, fate: None, pictures });
        };
        let fate = cache.report(shared, &self.path.sub, message).await?;
        Ok(Receipt { id, fate: Some(fate), pictures: self.send_pictures() })
    }

    fn send_pictures(&self) -> Vec<watch::Receiver<picture::Outcome>> {
        let pictures = self.pictures.iter();
        pictures
            .map(|(_, picture)| {
                picture::send_in_background(&self.device.handle.shared, &self.path.sub, picture.clone())
            })
            .collect()
    }
}

/// An attribute to be reported. Made by [`Device::attribute`].
#[derive(Debug, Clone)]
pub struct Attribute<'a> {
    device: &'a Device,
    path: OperationPath,
}

impl<'a> Attribute<'a> {
    pub(crate) fn new(device: &'a Device, sub: &str, resource: &str, index: u16, area: &str, name: &str) -> Self {
        Self { device, path: OperationPath::new(sub, resource, index, area, name) }
    }

    /// Reports the attribute's value, any JSON, and waits until the platform has stored it. A value that is known to the
    /// platform, or on its way, is not sent again, and the call returns at once. After a login under a new session key
    /// the device reports all values by itself.
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn report<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), ReportError> {
        let Some(acknowledged) = self.enqueue(value)? else { return Ok(()) };
        self.device.shared().outcome(acknowledged).await
    }

    fn enqueue<T: Serialize + ?Sized>(&self, value: &T) -> Result<Option<oneshot::Receiver<()>>, ReportError> {
        let shared = self.device.shared();
        // Of a child that is gone nothing is remembered.
        shared.operations_of(&self.path.sub).ok_or(ReportError::NoChild)?;
        let mut attributes = shared.attributes.lock();
        let Some(message) = attributes.report(&shared.profile.serial, &self.path, value)? else { return Ok(None) };
        let queued = shared.enqueue(&self.path.sub, message);
        if queued.is_err() {
            attributes.not_queued(&self.path);
        }
        queued.map(Some)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("serial", self.serial()).field("state", &self.state()).finish_non_exhaustive()
    }
}
