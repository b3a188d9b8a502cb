//! The login record, which travels as the will of a CONNECT (osap-wire 9.1 and 9.2).

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::id::{DevId, Serial};
use crate::json;
use crate::key::SessionKey;
use crate::suite::legacy::{l_cbc_open, l_cbc_seal};

/// The length of every will topic: the text, then zero bytes.
pub const WILL_TOPIC_LEN: usize = 128;
/// The constant password of every login; it proves nothing.
pub const PASSWORD: &[u8] = b"test";
/// The most SDK versions that are kept of a record.
const MAX_VERSIONS: usize = 128;

/// The rule of the will topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FirstOrBreak {
    /// The process of the device has not logged in before.
    First,
    /// It has.
    Break,
}

/// The will topic of a login, padded with zero bytes.
#[must_use]
pub fn will_topic(serial: &Serial, which: FirstOrBreak) -> [u8; WILL_TOPIC_LEN] {
    let last = match which {
        FirstOrBreak::First => "firstconnect",
        FirstOrBreak::Break => "breakconnect",
    };
    let text = format!("/Basic/pu2cenplt/{serial}/{last}");
    let mut topic = [0; WILL_TOPIC_LEN];
    // 101 characters with the longest serial.
    topic[..text.len()].copy_from_slice(text.as_bytes());
    topic
}

/// Reads a will topic of any length; it ends at the first zero byte. `None` when it is another
/// topic or names no serial.
#[must_use]
pub fn read_will_topic(topic: &[u8]) -> Option<(Serial, FirstOrBreak)> {
    let text = topic.split(|byte| *byte == 0).next()?;
    let text = std::str::from_utf8(text).ok()?;
    let (serial, last) = text.strip_prefix("/Basic/pu2cenplt/")?.split_once('/')?;
    let which = match last {
        "firstconnect" => FirstOrBreak::First,
        "breakconnect" => FirstOrBreak::Break,
        _ => return None,
    };
    Some((Serial::new(serial).ok()?, which))
}

/// What a device says of itself when it logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRecord {
    /// The serial.
    pub sub_serial: String,
    /// The DevID, as it was sent.
    pub device_id: String,
    /// `BootID`, of a modern login alone (osap-wire 13.3): 16 hexadecimal digits, drawn by each start of the device's program.
    pub boot_id: Option<String>,
    /// Everything else of a full record; a short one has nothing else.
    pub details: Option<Box<Details>>,
}

/// The members of a full record besides the two of a short one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// `DevSerial`: a long serial, often empty.
    pub dev_serial: String,
    /// `FirmwareVersion`.
    pub firmware_version: String,
    /// `DevType`: the product.
    pub dev_type: String,
    /// `DevTypeDisplay`: the product as people know it.
    pub dev_type_display: String,
    /// `MAC`.
    pub mac: String,
    /// `Status`: 1 working, 5 sleeping.
    pub status: i64,
    /// `NickName`, sent by generation G1.
    pub nick_name: Option<String>,
    /// `FirmwareIdentificationCode`.
    pub firmware_identification_code: String,
    /// `dev_oeminfo`, sent by generation G1.
    pub oem_info: Option<i64>,
    /// `LbsDomain`: the LBS the device was told to use.
    pub lbs_domain: String,
    /// `RegMode`.
    pub reg_mode: i64,
    /// `SDKMainVersion`.
    pub sdk_main_version: String,
    /// `SDKVersion`: command domain and its version, in the order sent and with the repetitions
    /// of `"0"` that stand for unused slots. At most 128 are kept.
    pub sdk_versions: Vec<(String, String)>,
}

/// The text is not a login record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the login record is not a JSON object with SubSerial and DeviceID")]
pub struct NotARecord;

impl LoginRecord {
    /// A full record.
    #[must_use]
    pub fn full(serial: &Serial, dev_id: &DevId, details: Details) -> Self {
        Self { details: Some(Box::new(details)), ..Self::short(serial, dev_id) }
    }

    /// A short record, for a reconnect.
    #[must_use]
    pub fn short(serial: &Serial, dev_id: &DevId) -> Self {
        Self {
            sub_serial: serial.as_str().to_owned(),
            device_id: dev_id.as_str().to_owned(),
            boot_id: None,
            details: None,
        }
    }

    /// The JSON text, members in the order devices send them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }

    fn write_boot_id<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        self.boot_id.as_ref().map_or(Ok(()), |boot_id| map.serialize_entry("BootID", boot_id))
    }

    /// The will of a CONNECT: the record under the session key.
    #[must_use]
    pub fn seal(&self, key: &SessionKey) -> Vec<u8> {
        l_cbc_seal(key.as_bytes(), &self.encode())
    }

    /// Reads a record. Unknown members are ignored, of repeated ones the last counts, and a
    /// member of the wrong type counts as absent. A record with members of [`Details`] is a full
    /// one.
    ///
    /// # Errors
    /// [`NotARecord`] unless `SubSerial` and `DeviceID` are there.
    pub fn decode(text: &[u8]) -> Result<Self, NotARecord> {
        let (mut sub_serial, mut device_id, mut boot_id) = (None, None, None);
        let mut details = Details::default();
        let mut full = false;
        json::for_each_member(text, |name, value| match name {
            "SubSerial" => sub_serial = json::string(value).map(Cow::into_owned),
            "DeviceID" => device_id = json::string(value).map(Cow::into_owned),
            "BootID" => boot_id = json::string(value).map(Cow::into_owned),
            _ => full |= details.read(name, value),
        })
        .map_err(|_| NotARecord)?;
        Ok(Self {
            sub_serial: sub_serial.ok_or(NotARecord)?,
            device_id: device_id.ok_or(NotARecord)?,
            boot_id,
            details: full.then(|| Box::new(details)),
        })
    }
}

