//! The bodies of state synchronisation, module `basic`, method `shadow` (osap-wire 10.2).

use serde::Serialize;
use serde_json::value::RawValue;

use super::reply::append;
use super::topic::MAX_NAME;
use super::{BodyError, member, object};
use crate::json;

/// The module and the method of the topics.
pub const MODULE: &str = "basic";
/// See [`MODULE`].
pub const METHOD: &str = "shadow";

/// One attribute and a value of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State<'a> {
    /// Area ("domain").
    pub area: String,
    /// Name ("identifier").
    pub name: String,
    /// JSON text of the value.
    pub value: &'a str,
}

#[derive(Serialize)]
struct StateShape<'a> {
    domain: &'a str,
    identifier: &'a str,
    value: &'a RawValue,
}

impl<'a> State<'a> {
    fn parse(text: &'a str) -> Result<Self, BodyError> {
        let (mut area, mut name, mut value) = (None, None, None);
        json::for_each_member(text.as_bytes(), |member, raw| match member {
            "domain" => area = json::string(raw),
            "identifier" => name = json::string(raw),
            "value" => value = Some(raw.get()),
            _ => {}
        })
        .map_err(|_| BodyError::Malformed)?;
        let level = |level: Option<std::borrow::Cow<'_, str>>, what| {
            let level = level.ok_or(BodyError::Missing(what))?;
            let forbidden = |c: char| c.is_control() || matches!(c, '/' | '+' | '#');
            let fits = (1..=MAX_NAME).contains(&level.len()) && !level.contains(forbidden);
            if fits { Ok(level.into_owned()) } else { Err(BodyError::Malformed) }
        };
        Ok(Self {
            area: level(area, "domain")?,
            name: level(name, "identifier")?,
            value: value.ok_or(BodyError::Missing("value"))?,
        })
    }

    fn shape(&self) -> Result<StateShape<'_>, BodyError> {
        let value = serde_json::from_str(self.value).map_err(|_| BodyError::Malformed)?;
        Ok(StateShape { domain: &self.area, identifier: &self.name, value })
    }
}

/// A report of one attribute, or the order to set one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<'a> {
    /// The attribute.
    pub state: State<'a>,
    /// A report counts the changes of the attribute since the device's program started.
    pub version: u64,
}

/// Reads a report.
///
/// # Errors
/// [`BodyError`] when the body is not a report of one attribute.
pub fn parse_report(body: &[u8]) -> Result<Versioned<'_>, BodyError> {
    versioned(body, "reported")
}

/// Reads the order to set an attribute.
///
/// # Errors
/// [`BodyError`] when the body does not name one attribute and a value.
pub fn parse_set(body: &[u8]) -> Result<Versioned<'_>, BodyError> {
    versioned(body, "desired")
}

fn versioned<'a>(body: &'a [u8], part: &'static str) -> Result<Versioned<'a>, BodyError> {
    let state = member(object(body)?, "state")?.ok_or(BodyError::Missing("state"))?;
    let version = member(state, "version")?.and_then(|version| serde_json::from_str(version).ok()).unwrap_or(0);
    let state = State::parse(member(state, part)?.ok_or(BodyError::Missing(part))?)?;
    Ok(Versioned { state, version })
}

/// Appends a report.
///
/// # Errors
/// [`BodyError`] when the value is not one JSON value within the limits; `out` is as before then.
pub fn write_report(report: &Versioned<'_>, out: &mut Vec<u8>) -> Result<(), BodyError> {
    #[derive(Serialize)]
    struct Reported<'a> {
        reported: StateShape<'a>,
        version: u64,
    }
    #[derive(Serialize)]
    struct Shape<'a> {
        method: &'static str,
        spv: u8,
        state: Reported<'a>,
    }
    let state = Reported { reported: report.state.shape()?, version: report.version };
    append(out, &Shape { method: "report", spv: 3, state })
}

/// Appends the order to set an attribute: a single object, not a list.
///
/// # Errors
/// [`BodyError`] when the value is not one JSON value within the limits; `out` is as before then.
pub fn write_set(set: &Versioned<'_>, out: &mut Vec<u8>) -> Result<(), BodyError> {
    #[derive(Serialize)]
    struct Desired<'a> {
        desired: StateShape<'a>,
        version: u64,
    }
    #[derive(Serialize)]
    struct Shape<'a> {
        method: &'static str,
        state: Desired<'a>,
    }
    append(out, &Shape { method: "set", state: Desired { desired: set.state.shape()?, version: set.version } })
}

/// Reads a query: the largest reply that the device can take, in bytes, where it says so.
///
/// # Errors
/// [`BodyError`] when the body is not a JSON object.
pub fn parse_query(body: &[u8]) -> Result<Option<usize>, BodyError> {
    Ok(member(object(body)?, "windowsize")?.and_then(|size| serde_json::from_str(size).ok()))
}

/// Appends a query.
pub fn write_query(window: usize, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Shape {
        method: &'static str,
        windowsize: usize,
    }
    append(out, &Shape { method: "query", windowsize: window }).expect("a word and a number are a body");
}

