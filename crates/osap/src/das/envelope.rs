//! The envelope of every PUBLISH: a general part and an application part under the session key
//! (osap-wire 9.6).

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::cipher::SessionCipher;
use crate::json;

/// Whether a message asks or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MsgType {
    /// 1.
    Request,
    /// 2.
    Response,
}

impl MsgType {
    fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
        }
    }
}

/// The general part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct General<'a> {
    /// Numbers the requests of one side; a response repeats the number of its request.
    pub seq: u64,
    /// Version of the command. Devices compare it nowhere and some send none; the platform always
    /// sends one.
    pub cmd_ver: Option<Cow<'a, str>>,
    /// Request or response, where the message says so. Decides on `/d/c` topics only.
    pub msg_type: Option<MsgType>,
}

/// What a payload contained, in place.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The general part.
    pub general: General<'a>,
    /// The application part, possibly empty.
    pub application: &'a [u8],
}

/// Why a payload is not a message. To the device both are answered alike (osap-wire 13.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The payload does not open under the session key.
    #[error("the payload does not open under the session key")]
    Undecryptable,
    /// It opens, and its general part is not what it should be.
    #[error("the general part of the message cannot be read")]
    General,
}

/// The general part is longer than its length field can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the general part of the message is longer than 65535 bytes")]
pub struct TooLong;

/// Opens a payload in place.
///
/// # Errors
/// [`EnvelopeError`].
pub fn open<'a>(cipher: &SessionCipher, payload: &'a mut [u8]) -> Result<Opened<'a>, EnvelopeError> {
    let plaintext: &'a [u8] = cipher.open(payload).map_err(|_| EnvelopeError::Undecryptable)?;
    read(plaintext)
}

/// Reads the plaintext of a payload, whatever it was sealed with.
///
/// # Errors
/// [`EnvelopeError::General`].
pub fn read(plaintext: &[u8]) -> Result<Opened<'_>, EnvelopeError> {
    let (len, rest) = plaintext.split_first_chunk::<2>().ok_or(EnvelopeError::General)?;
    let len = usize::from(u16::from_be_bytes(*len));
    let (general, application) = rest.split_at_checked(len).ok_or(EnvelopeError::General)?;
    Ok(Opened { general: General::decode(general).ok_or(EnvelopeError::General)?, application })
}

/// Appends the sealed message to `out`.
///
/// # Errors
/// [`TooLong`]; `out` is as before then.
pub fn seal(
    cipher: &SessionCipher,
    general: &General<'_>,
    application: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TooLong> {
    let start = out.len();
    write(general, application, out)?;
    cipher.seal_tail(out, start);
    Ok(())
}

/// Appends the plaintext of a message to `out`: `u16 L | general | application`.
///
/// # Errors
/// [`TooLong`]; `out` is as before then.
pub fn write(general: &General<'_>, application: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    general.write(&mut *out);
    let Ok(len) = u16::try_from(out.len() - start - 2) else {
        out.truncate(start);
        return Err(TooLong);
    };
    out[start..start + 2].copy_from_slice(&len.to_be_bytes());
    out.extend_from_slice(application);
    Ok(())
}

/// The length of the payload that [`seal`] appends.
#[must_use]
pub fn sealed_len(general: &General<'_>, application: usize) -> usize {
    SessionCipher::sealed_len(plain_len(general, application))
}

/// The length of the plaintext that [`write()`] appends.
#[must_use]
pub fn plain_len(general: &General<'_>, application: usize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    general.write(&mut count);
    2 + count.0 + application
}

impl<'a> General<'a> {
    /// A request with all three members, as the platform sends them.
    #[must_use]
    pub fn request(seq: u64, cmd_ver: &'a str) -> Self {
        Self { seq, cmd_ver: Some(cmd_ver.into()), msg_type: Some(MsgType::Request) }
    }

    /// A response with all three members.
    #[must_use]
    pub fn response(seq: u64, cmd_ver: &'a str) -> Self {
        Self { seq, cmd_ver: Some(cmd_ver.into()), msg_type: Some(MsgType::Response) }
    }

    /// The number alone, as devices send it on `/iot` topics.
    #[must_use]
    pub fn bare(seq: u64) -> Self {
        Self { seq, cmd_ver: None, msg_type: None }
    }

    fn write(&self, to: impl std::io::Write) {
        serde_json::to_writer(to, self).expect("memory takes every byte");
    }

    fn decode(text: &'a [u8]) -> Option<Self> {
        let (mut seq, mut cmd_ver, mut msg_type) = (None, None, None);
        json::for_each_member(text, |name, value| match name {
            "Seq" => seq = serde_json::from_str::<u64>(value.get()).ok(),
            "CmdVer" => cmd_ver = json::string(value),
            "MsgType" => {
                msg_type = match json::integer(value) {
                    Some(1) => Some(MsgType::Request),
                    Some(2) => Some(MsgType::Response),
                    _ => None,
                }
            }
            _ => {}
        })
        .ok()?;
        Some(Self { seq: seq?, cmd_ver, msg_type })
    }
}

impl Serialize for General<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(cmd_ver) = &self.cmd_ver {
            map.serialize_entry("CmdVer", cmd_ver)?;
        }
        map.serialize_entry("Seq", &self.seq)?;
        if let Some(msg_type) = self.msg_type {
            map.serialize_entry("MsgType", &msg_type.number())?;
        }
        map.end()
    }
}
