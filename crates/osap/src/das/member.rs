//! Reading and writing the bodies that travel seldom: members taken by name, typed and bounded.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::BodyError;
use super::reply::append;
use crate::json;

/// The members of those names, the last of each; one that is `null` counts as absent.
pub(super) fn members<'a, const N: usize>(
    object: &'a str,
    names: [&str; N],
) -> Result<[Option<&'a RawValue>; N], BodyError> {
    let mut found = [None; N];
    json::for_each_member(object.as_bytes(), |name, value| {
        if let Some(at) = names.iter().position(|wanted| *wanted == name) {
            found[at] = (value.get() != "null").then_some(value);
        }
    })
    .map_err(|_| BodyError::Malformed)?;
    Ok(found)
}

/// The text of a member that has to be there, at most `max` bytes.
pub(super) fn text<'a>(value: Option<&'a RawValue>, name: &'static str, max: usize) -> Result<Cow<'a, str>, BodyError> {
    let text = json::string(value.ok_or(BodyError::Missing(name))?);
    text.filter(|text| text.len() <= max).ok_or(BodyError::Unacceptable(name))
}

/// [`text`] that is kept; an absent one is empty.
pub(super) fn text_or_empty(value: Option<&RawValue>, name: &'static str, max: usize) -> Result<String, BodyError> {
    value.map_or(Ok(String::new()), |value| text(Some(value), name, max).map(Cow::into_owned))
}

/// A number, or another plain value, that has to be there.
pub(super) fn plain<T: DeserializeOwned>(value: Option<&RawValue>, name: &'static str) -> Result<T, BodyError> {
    let value = value.ok_or(BodyError::Missing(name))?;
    serde_json::from_str(value.get()).map_err(|_| BodyError::Unacceptable(name))
}

/// [`plain`] that may be absent.
pub(super) fn plain_if<T: DeserializeOwned>(
    value: Option<&RawValue>,
    name: &'static str,
) -> Result<Option<T>, BodyError> {
    value.map(|value| plain(Some(value), name)).transpose()
}

/// The entries of a list that has to be there, each read by `entry`.
pub(super) fn list<'a, T>(
    value: Option<&'a RawValue>,
    name: &'static str,
    max: usize,
    entry: impl FnMut(&'a str) -> Result<T, BodyError>,
) -> Result<Vec<T>, BodyError> {
    entries(value.ok_or(BodyError::Missing(name))?.get(), name, max, entry)
}

/// [`list`] of the text of an array.
pub(super) fn entries<'a, T>(
    array: &'a str,
    name: &'static str,
    max: usize,
    mut entry: impl FnMut(&'a str) -> Result<T, BodyError>,
) -> Result<Vec<T>, BodyError> {
    let entries: Vec<&RawValue> = serde_json::from_str(array).map_err(|_| BodyError::Unacceptable(name))?;
    if entries.len() > max {
        return Err(BodyError::TooMany(name));
    }
    entries.into_iter().map(|value| entry(value.get())).collect()
}

/// Hexadecimal digits of `N` bytes, in either case.
pub(super) fn digest<const N: usize>(value: Option<&RawValue>, name: &'static str) -> Result<[u8; N], BodyError> {
    let text = text(value, name, 2 * N)?;
    crate::wire::unhex(text.as_bytes()).ok_or(BodyError::Unacceptable(name))
}

/// A place on the network without scheme, `host:port/path`; fewer than `max` visible characters.
pub(super) fn bare_url(value: Option<&RawValue>, name: &'static str, max: usize) -> Result<String, BodyError> {
    let url = text(value, name, max)?;
    let plain = !url.is_empty() && url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains("://");
    if plain { Ok(url.into_owned()) } else { Err(BodyError::Unacceptable(name)) }
}

/// Appends `body` as JSON, unless `reads_back` says that a receiver would take it for something else.
pub(super) fn append_checked(
    out: &mut Vec<u8>,
    body: &impl Serialize,
    reads_back: impl FnOnce(&[u8]) -> Result<bool, BodyError>,
) -> Result<(), BodyError> {
    let start = out.len();
    append(out, body)?;
    check_written(out, start, reads_back)
}

/// Takes back what stands in `out` behind `start`, unless `reads_back`.
pub(super) fn check_written(
    out: &mut Vec<u8>,
    start: usize,
    reads_back: impl FnOnce(&[u8]) -> Result<bool, BodyError>,
) -> Result<(), BodyError> {
    let wrong = match reads_back(&out[start..]) {
        Ok(true) => return Ok(()),
        Ok(false) => BodyError::Malformed,
        Err(error) => error,
    };
    out.truncate(start);
    Err(wrong)
}
