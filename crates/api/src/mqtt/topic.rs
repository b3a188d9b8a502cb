//! The platform's topics for applications: which there are, what each level says, and which a filter may meet.
//!
//! | topic | who says it | what |
//! | --- | --- | --- |
//! | `/v1/devices/{serial}/events/{resource}/{index}/{area}/{name}` | platform | an Event |
//! | `/v1/devices/{serial}/amendments/{resource}/{index}/{area}/{name}` | platform | an Event that amends an earlier one |
//! | `/v1/devices/{serial}/attributes/{resource}/{index}/{area}/{name}` | platform | an AttributeReport |
//! | `/v1/devices/{serial}/presence` | platform | a Device, when its presence or description changes |
//! | `/v1/devices/{serial}/removed` | platform | id and serial of one that is gone |
//! | `/v1/requests/{request}/devices/{d}/operations/{resource}/{index}/{area}/{name}` | application | as the body of the `POST` |
//! | `/v1/requests/{request}/devices/{d}/attributes/{resource}/{index}/{area}/{name}` | application | as the body of the `PUT` |
//! | `/v1/replies/{request}` | platform | `{"status", "body"}`, to who sent the request only |
//!
//! In a level `/`, `+`, `#`, `%` and control characters are written as in a URL: `%2F`.

use std::borrow::Cow;
use std::fmt::Write as _;

use axum::http::Method;
use vestibule_platform::{Caller, DevicePath, Permission, RecordKind};

/// What the platform says to applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Events,
    Amendments,
    Attributes,
    Presence,
    Removed,
    Replies,
}

/// Levels of the longest topic the platform speaks on.
const LEVELS: usize = 9;

impl Class {
    pub(crate) const ALL: [Class; 6] =
        [Class::Events, Class::Amendments, Class::Attributes, Class::Presence, Class::Removed, Class::Replies];

    /// Its levels; `None` where any may stand.
    fn schema(self) -> &'static [Option<&'static str>] {
        const PART: Option<&str> = None;
        macro_rules! of_a_part {
            ($what:literal) => {
                &[Some(""), Some("v1"), Some("devices"), PART, Some($what), PART, PART, PART, PART]
            };
        }
        match self {
            Class::Events => of_a_part!("events"),
            Class::Amendments => of_a_part!("amendments"),
            Class::Attributes => of_a_part!("attributes"),
            Class::Presence => &[Some(""), Some("v1"), Some("devices"), PART, Some("presence")],
            Class::Removed => &[Some(""), Some("v1"), Some("devices"), PART, Some("removed")],
            Class::Replies => &[Some(""), Some("v1"), Some("replies"), PART],
        }
    }

    /// The kind of record that is said there.
    pub(crate) fn record(self) -> Option<RecordKind> {
        match self {
            Class::Events => Some(RecordKind::Event),
            Class::Amendments => Some(RecordKind::Amendment),
            Class::Attributes => Some(RecordKind::Attribute),
            Class::Presence | Class::Removed | Class::Replies => None,
        }
    }

    /// Whether somebody may hear it; what is a reply is checked when it is asked for.
    pub(crate) fn is_for(self, caller: &Caller) -> bool {
        let permission = match self {
            Class::Events | Class::Amendments => Permission::EventsRead,
            Class::Attributes => Permission::AttributesRead,
            Class::Presence | Class::Removed => Permission::DevicesRead,
            Class::Replies => return true,
        };
        caller.may(permission)
    }
}

/// A topic filter, cut into its levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    text: Box<str>,
    levels: Vec<Box<str>>,
}

impl Filter {
    /// The filter, if it can meet a topic of the platform at all.
    pub(crate) fn parse(text: &str) -> Option<Filter> {
        if text.split('/').nth(LEVELS + 1).is_some() {
            return None;
        }
        let filter = Filter { text: text.into(), levels: text.split('/').map(Box::from).collect() };
        Class::ALL.into_iter().any(|class| filter.may_meet(class)).then_some(filter)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a topic of this class can match.
    pub(crate) fn may_meet(&self, class: Class) -> bool {
        self.walk(class.schema(), |level, fixed| fixed.is_none_or(|fixed| fixed == level))
    }

    /// Whether the topic with these levels matches (MQTT 3.1.1, 4.7).
    pub(crate) fn matches(&self, topic: &Topic<'_>) -> bool {
        self.walk(topic.levels(), |level, said| level == &**said)
    }

    /// The serial that every topic this can meet is of, if it names one.
    pub(crate) fn serial(&self) -> Option<Cow<'_, str>> {
        let level = self.levels.get(3).filter(|level| !matches!(&***level, "+" | "#"))?;
        decoded(level)
    }

