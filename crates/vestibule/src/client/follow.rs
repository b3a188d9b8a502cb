//! Following a stream of the platform across lost connections.

use std::io::Read as _;
use std::time::Duration;

use serde_json::Value;
use ureq::BodyReader;

use super::http::{Client, ClientError};
use super::sse::{Message, SseParser};
use super::uri::Route;

/// First pause before a new connection; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// What a stream brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Followed {
    /// An event, as the API shows it.
    Event(Value),
    /// What has become known of an event since, as the API shows it: a picture that it names has arrived.
    Amended(Value),
    /// An attribute as it was reported, as the API shows it.
    Attribute(Value),
    /// A message that was passed to or from a device, as the API shows it.
    Passed(Value),
    /// A device whose presence has changed, as the API shows it.
    Presence(Value),
    /// A device that has been removed: its `id` and `serial`.
    Removed(Value),
    /// The events (or reports) up to this position are gone (retention); the stream goes on after it.
    Missed {
        /// The position the stream goes on after.
        resume: i64,
    },
    /// Presence changes were missed: ask for the devices again.
    PresenceMissed,
    /// The connection was lost and is back. Events are not lost by this, presence changes in between are: ask for the device again.
    Reconnected,
    /// The connection is lost; the next call tries again after the pause.
    Lost {
        /// Why.
        reason: String,
        /// How long the next call pauses first.
        pause: Duration,
    },
}

/// A stream of events that survives its connection: it comes back with the position of the last event it has seen.
pub struct Follow<'a> {
    client: &'a Client,
    route: Route,
    connection: Option<Connection>,
    /// Where to come back: everything up to here has been handed out, or is about to be.
    resume: Option<String>,
    /// Messages read and not handed out, the next one last.
    waiting: Vec<Message>,
    pause: Duration,
    first_pause: Duration,
}

struct Connection {
    body: BodyReader<'static>,
    parser: SseParser,
}

impl<'a> Follow<'a> {
    /// Opens the stream at `route`, from after the position `after`, or from now on.
    ///
    /// # Errors
    /// When the first connection fails: there is nothing to come back to.
    pub fn open(client: &'a Client, route: Route, after: Option<i64>) -> Result<Follow<'a>, ClientError> {
        let mut follow = Follow {
            client,
            route,
            connection: None,
            resume: after.map(|after| after.to_string()),
            waiting: Vec::new(),
            pause: FIRST_PAUSE,
            first_pause: FIRST_PAUSE,
        };
        follow.connect()?;
        // The stream says at once where it begins: a connection lost before the first event is taken up there.
        while follow.resume.is_none() {
            if let Some(reason) = follow.read()? {
                return Err(client.strange(format!("the stream ended before it had begun: {reason}")));
            }
        }
        Ok(follow)
    }

    /// Waits for what comes next. After [`Followed::Lost`] the call pauses and connects anew.
    ///
    /// # Errors
    /// When the platform refuses (the token is gone, the device is removed) or sends what cannot be read: trying again would not help.
    pub fn wait(&mut self) -> Result<Followed, ClientError> {
        loop {
            if let Some(followed) = self.step()? {
                return Ok(followed);
            }
        }
    }

    /// As [`wait`](Self::wait), for one read at most: `None` when the platform only showed that it lives.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn step(&mut self) -> Result<Option<Followed>, ClientError> {
        while let Some(message) = self.waiting.pop() {
            if let Some(followed) = self.take(&message)? {
                return Ok(Some(followed));
            }
        }
        if self.connection.is_none() {
            std::thread::sleep(self.pause);
            self.pause = (self.pause * 2).min(MAX_PAUSE);
            return match self.connect() {
                Ok(()) => Ok(Some(Followed::Reconnected)),
                Err(error @ ClientError::Unreachable { .. }) => Ok(Some(self.lost(error.to_string()))),
                Err(ClientError::Refused(refusal)) if refusal.status >= 500 || refusal.status == 429 => {
                    Ok(Some(self.lost(refusal.to_string())))
                }
                Err(error) => Err(error),
            };
        }
        Ok(self.read()?.map(|reason| self.lost(reason)))
    }

    /// Takes what has come; why the connection is over, when it is.
    fn read(&mut self) -> Result<Option<String>, ClientError> {
        let Some(Connection { body, parser }) = &mut self.connection else { return Ok(None) };
        let mut bytes = [0; 16 << 10];
        match body.read(&mut bytes) {
            Ok(0) => Ok(Some("the platform closed the stream".to_owned())),
            Ok(length) => {
                self.pause = self.first_pause;
                let fed = parser.feed(&bytes[..length], &mut self.waiting);
                self.waiting.reverse();
                fed.map_err(|error| self.client.strange(error.to_string()))?;
                // All of it is handed out before more is read, and so before the connection is found to be over.
                if !parser.last_id().is_empty() {
                    self.resume = Some(parser.last_id().to_owned());
                }
                Ok(None)
            }
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    fn connect(&mut self) -> Result<(), ClientError> {
        let body = self.client.stream(&self.route, self.resume.as_deref())?;
        // A stream has no end, and so no largest size.
        let body = body.into_with_config().limit(u64::MAX).reader();
        self.connection = Some(Connection { body, parser: SseParser::new() });
        Ok(())
    }

    fn lost(&mut self, reason: String) -> Followed {
        self.connection = None;
        self.waiting.clear();
        Followed::Lost { reason, pause: self.pause }
    }

    /// One message: `None` when it is nothing to hand out.
    fn take(&self, message: &Message) -> Result<Option<Followed>, ClientError> {
        let json = |what: &str| -> Result<Value, ClientError> {
            serde_json::from_str(&message.data).map_err(|error| self.client.strange(format!("{what}: {error}")))
        };
        match message.event.as_str() {
            "event" => json("an event").map(|event| Some(Followed::Event(event))),
            "amended" => json("an amendment").map(|amendment| Some(Followed::Amended(amendment))),
            "attribute" => json("an attribute").map(|report| Some(Followed::Attribute(report))),
            "pass" => json("a passed message").map(|message| Some(Followed::Passed(message))),
            "presence" => json("a presence change").map(|device| Some(Followed::Presence(device))),
            "removed" => json("a removal").map(|device| Some(Followed::Removed(device))),
            "presence_lagged" => Ok(Some(Followed::PresenceMissed)),
            "lagged" => {
                let notice = json("a lagged notice")?;
                let Some(resume) = notice.get("resume").and_then(Value::as_i64) else {
                    return Err(self.client.strange("a lagged notice without a position".to_owned()));
                };
                Ok(Some(Followed::Missed { resume }))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
