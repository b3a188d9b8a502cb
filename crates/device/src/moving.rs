//! The way to another LBS, while the connection to the present DAS goes on (osap-wire 10.5, 13.5).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use osap::lbs::client::{Identity, Reaction, Stored};
use osap::{CodeCase, DevId, SystemRandom};
use tokio::time::sleep;

use crate::lbs;
use crate::session::{Grant, pause};
use crate::shared::Shared;

/// Failures after which the device stays where it is, or goes back.
pub(crate) const ATTEMPTS: u32 = 4;

/// The attempts at one LBS.
pub(crate) struct Moving {
    pub host: Box<str>,
    run: Pin<Box<dyn Future<Output = Option<Grant>> + Send>>,
}

impl Moving {
    /// Begins to authenticate at the LBS `host`, as a device that has no master key.
    pub(crate) fn new(shared: Arc<Shared>, host: Box<str>, identity: Identity, dev_id: DevId, case: CodeCase) -> Self {
        let run = Box::pin(attempts(shared, host.clone(), identity, dev_id, case));
        Self { host, run }
    }

    /// Waits for the end: what the LBS gave, or `None` when it gave nothing. Cancel safe.
    pub(crate) async fn ended(&mut self) -> Option<Grant> {
        self.run.as_mut().await
    }
}

async fn attempts(
    shared: Arc<Shared>,
    host: Box<str>,
    identity: Identity,
    dev_id: DevId,
    mut case: CodeCase,
) -> Option<Grant> {
    for attempt in 1..=ATTEMPTS {
        let denied = match lbs::authenticate(&shared, &host, &identity, Stored::DevId(dev_id), case).await {
            Ok(grant) => return Some(grant),
            Err(denied) => denied,
        };
        tracing::debug!(serial = %shared.profile.serial, %host, reason = %denied.reason, "the other LBS has no place");
        let mut delay = pause(attempt, &mut SystemRandom);
        if denied.reaction == Reaction::RetryLowerCase {
            case = case.other();
            delay = Duration::ZERO;
        }
        if attempt < ATTEMPTS {
            sleep(delay).await;
        }
    }
    None
}