impl Details {
    /// Takes one member; `false` when it is not one of these.
    fn read(&mut self, name: &str, value: &RawValue) -> bool {
        let text = || json::string(value).map(Cow::into_owned);
        let number = || json::integer(value);
        match name {
            "DevSerial" => self.dev_serial = text().unwrap_or_default(),
            "FirmwareVersion" => self.firmware_version = text().unwrap_or_default(),
            "DevType" => self.dev_type = text().unwrap_or_default(),
            "DevTypeDisplay" => self.dev_type_display = text().unwrap_or_default(),
            "MAC" => self.mac = text().unwrap_or_default(),
            "Status" => self.status = number().unwrap_or_default(),
            "NickName" => self.nick_name = text(),
            "FirmwareIdentificationCode" => {
                self.firmware_identification_code = text().unwrap_or_default();
            }
            "dev_oeminfo" => self.oem_info = number(),
            "LbsDomain" => self.lbs_domain = text().unwrap_or_default(),
            "RegMode" => self.reg_mode = number().unwrap_or_default(),
            "SDKMainVersion" => self.sdk_main_version = text().unwrap_or_default(),
            "SDKVersion" => self.sdk_versions = versions(value),
            _ => return false,
        }
        true
    }
}

fn versions(value: &RawValue) -> Vec<(String, String)> {
    let mut versions = Vec::new();
    let _ = json::for_each_member(value.get().as_bytes(), |domain, version| {
        if let Some(version) = json::string(version)
            && versions.len() < MAX_VERSIONS
        {
            versions.push((domain.to_owned(), version.into_owned()));
        }
    });
    versions
}

impl Serialize for LoginRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let Some(details) = &self.details else {
            map.serialize_entry("SubSerial", &self.sub_serial)?;
            map.serialize_entry("DeviceID", &self.device_id)?;
            self.write_boot_id(&mut map)?;
            return map.end();
        };
        map.serialize_entry("DevSerial", &details.dev_serial)?;
        map.serialize_entry("SubSerial", &self.sub_serial)?;
        map.serialize_entry("FirmwareVersion", &details.firmware_version)?;
        map.serialize_entry("DevType", &details.dev_type)?;
        map.serialize_entry("DevTypeDisplay", &details.dev_type_display)?;
        map.serialize_entry("MAC", &details.mac)?;
        map.serialize_entry("Status", &details.status)?;
        if let Some(nick_name) = &details.nick_name {
            map.serialize_entry("NickName", nick_name)?;
        }
        map.serialize_entry("FirmwareIdentificationCode", &details.firmware_identification_code)?;
        if let Some(oem_info) = &details.oem_info {
            map.serialize_entry("dev_oeminfo", oem_info)?;
        }
        map.serialize_entry("LbsDomain", &details.lbs_domain)?;
        map.serialize_entry("RegMode", &details.reg_mode)?;
        map.serialize_entry("SDKMainVersion", &details.sdk_main_version)?;
        map.serialize_entry("DeviceID", &self.device_id)?;
        map.serialize_entry("SDKVersion", &Versions(&details.sdk_versions))?;
        self.write_boot_id(&mut map)?;
        map.end()
    }
}

struct Versions<'a>(&'a [(String, String)]);

impl Serialize for Versions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (domain, version) in self.0 {
            map.serialize_entry(domain, version)?;
        }
        map.end()
    }
}

/// Why a login is not accepted. The device is told CONNACK 11 in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The will does not open under this session key.
    #[error("the login record does not open under the session key")]
    Undecryptable,
    /// It opens, and is not a login record.
    #[error(transparent)]
    Record(#[from] NotARecord),
    /// The record names another serial than the user name.
    #[error("the login record names another serial than the user name")]
    OtherSerial,
    /// The record names another DevID than the one that belongs to the session key.
    #[error("the login record names another DevID than the one on record")]
    OtherDevId,
}

/// Checks a login: the will has to open under the session key of the device `user` and to name
/// that serial and the DevID that belongs to the key (osap-wire 9.2).
///
/// # Errors
/// [`LoginError`]; to the device all of them are one.
pub fn check(user: &str, will: &[u8], key: &SessionKey, dev_id: &DevId) -> Result<LoginRecord, LoginError> {
    let mut text = zeroize::Zeroizing::new(will.to_vec());
    let text = l_cbc_open(key.as_bytes(), &mut text).map_err(|_| LoginError::Undecryptable)?;
    let record = LoginRecord::decode(text)?;
    if record.sub_serial != user {
        return Err(LoginError::OtherSerial);
    }
    if record.device_id != dev_id.as_str() {
        return Err(LoginError::OtherDevId);
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_id_of_a_modern_login_travels_in_either_record() {
        let serial = Serial::new("SN0000001").unwrap();
        let dev_id = DevId::parse(b"0123456789abcdef0123456789abcdef").unwrap();
        let boot_id = Some("00112233aabbccdd".to_owned());
        let short = LoginRecord { boot_id: boot_id.clone(), ..LoginRecord::short(&serial, &dev_id) };
        // The plaintext of the vector of osap-wire 13.3.
        let text =
            r#"{"SubSerial":"SN0000001","DeviceID":"0123456789abcdef0123456789abcdef","BootID":"00112233aabbccdd"}"#;
        assert_eq!(String::from_utf8(short.encode()).unwrap(), text);
        let full = LoginRecord { boot_id, ..LoginRecord::full(&serial, &dev_id, Details::default()) };
        for record in [short, full] {
            assert_eq!(LoginRecord::decode(&record.encode()), Ok(record));
        }
    }
}
