//! The bodies of the base domain: time, owner, presence, profile (osap-wire 10.4).

use md5::{Digest, Md5};
use serde::Serialize;

use super::member::{append_checked, bare_url, check_written, digest, members, plain, plain_if, text, text_or_empty};
use super::xml::{Element, escape};
use super::{BodyError, object};
use crate::id::Serial;
use crate::wire::hex_lower;

/// The longest name of a time server, in bytes.
pub const MAX_ADDRESS: usize = 253;
/// The longest identity of a user, in bytes.
pub const MAX_USER: usize = 128;
/// The longest token a device binds itself with, in bytes.
pub const MAX_TOKEN: usize = 1024;
/// The longest place of a profile, in bytes.
pub const MAX_URL: usize = 512;
const MAX_ZONE: usize = 32;
const MAX_WORD: usize = 64;

/// The result of [`Owner`] that says that nobody owns the device.
const UNBOUND: u32 = 0x0010_1C02;

/// Where and how often a device asks for the time: command 0x0001.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ntp {
    /// Name or address of the time server.
    pub address: String,
    /// Its UDP port.
    pub port: u16,
    /// Seconds between two questions.
    pub interval_s: u32,
    /// The time zone of the device, as in `UTC+08:00`.
    pub timezone: String,
}

impl Ntp {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [ntp] = members(object(body)?, ["NTP"])?;
        let ntp = ntp.ok_or(BodyError::Missing("NTP"))?;
        let [address, port, interval, zone] = members(ntp.get(), ["Addr", "Port", "Interval", "Timezone"])?;
        Ok(Self {
            address: text(address, "Addr", MAX_ADDRESS)?.into_owned(),
            port: plain(port, "Port")?,
            interval_s: plain(interval, "Interval")?,
            timezone: text_or_empty(zone, "Timezone", MAX_ZONE)?,
        })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when a member is longer than a device takes; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Server<'a> {
            addr: &'a str,
            port: u16,
            interval: u32,
            timezone: &'a str,
        }
        #[derive(Serialize)]
        struct Shape<'a> {
            #[serde(rename = "NTP")]
            ntp: Server<'a>,
        }
        let Self { address: addr, port, interval_s: interval, timezone } = self;
        let shape = Shape { ntp: Server { addr, port: *port, interval: *interval, timezone } };
        append_checked(out, &shape, |written| Ok(Self::parse(written)? == *self))
    }

    /// Minutes east of Greenwich, where the zone is written as `UTC±hh:mm`.
    #[must_use]
    pub fn offset_minutes(&self) -> Option<i32> {
        let offset = self.timezone.strip_prefix("UTC")?;
        let east = match offset.as_bytes().first() {
            None => return Some(0),
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => return None,
        };
        let (hours, minutes) = offset[1..].split_once(':')?;
        let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(hours) || !digits(minutes) {
            return None;
        }
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours <= 14 && minutes < 60).then_some(east * (hours * 60 + minutes))
    }
}

/// What a device sends to ask who owns it, 0x3445, and SDK 1.5.2 to take its leave, 0x2807: its serial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The serial of the device.
    pub serial: Serial,
}

impl Request {
    /// Reads the XML of the body.
    ///
    /// # Errors
    /// [`BodyError`] when it is not such a document, or names no serial.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let root = Element::parse_root(body, "Request")?;
        let serial = root.child_text("DevSerial", Serial::MAX)?;
        Ok(Self { serial: Serial::new(serial).map_err(|_| BodyError::Unacceptable("DevSerial"))? })
    }

    /// Appends the XML of the body to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut text = String::from("<Request><DevSerial>");
        escape(self.serial.as_str(), &mut text).expect("a serial is visible ASCII");
        text.push_str("</DevSerial><Authorization></Authorization></Request>");
        out.extend_from_slice(text.as_bytes());
    }
}

/// Who owns a device: command 0x3446.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The user of that identity, 1 to [`MAX_USER`] bytes.
    User(String),
    /// Nobody.
    Nobody,
    /// The platform cannot say, for this reason of its own.
    Unknown(u32),
}

