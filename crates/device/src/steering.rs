//! What the platform tells the device about itself: time, owner, presence, and where to be (osap-wire 10.4, 10.5).

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use osap::das::access::{KeepAlive, Redirect, RiskList};
use osap::das::base::{Binding, Challenge, Ntp, Outcome, Owner, Presence};
use osap::das::command::Command;
use osap::das::hub::ChildVerdict;
use osap::das::pending::Take;

use crate::driver::now;
use crate::link::{Note, Number};
use crate::owner::Questions;
use crate::picture::Asking;
use crate::shared::Shared;
use crate::state::State;

/// The most messages of the program that wait for the task.
pub(crate) const MAX_NOTES: usize = 16;

/// What the platform has said, as long as the program runs.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    pub time_server: Option<Ntp>,
    /// Commands that must not be sent.
    pub risk: RiskList,
    /// What the program has to say.
    pub notes: Vec<Note>,
    /// What the program has asked the platform.
    pub questions: Option<Box<Questions>>,
    /// Of a device that has sent a picture.
    pub asking: Option<Box<Asking>>,
}

impl Steering {
    /// What the program has said since.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// The connection is over: what was asked on it is not answered any more.
    pub(crate) fn handle_link_end(&mut self) {
        self.notes.retain(|note| !matches!(note.number, Number::Request(_)));
        self.questions = None;
        if let Some(asking) = &mut self.asking {
            asking.handle_link_end();
        }
    }
}

type BindingHook = dyn Fn(Option<&str>) + Send + Sync;
type ChallengeHook = dyn Fn(PresenceChallenge) + Send + Sync;

/// What the program wants to be told.
#[derive(Default)]
pub(crate) struct Hooks {
    pub binding: Option<Box<BindingHook>>,
    pub challenge: Option<Box<ChallengeHook>>,
}

/// Somebody has to prove that they are at the device. Handed to [`Builder::on_challenge`](crate::Builder::on_challenge).
///
/// When somebody presses the button of the device in time, the program says so with [`confirm`](Self::confirm).
#[derive(Clone)]
pub struct PresenceChallenge {
    shared: Weak<Shared>,
    challenge: Challenge,
    until: Instant,
}

/// Why a presence was not told to the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// The time of the challenge is over.
    #[error("the time of the challenge is over")]
    TooLate,
    /// The device is not connected.
    #[error("the device is not connected")]
    Offline,
}

impl PresenceChallenge {
    /// How long the platform waits, from the moment the challenge came.
    #[must_use]
    pub fn period(&self) -> Duration {
        Duration::from_secs(self.challenge.period_s.into())
    }

    /// Tells the platform that somebody was at the device. It is sent once, and nothing acknowledges it.
    ///
    /// # Errors
    /// [`PresenceError`].
    pub fn confirm(&self) -> Result<(), PresenceError> {
        if self.until <= now() {
            return Err(PresenceError::TooLate);
        }
        let shared = self.shared.upgrade().ok_or(PresenceError::Offline)?;
        if *shared.state.borrow() != State::Online {
            return Err(PresenceError::Offline);
        }
        let presence: Presence = self.challenge.presence();
        let mut steering = shared.steering.lock();
        if steering.notes.len() >= MAX_NOTES {
            return Err(PresenceError::Offline);
        }
        steering.notes.push(note(Command::Presence, Number::Next, |out| presence.write(out)));
        drop(steering);
        shared.wake.notify_one();
        Ok(())
    }
}

impl fmt::Debug for PresenceChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceChallenge").field("period", &self.period()).finish_non_exhaustive()
    }
}

/// What a command leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Steer {
    /// Nothing more.
    Done,
    /// An answer.
    Answer(Note),
    /// Another keep-alive, in seconds.
    KeepAlive(u16),
    /// The device has to go.
    Leave,
    /// The device has to go to another LBS.
    Move(Box<str>),
    /// A child is accepted, or not.
    Verdict { serial: Box<str>, accepted: bool },
}

/// Carries a command of the platform out as far as it concerns the program; `None` for one that is unknown or cannot be
/// read.
pub(crate) fn steer(shared: &Arc<Shared>, command: Command, seq: u64, body: &[u8]) -> Option<Steer> {
    let steer = match command {
        Command::KeepAlive => Steer::KeepAlive(KeepAlive::parse(body).ok()?.interval_s),
        Command::RiskList => {
            shared.steering.lock().risk = RiskList::parse(body).ok()?;
            Steer::Done
        }
        Command::ForcedOffline => Steer::Leave,
        Command::Redirect | Command::RedirectAlias => Steer::Move(Redirect::parse(body).ok()?.host.into()),
        // Accepted without effect by all clients, and answers that nothing waits for.
        Command::Ignored
        | Command::ChildrenAnswer
        | Command::ChildrenOnlineAnswer
        | Command::PresenceAnswer
        | Command::BindTokenAnswer => Steer::Done,
        Command::Ntp => {
            shared.steering.lock().time_server = Some(Ntp::parse(body).ok()?);
            Steer::Done
        }
        Command::OwnerAnswer => {
            let owner = Owner::parse(body).ok()?;
            let Take::Found(asker) = shared.steering.lock().questions.as_mut()?.take(seq, |_| true) else {
                return None;
            };
            // It may have stopped waiting.
            let _ = asker.send(owner);
            Steer::Done
        }
        Command::BindingChanged => {
            let binding = Binding::parse(body).ok()?;
            if let Some(hook) = &shared.hooks.binding {
                guarded(shared, || hook(binding.user.as_deref()));
            }
            Steer::Answer(note(command, Number::Answer(seq), |out| Binding::write_answer(0, out)))
        }
        Command::Challenge => {
            let challenge = Challenge::parse(body).ok()?;
            // Without anybody to ask, nobody can be there.
            let mut outcome = Outcome { result: -1 };
            if let Some(hook) = &shared.hooks.challenge {
                let until = now() + Duration::from_secs(challenge.period_s.into());
                let challenge = PresenceChallenge { shared: Arc::downgrade(shared), challenge, until };
                guarded(shared, || hook(challenge));
                outcome = Outcome::OK;
            }
            Steer::Answer(note(Command::ChallengeAnswer, Number::Answer(seq), |out| outcome.write(out)))
        }
        Command::ChildVerdict => {
            let verdict = ChildVerdict::parse(body).ok()?;
            Steer::Verdict { serial: verdict.serial.into(), accepted: verdict.accepted }
        }
        _ => return None,
    };
    Some(steer)
}

pub(crate) fn note(command: Command, number: Number, write: impl FnOnce(&mut Vec<u8>)) -> Note {
    let mut body = Vec::new();
    write(&mut body);
    Note { command, number, body: body.into() }
}

/// Runs the program's own code, which may panic.
pub(crate) fn guarded(shared: &Shared, hook: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(hook)).is_err() {
        tracing::error!(serial = %shared.profile.serial, "a handler of the device's program panicked");
    }
}
