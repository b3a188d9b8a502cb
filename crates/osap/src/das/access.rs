//! The bodies of the access domain, by which the platform steers a connection (osap-wire 10.5).

use std::collections::BTreeMap;

use serde::Serialize;

use super::member::{append_checked, check_written, entries, members, plain};
use super::xml::{Element, escape};
use super::{BodyError, object};
use crate::json;

/// The most domains of a [`RiskList`].
pub const MAX_RISK_DOMAINS: usize = 64;
/// The most commands of a [`RiskList`], all domains together.
pub const MAX_RISK_COMMANDS: usize = 1024;
/// The longest name of an LBS, in bytes.
pub const MAX_HOST: usize = 253;

/// The keep-alive from the next ping on and in later CONNECTs: command 0x0001.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Seconds, at least 1.
    pub interval_s: u16,
}

impl KeepAlive {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [keep_alive] = members(object(body)?, ["KeepAlive"])?;
        let [interval] = members(keep_alive.ok_or(BodyError::Missing("KeepAlive"))?.get(), ["Interval"])?;
        match plain(interval, "Interval")? {
            0 => Err(BodyError::Unacceptable("Interval")),
            interval_s => Ok(Self { interval_s }),
        }
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError::Unacceptable`] for an interval of 0; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        if self.interval_s == 0 {
            return Err(BodyError::Unacceptable("Interval"));
        }
        out.extend_from_slice(format!(r#"{{"KeepAlive":{{"Interval":{}}}}}"#, self.interval_s).as_bytes());
        Ok(())
    }
}

/// The v2 commands a device must not send, responses included: command 0x0002.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RiskList {
    /// By domain, the commands; without any the whole domain is meant.
    pub domains: BTreeMap<u32, Vec<u32>>,
}

impl RiskList {
    /// Whether a command must not be sent.
    #[must_use]
    pub fn forbids(&self, domain: u32, command: u32) -> bool {
        self.domains.get(&domain).is_some_and(|commands| commands.is_empty() || commands.contains(&command))
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object within the limits.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [risk] = members(object(body)?, ["risk"])?;
        let risk = risk.ok_or(BodyError::Missing("risk"))?;
        let (mut domains, mut commands, mut wrong) = (BTreeMap::new(), 0, None);
        json::for_each_member(risk.get().as_bytes(), |domain, list| {
            let read = domain.parse().map_err(|_| BodyError::Unacceptable("risk")).and_then(|domain: u32| {
                let number = |text| serde_json::from_str(text).map_err(|_| BodyError::Unacceptable("risk"));
                let list: Vec<u32> = entries(list.get(), "risk", MAX_RISK_COMMANDS, number)?;
                commands += list.len();
                domains.insert(domain, list);
                match domains.len() > MAX_RISK_DOMAINS || commands > MAX_RISK_COMMANDS {
                    true => Err(BodyError::TooMany("risk")),
                    false => Ok(()),
                }
            });
            // The rest of the walk costs nothing more than the text that is there.
            wrong = wrong.or(read.err());
        })
        .map_err(|_| BodyError::Malformed)?;
        wrong.map_or(Ok(Self { domains }), Err)
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError::TooMany`]; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            risk: &'a BTreeMap<u32, Vec<u32>>,
        }
        append_checked(out, &Shape { risk: &self.domains }, |written| Ok(Self::parse(written)? == *self))
    }
}

/// The device moves to another LBS, under the same port: commands 0x3479 and 0x491F.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Name or address of the LBS: letters, digits, `.`, `-`, `_` and `:`, at most [`MAX_HOST`] bytes.
    pub host: String,
}

impl Redirect {
    /// Reads the XML of the body.
    ///
    /// # Errors
    /// [`BodyError`] when it is not such a document, or the name cannot be one.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let root = Element::parse_root(body, "Request")?;
        let host = root.child_text("DomainName", MAX_HOST)?;
        let part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        let name = !host.is_empty() && host.bytes().all(part_of_name);
        if name { Ok(Self { host: host.to_owned() }) } else { Err(BodyError::Unacceptable("DomainName")) }
    }

    /// Appends the XML of the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when the name cannot be one; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let mut text = String::from("<Request><DomainName>");
        escape(&self.host, &mut text)?;
        text.push_str("</DomainName></Request>");
        let start = out.len();
        out.extend_from_slice(text.as_bytes());
        check_written(out, start, |written| Ok(Self::parse(written)? == *self))
    }
}