impl Owner {
    /// Reads the XML of the body.
    ///
    /// # Errors
    /// [`BodyError`] when it is not such a document.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let root = Element::parse_root(body, "Response")?;
        match result(&root)? {
            0 => match root.child("User").and_then(|user| user.attribute("Id")) {
                None | Some("") => Ok(Self::Nobody),
                Some(id) if id.len() <= MAX_USER => Ok(Self::User(id.to_owned())),
                Some(_) => Err(BodyError::Unacceptable("User")),
            },
            UNBOUND => Ok(Self::Nobody),
            reason => Ok(Self::Unknown(reason)),
        }
    }

    /// Appends the XML of the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when the identity is empty, too long or not text that XML can carry, or the reason is a result
    /// that means something else; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let mut text = String::from("<Response><Result>");
        match self {
            Self::User(id) => {
                text.push_str("0</Result><User Id=\"");
                escape(id, &mut text)?;
                text.push_str("\"/></Response>");
            }
            Self::Nobody => text.push_str(&format!("{UNBOUND}</Result></Response>")),
            Self::Unknown(reason) => text.push_str(&format!("{reason}</Result></Response>")),
        }
        let start = out.len();
        out.extend_from_slice(text.as_bytes());
        check_written(out, start, |written| Ok(Self::parse(written)? == *self))
    }
}

/// Whose the device is from now on: command 0x4947, answered under the same number with [`Binding::parse_answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The new owner, 1 to [`MAX_USER`] bytes; `None` when the device was unbound.
    pub user: Option<String>,
}

impl Binding {
    /// Reads the XML of the body.
    ///
    /// # Errors
    /// [`BodyError`] when it is not such a document.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let root = Element::parse_root(body, "Request")?;
        let user = root.child_text("UserId", MAX_USER)?;
        Ok(Self { user: (!user.is_empty()).then(|| user.to_owned()) })
    }

    /// Appends the XML of the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when the identity is empty, too long or not text that XML can carry; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let mut text = String::from("<Request><UserId>");
        escape(self.user.as_deref().unwrap_or_default(), &mut text)?;
        text.push_str("</UserId></Request>");
        let start = out.len();
        out.extend_from_slice(text.as_bytes());
        check_written(out, start, |written| Ok(Self::parse(written)? == *self))
    }

    /// Reads the answer of a device: 0 when it has taken note.
    ///
    /// # Errors
    /// [`BodyError`] when it is not such a document.
    pub fn parse_answer(body: &[u8]) -> Result<u32, BodyError> {
        result(&Element::parse_root(body, "Response")?)
    }

    /// Appends the answer to `out`.
    pub fn write_answer(code: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("<Response><Result>{code}</Result></Response>").as_bytes());
    }
}

fn result(response: &Element<'_>) -> Result<u32, BodyError> {
    let number = response.child_text("Result", MAX_WORD)?;
    number.parse().map_err(|_| BodyError::Unacceptable("Result"))
}

/// A device binds itself to the user that gave it a token: command 0x3802.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindToken {
    /// The token, 1 to [`MAX_TOKEN`] bytes.
    pub token: String,
}

impl BindToken {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body has no such token.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [token] = members(object(body)?, ["token"])?;
        let token = text(token, "token", MAX_TOKEN)?.into_owned();
        if token.is_empty() { Err(BodyError::Unacceptable("token")) } else { Ok(Self { token }) }
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when the token is empty or too long; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            token: &'a str,
        }
        append_checked(out, &Shape { token: &self.token }, |written| Ok(Self::parse(written)? == *self))
    }
}

/// Somebody has to prove that they are at the device: command 0x4F14.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// What the proof is made of.
    pub token: u64,
    /// For how many seconds the device waits for somebody.
    pub period_s: u32,
}

impl Challenge {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [token, period] = members(object(body)?, ["token", "bindPeriod"])?;
        Ok(Self { token: plain(token, "token")?, period_s: plain(period, "bindPeriod")? })
    }

    /// Appends the body to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { token, period_s } = self;
        out.extend_from_slice(format!(r#"{{"token":{token},"bindPeriod":{period_s}}}"#).as_bytes());
    }

    /// What the device sends once somebody was there.
    #[must_use]
    pub fn presence(&self) -> Presence {
        Presence { token: self.token.wrapping_add(1) }
    }
}

