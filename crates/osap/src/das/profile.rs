//! The thing-model profile: the document that says what a product can do (osap-wire 11).
//!
//! It travels by HTTP, outside the envelope; a device learns where it is by [`super::base::ProfileQuery`]. Members that
//! the table does not know are passed over.

mod schema;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use schema::{Kind, Members, Range, Schema};

use super::MAX_DEPTH;
use crate::json;

/// The longest document, in bytes.
pub const MAX_LEN: usize = 1024 * 1024;
/// The longest category, domain or identifier, in bytes.
pub const MAX_NAME: usize = 31;
/// The longest local index, in bytes.
pub const MAX_INDEX: usize = 7;
/// The longest text of an enumeration, in bytes.
pub const MAX_ENUM_TEXT: usize = 31;
/// The longest firmware version, in bytes.
pub const MAX_VERSION: usize = 35;

/// What a product can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The firmware version it describes.
    pub version: String,
    /// What else the product says of itself; nothing here reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacities: Option<Map<String, Value>>,
    /// The resources.
    #[serde(default)]
    pub resources: Vec<Resource>,
}

/// A resource: a part of a product, of which there may be several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its identifier.
    pub identifier: String,
    /// What topics call the resource type.
    pub resource_category: String,
    /// Which ones there are.
    #[serde(default)]
    pub local_index: Vec<String>,
    /// Whether more of them may appear while the device runs.
    #[serde(default)]
    pub dynamic: bool,
    /// Whether it is the device itself.
    #[serde(default)]
    pub global: bool,
    /// The areas.
    #[serde(default)]
    pub domains: Vec<Domain>,
}

/// An area of a resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Its identifier, a level of topics.
    pub identifier: String,
    /// Attributes.
    #[serde(default)]
    pub props: Vec<Prop>,
    /// Operations.
    #[serde(default)]
    pub actions: Vec<Action>,
    /// Events.
    #[serde(default)]
    pub events: Vec<Event>,
}

/// Who may do what to an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// It is reported.
    #[serde(rename = "r")]
    Read,
    /// It is set.
    #[serde(rename = "w")]
    Write,
    /// Both.
    #[serde(rename = "rw")]
    ReadWrite,
}

impl Access {
    /// Whether the device reports the attribute.
    #[must_use]
    pub fn is_readable(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether the platform may set it.
    #[must_use]
    pub fn is_writable(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// An attribute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prop {
    /// Its identifier, a level of topics.
    pub identifier: String,
    /// Who may do what.
    pub access: Access,
    /// Its version, where the model counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What its value looks like; a tree alone has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
}

/// Who calls an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// The platform calls the device.
    #[serde(rename = "Plt2Dev")]
    ToDevice,
    /// The device calls the platform.
    #[serde(rename = "Dev2Plt")]
    ToPlatform,
}

/// What goes in or comes out of an operation or event.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Payload {
    /// What it looks like; a tree alone has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Its identifier, a level of topics.
    pub identifier: String,
    /// Who calls it.
    pub direction: Direction,
    /// Its version, where the model counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// What it gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its identifier, a level of topics.
    pub identifier: String,
    /// `general`, `notification`, …
    #[serde(default)]
    pub event_type: Vec<String>,
    /// Its version, where the model counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the device sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// What it gets back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
}

/// Why a document is not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// More than [`MAX_LEN`] bytes.
    #[error("the profile is longer than {MAX_LEN} bytes")]
    TooLong,
    /// Nested more than [`MAX_DEPTH`] levels.
    #[error("the profile is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Not the JSON of a profile.
    #[error("line {line}, column {column}: {reason}")]
    Malformed {
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A name that a device cannot hold, or that cannot be a level of a topic.
    #[error("{what} {name:?} is empty, longer than {max} bytes, or has characters that a topic cannot carry")]
    Name {
        /// The member it stands in.
        what: &'static str,
        /// The name.
        name: String,
        /// What a device can hold.
        max: usize,
    },
}

impl Profile {
    /// Reads a document.
    ///
    /// # Errors
    /// [`ProfileError`] says what is wrong, and where.
    pub fn parse(document: &[u8]) -> Result<Self, ProfileError> {
        if document.len() > MAX_LEN {
            return Err(ProfileError::TooLong);
        }
        let text = std::str::from_utf8(document).map_err(|error| ProfileError::Malformed {
            line: 1 + document[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count(),
            column: 1,
            reason: "not UTF-8".to_owned(),
        })?;
        if json::depth(text) > MAX_DEPTH {
            return Err(ProfileError::TooDeep);
        }
        let profile: Self = serde_json::from_str(text).map_err(|error| ProfileError::Malformed {
            line: error.line(),
            column: error.column(),
            reason: without_place(&error),
        })?;
        profile.check()?;
        Ok(profile)
    }

    /// The document.
    ///
    /// # Errors
    /// [`ProfileError`] when a device or [`parse`](Self::parse) would not take it.
    pub fn write(&self) -> Result<Vec<u8>, ProfileError> {
        self.check()?;
        let text = serde_json::to_string(self).expect("texts, numbers and lists always serialise");
        if text.len() > MAX_LEN {
            return Err(ProfileError::TooLong);
        }
        if json::depth(&text) > MAX_DEPTH {
            return Err(ProfileError::TooDeep);
        }
        Ok(text.into_bytes())
    }

    /// The names; everything else is kept by the types.
    fn check(&self) -> Result<(), ProfileError> {
        if self.version.len() > MAX_VERSION {
            let (what, name, max) = ("version", self.version.clone(), MAX_VERSION);
            return Err(ProfileError::Name { what, name, max });
        }
        for resource in &self.resources {
            name("resource", &resource.identifier, MAX_NAME)?;
            name("resourceCategory", &resource.resource_category, MAX_NAME)?;
            for index in &resource.local_index {
                name("localIndex", index, MAX_INDEX)?;
                if index.contains('-') {
                    let (what, name, max) = ("localIndex", index.clone(), MAX_INDEX);
                    return Err(ProfileError::Name { what, name, max });
                }
            }
            for domain in &resource.domains {
                domain.check()?;
            }
        }
        Ok(())
    }
}

impl Domain {
    fn check(&self) -> Result<(), ProfileError> {
        let payload = |payload: &Option<Payload>| match payload {
            Some(Payload { schema: Some(schema) }) => schema.check(),
            _ => Ok(()),
        };
        name("domain", &self.identifier, MAX_NAME)?;
        for prop in &self.props {
            name("prop", &prop.identifier, MAX_NAME)?;
            prop.schema.as_ref().map_or(Ok(()), Schema::check)?;
        }
        for action in &self.actions {
            name("action", &action.identifier, MAX_NAME)?;
            payload(&action.input)?;
            payload(&action.output)?;
        }
        for event in &self.events {
            name("event", &event.identifier, MAX_NAME)?;
            payload(&event.input)?;
            payload(&event.output)?;
        }
        Ok(())
    }
}

fn name(what: &'static str, name: &str, max: usize) -> Result<(), ProfileError> {
    let forbidden = |c: char| c.is_control() || matches!(c, '/' | '+' | '#');
    if name.is_empty() || name.len() > max || name.contains(forbidden) {
        return Err(ProfileError::Name { what, name: name.to_owned(), max });
    }
    Ok(())
}

/// The words of an error without its place, which the caller tells apart.
fn without_place(error: &serde_json::Error) -> String {
    let words = error.to_string();
    words.rsplit_once(" at line ").map_or(words.clone(), |(words, _)| words.to_owned())
}
