//! AUTH-I and AUTH-II (osap-wire 13.3).

use super::{MAX_AUTH_I, MessageError, VERSION, first};
use crate::id::Serial;
use crate::lbs::frame::{Frame, FrameError, build};
use crate::lbs::message::Group;
use crate::modern::schedule::{MAC_LEN, Mac, binder};
use crate::modern::secret::{Psk, TicketId};
use crate::modern::share::share_len;
use crate::result::ResultCode;
use crate::suite::Suite;
use crate::wire::Reader;

/// The ticket that an AUTH-I shows, with the proof that the device holds its PSK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The name of the ticket.
    pub ticket: TicketId,
    /// Over the whole frame before it.
    pub binder: Mac,
}

/// AUTH-I, first byte 0x1A, device → LBS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthI {
    /// The protocol type the rest of the frame is written for; it may be one nobody runs.
    pub protocol_type: u8,
    /// Every type the device would run.
    pub group: Group,
    /// 32 random bytes.
    pub nonce: [u8; 32],
    /// Who the device says it is.
    pub serial: Serial,
    /// The public key of types 8 and 16.
    pub share: Vec<u8>,
    /// The ticket, where one is shown.
    pub bound: Option<Bound>,
}

impl AuthI {
    /// The type and the group alone; what follows depends on the type.
    ///
    /// # Errors
    /// [`MessageError`] when the frame is no AUTH-I or the group is cut off.
    pub fn offer(bytes: &[u8]) -> Result<(u8, Group), MessageError> {
        let frame = Frame::decode(bytes)?;
        Self::read_offer(&frame).map(|(protocol_type, group, _)| (protocol_type, group))
    }

    fn read_offer<'a>(frame: &Frame<'a>) -> Result<(u8, Group, Reader<'a>), MessageError> {
        if frame.first != first::AUTH_I {
            return Err(MessageError::OutOfOrder(frame.first));
        }
        let mut reader = Reader::new(frame.body);
        let protocol_type = reader.u8()?;
        let count = reader.u8()?;
        let group = Group::new(reader.take(count.into())?).map_err(|_| MessageError::Group)?;
        Ok((protocol_type, group, reader))
    }

    /// Reads the whole frame.
    ///
    /// # Errors
    /// [`MessageError`] names the first field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MAX_AUTH_I {
            return Err(FrameError::TooLong { len: bytes.len(), max: MAX_AUTH_I }.into());
        }
        let frame = Frame::decode(bytes)?;
        let (protocol_type, group, mut reader) = Self::read_offer(&frame)?;
        if !group.contains(protocol_type) {
            return Err(MessageError::Group);
        }
        if reader.array::<3>()? != VERSION {
            return Err(MessageError::Version);
        }
        let nonce = reader.array()?;
        let serial_len = reader.u8()?;
        let serial = reader.take(serial_len.into())?;
        let serial = std::str::from_utf8(serial).map_err(|_| crate::id::SerialError::Character)?;
        let serial = Serial::new(serial)?;
        let share = reader.array().map(u16::from_be_bytes)?;
        let share = reader.take(share.into())?.to_vec();
        if Suite::from_protocol_type(protocol_type).is_some_and(|suite| share.len() != share_len(suite)) {
            return Err(MessageError::Length);
        }
        let bound = match reader.array().map(u16::from_be_bytes)? {
            0 => None,
            len if usize::from(len) == TicketId::LEN + MAC_LEN => {
                Some(Bound { ticket: TicketId::new(reader.array()?), binder: reader.array()? })
            }
            _ => return Err(MessageError::Length),
        };
        if !reader.is_empty() {
            return Err(MessageError::Length);
        }
        Ok(Self { protocol_type, group, nonce, serial, share, bound })
    }

    /// The complete frame, with the binder as it stands in `bound`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        build(first::AUTH_I, |out| {
            out.push(self.protocol_type);
            out.push(self.group.as_slice().len() as u8);
            out.extend_from_slice(self.group.as_slice());
            out.extend_from_slice(&VERSION);
            out.extend_from_slice(&self.nonce);
            let serial = self.serial.as_str().as_bytes();
            out.push(serial.len() as u8);
            out.extend_from_slice(serial);
            out.extend_from_slice(&(self.share.len() as u16).to_be_bytes());
            out.extend_from_slice(&self.share);
            match &self.bound {
                None => out.extend_from_slice(&[0; 2]),
                Some(Bound { ticket, binder }) => {
                    out.extend_from_slice(&((TicketId::LEN + MAC_LEN) as u16).to_be_bytes());
                    out.extend_from_slice(ticket.as_bytes());
                    out.extend_from_slice(binder);
                }
            }
        })
    }

    /// The complete frame that shows a ticket, bound by its PSK.
    #[must_use]
    pub fn encode_bound(mut self, ticket: TicketId, psk: &Psk) -> Vec<u8> {
        self.bound = Some(Bound { ticket, binder: [0; MAC_LEN] });
        let mut frame = self.encode();
        let proof = binder(psk, &frame);
        let at = frame.len() - MAC_LEN;
        frame[at..].copy_from_slice(&proof);
        frame
    }
}

