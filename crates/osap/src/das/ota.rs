//! The bodies of firmware updates, module `ota`, resource `0-global` (osap-wire 10.3).

use serde::Serialize;

use super::member::{append_checked, bare_url, digest, list, members, plain, plain_if, text, text_or_empty};
use super::reply::hexadecimal;
use super::{BodyError, object};
use crate::wire::hex_lower;

/// The module of the topics.
pub const MODULE: &str = "ota";
/// The method of [`Inform`], message type `report`.
pub const INFORM: &str = "inform";
/// The method of [`Progress`], message type `report`.
pub const PROGRESS: &str = "progress";
/// The method of [`Upgrade`] and [`UpgradeReply`], message types `operate` and `operate_reply`.
pub const UPGRADE: &str = "upgrade";

/// The most modules of a device, and the most files of an upgrade.
pub const MAX_MODULES: usize = 64;
/// The longest place of a file, in bytes: devices have room for fewer than 270.
pub const MAX_URL: usize = 269;
/// The longest name of a module or version, in bytes.
pub const MAX_WORD: usize = 64;
const MAX_MESSAGE: usize = 256;
const MAX_SIGNATURE: usize = 512;

/// What firmware a device runs: `inform/report`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inform {
    /// Its modules, at most [`MAX_MODULES`].
    pub modules: Vec<Module>,
    /// The version of the whole.
    pub version: String,
}

/// One module of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Where it stands in the device's own list.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The version it runs.
    pub version: String,
}

impl Inform {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object within the limits.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [modules, version] = members(object(body)?, ["modules", "ver"])?;
        let modules = list(modules, "modules", MAX_MODULES, |entry| {
            let [index, name, version] = members(entry, ["index", "module", "fw_ver"])?;
            Ok(Module {
                index: plain_if(index, "index")?.unwrap_or(0),
                name: text(name, "module", MAX_WORD)?.into_owned(),
                version: text(version, "fw_ver", MAX_WORD)?.into_owned(),
            })
        })?;
        Ok(Self { modules, version: text_or_empty(version, "ver", MAX_WORD)? })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when a text is too long or there are too many modules; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct ModuleShape<'a> {
            index: u32,
            module: &'a str,
            fw_ver: &'a str,
        }
        #[derive(Serialize)]
        struct Shape<'a> {
            modules: Vec<ModuleShape<'a>>,
            ver: &'a str,
        }
        fn shape(Module { index, name, version }: &Module) -> ModuleShape<'_> {
            ModuleShape { index: *index, module: name, fw_ver: version }
        }
        let shape = Shape { modules: self.modules.iter().map(shape).collect(), ver: &self.version };
        append_checked(out, &shape, |written| Ok(Self::parse(written)? == *self))
    }
}

/// How far an upgrade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// 0: the order is understood.
    Ready,
    /// 1: about to begin.
    Starting,
    /// 2: the file is on its way.
    Downloading,
    /// 3: the file is there.
    Downloaded,
    /// 4: it is being written.
    Burning,
    /// 5: it is written.
    Burnt,
    /// 6: the device starts it.
    Rebooting,
    /// 7: the new firmware runs.
    Succeeded,
    /// 8: it does not; the code says why.
    Failed,
}

impl Status {
    const ALL: [Self; 9] = [
        Self::Ready,
        Self::Starting,
        Self::Downloading,
        Self::Downloaded,
        Self::Burning,
        Self::Burnt,
        Self::Rebooting,
        Self::Succeeded,
        Self::Failed,
    ];

    /// As it travels.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The status of that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether no further report follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Why an upgrade failed, or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// 0: it did not.
    Success,
    /// 0x00500032: the file has another size than announced.
    SizeMismatch,
    /// 0x00500033: the file does not fit.
    TooLarge,
    /// 0x00500034: the name of the server is not found.
    Dns,
    /// 0x00500035: the file could not be fetched.
    Download,
    /// 0x00500036: the file has another digest.
    Digest,
    /// 0x00500037: the signature is not the right one.
    Signature,
    /// 0x00500038: the file is damaged.
    Damaged,
    /// 0x00500039: no memory.
    Memory,
    /// 0x0050003A: the file could not be written.
    Burn,
    /// 0x0050003B: the device does not know why.
    Unknown,
    /// 0x0050003C: somebody cancelled it.
    Cancelled,
    /// 0x0050003D: the device went back to its old firmware.
    Recovered,
    /// 0x0050003E: the controller behind the device failed.
    AttachedMcu,
    /// Another code of the device.
    Other(u32),
}

