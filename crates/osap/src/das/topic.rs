//! Topics of the DAS (osap-wire 9.7).

use std::fmt;

use crate::id::Serial;

/// `sub` of the device itself.
pub const GLOBAL: &str = "global";

/// The longest v3 topic, in bytes.
const MAX_V3: usize = 511;
/// The longest v2 topic, in bytes.
const MAX_V2: usize = 127;
const MAX_SUB: usize = 72;
const MAX_RESOURCE: usize = 64;
const MAX_MODULE: usize = 15;
const MAX_METHOD: usize = 64;
const MAX_MSG_TYPE: usize = 32;
/// The longest area, and the longest name. Devices copy both into buffers of this size without
/// looking.
pub const MAX_NAME: usize = 31;

/// Methods of the module `model`.
pub mod method {
    /// Events, from the device.
    pub const EVENT: &str = "event";
    /// Attributes, both ways.
    pub const ATTRIBUTE: &str = "attribute";
    /// Operations, both ways.
    pub const SERVICE: &str = "service";
}

/// A topic of the DAS; its levels are borrowed from the topic's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic<'a> {
    /// `/iot/<serial>/<sub>/<index>-<resource>/model/<method>/<msg_type>/<area>/<name>`
    Model {
        /// The device that is connected.
        serial: &'a str,
        /// The sub-device it speaks for, or [`GLOBAL`].
        sub: &'a str,
        /// Which of several resources of the same type; without `-`.
        index: &'a str,
        /// Resource type.
        resource: &'a str,
        /// One of [`method`].
        method: &'a str,
        /// `report`, `operate`, `operate_reply`, …
        msg_type: &'a str,
        /// Area ("domain").
        area: &'a str,
        /// Name of the event, attribute or operation ("identifier").
        name: &'a str,
    },
    /// `/iot/<serial>/<sub>/<index>-<resource>/<module>/<method>/<msg_type>`
    Module {
        /// The device that is connected.
        serial: &'a str,
        /// The sub-device it speaks for, or [`GLOBAL`].
        sub: &'a str,
        /// Which of several resources of the same type; without `-`.
        index: &'a str,
        /// Resource type.
        resource: &'a str,
        /// Module, anything but `model`.
        module: &'a str,
        /// Method, one or more levels.
        method: &'a str,
        /// The last level.
        msg_type: &'a str,
    },
    /// `/<domain>/<command>` from the device, `/<serial>/<domain>/<command>` to it.
    Command {
        /// The device a downlink goes to; an uplink names none.
        serial: Option<&'a str>,
        /// Command domain.
        domain: u32,
        /// Command.
        command: u32,
    },
}

/// Why a text is not a topic of the DAS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Neither of the two forms.
    #[error("the topic has neither the form /iot/… nor /domain/command")]
    Form,
    /// Longer than a device can hold.
    #[error("the topic is longer than a device can hold")]
    TooLong,
    /// A level is empty, too long or has characters it must not have.
    #[error("the level {0} of the topic is not acceptable")]
    Level(&'static str),
}

