//! Attributes: what a device reports of itself, and what the platform may set.
//!
//! They go through the shadow (osap-wire 10.2), as the published clients do: after a login under a new session key all
//! known values are reported again, then the platform is asked what it wishes.

use std::collections::BTreeMap;

use osap::Serial;
use osap::das::shadow::{self, State, Versioned};
use osap::das::topic::{Topic, TopicError};
use serde::Serialize;

use crate::event::{EventPath, InvalidEvent, MAX_EVENT};
use crate::operation::OperationPath;
use crate::query::{Place, Queries};

/// The most attributes a device may report.
const MAX_ATTRIBUTES: usize = 1_024;
/// The largest answer to a query that is taken, in bytes: what fits into a packet.
const WINDOW: usize = 16_256;

/// The attributes of a device and what the platform has acknowledged of them.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    known: BTreeMap<OperationPath, Known>,
    /// Queries that were not answered.
    pub queries: Queries,
}

#[derive(Debug)]
struct Known {
    value: Box<str>,
    /// Counts the changes since the program started.
    version: u64,
    /// The platform has this value, or will: its report is in the queue.
    reported: bool,
}

/// A report that has to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub topic: Box<str>,
    pub body: Box<[u8]>,
}

impl Message {
    /// What it takes of a bound in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.topic.len() + self.body.len()
    }
}

impl Attributes {
    /// Takes a value that the program reports. `None`: the platform has it already.
    pub(crate) fn report<T: Serialize + ?Sized>(
        &mut self,
        serial: &Serial,
        path: &OperationPath,
        value: &T,
    ) -> Result<Option<Message>, InvalidEvent> {
        let json = serde_json::to_string(value).map_err(InvalidEvent::Json)?;
        self.take(serial, path, json.into())
    }

    /// As [`Attributes::report`], with the JSON text of the value.
    pub(crate) fn take(
        &mut self,
        serial: &Serial,
        path: &OperationPath,
        value: Box<str>,
    ) -> Result<Option<Message>, InvalidEvent> {
        let version = match self.known.get(path) {
            Some(known) if known.value == value && known.reported => return Ok(None),
            Some(known) => known.version + 1,
            None if self.known.len() >= MAX_ATTRIBUTES => return Err(InvalidEvent::TooManyAttributes(MAX_ATTRIBUTES)),
            None => 1,
        };
        let message = message(serial, path, &value, version)?;
        self.known.insert(path.clone(), Known { value, version, reported: true });
        Ok(Some(message))
    }

    /// The report could not be queued: it is due the next time.
    pub(crate) fn not_queued(&mut self, path: &OperationPath) {
        if let Some(known) = self.known.get_mut(path) {
            known.reported = false;
        }
    }

    /// The reports of all values of the device, or of a child.
    pub(crate) fn all(&self, serial: &Serial, sub: &str) -> Vec<Message> {
        let known = self.known.iter().filter(|(path, _)| &*path.sub == sub);
        known.filter_map(|(path, known)| message(serial, path, &known.value, known.version).ok()).collect()
    }

    /// A child is gone.
    pub(crate) fn forget(&mut self, sub: &str) {
        self.known.retain(|path, _| &*path.sub != sub);
        self.queries.forget(sub);
    }
}

/// The question what the platform wishes at a place.
pub(crate) fn query(serial: &Serial, place: &Place) -> Option<Message> {
    let mut body = Vec::new();
    shadow::write_query(WINDOW, &mut body);
    let topic = topic_of(serial, place, "query").ok()?;
    Some(Message { topic, body: body.into() })
}

fn message(serial: &Serial, path: &OperationPath, value: &str, version: u64) -> Result<Message, InvalidEvent> {
    let topic = topic_of(serial, &Place::of(path), "report")?;
    // The area and the name are in the body, and have to fit into a topic all the same: the platform names them so.
    path.check(serial)?;
    let state = State { area: path.area.to_string(), name: path.name.to_string(), value };
    let mut body = Vec::new();
    shadow::write_report(&Versioned { state, version }, &mut body)?;
    if body.len() > MAX_EVENT {
        return Err(InvalidEvent::TooLarge(body.len()));
    }
    Ok(Message { topic, body: body.into() })
}

/// The topic of a message of state synchronisation (osap-wire 9.7).
pub(crate) fn topic_of(serial: &Serial, place: &Place, msg_type: &str) -> Result<Box<str>, TopicError> {
    let (serial, module, method) = (serial.as_str(), shadow::MODULE, shadow::METHOD);
    let Place { sub, resource, index } = place;
    Topic::Module { serial, sub, index, resource, module, method, msg_type }.encode().map(Into::into)
}

impl From<EventPath> for OperationPath {
    fn from(path: EventPath) -> Self {
        let EventPath { sub, resource, index, area, name } = path;
        Self { sub, resource, index: index.to_string().into(), area, name }
    }
}

/// Values that the platform wishes, as they arrive in one message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub place: Place,
    /// `Seq` of an order to set, which is answered; `None` for the answer to a query, which is not.
    pub seq: Option<u64>,
    /// Area, name, value.
    pub wishes: Vec<(Box<str>, Box<str>, Box<str>)>,
}