impl Code {
    const FIRST: u32 = 0x0050_0032;
    const FAILURES: [Self; 13] = [
        Self::SizeMismatch,
        Self::TooLarge,
        Self::Dns,
        Self::Download,
        Self::Digest,
        Self::Signature,
        Self::Damaged,
        Self::Memory,
        Self::Burn,
        Self::Unknown,
        Self::Cancelled,
        Self::Recovered,
        Self::AttachedMcu,
    ];

    /// As it travels.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Success => 0,
            Self::Other(number) => number,
            failure => (Self::FIRST..).zip(Self::FAILURES).find(|(_, other)| *other == failure).map_or(0, |(n, _)| n),
        }
    }
}

impl From<u32> for Code {
    fn from(number: u32) -> Self {
        if number == 0 {
            return Self::Success;
        }
        let at = number.checked_sub(Self::FIRST).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| Self::FAILURES.get(at).copied()).unwrap_or(Self::Other(number))
    }
}

/// How far an upgrade of a module is: `progress/report`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The module.
    pub module: String,
    /// The step.
    pub status: Status,
    /// 0 to 100, of that step.
    pub percent: u8,
    /// Why it failed.
    pub code: Code,
    /// Words of the device; may be empty.
    pub message: String,
}

impl Progress {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let names = ["module", "status", "process", "code", "errorMsg"];
        let [module, status, percent, code, message] = members(object(body)?, names)?;
        let percent = plain_if(percent, "process")?.unwrap_or(0);
        if percent > 100 {
            return Err(BodyError::Unacceptable("process"));
        }
        Ok(Self {
            module: text(module, "module", MAX_WORD)?.into_owned(),
            status: Status::from_number(plain(status, "status")?).ok_or(BodyError::Unacceptable("status"))?,
            percent,
            code: code.map_or(Ok(0), |code| number(Some(code)))?.into(),
            message: text_or_empty(message, "errorMsg", MAX_MESSAGE)?,
        })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when a text is too long, the progress is beyond 100, or the code is [`Code::Other`] of one that
    /// has a name; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            status: u8,
            process: u8,
            code: String,
            #[serde(rename = "errorMsg")]
            message: &'a str,
            module: &'a str,
        }
        let shape = Shape {
            status: self.status.number(),
            process: self.percent,
            code: format!("{:#010x}", self.code.number()),
            message: &self.message,
            module: &self.module,
        };
        append_checked(out, &shape, |written| Ok(Self::parse(written)? == *self))
    }
}

/// The order to upgrade: `upgrade/operate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// How often a broken download is taken up again.
    pub max_try: u32,
    /// `interval`; known clients take up a download without a pause whatever it says.
    pub interval: u32,
    /// What to fetch, at most [`MAX_MODULES`] files.
    pub files: Vec<File>,
}

/// The firmware of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The module.
    pub module: String,
    /// `host/path` without scheme, at most [`MAX_URL`] bytes.
    pub url: String,
    /// The MD5 digest of the file (`degist` on the wire).
    pub md5: [u8; 16],
    /// The version the file holds.
    pub version: String,
    /// Its size, in bytes.
    pub size: u64,
    /// The difference from another version, where there is one.
    pub diff: Option<Diff>,
    /// The SHA-256 digest of the file; our own devices look at it (osap-wire 13.5).
    pub sha256: Option<[u8; 32]>,
    /// The signature of the operator over the file's manifest (osap-wire 13.5).
    pub signature: Option<String>,
    /// Which key of the operator signed (osap-wire 13.5).
    pub key_id: Option<String>,
}

/// The difference between two versions of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// `host/path` without scheme, at most [`MAX_URL`] bytes.
    pub url: String,
    /// The MD5 digest of the file.
    pub md5: [u8; 16],
    /// The version it applies to (`fw_ver_dst` on the wire).
    pub version: String,
    /// Its size, in bytes.
    pub size: u64,
}

impl Upgrade {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object within the limits; a place with a scheme is none.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [max_try, interval, files] = members(object(body)?, ["maxtry", "interval", "file_info"])?;
        Ok(Self {
            max_try: plain_if(max_try, "maxtry")?.unwrap_or(1),
            interval: plain_if(interval, "interval")?.unwrap_or(0),
            files: list(files, "file_info", MAX_MODULES, File::parse)?,
        })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when a text or the whole is beyond the limits, or a place has a scheme; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            maxtry: u32,
            interval: u32,
            file_info: Vec<FileShape<'a>>,
        }
        let files = self.files.iter().map(File::shape).collect();
        let shape = Shape { maxtry: self.max_try, interval: self.interval, file_info: files };
        append_checked(out, &shape, |written| Ok(Self::parse(written)? == *self))
    }
}