impl<'a> Topic<'a> {
    /// Reads a topic.
    ///
    /// # Errors
    /// [`TopicError`] names what is wrong.
    pub fn parse(topic: &'a str) -> Result<Self, TopicError> {
        let levels = topic.strip_prefix('/').ok_or(TopicError::Form)?;
        if topic.len() > MAX_V3 {
            return Err(TopicError::TooLong);
        }
        let mut parts = levels.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(domain), Some(command), None, _) => Self::command(topic, None, domain, command),
            (Some(serial), Some(domain), Some(command), None) => Self::command(topic, Some(serial), domain, command),
            (Some("iot"), Some(serial), Some(sub), Some(place)) => Self::iot(levels, serial, sub, place),
            _ => Err(TopicError::Form),
        }
    }

    fn command(topic: &str, serial: Option<&'a str>, domain: &str, command: &str) -> Result<Self, TopicError> {
        if topic.len() > MAX_V2 {
            return Err(TopicError::TooLong);
        }
        if serial.is_some_and(|serial| Serial::new(serial).is_err()) {
            return Err(TopicError::Level("serial"));
        }
        let domain = decimal(domain).ok_or(TopicError::Level("domain"))?;
        let command = decimal(command).ok_or(TopicError::Level("command"))?;
        Ok(Self::Command { serial, domain, command })
    }

    fn iot(levels: &'a str, serial: &'a str, sub: &'a str, place: &'a str) -> Result<Self, TopicError> {
        let head = "iot/".len() + serial.len() + 1 + sub.len() + 1 + place.len() + 1;
        let (module, tail) = levels.get(head..).and_then(|rest| rest.split_once('/')).ok_or(TopicError::Form)?;
        if Serial::new(serial).is_err() {
            return Err(TopicError::Level("serial"));
        }
        let sub = level("sub", sub, MAX_SUB)?;
        let (index, resource) = place.split_once('-').ok_or(TopicError::Level("resource"))?;
        let index = level("index", index, MAX_RESOURCE)?;
        let resource = level("resource", resource, MAX_RESOURCE)?;
        let module = level("module", module, MAX_MODULE)?;
        if module == "model" {
            let mut parts = tail.split('/');
            let mut next = |name, max| level(name, parts.next().ok_or(TopicError::Form)?, max);
            let method = next("method", MAX_METHOD)?;
            let msg_type = next("msgType", MAX_MSG_TYPE)?;
            let area = next("area", MAX_NAME)?;
            let name = next("name", MAX_NAME)?;
            if parts.next().is_some() {
                return Err(TopicError::Form);
            }
            return Ok(Self::Model { serial, sub, index, resource, method, msg_type, area, name });
        }
        let (method, msg_type) = tail.rsplit_once('/').ok_or(TopicError::Form)?;
        for part in method.split('/') {
            level("method", part, MAX_METHOD)?;
        }
        let msg_type = level("msgType", msg_type, MAX_MSG_TYPE)?;
        Ok(Self::Module { serial, sub, index, resource, module, method, msg_type })
    }

    /// The topic as text, checked against the limits of devices.
    ///
    /// # Errors
    /// [`TopicError`] when a level would not survive the way to a device.
    pub fn encode(&self) -> Result<String, TopicError> {
        let text = self.to_string();
        if Topic::parse(&text)? == *self { Ok(text) } else { Err(TopicError::Form) }
    }

    /// The serial the topic names.
    #[must_use]
    pub fn serial(&self) -> Option<&'a str> {
        match *self {
            Self::Model { serial, .. } | Self::Module { serial, .. } => Some(serial),
            Self::Command { serial, .. } => serial,
        }
    }
}

/// Whether a text can be `sub` of a child: a level of topics, at most 72 bytes, and not [`GLOBAL`].
#[must_use]
pub fn is_child(text: &str) -> bool {
    text != GLOBAL && level("sub", text, MAX_SUB).is_ok()
}

/// A decimal number in its one form: no sign, no leading zero.
fn decimal(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    let canonical = text.len() == 1 || !text.starts_with(['0', '+']);
    (canonical && text.bytes().all(|b| b.is_ascii_digit())).then_some(number)
}

fn level<'a>(name: &'static str, text: &'a str, max: usize) -> Result<&'a str, TopicError> {
    let forbidden = |c: char| c.is_control() || matches!(c, '/' | '+' | '#');
    if text.is_empty() || text.len() > max || text.contains(forbidden) {
        return Err(TopicError::Level(name));
    }
    Ok(text)
}

impl fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Model { serial, sub, index, resource, method, msg_type, area, name } => {
                write!(f, "/iot/{serial}/{sub}/{index}-{resource}/model/{method}/{msg_type}/{area}/{name}")
            }
            Self::Module { serial, sub, index, resource, module, method, msg_type } => {
                write!(f, "/iot/{serial}/{sub}/{index}-{resource}/{module}/{method}/{msg_type}")
            }
            Self::Command { serial: Some(serial), domain, command } => {
                write!(f, "/{serial}/{domain}/{command}")
            }
            Self::Command { serial: None, domain, command } => write!(f, "/{domain}/{command}"),
        }
    }
}
