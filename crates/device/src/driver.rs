//! The task of a device: does what [`Session`] decides, with sockets, timers and storage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use osap::SystemRandom;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use crate::calls::Calls;
use crate::entrance::Entrance;
use crate::link::Link;
use crate::modern::{Closed, Opened};
use crate::session::{LinkEnd, Session, Step};
use crate::shared::Shared;
use crate::socket::Talk;
use crate::state::{State, StopReason};

/// How long the cache may take to write what it has when the device stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Driver {
    shared: Arc<Shared>,
    entrance: Arc<Entrance>,
    session: Session,
    /// Operations of the present session key, once there was one.
    calls: Option<Box<Calls>>,
    /// The task that writes events to the cache, if there is one.
    keeper: Option<JoinHandle<()>>,
}

/// Says how it ended, also when the task panics or its runtime goes away.
struct Epilogue {
    shared: Arc<Shared>,
    reason: StopReason,
}

impl Drop for Epilogue {
    fn drop(&mut self) {
        self.shared.outbox.lock().close();
        if let Some(cache) = &self.shared.cache {
            cache.close();
        }
        self.shared.state.send_replace(State::Stopped(self.reason));
    }
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, entrance: Entrance, keeper: Option<JoinHandle<()>>) -> Self {
        let session = entrance.session();
        Self { shared, entrance: Arc::new(entrance), session, calls: None, keeper }
    }

    /// Runs until the device stops.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut epilogue = Epilogue { shared, reason: StopReason::Crashed };
        epilogue.reason = self.work().await;
        if let (Some(cache), Some(keeper)) = (&self.shared.cache, self.keeper.take()) {
            cache.close();
            // What is not written by then is lost, as the reports that wait for it say.
            let _ = Box::pin(timeout(FLUSH_TIMEOUT, keeper)).await;
        }
    }

    async fn work(&mut self) -> StopReason {
        loop {
            if self.shared.stop_requested() {
                self.session.handle_stop();
            }
            match self.session.poll() {
                Step::Stop(reason) => return reason,
                Step::Wait { until, reason } => {
                    self.set_state(State::Waiting { until, reason });
                    tokio::select! {
                        () = stopped(&self.shared) => {}
                        () = sleep_until(until.into()) => self.session.handle_timeout(now()),
                    }
                }
                Step::Authenticate { stored, case } => {
                    self.set_state(State::Authenticating);
                    // Boxed like every state a device is rarely in: an idle one shall be small.
                    let host = self.session.lbs_host().unwrap_or(&self.shared.profile.lbs_host);
                    let run = Box::pin(self.entrance.authenticate(&self.shared, host, (stored, case)));
                    let result = tokio::select! {
                        () = stopped(&self.shared) => continue,
                        result = run => result,
                    };
                    if result.is_ok() {
                        self.shared.count(|count| &count.authentications);
                    }
                    self.session.handle_authentication(now(), result, &mut SystemRandom);
                }
                Step::Store(credentials) => {
                    let stored = Box::pin(self.entrance.keyring().store_legacy(credentials)).await;
                    self.session.handle_stored(now(), stored, &mut SystemRandom);
                }
                Step::Login { login, access } => {
                    self.set_state(State::Connecting);
                    let open = Box::pin(self.entrance.open(&self.shared, &access));
                    let opened = tokio::select! {
                        () = stopped(&self.shared) => continue,
                        opened = open => opened,
                    };
                    let end = match opened {
                        Err(Closed::Unreachable(kind)) => LinkEnd::Unreachable(kind),
                        Err(Closed::Tls(fault)) => LinkEnd::Insecure(fault),
                        Ok(Opened { stream, channel }) => {
                            let profile = Arc::clone(&self.shared.profile);
                            let link = Link::new(now(), profile, channel, access.dev_id, login);
                            let mut link = link.steered(self.session.keep_alive(), self.session.lbs_host());
                            let Self { shared, entrance, session, calls, .. } = self;
                            let mut talk = Talk::new(shared, entrance, session, &mut link, calls);
                            talk.run(stream).await
                        }
                    };
                    self.link_ended(end);
                }
            }
        }
    }

    fn link_ended(&mut self, end: LinkEnd) {
        let serial = &self.shared.profile.serial;
        tracing::debug!(%serial, ?end, "connection to the DAS ended");
        if self.shared.stop_requested() {
            if let LinkEnd::Lost(fault) = end {
                // Set once: this is the last connection.
                let _ = self.shared.farewell.set(fault);
            }
            self.session.handle_stop();
        } else {
            self.session.handle_link_end(now(), end, &mut SystemRandom);
        }
    }

    fn set_state(&self, state: State) {
        set_state(&self.shared, state);
    }
}

/// Publishes a state, unless it is the one that is known already.
pub(crate) fn set_state(shared: &Shared, state: State) {
    let changed = shared.state.send_if_modified(|current| {
        let changed = *current != state;
        if changed {
            current.clone_from(&state);
        }
        changed
    });
    if changed {
        tracing::debug!(serial = %shared.profile.serial, %state);
    }
}

/// Resolves when the program wants an end.
async fn stopped(shared: &Shared) {
    while !shared.stop_requested() {
        // An event that was queued wakes as well; it waits for the next connection.
        shared.wake.notified().await;
    }
}

/// The monotonic clock; tokio's, so that tests can turn it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use osap::Code;
    use osap::lbs::client::Identity;

    use super::*;
    use crate::clock::SystemClock;
    use crate::keyring::Keyring;
    use crate::outbox::Limits;
    use crate::{Credentials, MemoryStorage};

    #[test]
    fn an_idle_device_is_small() {
        let profile = crate::profile::tests::profile();
        let limits = Limits { events: 1, bytes: 1, window: 1 };
        let shared = Arc::new(Shared::new(profile, Arc::new(SystemClock), Arc::default(), limits));
        let code = Code::new("ABCDEF").unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let keyring = Arc::new(Keyring::new(Arc::clone(&shared.profile), storage, Credentials::default()));
        let identity = Identity::new(shared.profile.serial.clone(), code);
        let driver = Driver::new(Arc::clone(&shared), Entrance::Legacy { identity, keyring }, None);
        let task = size_of_val(&driver.run());
        let rest = size_of::<Shared>();
        // Thousands of devices run in one simulator; what is rarely in use is boxed for that.
        assert!(task + rest <= 2688, "the task takes {task} bytes, what it shares {rest}");
    }
}