/// Reads the reply to a query: what is desired, nothing when the list is empty.
///
/// # Errors
/// [`BodyError`] when the body is not such a reply; one wrong entry makes it so.
pub fn parse_query_reply(body: &[u8]) -> Result<Vec<State<'_>>, BodyError> {
    let state = member(object(body)?, "state")?.ok_or(BodyError::Missing("state"))?;
    let desired = member(state, "desired")?.ok_or(BodyError::Missing("desired"))?;
    let entries: Vec<&RawValue> = serde_json::from_str(desired).map_err(|_| BodyError::Malformed)?;
    entries.into_iter().map(|entry| State::parse(entry.get())).collect()
}

/// Appends the reply to a query.
///
/// # Errors
/// [`BodyError`] when a value is not one JSON value, or the whole is beyond the limits; `out` is as before then.
pub fn write_query_reply(desired: &[State<'_>], out: &mut Vec<u8>) -> Result<(), BodyError> {
    #[derive(Serialize)]
    struct Desired<'a> {
        desired: Vec<StateShape<'a>>,
    }
    #[derive(Serialize)]
    struct Shape<'a> {
        code: u8,
        method: &'static str,
        state: Desired<'a>,
    }
    let desired = desired.iter().map(State::shape).collect::<Result<_, _>>()?;
    append(out, &Shape { code: 0, method: "query_reply", state: Desired { desired } })
}

/// Reads the answer to an order to set: 0, or -1 for an attribute that is unknown, cannot be written or was refused.
///
/// # Errors
/// [`BodyError`] when the body has no code.
pub fn parse_set_reply(body: &[u8]) -> Result<i64, BodyError> {
    let payload = member(object(body)?, "payload")?.ok_or(BodyError::Missing("payload"))?;
    let code = member(payload, "code")?.ok_or(BodyError::Missing("code"))?;
    serde_json::from_str(code).map_err(|_| BodyError::Malformed)
}

/// Appends the answer to an order to set. `time` is in milliseconds since 1970.
pub fn write_set_reply(code: i64, time: i64, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Payload {
        code: i64,
    }
    #[derive(Serialize)]
    struct Shape {
        method: &'static str,
        payload: Payload,
        timestamp: i64,
    }
    let shape = Shape { method: "set_reply", payload: Payload { code }, timestamp: time };
    append(out, &shape).expect("words and numbers are a body");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state(value: &str) -> State<'_> {
        State { area: "Light".into(), name: "Power".into(), value }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), BodyError>) -> String {
        let mut out = Vec::new();
        write(&mut out).expect("valid");
        String::from_utf8(out).expect("JSON")
    }

    #[test]
    fn every_body_is_the_one_of_the_table() {
        let report = Versioned { state: state("true"), version: 4 };
        let text = written(|out| write_report(&report, out));
        let expected = r#"{"method":"report","spv":3,"state":{"reported":{"domain":"Light","identifier":"Power","value":true},"version":4}}"#;
        assert_eq!(text, expected);
        assert_eq!(parse_report(text.as_bytes()), Ok(report.clone()));
        let text = written(|out| write_set(&report, out));
        let expected =
            r#"{"method":"set","state":{"desired":{"domain":"Light","identifier":"Power","value":true},"version":4}}"#;
        assert_eq!(text, expected);
        assert_eq!(parse_set(text.as_bytes()), Ok(report));
        let text = written(|out| {
            write_query(16_256, out);
            Ok(())
        });
        assert_eq!(text, r#"{"method":"query","windowsize":16256}"#);
        assert_eq!(parse_query(text.as_bytes()), Ok(Some(16_256)));
        let text = written(|out| write_query_reply(&[], out));
        assert_eq!(text, r#"{"code":0,"method":"query_reply","state":{"desired":[]}}"#);
        assert_eq!(parse_query_reply(text.as_bytes()), Ok(Vec::new()));
        let text = written(|out| write_query_reply(&[state("1"), state("[2]")], out));
        assert_eq!(parse_query_reply(text.as_bytes()), Ok(vec![state("1"), state("[2]")]));
        let text = written(|out| {
            write_set_reply(-1, 5, out);
            Ok(())
        });
        assert_eq!(text, r#"{"method":"set_reply","payload":{"code":-1},"timestamp":5}"#);
        assert_eq!(parse_set_reply(text.as_bytes()), Ok(-1));
    }

    #[test]
    fn what_a_path_cannot_hold_is_refused() {
        for wrong in [
            r#"{"state":{"reported":{"domain":"","identifier":"b","value":1}}}"#,
            r#"{"state":{"reported":{"domain":"a/b","identifier":"b","value":1}}}"#,
            r#"{"state":{"reported":{"domain":"a","identifier":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","value":1}}}"#,
            r#"{"state":{"reported":{"domain":"a","identifier":"b"}}}"#,
            r#"{"state":{"reported":[{"domain":"a","identifier":"b","value":1}]}}"#,
            r#"{"state":7}"#,
            "{}",
            "",
        ] {
            assert!(parse_report(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse_report(&bytes), parse_set(&bytes), parse_query(&bytes));
            let _ = (parse_query_reply(&bytes), parse_set_reply(&bytes));
        }
    }
}