    fn walk<T>(&self, levels: &[T], is_same: impl Fn(&str, &T) -> bool) -> bool {
        let mut levels = levels.iter();
        for wanted in &self.levels {
            match (&**wanted, levels.next()) {
                // Also what is right above it.
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if is_same(wanted, level) => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

/// A topic the platform speaks on, level by level.
#[derive(Debug)]
pub(crate) struct Topic<'a> {
    levels: [Cow<'a, str>; LEVELS],
    len: usize,
}

impl<'a> Topic<'a> {
    fn new<const N: usize>(levels: [Cow<'a, str>; N]) -> Topic<'a> {
        let mut all = [const { Cow::Borrowed("") }; LEVELS];
        for (place, level) in all.iter_mut().zip(levels) {
            *place = level;
        }
        Topic { levels: all, len: N }
    }

    /// Of a record of a device; `None` for kinds that are not said.
    pub(crate) fn of_record(kind: RecordKind, serial: &'a str, path: &'a DevicePath) -> Option<Topic<'a>> {
        let what = match kind {
            RecordKind::Event => "events",
            RecordKind::Amendment => "amendments",
            RecordKind::Attribute => "attributes",
            _ => return None,
        };
        let DevicePath { resource, index, area, name } = path;
        let [resource, index, area, name] = [resource, index, area, name].map(|part| encoded(part));
        let [root, v1, devices, what] = ["", "v1", "devices", what].map(Cow::Borrowed);
        Some(Topic::new([root, v1, devices, encoded(serial), what, resource, index, area, name]))
    }

    /// Of what is said of a device itself.
    pub(crate) fn of_device(class: Class, serial: &'a str) -> Topic<'a> {
        let what = if class == Class::Removed { "removed" } else { "presence" };
        let [root, v1, devices, what] = ["", "v1", "devices", what].map(Cow::Borrowed);
        Topic::new([root, v1, devices, encoded(serial), what])
    }

    /// Of the answer to a request.
    pub(crate) fn of_reply(request: &'a str) -> Topic<'a> {
        Topic::new(["", "v1", "replies", request].map(Cow::Borrowed))
    }

    fn levels(&self) -> &[Cow<'a, str>] {
        &self.levels[..self.len]
    }

    pub(crate) fn text(&self) -> String {
        self.levels().join("/")
    }
}

/// A topic on which an application asks for something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// What the application calls it.
    pub(crate) id: Box<str>,
    /// How the same is asked for over HTTP.
    pub(crate) method: Method,
    pub(crate) uri: String,
}

impl Request {
    pub(crate) fn parse(topic: &str) -> Option<Request> {
        let mut levels = topic.split('/');
        let begin = [levels.next()?, levels.next()?, levels.next()?];
        let id = levels.next().filter(|id| is_request_id(id))?;
        let parts: Vec<&str> = levels.collect();
        let ["devices", device, what, resource, index, area, name] = parts[..] else { return None };
        let method = match what {
            "operations" => Method::POST,
            "attributes" => Method::PUT,
            _ => return None,
        };
        let mut uri = "/v1/devices".to_owned();
        for level in [device, what, resource, index, area, name] {
            uri.push('/');
            for &byte in decoded(level)?.as_bytes() {
                match byte {
                    b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'~' => uri.push(char::from(byte)),
                    // Dots too: nothing is to read a level as a way up.
                    _ => write!(uri, "%{byte:02X}").ok()?,
                }
            }
        }
        (begin == ["", "v1", "requests"]).then(|| Request { id: id.into(), method, uri })
    }
}

fn is_request_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_special(character: char) -> bool {
    matches!(character, '/' | '+' | '#' | '%') || character.is_control()
}

/// A text as a level. Control characters beyond ASCII have several bytes, each of which is written.
fn encoded(text: &str) -> Cow<'_, str> {
    if !text.contains(is_special) {
        return Cow::Borrowed(text);
    }
    let mut level = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_special(character) {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // A String takes everything.
                let _ = write!(level, "%{byte:02X}");
            }
        } else {
            level.push(character);
        }
    }
    Cow::Owned(level)
}

/// What a level says; `None` when it is no text.
fn decoded(level: &str) -> Option<Cow<'_, str>> {
    if !level.contains('%') {
        return Some(Cow::Borrowed(level));
    }
    let mut bytes = level.bytes();
    let mut text = Vec::with_capacity(level.len());
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(text).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(area: &str, name: &str) -> DevicePath {
        DevicePath { resource: "global".into(), index: "0".into(), area: area.into(), name: name.into() }
    }

    fn event(area: &str, name: &str, filter: &str) -> bool {
        let path = path(area, name);
        let topic = Topic::of_record(RecordKind::Event, "SN1", &path).expect("a topic");
        Filter::parse(filter).is_some_and(|filter| filter.matches(&topic))
    }

    #[test]
    fn mqtt_4_7_filters_match_level_by_level() {
        for filter in [
            "#",
            "+/v1/#",
            "/v1/devices/SN1/#",
            "/v1/devices/+/events/#",
            "/v1/devices/+/events/global/0/Alarm/Smoke",
            "/v1/devices/+/events/global/0/Alarm/Smoke/#",
            "/v1/devices/+/events/+/+/Alarm/+",
        ] {
            assert!(event("Alarm", "Smoke", filter), "{filter}");
        }
        for filter in [
            "+",
            "v1/#",
            "/v1/devices/SN2/#",
            "/v1/devices/+",
            "/v1/devices/+/attributes/#",
            "/v1/devices/+/events/global/0/Alarm",
            "/v1/devices/+/events/global/0/Alarm/Smoke/+",
        ] {
            assert!(!event("Alarm", "Smoke", filter), "{filter}");
        }
    }

    #[test]
    fn only_filters_that_can_meet_something_are_kept() {
        for (filter, classes) in [
            ("#", &Class::ALL[..]),
            ("/v1/devices/SN1/#", &Class::ALL[..5]),
            ("/v1/devices/+/presence", &[Class::Presence]),
            ("/v1/+/SN1", &[Class::Replies]),
            ("/v1/replies/+", &[Class::Replies]),
        ] {
            let parsed = Filter::parse(filter).expect("kept");
            let met: Vec<Class> = Class::ALL.into_iter().filter(|class| parsed.may_meet(*class)).collect();
            assert_eq!(met, classes, "{filter}");
        }
        let deep = "/+".repeat(10_000);
        for filter in ["hall/door", "/v1/requests/#", "/v2/#", "/v1/devices", "$SYS/#", &deep] {
            assert_eq!(Filter::parse(filter), None, "{filter}");
        }
        assert_eq!(Filter::parse("/v1/devices/a%2Fb/#").expect("kept").serial().as_deref(), Some("a/b"));
        assert_eq!(Filter::parse("/v1/devices/+/#").expect("kept").serial(), None);
        assert_eq!(Filter::parse("/v1/devices/#").expect("kept").serial(), None);
    }

    #[test]
    fn what_a_device_calls_its_things_stays_inside_of_a_level() {
        let hostile = path("a/b", "#+\u{0}%\u{85}ä");
        let topic = Topic::of_record(RecordKind::Event, "S/1", &hostile).expect("a topic");
        assert_eq!(topic.text(), "/v1/devices/S%2F1/events/global/0/a%2Fb/%23%2B%00%25%C2%85ä");
        for level in ["a/b", "#+\u{0}%\u{85}ä", ""] {
            assert_eq!(decoded(&encoded(level)).as_deref(), Some(level));
        }
        for wrong in ["%", "%2", "%zz", "%FF", "%+1"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_request_is_what_it_would_be_over_http() {
        let asked = Request::parse("/v1/requests/r-1/devices/SN 1/operations/global/0/Door/Op%2Fen").expect("asked");
        let uri = "/v1/devices/SN%201/operations/global/0/Door/Op%2Fen".to_owned();
        assert_eq!(asked, Request { id: "r-1".into(), method: Method::POST, uri });
        let set = Request::parse("/v1/requests/7/devices/../attributes/global/0/ä/..").expect("asked");
        assert_eq!((set.method, &*set.uri), (Method::PUT, "/v1/devices/%2E%2E/attributes/global/0/%C3%A4/%2E%2E"));
        let long = format!("/v1/requests/{}/devices/d/operations/r/i/a/n", "x".repeat(65));
        for wrong in [
            "/v1/requests/1/devices/d",
            "/v1/requests/1/devices/d/events/r/i/a/n",
            "/v1/requests/1/users/d/operations/r/i/a/n",
            "/v1/requests//devices/d/operations/r/i/a/n",
            "/v1/requests/a b/devices/d/operations/r/i/a/n",
            "/v1/requests/1/devices/%FF/operations/r/i/a/n",
            "/v1/requests/1/devices/d/operations/r/i/a/n/more",
            "v1/requests/1/devices/d/operations/r/i/a/n",
            "/v2/requests/1/devices/d/operations/r/i/a/n",
            &long,
        ] {
            assert_eq!(Request::parse(wrong), None, "{wrong}");
        }
    }
}
