//! The JSON of 0xA2 and 0xB2 (osap-wire 5.8, 13.3).

use serde::{Deserialize, Serialize};

use crate::id::Serial;
use crate::lbs::das_info::{DasInfo, DasInfoError, Request, Service};

/// The life of a DAS session where 0xB2 names none, in seconds.
pub const DEFAULT_EXPIRES_IN: u32 = 86_400;

/// The DAS a device is sent to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Das {
    /// Where it is. Where there is a TLS port, the plain one is never used.
    pub info: DasInfo,
    /// The port of TLS.
    pub tls_port: Option<u16>,
    /// Whether the login is bound to its TLS connection; not behind a TLS terminator.
    pub bind: bool,
    /// The life of the session at the DAS, in seconds.
    pub expires_in: u32,
}

/// Why a text is no address of a DAS, or cannot be given to a device.
pub type DasError = DasInfoError;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    r#type: String,
    das_info: Info,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_in: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(flatten)]
    info: DasInfo,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bind: Option<bool>,
}

impl Das {
    /// The JSON of 0xB2.
    ///
    /// # Errors
    /// [`DasError`] as for [`DasInfo::check`], or when the port of TLS is 0.
    pub fn encode(&self) -> Result<Vec<u8>, DasError> {
        self.check()?;
        let bind = self.tls_port.map(|_| self.bind);
        let das_info = Info { info: self.info.clone(), tls_port: self.tls_port, bind };
        let answer = Answer { r#type: "DAS".into(), das_info, expires_in: Some(self.expires_in) };
        Ok(serde_json::to_vec(&answer).expect("strings and numbers always serialise"))
    }

    /// Reads the JSON of 0xB2.
    ///
    /// # Errors
    /// [`DasError`] names what is wrong.
    pub fn decode(text: &[u8]) -> Result<Self, DasError> {
        let answer: Answer = serde_json::from_slice(text).map_err(|_| DasInfoError::Malformed)?;
        if answer.r#type != "DAS" {
            return Err(DasInfoError::Malformed);
        }
        let Info { info, tls_port, bind } = answer.das_info;
        let expires_in = answer.expires_in.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_EXPIRES_IN);
        let das = Self { info, tls_port, bind: tls_port.is_some() && bind.unwrap_or(false), expires_in };
        das.check()?;
        Ok(das)
    }

    fn check(&self) -> Result<(), DasError> {
        self.info.check()?;
        if self.tls_port == Some(0) { Err(DasInfoError::Nowhere) } else { Ok(()) }
    }
}

/// The JSON of 0xA2.
pub(crate) fn write_request(serial: &Serial) -> Vec<u8> {
    Request::encode(serial)
}

/// Whether a text of 0xA2 asks for a DAS for this device.
pub(crate) fn read_request(text: &[u8], serial: &Serial) -> bool {
    Request::decode(text).is_ok_and(|request| request.service == Service::Das && request.serial == serial.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn das() -> Das {
        let info = DasInfo {
            address: "127.0.0.1".into(),
            port: 8883,
            udp_port: 8884,
            domain: "das.local".into(),
            server_id: "das1".into(),
        };
        Das { info, tls_port: None, bind: false, expires_in: 86_400 }
    }

    #[test]
    fn the_address_is_that_of_the_specification() {
        let text = br#"{"Type":"DAS","DasInfo":{"Address":"127.0.0.1","Port":8883,"UdpPort":8884,"Domain":"das.local","ServerID":"das1"},"ExpiresIn":86400}"#;
        assert_eq!(das().encode().unwrap(), text);
        assert_eq!(Das::decode(text), Ok(das()));
    }

    #[test]
    fn tls_and_its_binding_travel_and_no_life_is_a_day() {
        let tls = Das { tls_port: Some(8_667), bind: true, expires_in: 60, ..das() };
        let text = String::from_utf8(tls.encode().unwrap()).unwrap();
        assert!(text.contains(r#""TlsPort":8667,"Bind":true}"#), "{text}");
        assert_eq!(Das::decode(text.as_bytes()), Ok(tls));
        let without = text.replace(r#","ExpiresIn":60"#, "").replace(r#","Bind":true"#, "");
        let read = Das::decode(without.as_bytes()).unwrap();
        assert_eq!((read.expires_in, read.bind), (86_400, false));
        assert!(Das { tls_port: Some(0), ..das() }.encode().is_err());
    }
}