/// AUTH-II, first byte 0x2A, LBS → device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthIi {
    /// The run goes on.
    Accepted {
        /// 32 random bytes.
        nonce: [u8; 32],
        /// The public key of types 8 and 16.
        share: Vec<u8>,
        /// Proves the LBS.
        mac: Mac,
    },
    /// It does not.
    Refused(ResultCode),
    /// Another type is to be run (osap-wire 5.10).
    Mismatch {
        /// The server's choice.
        protocol_type: u8,
        /// What else is usable on this transport; empty when the server did not say.
        group: Group,
    },
}

impl AuthIi {
    /// Reads the answer to an AUTH-I that offered `offered`.
    ///
    /// # Errors
    /// [`MessageError`] names the first field that is wrong.
    pub fn decode(bytes: &[u8], offered: Suite) -> Result<Self, MessageError> {
        let frame = Frame::decode(bytes)?;
        if frame.first != first::AUTH_II {
            return Err(MessageError::OutOfOrder(frame.first));
        }
        let mut reader = Reader::new(frame.body);
        let protocol_type = reader.u8()?;
        if protocol_type != offered.protocol_type() {
            return Self::read_mismatch(protocol_type, reader);
        }
        if reader.array::<3>()? != VERSION {
            return Err(MessageError::Version);
        }
        let answer = match ResultCode::from(reader.u8()?) {
            ResultCode::Success => {
                let nonce = reader.array()?;
                let share = reader.array().map(u16::from_be_bytes)?;
                let share = reader.take(share.into())?.to_vec();
                if share.len() != share_len(offered) || reader.array()? != [0; 2] {
                    return Err(MessageError::Length);
                }
                Self::Accepted { nonce, share, mac: reader.array()? }
            }
            result => Self::Refused(result),
        };
        if reader.is_empty() { Ok(answer) } else { Err(MessageError::Length) }
    }

    fn read_mismatch(protocol_type: u8, mut reader: Reader<'_>) -> Result<Self, MessageError> {
        // `version | 3`, and before it perhaps the group; another server may leave it out.
        let group = match reader.rest().len() {
            4 => Group::default(),
            _ => {
                let count = reader.u8()?;
                Group::new(reader.take(count.into())?).map_err(|_| MessageError::Group)?
            }
        };
        if reader.rest().len() == 4 { Ok(Self::Mismatch { protocol_type, group }) } else { Err(MessageError::Length) }
    }

    /// The complete frame; `offered` is the type of the AUTH-I it answers.
    #[must_use]
    pub fn encode(&self, offered: Suite) -> Vec<u8> {
        build(first::AUTH_II, |out| match self {
            Self::Accepted { nonce, share, mac } => {
                out.push(offered.protocol_type());
                out.extend_from_slice(&VERSION);
                out.push(0);
                out.extend_from_slice(nonce);
                out.extend_from_slice(&(share.len() as u16).to_be_bytes());
                out.extend_from_slice(share);
                out.extend_from_slice(&[0; 2]);
                out.extend_from_slice(mac);
            }
            Self::Refused(result) => {
                out.push(offered.protocol_type());
                out.extend_from_slice(&VERSION);
                out.push((*result).into());
            }
            Self::Mismatch { protocol_type, group } => {
                out.push(*protocol_type);
                out.push(group.as_slice().len() as u8);
                out.extend_from_slice(group.as_slice());
                out.extend_from_slice(&VERSION);
                out.push(ResultCode::InvalidData.into());
            }
        })
    }
}
