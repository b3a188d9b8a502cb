//! The bodies of an attribute report and of the order to set one (osap-wire 10.1). Both are the same.

use super::{BodyError, member, object};

/// The JSON text of the value a device reports: `Value` in `{"data":{"Value":<v>}}`.
///
/// # Errors
/// [`BodyError`] when the body is not such an object within the limits.
pub fn parse_report(body: &[u8]) -> Result<&str, BodyError> {
    let json = object(body)?;
    let data = member(json, "data")?.ok_or(BodyError::Missing("data"))?;
    member(data, "Value")?.ok_or(BodyError::Missing("Value"))
}

/// Appends the body of an attribute report, or of the order to set an attribute, to `out`.
///
/// # Errors
/// [`BodyError`] when `value` is not one JSON value within the limits.
pub fn write_report(value: &str, out: &mut Vec<u8>) -> Result<(), BodyError> {
    let start = out.len();
    out.extend_from_slice(b"{\"data\":{\"Value\":");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"}}");
    // Text that is not exactly one value may still leave a report when it is put between brackets.
    let wrong = match parse_report(&out[start..]) {
        Ok(written) if written == value.trim_ascii() => return Ok(()),
        Ok(_) => BodyError::Malformed,
        Err(error) => error,
    };
    out.truncate(start);
    Err(wrong)
}
