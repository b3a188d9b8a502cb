//! AUTH-I and AUTH-II with their negotiation headers (osap-wire 3.2, 5.1, 5.2, 5.10).

use super::{Frame, MessageError, VERSION, VERSION_AUTH_I, expect, expect_end, first};
use crate::ResultCode;
use crate::id::Serial;
use crate::lbs::frame::build;
use crate::suite::legacy::{PUBLIC_KEY_LEN, TAG_LEN};
use crate::wire::Reader;

/// The most protocol types a variable header has room for.
pub const MAX_GROUP: usize = 14;

/// A list of protocol types, at most [`MAX_GROUP`].
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Group {
    len: u8,
    types: [u8; MAX_GROUP],
}

impl Group {
    /// Takes a list of protocol types.
    ///
    /// # Errors
    /// [`MessageError::Group`] when it is longer than [`MAX_GROUP`].
    pub fn new(types: &[u8]) -> Result<Self, MessageError> {
        let mut group = Self::default();
        let room = group.types.get_mut(..types.len()).ok_or(MessageError::Group)?;
        room.copy_from_slice(types);
        group.len = types.len() as u8;
        Ok(group)
    }

    /// The types, in the order they were sent.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.types[..usize::from(self.len)]
    }

    /// Whether the list names `protocol_type`.
    #[must_use]
    pub fn contains(&self, protocol_type: u8) -> bool {
        self.as_slice().contains(&protocol_type)
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// The variable header of AUTH-I: the type the device wants to run and those it could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The type the rest of the frame is written for.
    pub protocol_type: u8,
    /// Every type the device supports.
    pub group: Group,
}

impl Offer {
    /// Reads the variable header alone; what follows depends on the type it names.
    ///
    /// # Errors
    /// [`MessageError`] when the frame is no AUTH-I or the header is cut off.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        Ok(Self::read(frame)?.0)
    }

    fn read<'a>(frame: &Frame<'a>) -> Result<(Self, Reader<'a>), MessageError> {
        expect(frame, first::AUTH_I)?;
        let mut reader = Reader::new(frame.body);
        let protocol_type = reader.u8()?;
        let count = reader.u8()?;
        if usize::from(count) > MAX_GROUP {
            return Err(MessageError::Group);
        }
        let group = Group::new(reader.take(count.into())?)?;
        Ok((Self { protocol_type, group }, reader))
    }
}

/// How a device names itself (osap-wire 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AuthMode {
    /// 0, "SAP": a short serial and a printed code.
    #[default]
    Sap,
    /// 1, "licence": `productKey:deviceName` and a licence string.
    Licence,
}

impl AuthMode {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Sap => 0,
            Self::Licence => 1,
        }
    }

    pub(super) fn from_number(number: u8) -> Result<Self, MessageError> {
        match number {
            0 => Ok(Self::Sap),
            1 => Ok(Self::Licence),
            other => Err(MessageError::Mode(other)),
        }
    }
}

/// AUTH-I of protocol type 1, first byte 0x1A (osap-wire 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthI {
    /// The variable header.
    pub offer: Offer,
    /// Authentication mode.
    pub mode: AuthMode,
    /// Who the device says it is.
    pub serial: Serial,
    /// L-GCM tag of the key.
    pub tag: [u8; TAG_LEN],
    /// The device's public key under the share key.
    pub sealed_key: [u8; PUBLIC_KEY_LEN],
}

impl AuthI {
    /// Reads the message.
    ///
    /// # Errors
    /// [`MessageError`] names the first field that is wrong.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, MessageError> {
        let (offer, mut reader) = Offer::read(frame)?;
        let (mode, serial) = read_name(&mut reader)?;
        let tag = reader.array()?;
        let sealed_key = reader.array()?;
        expect_end(reader)?;
        Ok(Self { offer, mode: AuthMode::from_number(mode)?, serial, tag, sealed_key })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        build(first::AUTH_I, |out| {
            out.push(self.offer.protocol_type);
            out.push(self.offer.group.len);
            out.extend_from_slice(self.offer.group.as_slice());
            write_name(out, self.mode.number(), &self.serial);
            out.extend_from_slice(&self.tag);
            out.extend_from_slice(&self.sealed_key);
        })
    }
}

