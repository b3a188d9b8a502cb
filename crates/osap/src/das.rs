//! The DAS: login record, envelope, topics and bodies (osap-wire 9, 10 and 11).
//!
//! The DAS is MQTT 3.1.1; packets are another crate's. Here is what travels inside them.

pub mod access;
pub mod attribute;
pub mod base;
pub mod cipher;
pub mod command;
pub mod connack;
pub mod envelope;
pub mod event;
pub mod executor;
pub mod hub;
pub mod login;
mod member;
pub mod ota;
pub mod pass;
pub mod pending;
pub mod profile;
pub mod reply;
pub mod seq;
pub mod service;
pub mod shadow;
pub mod storage;
pub mod topic;
mod xml;

use crate::json;

/// The deepest nesting of a body.
pub const MAX_DEPTH: usize = 32;
/// The longest body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Why the application part of a message is not the body its topic announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Not UTF-8, not JSON or XML, or not the kind of value that belongs here.
    #[error("the body is not of the kind that belongs here")]
    Malformed,
    /// A member the body cannot do without.
    #[error("the body has no member {0}")]
    Missing(&'static str),
    /// A member of the wrong type, too long, or outside its range.
    #[error("the member {0} of the body is not acceptable")]
    Unacceptable(&'static str),
    /// More entries than a list may have.
    #[error("the body has more than the allowed number of {0}")]
    TooMany(&'static str),
    /// More than [`MAX_BODY`] bytes.
    #[error("the body is longer than {MAX_BODY} bytes")]
    TooLong,
    /// Nested more than [`MAX_DEPTH`] levels.
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// The text of a body that is one JSON object within the limits.
fn object(body: &[u8]) -> Result<&str, BodyError> {
    if body.len() > MAX_BODY {
        return Err(BodyError::TooLong);
    }
    let text = std::str::from_utf8(body).map_err(|_| BodyError::Malformed)?;
    if json::depth(text) > MAX_DEPTH {
        return Err(BodyError::TooDeep);
    }
    Ok(text.trim_matches([' ', '\t', '\n', '\r']))
}

/// The last member of that name.
fn member<'a>(object: &'a str, wanted: &str) -> Result<Option<&'a str>, BodyError> {
    let mut found = None;
    json::for_each_member(object.as_bytes(), |name, value| {
        if name == wanted {
            found = Some(value.get());
        }
    })
    .map_err(|_| BodyError::Malformed)?;
    Ok(found)
}
