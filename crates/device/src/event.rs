//! What an event is made of: where it belongs, its body, and the answer to a report.

use osap::das::BodyError;
use osap::das::event::{self, EventBody};
use osap::das::topic::{self, Topic, TopicError};
use osap::{Random, Serial};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::watch;
use uuid::Uuid;

use crate::cache::{Fate, settled};
use crate::clock::Clock;
use crate::outbox::PushError;
use crate::picture::{self, UploadError};

/// The largest event body, in bytes of JSON with `basic` included.
///
/// What devices of this protocol send has to fit the 16 KiB packets their libraries use.
pub const MAX_EVENT: usize = 15 * 1024;

/// The event is safe: the platform has stored it, or it is in the cache and survives a loss of power.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Receipt {
    /// The event's `basic.UUID`: the name under which the platform has it, or will.
    pub id: String,
    /// Of an event in a cache.
    pub(crate) fate: Option<watch::Receiver<Fate>>,
    /// Of the pictures it names.
    pub(crate) pictures: Vec<watch::Receiver<picture::Outcome>>,
}

/// Why an event was not reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The caller's: the event cannot be put into words of the protocol.
    #[error("the event is not valid")]
    Invalid(#[from] InvalidEvent),
    /// The queue of unacknowledged events is full: events come faster than the server stores them,
    /// or it was out of reach for too long. Nothing was queued. A device with a cache says this only while the cache
    /// cannot be written.
    #[error("the queue of unacknowledged events is full ({events} events, {bytes} bytes)")]
    Full {
        /// Events in the queue.
        events: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The cache was full and this was the oldest event in it, it was older than what is kept, or it could not be read any
    /// more. The platform is told how many were dropped. It may have been stored all the same, when only the acknowledgement was missing.
    #[error("the event was dropped from the cache")]
    Dropped,
    /// The device stopped before the event was acknowledged. It may have been stored all the same.
    #[error("the device stopped")]
    Stopped,
    /// The child does not belong to the device, because it was taken away, or the platform does not accept it.
    #[error("the platform does not accept the child, or it was taken away")]
    NoChild,
    /// The upgrade of the module has ended: nothing more is said of it.
    #[error("the upgrade of the module has ended")]
    UpgradeEnded,
}

impl From<PushError> for ReportError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Full { events, bytes } => Self::Full { events, bytes },
            PushError::Closed => Self::Stopped,
        }
    }
}

/// What is wrong with an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEvent {
    /// The resource, area or name does not fit into a topic.
    #[error(transparent)]
    Path(#[from] TopicError),
    /// The body does not serialize.
    #[error("the body cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// The body is not a JSON object, as the protocol wants it.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// The body has a member `basic` of its own, but not an object in which `UUID`, if it is
    /// there, has 1 to 64 visible ASCII characters and `dateTime`, if it is there, is a time of
    /// RFC 3339.
    #[error("the member `basic` of the body has no usable `UUID` or `dateTime`")]
    Basic,
    /// The body is JSON and still none the protocol carries, for example nested too deep.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The device reports as many attributes as it may.
    #[error("a device reports up to {0} attributes")]
    TooManyAttributes(usize),
    /// The media type of a pass-through is none.
    #[error("the media type is not one of RFC 9110")]
    MediaType,
    /// The body is larger than [`MAX_EVENT`].
    #[error("the body has {0} bytes, more than {MAX_EVENT}")]
    TooLarge(usize),
}

/// Where an event belongs: `/{resource}/{index}/{area}/event/{name}` under the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventPath {
    /// The serial of a child, or [`topic::GLOBAL`].
    pub sub: Box<str>,
    pub resource: Box<str>,
    pub index: u16,
    pub area: Box<str>,
    pub name: Box<str>,
}

impl EventPath {
    /// The topic of a report (osap-wire 9.7).
    pub(crate) fn topic(&self, serial: &Serial) -> Result<Box<str>, TopicError> {
        let topic = Topic::Model {
            serial: serial.as_str(),
            sub: &self.sub,
            index: &self.index.to_string(),
            resource: &self.resource,
            method: topic::method::EVENT,
            msg_type: "report",
            area: &self.area,
            name: &self.name,
        };
        topic.encode().map(Into::into)
    }
}

/// A body as it goes into the envelope, and the id that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    pub json: Box<str>,
    pub id: Box<str>,
}

