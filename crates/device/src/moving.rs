//! Runs at an LBS while the connection to the present DAS goes on: the way to another one (osap-wire 10.5, 13.5), and the
//! renewal of a session (13.3).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use osap::lbs::client::{Reaction, Stored};
use osap::{CodeCase, SystemRandom};
use tokio::time::sleep;

use crate::entrance::Entrance;
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
    /// Begins to come in at the LBS `host`, where the device was sent.
    pub(crate) fn new(shared: Arc<Shared>, entrance: Arc<Entrance>, host: Box<str>, start: (Stored, CodeCase)) -> Self {
        let run = Box::pin(attempts(shared, entrance, host.clone(), start, Some(ATTEMPTS)));
        Self { host, run }
    }

    /// Begins to renew the session at the LBS `host`, however often that takes: until then the present one goes on, and
    /// when its life is over the connection ends.
    pub(crate) fn renewal(shared: Arc<Shared>, entrance: Arc<Entrance>, host: Box<str>) -> Self {
        let start = (Stored::Nothing, CodeCase::Upper);
        let run = Box::pin(attempts(shared, entrance, host.clone(), start, None));
        Self { host, run }
    }

    /// Waits for the end: what the LBS gave, or `None` when it gave nothing. Cancel safe.
    pub(crate) async fn ended(&mut self) -> Option<Grant> {
        self.run.as_mut().await
    }
}

async fn attempts(
    shared: Arc<Shared>,
    entrance: Arc<Entrance>,
    host: Box<str>,
    (stored, mut case): (Stored, CodeCase),
    most: Option<u32>,
) -> Option<Grant> {
    let mut attempt = 0_u32;
    loop {
        attempt = attempt.saturating_add(1);
        let denied = match entrance.authenticate(&shared, &host, (stored.clone(), case)).await {
            Ok(grant) => return Some(grant),
            Err(denied) => denied,
        };
        tracing::debug!(serial = %shared.profile.serial, %host, reason = %denied.reason, "the LBS has no place");
        if most.is_some_and(|most| attempt >= most) {
            return None;
        }
        let mut delay = pause(attempt, &mut SystemRandom);
        if denied.reaction == Reaction::RetryLowerCase {
            case = case.other();
            delay = Duration::ZERO;
        }
        sleep(delay).await;
    }
}
