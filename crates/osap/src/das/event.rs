//! The body of an event report (osap-wire 10.1).

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{BodyError, object};
use crate::json;

/// The longest event identity, in bytes. Known firmware sends 32 hexadecimal digits.
pub const MAX_UUID: usize = 64;

/// An event as a device reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventBody<'a> {
    /// The event object, unchanged.
    pub json: &'a str,
    /// `basic.UUID`, the identity of the event, where the device sends one.
    pub uuid: Option<&'a str>,
    /// `basic.dateTime` in milliseconds since 1970, where the device sends one.
    pub time_ms: Option<i64>,
}

impl<'a> EventBody<'a> {
    /// Reads the application part of an event report.
    ///
    /// Whatever is wrong with `basic` only costs what it would have said: the event itself is the
    /// device's and is kept.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not one JSON object within the limits.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let json = object(body)?;
        let mut basic = None;
        json::for_each_member(json.as_bytes(), |name, value| {
            if name == "basic" {
                basic = Some(value);
            }
        })
        .map_err(|_| BodyError::Malformed)?;
        let mut event = Self { json, uuid: None, time_ms: None };
        if let Some(basic) = basic {
            event.read_basic(basic);
        }
        Ok(event)
    }

    fn read_basic(&mut self, basic: &'a RawValue) {
        let _ = json::for_each_member(basic.get().as_bytes(), |name, value| match name {
            "UUID" => self.uuid = uuid(value),
            "dateTime" => self.time_ms = time_ms(value),
            _ => {}
        });
    }
}

/// Appends the body of an event report to `out`: the object `event` with a member `basic` that
/// carries the identity and the time.
///
/// # Errors
/// [`BodyError::Malformed`] when `event` is not a JSON object without a member `basic`, when the
/// identity is not 1 to 64 visible ASCII characters, or the time is outside the years of RFC 3339.
pub fn write(event: &str, uuid: &str, time_ms: i64, out: &mut Vec<u8>) -> Result<(), BodyError> {
    let event = object(event.as_bytes())?;
    let (mut empty, mut has_basic) = (true, false);
    json::for_each_member(event.as_bytes(), |name, _| {
        empty = false;
        has_basic |= name == "basic";
    })
    .map_err(|_| BodyError::Malformed)?;
    let time = Timestamp::from_millisecond(time_ms).map_err(|_| BodyError::Malformed)?;
    let open = event.strip_suffix('}').ok_or(BodyError::Malformed)?;
    if has_basic || !acceptable(uuid) || uuid.contains(['"', '\\']) {
        return Err(BodyError::Malformed);
    }
    let comma = if empty { "" } else { "," };
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%3f+00:00");
    let basic = format!(r#"{comma}"basic":{{"dateTime":"{time}","UUID":"{uuid}"}}}}"#);
    out.extend_from_slice(open.as_bytes());
    out.extend_from_slice(basic.as_bytes());
    Ok(())
}

/// An identity that can be stored and compared as it is: visible ASCII without escapes.
fn uuid(value: &RawValue) -> Option<&str> {
    let uuid: &str = serde_json::from_str(value.get()).ok()?;
    acceptable(uuid).then_some(uuid)
}

fn acceptable(uuid: &str) -> bool {
    (1..=MAX_UUID).contains(&uuid.len()) && uuid.bytes().all(|b| b.is_ascii_graphic())
}

fn time_ms(value: &RawValue) -> Option<i64> {
    let text: &str = serde_json::from_str(value.get()).ok()?;
    let time: Timestamp = text.parse().ok()?;
    Some(time.as_millisecond())
}