impl Body {
    /// Writes the body and adds to `basic` what is missing there: the time and the id by which
    /// the platform recognises a repetition.
    pub(crate) fn compose<T: Serialize + ?Sized>(
        value: &T,
        clock: &dyn Clock,
        random: &mut dyn Random,
    ) -> Result<Self, InvalidEvent> {
        let mut json = serde_json::to_string(value).map_err(InvalidEvent::Json)?;
        // Before it is read back: a body this long is refused whatever it says.
        check_len(&json)?;
        if !json.starts_with('{') {
            return Err(InvalidEvent::NotAnObject);
        }
        let now = clock.now_ms();
        let Head { basic } = serde_json::from_str(&json).map_err(|_| InvalidEvent::Basic)?;
        if basic.is_none() {
            // The object is kept as it was written; `basic` becomes its last member.
            let mut body = Vec::new();
            event::write(&json, &mint_id(now, random), now, &mut body)?;
            json = String::from_utf8(body).map_err(|_| BodyError::Malformed)?;
        } else {
            json = complete(&json, now, random)?;
        }
        check_len(&json)?;
        // What the platform will read, read here: a body it cannot identify never leaves.
        let event = EventBody::parse(json.as_bytes())?;
        let (Some(id), Some(_)) = (event.uuid, event.time_ms) else { return Err(InvalidEvent::Basic) };
        let id = id.into();
        Ok(Self { json: json.into(), id })
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    basic: Option<&'a RawValue>,
}

/// Adds what is missing in a `basic` the caller began.
fn complete(json: &str, now: i64, random: &mut dyn Random) -> Result<String, InvalidEvent> {
    let mut object: Map<String, Value> = serde_json::from_str(json).map_err(InvalidEvent::Json)?;
    let Some(basic) = object.get_mut("basic").and_then(Value::as_object_mut) else {
        return Err(InvalidEvent::Basic);
    };
    basic.entry("dateTime").or_insert_with(|| date_time(now).into());
    basic.entry("UUID").or_insert_with(|| mint_id(now, random).into());
    serde_json::to_string(&object).map_err(InvalidEvent::Json)
}

fn check_len(json: &str) -> Result<(), InvalidEvent> {
    if json.len() > MAX_EVENT { Err(InvalidEvent::TooLarge(json.len())) } else { Ok(()) }
}

/// 32 hexadecimal digits. Version 7, because ids that grow with time are cheap to index; with a
/// clock that stands still 74 random bits remain.
pub(crate) fn mint_id(now_ms: i64, random: &mut dyn Random) -> String {
    let mut bits = [0; 10];
    random.fill(&mut bits);
    let millis = u64::try_from(now_ms).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &bits).into_uuid().simple().to_string()
}

/// `2026-11-20T21:31:22.110+00:00`, as the clients write it.
pub(crate) fn date_time(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S.%3f+00:00").to_string()
}

impl Receipt {
    /// Waits until the platform has stored the event. Without a cache it has.
    ///
    /// # Errors
    /// [`ReportError::Dropped`]; [`ReportError::NoChild`]; [`ReportError::Stopped`]: the device stopped, the event is
    /// in the cache and sent after the next start.
    pub async fn delivered(mut self) -> Result<(), ReportError> {
        match &mut self.fate {
            Some(fate) => settled(fate, |fate| !matches!(fate, Fate::Pending | Fate::Cached)).await,
            None => Ok(()),
        }
    }

    /// Waits until the platform has the pictures that were reported with the event.
    ///
    /// # Errors
    /// [`UploadError`], of the first that the platform does not get.
    pub async fn pictures(mut self) -> Result<(), UploadError> {
        for picture in &mut self.pictures {
            // The task that sends it says how it went, unless its runtime is gone.
            let outcome = picture.wait_for(Option::is_some).await.ok().and_then(|outcome| *outcome);
            outcome.unwrap_or(Err(UploadError::Stopped))?;
        }
        Ok(())
    }

    /// The id as a UUID, when it is one: always, unless the body brought its own.
    #[must_use]
    pub fn uuid(&self) -> Option<Uuid> {
        Uuid::try_parse(&self.id).ok()
    }
}

#[cfg(test)]
mod tests {
    use osap::SystemRandom;
    use serde_json::json;

    use super::*;

    struct At(i64);

    impl Clock for At {
        fn now_ms(&self) -> i64 {
            self.0
        }
    }

    const NOW: i64 = 1_795_210_282_110;