/// Somebody was at the device: command 0x3808. See [`Challenge::presence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// One more than the token of the challenge.
    pub token: u64,
}

impl Presence {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [token] = members(object(body)?, ["token"])?;
        Ok(Self { token: plain(token, "token")? })
    }

    /// Appends the body to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!(r#"{{"token":{}}}"#, self.token).as_bytes());
    }
}

/// `{"result":0}`: the answer to [`Challenge`], and ours to what devices want no answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// 0 is success.
    pub result: i64,
}

impl Outcome {
    /// It went well.
    pub const OK: Self = Self { result: 0 };

    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [result] = members(object(body)?, ["result"])?;
        Ok(Self { result: plain(result, "result")? })
    }

    /// Appends the body to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!(r#"{{"result":{}}}"#, self.result).as_bytes());
    }
}

/// A device asks for its thing model: command 0x3870.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileQuery {
    /// The serial of the device.
    pub serial: Serial,
    /// The product ("pid", `DevType` of the login record).
    pub product: String,
    /// The firmware version.
    pub version: String,
    /// The version of the profile's form; `3.0`.
    pub profile_version: String,
    /// Whether the device wants the schemas too; without, the tree is enough.
    pub require_schema: bool,
}

impl ProfileQuery {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let names = ["devSerial", "pid", "version", "profileVersion", "requireSchema"];
        let [serial, product, version, profile_version, require_schema] = members(object(body)?, names)?;
        let serial = text(serial, "devSerial", Serial::MAX)?;
        Ok(Self {
            serial: Serial::new(&serial).map_err(|_| BodyError::Unacceptable("devSerial"))?,
            product: text(product, "pid", MAX_WORD)?.into_owned(),
            version: text_or_empty(version, "version", MAX_WORD)?,
            profile_version: text_or_empty(profile_version, "profileVersion", MAX_WORD)?,
            require_schema: plain_if(require_schema, "requireSchema")?.unwrap_or(true),
        })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when a member is too long; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            dev_serial: &'a str,
            pid: &'a str,
            version: &'a str,
            profile_version: &'a str,
            require_schema: bool,
        }
        let shape = Shape {
            dev_serial: self.serial.as_str(),
            pid: &self.product,
            version: &self.version,
            profile_version: &self.profile_version,
            require_schema: self.require_schema,
        };
        append_checked(out, &shape, |written| Ok(Self::parse(written)? == *self))
    }
}

/// Where the thing model of a device is: command 0x3871.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileAnswer {
    /// The serial of the device.
    pub serial: Serial,
    /// `host:port/path`; the device puts `http://` in front.
    pub url: String,
    /// For how many seconds the place is good.
    pub expire_s: u32,
    /// The MD5 digest of the document.
    pub md5: [u8; 16],
}

impl ProfileAnswer {
    /// The answer that sends a device to this document.
    #[must_use]
    pub fn of(serial: Serial, url: String, expire_s: u32, document: &[u8]) -> Self {
        Self { serial, url, expire_s, md5: Md5::digest(document).into() }
    }

    /// Whether this is the document that was meant.
    #[must_use]
    pub fn is_of(&self, document: &[u8]) -> bool {
        self.md5 == <[u8; 16]>::from(Md5::digest(document))
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object; a place with a scheme is none.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [serial, url, expire, md5] = members(object(body)?, ["devSerial", "url", "expire", "md5"])?;
        let serial = text(serial, "devSerial", Serial::MAX)?;
        Ok(Self {
            serial: Serial::new(&serial).map_err(|_| BodyError::Unacceptable("devSerial"))?,
            url: bare_url(url, "url", MAX_URL)?,
            expire_s: plain(expire, "expire")?,
            md5: digest(md5, "md5")?,
        })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when the place is empty, too long, has a scheme or invisible characters; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            dev_serial: &'a str,
            url: &'a str,
            expire: u32,
            md5: &'a str,
        }
        let md5: [u8; 32] = hex_lower(&self.md5);
        let md5 = std::str::from_utf8(&md5).map_err(|_| BodyError::Malformed)?;
        let shape = Shape { dev_serial: self.serial.as_str(), url: &self.url, expire: self.expire_s, md5 };
        append_checked(out, &shape, |written| Ok(Self::parse(written)? == *self))
    }
}
