//! The bodies of 0xA0 and 0xB0: what a device asks for and which DAS it gets (osap-wire 5.8).

use serde::{Deserialize, Serialize};

use crate::id::Serial;
use crate::json;

/// The DAS a device is sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DasInfo {
    /// Name or IPv4 address the device connects to, at most 63 bytes.
    pub address: String,
    /// TCP port the device connects to, not 0.
    pub port: u16,
    /// Remembered by the device and not used.
    pub udp_port: u16,
    /// The name of the DAS, at most 63 bytes; remembered and not used.
    pub domain: String,
    /// The identity of the DAS, at most 63 bytes; remembered and not used.
    #[serde(rename = "ServerID")]
    pub server_id: String,
}

/// Why a DAS address cannot be given to a device, or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DasInfoError {
    /// A member is longer than a device can hold.
    #[error("the {0} of the access server is longer than 63 bytes")]
    TooLong(&'static str),
    /// Address empty or port 0.
    #[error("the access server has no address or no port")]
    Nowhere,
    /// The text is not the JSON of a DAS address.
    #[error("the answer does not carry the five members of an access server's address")]
    Malformed,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    r#type: &'a str,
    das_info: DasInfo,
}

impl DasInfo {
    /// The longest string member, in bytes.
    pub const MAX_TEXT: usize = 63;

    /// Whether a device can hold and use it.
    ///
    /// # Errors
    /// [`DasInfoError`] names the member that is wrong.
    pub fn check(&self) -> Result<(), DasInfoError> {
        let members = [("address", &self.address), ("domain", &self.domain), ("server id", &self.server_id)];
        for (name, text) in members {
            if text.len() > Self::MAX_TEXT {
                return Err(DasInfoError::TooLong(name));
            }
        }
        if self.address.is_empty() || self.port == 0 {
            return Err(DasInfoError::Nowhere);
        }
        Ok(())
    }

    /// The JSON of 0xB0.
    ///
    /// # Errors
    /// [`DasInfoError`] as for [`check`](Self::check).
    pub fn encode(&self) -> Result<Vec<u8>, DasInfoError> {
        self.check()?;
        let answer = Answer { r#type: "DAS", das_info: self.clone() };
        Ok(serde_json::to_vec(&answer).expect("strings and numbers always serialise"))
    }

    /// Reads the JSON of 0xB0; all five members are mandatory.
    ///
    /// # Errors
    /// [`DasInfoError`] names what is wrong.
    pub fn decode(text: &[u8]) -> Result<Self, DasInfoError> {
        let answer: Answer<'_> = serde_json::from_slice(text).map_err(|_| DasInfoError::Malformed)?;
        if answer.r#type != "DAS" {
            return Err(DasInfoError::Malformed);
        }
        answer.das_info.check()?;
        Ok(answer.das_info)
    }
}

/// The kind of service a device asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Das,
    Stun,
    Other,
}

/// The JSON of 0xA0; `Mode` is written as a device writes it and ignored when read.
pub(crate) struct Request {
    pub(crate) serial: String,
    pub(crate) service: Service,
}

/// The text of 0xA0 is not a request.
pub(crate) struct Malformed;

impl Request {
    pub(crate) fn encode(serial: &Serial) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body<'a> {
            dev_serial: &'a str,
            r#type: &'a str,
            mode: u8,
        }
        let body = Body { dev_serial: serial.as_str(), r#type: "DAS", mode: 0 };
        serde_json::to_vec(&body).expect("strings and numbers always serialise")
    }

    pub(crate) fn decode(text: &[u8]) -> Result<Self, Malformed> {
        let (mut serial, mut kind) = (None, None);
        json::for_each_member(text, |name, value| match name {
            "DevSerial" => serial = json::string(value),
            "Type" => kind = json::string(value),
            _ => {}
        })
        .map_err(|json::NotAnObject| Malformed)?;
        let service = match kind.as_deref() {
            Some("DAS") => Service::Das,
            Some("STUN") => Service::Stun,
            Some(_) => Service::Other,
            None => return Err(Malformed),
        };
        Ok(Self { serial: serial.ok_or(Malformed)?.into_owned(), service })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> DasInfo {
        DasInfo {
            address: "127.0.0.1".into(),
            port: 8883,
            udp_port: 8884,
            domain: "das.local".into(),
            server_id: "das1".into(),
        }
    }

    #[test]
    fn the_answer_has_the_members_in_the_order_of_the_specification() {
        let text = br#"{"Type":"DAS","DasInfo":{"Address":"127.0.0.1","Port":8883,"UdpPort":8884,"Domain":"das.local","ServerID":"das1"}}"#;
        assert_eq!(info().encode().unwrap(), text);
        assert_eq!(DasInfo::decode(text), Ok(info()));
    }

    #[test]
    fn every_member_of_the_answer_is_mandatory_and_bounded() {
        let whole = String::from_utf8(info().encode().unwrap()).unwrap();
        for member in [
            r#""Address":"127.0.0.1","#,
            r#""Port":8883,"#,
            r#""UdpPort":8884,"#,
            r#""Domain":"das.local","#,
            r#","ServerID":"das1""#,
            r#""Type":"DAS","#,
        ] {
            let without = whole.replace(member, "");
            assert_ne!(without, whole);
            assert_eq!(DasInfo::decode(without.as_bytes()), Err(DasInfoError::Malformed), "{member}");
        }
        let long = DasInfo { domain: "d".repeat(64), ..info() };
        assert_eq!(long.encode(), Err(DasInfoError::TooLong("domain")));
        assert_eq!(DasInfo { port: 0, ..info() }.encode(), Err(DasInfoError::Nowhere));
        assert!(DasInfo { domain: "d".repeat(63), ..info() }.encode().is_ok());
    }

    #[test]
    fn a_request_is_read_whatever_its_mode() {
        let serial = Serial::new("SN0000001").unwrap();
        let text = Request::encode(&serial);
        assert_eq!(text, br#"{"DevSerial":"SN0000001","Type":"DAS","Mode":0}"#);
        for (text, service) in [
            (&text[..], Some(Service::Das)),
            (br#"{"Type":"STUN","DevSerial":"SN0000001"}"#, Some(Service::Stun)),
            (br#"{"Type":"X","DevSerial":"SN0000001","Mode":[]}"#, Some(Service::Other)),
            (br#"{"Type":1,"DevSerial":"SN0000001"}"#, None),
            (br#"{"Type":"DAS"}"#, None),
            (b"", None),
        ] {
            let request = Request::decode(text).ok();
            assert_eq!(request.as_ref().map(|r| r.service), service);
            assert!(request.is_none_or(|r| r.serial == "SN0000001"));
        }
    }
}
