//! The bodies of the hub domain: the children behind a gateway (osap-wire 10.6).

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::member::{append_checked, entries, members, plain, text};
use super::topic::is_child;
use super::{BodyError, object};
use crate::id::Serial;
use crate::json;
use crate::key::Code;
use crate::suite::CodeCase;
use crate::suite::legacy::share_key;

/// The most children of one hub.
pub const MAX_CHILDREN: usize = 64;
/// The longest serial of a child, in bytes.
pub const MAX_SERIAL: usize = 72;
/// The longest version or type of a child, in bytes.
pub const MAX_WORD: usize = 64;

/// A child of a hub that has been accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child<'a> {
    /// Its serial: `<sub>` of its topics.
    pub serial: Cow<'a, str>,
    /// Whether the hub reaches it.
    pub connected: bool,
    /// Its firmware version.
    pub version: Cow<'a, str>,
    /// Its product.
    pub product: Cow<'a, str>,
    /// `FirmwareIdentificationCode`; empty in every hub seen.
    pub firmware_code: Cow<'a, str>,
}

/// All children of a hub: command 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Children<'a> {
    /// The hub never had any.
    Never,
    /// These, at most [`MAX_CHILDREN`]; none when the last one went.
    Now(Vec<Child<'a>>),
}

#[derive(Serialize)]
struct ChildShape<'a> {
    connected: u8,
    childdevid: &'a str,
    version: &'a str,
    r#type: &'a str,
    #[serde(rename = "FirmwareIdentificationCode")]
    firmware_code: &'a str,
}

impl<'a> Child<'a> {
    fn parse(entry: &'a str) -> Result<Self, BodyError> {
        let names = ["connected", "childdevid", "version", "type", "FirmwareIdentificationCode"];
        let [connected, serial, version, product, firmware_code] = members(entry, names)?;
        let word = |value: Option<&'a _>, name| value.map_or(Ok("".into()), |value| text(Some(value), name, MAX_WORD));
        Ok(Self {
            serial: child(serial, "childdevid")?,
            connected: flag(connected, "connected")?,
            version: word(version, "version")?,
            product: word(product, "type")?,
            firmware_code: word(firmware_code, "FirmwareIdentificationCode")?,
        })
    }
}

impl<'a> Children<'a> {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is neither an empty object nor a list of children within the limits.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let text = object(body)?;
        if text.starts_with('{') {
            let mut empty = true;
            json::for_each_member(text.as_bytes(), |_, _| empty = false).map_err(|_| BodyError::Malformed)?;
            return if empty { Ok(Self::Never) } else { Err(BodyError::Malformed) };
        }
        entries(text, "children", MAX_CHILDREN, Child::parse).map(Self::Now)
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when there are too many children, or one cannot be told; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let Self::Now(children) = self else {
            out.extend_from_slice(b"{}");
            return Ok(());
        };
        let shapes = children.iter().map(|child| ChildShape {
            connected: child.connected.into(),
            childdevid: &child.serial,
            version: &child.version,
            r#type: &child.product,
            firmware_code: &child.firmware_code,
        });
        let shapes: Vec<_> = shapes.collect();
        append_checked(out, &shapes, |written| Ok(Children::parse(written)? == *self))
    }
}

/// Which children the hub reaches and which it does not: command 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Online<'a> {
    /// Serial, and whether the hub reaches the child; at most [`MAX_CHILDREN`].
    pub children: Vec<(Cow<'a, str>, bool)>,
}

impl<'a> Online<'a> {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such a list within the limits.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let children = entries(object(body)?, "children", MAX_CHILDREN, |entry| {
            let [connected, serial] = members(entry, ["connected", "childdevid"])?;
            Ok((child(serial, "childdevid")?, flag(connected, "connected")?))
        })?;
        Ok(Self { children })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when there are too many children, or one cannot be told; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            connected: u8,
            childdevid: &'a str,
        }
        let shapes = self
            .children
            .iter()
            .map(|(serial, connected)| Shape { connected: (*connected).into(), childdevid: serial });
        let shapes: Vec<_> = shapes.collect();
        append_checked(out, &shapes, |written| Ok(Online::parse(written)? == *self))
    }
}

