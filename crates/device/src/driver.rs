//! The task of a device: does what [`Session`] decides, with sockets, timers and storage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use osap::das::cipher::SessionCipher;
use osap::lbs::client::Identity;
use osap::{Code, SystemRandom};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use crate::calls::Calls;
use crate::lbs;
use crate::link::Link;
use crate::session::{LinkEnd, Session, Step};
use crate::shared::Shared;
use crate::socket::{self, Talk};
use crate::state::{State, StopReason};
use crate::storage::{Credentials, Storage};

/// How long the cache may take to write what it has when the device stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Driver {
    shared: Arc<Shared>,
    identity: Identity,
    storage: Arc<dyn Storage>,
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
    pub(crate) fn new(
        shared: Arc<Shared>,
        code: Code,
        storage: Arc<dyn Storage>,
        credentials: Option<Credentials>,
        keeper: Option<JoinHandle<()>>,
    ) -> Self {
        let identity = Identity::new(shared.profile.serial.clone(), code);
        Self { shared, identity, storage, session: Session::new(credentials), calls: None, keeper }
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
                    let run = Box::pin(lbs::authenticate(&self.shared, host, &self.identity, stored, case));
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
                    let stored = self.store(credentials).await;
                    self.session.handle_stored(now(), stored, &mut SystemRandom);
                }
                Step::Login { login, access, dev_id } => {
                    self.set_state(State::Connecting);
                    let connect = Box::pin(socket::connect(&*self.shared.dial, &access.address, access.port));
                    let connected = tokio::select! {
                        () = stopped(&self.shared) => continue,
                        connected = connect => connected,
                    };
                    let end = match connected {
                        Err(kind) => LinkEnd::Unreachable(kind),
                        Ok(stream) => {
                            let cipher = SessionCipher::new(access.session_key);
                            let profile = Arc::clone(&self.shared.profile);
                            let link = Link::new(now(), profile, cipher, dev_id, login);
                            let mut link = link.steered(self.session.keep_alive(), self.session.lbs_host());
                            let Self { shared, identity, session, calls, .. } = self;
                            let mut talk = Talk::new(shared, identity, session, &mut link, calls);
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

    /// Makes credentials durable on the blocking pool.
    async fn store(&self, credentials: Credentials) -> bool {
        let storage = Arc::clone(&self.storage);
        let profile = Arc::clone(&self.shared.profile);
        let store = move || storage.store(&profile.serial, &credentials);
        let serial = &self.shared.profile.serial;
        match tokio::task::spawn_blocking(store).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%serial, %error, "the credentials cannot be stored");
                false
            }
            Err(panic) => {
                tracing::error!(%serial, %panic, "the storage panicked");
                false
            }
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
    use osap::Serial;

    use super::*;
    use crate::MemoryStorage;
    use crate::clock::SystemClock;
    use crate::outbox::Limits;
    use crate::profile::Profile;

    #[test]
    fn an_idle_device_is_small() {
        let profile = Profile {
            serial: Serial::new("SN0000001").unwrap(),
            lbs_host: "lbs.example".into(),
            lbs_port: 8666,
            keep_alive: 30,
            firmware: "1.2.3".into(),
            device_type: "Camera".into(),
            mac: "".into(),
        };
        let limits = Limits { events: 1, bytes: 1, window: 1 };
        let shared = Arc::new(Shared::new(profile, Arc::new(SystemClock), Arc::default(), limits));
        let code = Code::new("ABCDEF").unwrap();
        let driver = Driver::new(Arc::clone(&shared), code, Arc::new(MemoryStorage::new()), None, None);
        let task = size_of_val(&driver.run());
        let rest = size_of::<Shared>();
        // Thousands of devices run in one simulator; what is rarely in use is boxed for that.
        assert!(task + rest <= 2688, "the task takes {task} bytes, what it shares {rest}");
    }
}
