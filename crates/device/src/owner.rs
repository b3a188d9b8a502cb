//! Whose the device is: asked of the platform, and changed by a token (osap-wire 10.4).

use std::time::Duration;

use osap::das::base::{BindToken, Owner, Request};
use osap::das::command::Command;
use osap::das::pending::Pending;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::driver::now;
use crate::link::{Note, Number};
use crate::shared::Shared;
use crate::state::State;
use crate::steering::{MAX_NOTES, note};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most questions that wait for their answer.
const MAX_QUESTIONS: usize = 8;

/// Why a command was not handed to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The device is not connected.
    #[error("the device is not connected")]
    Offline,
    /// The platform forbade the command (osap-wire 10.5).
    #[error("the platform forbade the command")]
    Forbidden,
    /// Too many commands wait for their turn or their answer.
    #[error("too many commands are under way")]
    Busy,
}

/// The owner of the device is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The platform was not asked.
    #[error("the platform was not asked: {0}")]
    NotAsked(#[from] CommandError),
    /// No answer came within 10 seconds, or the connection ended before.
    #[error("the platform did not answer")]
    NoAnswer,
    /// The platform cannot say, for this reason of its own.
    #[error("the platform cannot say whose the device is (result {0})")]
    Unknown(u32),
}

/// The platform was not given the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The token is empty or longer than 1,024 bytes.
    #[error("a token has 1 to 1,024 bytes")]
    Token,
    /// It was not sent.
    #[error("the token was not sent: {0}")]
    NotSent(#[from] CommandError),
}

/// Questions for the owner that wait for their answer.
pub(crate) type Questions = Pending<oneshot::Sender<Owner>>;

/// Asks the platform whose the device is.
pub(crate) async fn ask(shared: &Shared) -> Result<Option<String>, OwnerError> {
    let answer = question(shared)?;
    match timeout(PATIENCE, answer).await {
        Ok(Ok(Owner::User(user))) => Ok(Some(user)),
        Ok(Ok(Owner::Nobody)) => Ok(None),
        Ok(Ok(Owner::Unknown(reason))) => Err(OwnerError::Unknown(reason)),
        Ok(Err(_)) | Err(_) => Err(OwnerError::NoAnswer),
    }
}

fn question(shared: &Shared) -> Result<oneshot::Receiver<Owner>, CommandError> {
    let now = now();
    let request = Request { serial: shared.profile.serial.clone() };
    let seq = shared.outbox.lock().next_seq();
    let note = note(Command::OwnerQuery, Number::Request(seq), |out| request.write(out));
    let (asker, answer) = oneshot::channel();
    say(shared, note, |questions| {
        // Whoever asked these does not wait any more.
        questions.expire(now);
        questions.enter(seq, now + PATIENCE, asker).map_err(|_| CommandError::Busy)
    })?;
    Ok(answer)
}

/// Gives the platform a token of the user whose the device shall be.
pub(crate) fn bind(shared: &Shared, token: &str) -> Result<(), BindError> {
    let mut body = Vec::new();
    BindToken { token: token.to_owned() }.write(&mut body).map_err(|_| BindError::Token)?;
    let note = Note { command: Command::BindToken, number: Number::Next, body: body.into() };
    Ok(say(shared, note, |_| Ok(()))?)
}

/// Hands a command to the task; `enter` notes that its answer is waited for.
fn say(
    shared: &Shared,
    note: Note,
    enter: impl FnOnce(&mut Questions) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    if *shared.state.borrow() != State::Online {
        return Err(CommandError::Offline);
    }
    let mut steering = shared.steering.lock();
    if steering.risk.forbids(note.command.domain(), note.command.number()) {
        shared.count(|count| &count.forbidden);
        return Err(CommandError::Forbidden);
    }
    if steering.notes.len() >= MAX_NOTES {
        return Err(CommandError::Busy);
    }
    enter(steering.questions.get_or_insert_with(|| Box::new(Pending::new(MAX_QUESTIONS))))?;
    steering.notes.push(note);
    drop(steering);
    shared.wake.notify_one();
    Ok(())
}
