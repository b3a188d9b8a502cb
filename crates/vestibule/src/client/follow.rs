//! Following the event stream across lost connections.

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
    /// A device whose presence has changed, as the API shows it.
    Presence(Value),
    /// A device that has been removed: its `id` and `serial`.
    Removed(Value),
    /// The events up to this position are gone (retention); the stream goes on after it.
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
    /// Where to come back: everything up to here has been handed out.
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
        // Without a position a connection lost before the first event would lose what comes in between, so "now" is made one.
        let after = match after {
            Some(after) => after,
            None => newest(client)?,
        };
        let mut follow = Follow {
            client,
            route,
            connection: None,
            resume: Some(after.to_string()),
            waiting: Vec::new(),
            pause: FIRST_PAUSE,
            first_pause: FIRST_PAUSE,
        };
        follow.connect()?;
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
        let Some(connection) = &mut self.connection else {
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
        };
        let mut bytes = [0; 16 << 10];
        match connection.body.read(&mut bytes) {
            Ok(0) => Ok(Some(self.lost("the platform closed the stream".to_owned()))),
            Ok(length) => {
                self.pause = self.first_pause;
                let fed = connection.parser.feed(&bytes[..length], &mut self.waiting);
                self.waiting.reverse();
                fed.map_err(|error| self.client.strange(error.to_string()))?;
                Ok(None)
            }
            Err(error) => Ok(Some(self.lost(error.to_string()))),
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
    fn take(&mut self, message: &Message) -> Result<Option<Followed>, ClientError> {
        let json = |what: &str| -> Result<Value, ClientError> {
            serde_json::from_str(&message.data).map_err(|error| self.client.strange(format!("{what}: {error}")))
        };
        match message.event.as_str() {
            "event" => {
                let event = json("an event")?;
                if !message.id.is_empty() {
                    self.resume = Some(message.id.clone());
                }
                Ok(Some(Followed::Event(event)))
            }
            "presence" => json("a presence change").map(|device| Some(Followed::Presence(device))),
            "removed" => json("a removal").map(|device| Some(Followed::Removed(device))),
            "presence_lagged" => Ok(Some(Followed::PresenceMissed)),
            "lagged" => {
                let notice = json("a lagged notice")?;
                let Some(resume) = notice.get("resume").and_then(Value::as_i64) else {
                    return Err(self.client.strange("a lagged notice without a position".to_owned()));
                };
                self.resume = Some(resume.to_string());
                Ok(Some(Followed::Missed { resume }))
            }
            _ => Ok(None),
        }
    }
}

/// The position of the newest event; 0, before everything, when there is none.
fn newest(client: &Client) -> Result<i64, ClientError> {
    let page: Value = client.get(&Route::new("/v1/events").query("limit", "1"))?;
    Ok(page.pointer("/items/0/position").and_then(Value::as_i64).unwrap_or(0))
}

#[cfg(test)]
mod tests;