#[derive(Serialize)]
struct FileShape<'a> {
    module: &'a str,
    url: &'a str,
    degist: String,
    fw_ver: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    diffs: Option<DiffShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<&'a str>,
    #[serde(rename = "keyId", skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
}

#[derive(Serialize)]
struct DiffShape<'a> {
    url: &'a str,
    degist: String,
    fw_ver_dst: &'a str,
    size: u64,
}

impl File {
    fn parse(entry: &str) -> Result<Self, BodyError> {
        let names = ["module", "url", "degist", "fw_ver", "size", "diffs", "sha256", "sig", "keyId"];
        let [module, url, md5, version, size, diff, sha256, signature, key_id] = members(entry, names)?;
        let word =
            |value: Option<_>, name, max| value.map(|value| text(Some(value), name, max).map(String::from)).transpose();
        Ok(Self {
            module: text(module, "module", MAX_WORD)?.into_owned(),
            url: bare_url(url, "url", MAX_URL)?,
            md5: digest(md5, "degist")?,
            version: text(version, "fw_ver", MAX_WORD)?.into_owned(),
            size: plain(size, "size")?,
            diff: diff.map(|diff| Diff::parse(diff.get())).transpose()?,
            sha256: sha256.map(|sha256| digest(Some(sha256), "sha256")).transpose()?,
            signature: word(signature, "sig", MAX_SIGNATURE)?,
            key_id: word(key_id, "keyId", MAX_WORD)?,
        })
    }

    fn shape(&self) -> FileShape<'_> {
        FileShape {
            module: &self.module,
            url: &self.url,
            degist: md5_text(&self.md5),
            fw_ver: &self.version,
            size: self.size,
            diffs: self.diff.as_ref().map(|diff| DiffShape {
                url: &diff.url,
                degist: md5_text(&diff.md5),
                fw_ver_dst: &diff.version,
                size: diff.size,
            }),
            sha256: self.sha256.map(|sha256| hex_lower::<64>(&sha256).map(char::from).iter().collect()),
            sig: self.signature.as_deref(),
            key_id: self.key_id.as_deref(),
        }
    }
}

impl Diff {
    fn parse(entry: &str) -> Result<Self, BodyError> {
        let [url, md5, version, size] = members(entry, ["url", "degist", "fw_ver_dst", "size"])?;
        Ok(Self {
            url: bare_url(url, "url", MAX_URL)?,
            md5: digest(md5, "degist")?,
            version: text(version, "fw_ver_dst", MAX_WORD)?.into_owned(),
            size: plain(size, "size")?,
        })
    }
}

fn md5_text(md5: &[u8; 16]) -> String {
    hex_lower::<32>(md5).map(char::from).iter().collect()
}

/// Whether a device begins an upgrade: `upgrade/operate_reply`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeReply {
    /// 0 when it does.
    pub code: u32,
    /// Words of the device; may be empty.
    pub message: String,
}

impl UpgradeReply {
    /// The device begins.
    #[must_use]
    pub fn accepted() -> Self {
        Self { code: 0, message: "Succeeded".to_owned() }
    }

    /// It does not, for this reason.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self { code: u32::MAX, message: message.into() }
    }

    /// Reads the body. Firmware writes the prefix of the code twice at times.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not such an object.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let [code, message] = members(object(body)?, ["code", "errorMsg"])?;
        Ok(Self { code: number(code)?, message: text_or_empty(message, "errorMsg", MAX_MESSAGE)? })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when the message is too long; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            code: String,
            #[serde(rename = "errorMsg")]
            message: &'a str,
        }
        let shape = Shape { code: format!("{:#010x}", self.code), message: &self.message };
        append_checked(out, &shape, |written| Ok(Self::parse(written)? == *self))
    }
}

/// A code, as a number or as hexadecimal text; -1 is the highest of 32 bits.
fn number(value: Option<&serde_json::value::RawValue>) -> Result<u32, BodyError> {
    let value = value.ok_or(BodyError::Missing("code"))?;
    let number = match crate::json::integer(value) {
        Some(-1) => Some(i64::from(u32::MAX)),
        Some(number) => Some(number),
        None => crate::json::string(value).and_then(|text| hexadecimal(&text)),
    };
    number.and_then(|number| u32::try_from(number).ok()).ok_or(BodyError::Unacceptable("code"))
}