/// What a hub shows for a child: D3 of the child's code and serial (osap-wire 4.3), 32 upper-case hexadecimal digits.
///
/// It is a secret: whoever has it passes for a hub of that child. It does not print itself, is wiped when dropped and
/// compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ChildProof([u8; 32]);

impl ChildProof {
    /// The proof of a child.
    #[must_use]
    pub fn new(code: &Code, serial: &Serial) -> Self {
        Self(*share_key(code, serial, CodeCase::Upper).s1())
    }

    /// The digits, to be sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a proof is made of hexadecimal digits only")
    }

    fn read(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
        digits.then(|| text.as_bytes().try_into().ok().map(Self)).flatten()
    }
}

impl fmt::Debug for ChildProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChildProof(..)")
    }
}

impl PartialEq for ChildProof {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ChildProof {}

/// How a child is known (osap-wire 2 and 10.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// 0: by serial and code.
    Code,
    /// 1: by `type:name` and licence.
    Licence,
}

/// A hub vouches for a child: command 16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildAuth<'a> {
    /// The serial of the child, or `type:name`.
    pub serial: Cow<'a, str>,
    /// That the hub knows the child's code.
    pub proof: ChildProof,
    /// Which of the two the serial is.
    pub mode: AccessMode,
}

impl<'a> ChildAuth<'a> {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let names = ["childserial", "childverifycode", "devAccessMode"];
        let [serial, proof, mode] = members(object(body)?, names)?;
        let proof = text(proof, "childverifycode", 32)?;
        Ok(Self {
            serial: child(serial, "childserial")?,
            proof: ChildProof::read(&proof).ok_or(BodyError::Unacceptable("childverifycode"))?,
            mode: match flag(mode, "devAccessMode")? {
                false => AccessMode::Code,
                true => AccessMode::Licence,
            },
        })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when the serial is none of a child; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            childserial: &'a str,
            childverifycode: &'a str,
            #[serde(rename = "devAccessMode")]
            mode: u8,
        }
        let mode = u8::from(self.mode == AccessMode::Licence);
        let shape = Shape { childserial: &self.serial, childverifycode: self.proof.as_str(), mode };
        append_checked(out, &shape, |written| Ok(ChildAuth::parse(written)? == *self))
    }
}

/// Whether a child is accepted: command 17. A hub forgets a child that is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildVerdict<'a> {
    /// As in [`ChildAuth`].
    pub serial: Cow<'a, str>,
    /// Result 0; written as 0 or 1.
    pub accepted: bool,
}

impl<'a> ChildVerdict<'a> {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let [serial, result] = members(object(body)?, ["childserial", "result"])?;
        let result: i64 = plain(result, "result")?;
        Ok(Self { serial: child(serial, "childserial")?, accepted: result == 0 })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when the serial is none of a child; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            childserial: &'a str,
            result: u8,
        }
        let shape = Shape { childserial: &self.serial, result: (!self.accepted).into() };
        append_checked(out, &shape, |written| Ok(ChildVerdict::parse(written)? == *self))
    }
}

/// The serial of a child, which is a level of topics.
fn child<'a>(value: Option<&'a serde_json::value::RawValue>, name: &'static str) -> Result<Cow<'a, str>, BodyError> {
    let serial = text(value, name, MAX_SERIAL)?;
    if is_child(&serial) { Ok(serial) } else { Err(BodyError::Unacceptable(name)) }
}

/// 0 or 1.
fn flag(value: Option<&serde_json::value::RawValue>, name: &'static str) -> Result<bool, BodyError> {
    match plain(value, name)? {
        0_i64 => Ok(false),
        1 => Ok(true),
        _ => Err(BodyError::Unacceptable(name)),
    }
}