    fn compose(value: &Value) -> Result<Body, InvalidEvent> {
        Body::compose(value, &At(NOW), &mut SystemRandom)
    }

    fn basic(body: &Body) -> Value {
        serde_json::from_str::<Value>(&body.json).unwrap()["basic"].clone()
    }

    #[test]
    fn time_and_id_are_added_at_the_end() {
        let body = compose(&json!({"level": 3})).unwrap();
        let expected =
            format!(r#"{{"level":3,"basic":{{"dateTime":"2026-11-20T21:31:22.110+00:00","UUID":"{}"}}}}"#, body.id);
        assert_eq!(*body.json, *expected);
        assert_eq!(body.id.len(), 32);
        let receipt = Receipt { id: body.id.into(), fate: None, pictures: Vec::new() };
        assert_eq!(receipt.uuid().unwrap().get_version_num(), 7);

        let empty = compose(&json!({})).unwrap();
        assert_eq!(basic(&empty)["UUID"], *empty.id);
    }

    #[test]
    fn what_the_body_has_is_kept() {
        let own = json!({"basic": {"UUID": "door-7", "dateTime": "2026-01-01T00:00:00Z", "x": 1}, "a": 2});
        let body = compose(&own).unwrap();
        assert_eq!(&*body.id, "door-7");
        assert_eq!(serde_json::from_str::<Value>(&body.json).unwrap(), own);

        let body = compose(&json!({"basic": {"dateTime": "2026-01-01T00:00:00Z"}})).unwrap();
        assert_eq!(basic(&body), json!({"dateTime": "2026-01-01T00:00:00Z", "UUID": *body.id}));
        let body = compose(&json!({"basic": {"UUID": "7"}})).unwrap();
        assert_eq!(basic(&body), json!({"dateTime": "2026-11-20T21:31:22.110+00:00", "UUID": "7"}));
        let body = compose(&json!({"basic": {}})).unwrap();
        assert_eq!(basic(&body)["UUID"], *body.id);
    }

    #[test]
    fn two_events_of_one_millisecond_differ() {
        assert_ne!(compose(&json!({})).unwrap().id, compose(&json!({})).unwrap().id);
    }

    #[test]
    fn what_no_event_can_be_is_refused() {
        for bad in [json!(3), json!([1]), json!("x"), json!(null)] {
            assert!(matches!(compose(&bad), Err(InvalidEvent::NotAnObject)), "{bad}");
        }
        let long = "x".repeat(65);
        for basic in [
            json!(1),
            json!({"UUID": 7}),
            json!({"UUID": ""}),
            json!({"UUID": long}),
            json!({"dateTime": 1}),
            json!({"dateTime": "now"}),
        ] {
            assert!(matches!(compose(&json!({"basic": basic})), Err(InvalidEvent::Basic)), "{basic}");
        }
        let room = MAX_EVENT - compose(&json!({"x": ""})).unwrap().json.len();
        assert!(compose(&json!({"x": "y".repeat(room)})).is_ok());
        let error = compose(&json!({"x": "y".repeat(room + 1)})).unwrap_err();
        assert!(matches!(error, InvalidEvent::TooLarge(len) if len == MAX_EVENT + 1));
    }

    #[test]
    fn the_topic_is_that_of_a_report() {
        let serial = osap::Serial::new("SN0000001").unwrap();
        let path = |resource: &str, area: &str, name: &str| EventPath {
            sub: topic::GLOBAL.into(),
            resource: resource.into(),
            index: 0,
            area: area.into(),
            name: name.into(),
        };
        assert_eq!(
            &*path("Lamp", "Alarm", "Smoke").topic(&serial).unwrap(),
            "/iot/SN0000001/global/0-Lamp/model/event/report/Alarm/Smoke"
        );
        let long = "x".repeat(32);
        for (bad, level) in [
            (path("", "Alarm", "Smoke"), "resource"),
            (path("La/mp", "Alarm", "Smoke"), ""),
            (path("Lamp", &long, "Smoke"), "area"),
            (path("Lamp", "#", "Smoke"), "area"),
            (path("Lamp", "Alarm", &long), "name"),
            (path("Lamp", "Alarm", "a\0"), "name"),
        ] {
            match bad.topic(&serial) {
                Err(TopicError::Level(named)) => assert_eq!(named, level),
                // A slash makes one level more.
                other => assert_eq!((other, level), (Err(TopicError::Form), "")),
            }
        }
    }
}