impl Wishes {
    /// Reads a message of state synchronisation from the platform.
    pub(crate) fn parse(place: Place, msg_type: &str, seq: u64, body: &[u8]) -> Option<Self> {
        let (states, seq) = match msg_type {
            "set" => (vec![shadow::parse_set(body).ok()?.state], Some(seq)),
            "query_reply" => (shadow::parse_query_reply(body).ok()?, None),
            _ => return None,
        };
        let wishes =
            states.into_iter().map(|state| (state.area.into(), state.name.into(), state.value.into())).collect();
        Some(Self { place, seq, wishes })
    }
}

#[cfg(test)]
mod tests {
    use osap::das::topic::GLOBAL;

    use super::*;

    fn serial() -> Serial {
        Serial::new("SN0000001").expect("a serial")
    }

    fn path(name: &str) -> OperationPath {
        OperationPath::new(GLOBAL, "Lamp", 0, "Light", name)
    }

    fn text(message: &Message) -> &str {
        std::str::from_utf8(&message.body).expect("JSON")
    }

    fn place() -> Place {
        Place::of(&path("Power"))
    }

    #[test]
    fn a_value_is_reported_when_it_changes() {
        let mut attributes = Attributes::default();
        let first = attributes.report(&serial(), &path("Power"), &true).expect("valid").expect("new");
        assert_eq!(&*first.topic, "/iot/SN0000001/global/0-Lamp/basic/shadow/report");
        let expected = r#"{"method":"report","spv":3,"state":{"reported":{"domain":"Light","identifier":"Power","value":true},"version":1}}"#;
        assert_eq!(text(&first), expected);
        assert_eq!(attributes.report(&serial(), &path("Power"), &true).expect("valid"), None);
        let changed = attributes.report(&serial(), &path("Power"), &false).expect("valid").expect("changed");
        assert!(text(&changed).contains(r#""value":false},"version":2"#), "{}", text(&changed));
        attributes.not_queued(&path("Power"));
        assert!(attributes.report(&serial(), &path("Power"), &false).expect("valid").is_some(), "due again");
    }

    #[test]
    fn all_values_are_those_of_the_device_or_of_one_child() {
        let mut attributes = Attributes::default();
        let of_child = OperationPath { sub: "SUB1".into(), ..path("Power") };
        attributes.report(&serial(), &path("Power"), &1).expect("valid");
        attributes.report(&serial(), &path("Level"), &2).expect("valid");
        attributes.report(&serial(), &of_child, &3).expect("valid");
        let topics = |attributes: &Attributes, sub: &str| -> Vec<Box<str>> {
            attributes.all(&serial(), sub).into_iter().map(|message| message.topic).collect()
        };
        let own = "/iot/SN0000001/global/0-Lamp/basic/shadow/report";
        assert_eq!(topics(&attributes, GLOBAL), [own.into(), own.into()]);
        assert_eq!(topics(&attributes, "SUB1"), ["/iot/SN0000001/SUB1/0-Lamp/basic/shadow/report".into()]);
        attributes.forget("SUB1");
        assert_eq!((topics(&attributes, GLOBAL).len(), topics(&attributes, "SUB1").len()), (2, 0));
        let query = query(&serial(), &place()).expect("it can be asked");
        assert_eq!(&*query.topic, "/iot/SN0000001/global/0-Lamp/basic/shadow/query");
        assert_eq!(text(&query), r#"{"method":"query","windowsize":16256}"#);
    }

    #[test]
    fn what_cannot_be_reported_is_the_programs_error() {
        let mut attributes = Attributes::default();
        assert!(attributes.report(&serial(), &path("a/b"), &1).is_err());
        assert!(attributes.report(&serial(), &path(&"x".repeat(32)), &1).is_err());
        assert!(attributes.report(&serial(), &path("Power"), &"x".repeat(MAX_EVENT)).is_err());
        for n in 0..MAX_ATTRIBUTES {
            attributes.report(&serial(), &path(&n.to_string()), &1).expect("room");
        }
        let refused = attributes.report(&serial(), &path("more"), &1);
        assert!(matches!(refused, Err(InvalidEvent::TooManyAttributes(MAX_ATTRIBUTES))));
    }

    #[test]
    fn wishes_are_read_from_both_messages() {
        let set =
            br#"{"method":"set","state":{"desired":{"domain":"Light","identifier":"Power","value":1},"version":3}}"#;
        let wish = Wishes::parse(place(), "set", 7, set).expect("a wish");
        assert_eq!((wish.seq, &*wish.wishes), (Some(7), &[("Light".into(), "Power".into(), "1".into())][..]));
        let reply = br#"{"code":0,"method":"query_reply","state":{"desired":[]}}"#;
        assert_eq!(
            Wishes::parse(place(), "query_reply", 7, reply).map(|wish| (wish.seq, wish.wishes.len())),
            Some((None, 0))
        );
        assert!(
            Wishes::parse(place(), "report", 7, set).is_none() && Wishes::parse(place(), "set", 7, b"{}").is_none()
        );
    }
}