/// Reads `version | mode | length | serial`, the head every generation's AUTH-I has.
pub(super) fn read_name(reader: &mut Reader<'_>) -> Result<(u8, Serial), MessageError> {
    reader.array::<3>()?;
    let mode = reader.u8()?;
    let len = reader.u8()?;
    Ok((mode, read_serial(reader.take(len.into())?)?))
}

pub(super) fn read_serial(bytes: &[u8]) -> Result<Serial, MessageError> {
    let text = std::str::from_utf8(bytes).map_err(|_| crate::id::SerialError::Character)?;
    Ok(Serial::new(text)?)
}

/// Writes `version | mode | length | serial`.
pub(super) fn write_name(out: &mut Vec<u8>, mode: u8, serial: &Serial) {
    out.extend_from_slice(&VERSION_AUTH_I);
    out.push(mode);
    // A serial has at most 71 bytes.
    out.push(serial.as_str().len() as u8);
    out.extend_from_slice(serial.as_str().as_bytes());
}

/// The serial an AUTH-I of generation G0 or G1 names, so that a refusal can say whose it was.
pub(crate) fn serial_named(frame: &Frame<'_>) -> Option<Serial> {
    let mut reader = Reader::new(frame.body);
    read_name(&mut reader).ok().map(|(_, serial)| serial)
}

/// AUTH-II, first byte 0x2A (osap-wire 5.2 and 5.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthIi {
    /// The server goes on with the type that was offered.
    Accepted {
        /// The type offered.
        protocol_type: u8,
        /// L-GCM tag of the key.
        tag: [u8; TAG_LEN],
        /// The server's public key under the share key.
        sealed_key: [u8; PUBLIC_KEY_LEN],
    },
    /// The server refuses the device.
    Refused {
        /// The type offered.
        protocol_type: u8,
        /// Why.
        result: ResultCode,
    },
    /// The server does not serve the type that was offered.
    Mismatch {
        /// The type the server would run with this device.
        protocol_type: u8,
        /// The types the server serves, where it says so.
        group: Option<Group>,
    },
}

impl AuthIi {
    /// Reads the answer to an AUTH-I that offered `offered`. Nothing in the frame announces a
    /// group: it is there when the type differs from the one offered and the length fits.
    ///
    /// # Errors
    /// [`MessageError`] names the first field that is wrong.
    pub fn decode(frame: &Frame<'_>, offered: u8) -> Result<Self, MessageError> {
        expect(frame, first::AUTH_II)?;
        let mut reader = Reader::new(frame.body);
        let protocol_type = reader.u8()?;
        if protocol_type != offered {
            return Ok(Self::Mismatch { protocol_type, group: read_group(reader.rest()) });
        }
        reader.array::<3>()?;
        let result = ResultCode::from(reader.u8()?);
        if result != ResultCode::Success {
            return Ok(Self::Refused { protocol_type, result });
        }
        let tag = reader.array()?;
        let sealed_key = reader.array()?;
        expect_end(reader)?;
        Ok(Self::Accepted { protocol_type, tag, sealed_key })
    }

    /// The complete frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        build(first::AUTH_II, |out| match self {
            Self::Accepted { protocol_type, tag, sealed_key } => {
                out.push(*protocol_type);
                out.extend_from_slice(&VERSION);
                out.push(ResultCode::Success.into());
                out.extend_from_slice(tag);
                out.extend_from_slice(sealed_key);
            }
            Self::Refused { protocol_type, result } => {
                out.push(*protocol_type);
                out.extend_from_slice(&VERSION);
                out.push((*result).into());
            }
            Self::Mismatch { protocol_type, group } => {
                out.push(*protocol_type);
                if let Some(group) = group {
                    out.push(group.len);
                    out.extend_from_slice(group.as_slice());
                }
                out.extend_from_slice(&VERSION);
                out.push(ResultCode::InvalidData.into());
            }
        })
    }
}

/// The group of a mismatch answer: `count | types` in front of `version | result`, so the length
/// is five more than the count; otherwise there is none.
fn read_group(after_type: &[u8]) -> Option<Group> {
    let (&count, rest) = after_type.split_first()?;
    if rest.len() != usize::from(count) + 4 {
        return None;
    }
    Group::new(rest.get(..usize::from(count))?).ok()
}
