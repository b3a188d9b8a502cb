//! What a device says about itself, and where it begins.

use osap::das::login::{Details, LoginRecord};
use osap::{DevId, Serial};

/// `Status` of a device that is awake.
const WORKING: i64 = 1;

/// The unchanging part of a device, shared by its handle and its task.
#[derive(Debug)]
pub(crate) struct Profile {
    pub serial: Serial,
    /// Host of the LBS, a name or an address.
    pub lbs_host: Box<str>,
    pub lbs_port: u16,
    /// Seconds, until the platform says otherwise.
    pub keep_alive: u16,
    pub firmware: Box<str>,
    pub device_type: Box<str>,
    pub mac: Box<str>,
}

impl Profile {
    /// The record of a full login (osap-wire 9.2), with the LBS that the device uses.
    pub(crate) fn login_record(&self, dev_id: &DevId, lbs_host: &str) -> LoginRecord {
        let details = Details {
            firmware_version: self.firmware.to_string(),
            dev_type: self.device_type.to_string(),
            dev_type_display: self.device_type.to_string(),
            mac: self.mac.to_string(),
            status: WORKING,
            lbs_domain: lbs_host.to_owned(),
            reg_mode: 1,
            // How the platform tells that the device understands more than the vendor's clients do.
            sdk_main_version: concat!("vestibule-", env!("CARGO_PKG_VERSION")).to_owned(),
            ..Details::default()
        };
        LoginRecord::full(&self.serial, dev_id, details)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// That of the device of the vectors.
    pub(crate) fn profile() -> Profile {
        Profile {
            serial: Serial::new("SN0000001").unwrap(),
            lbs_host: "lbs.example".into(),
            lbs_port: 8666,
            keep_alive: 30,
            firmware: "1.2.3".into(),
            device_type: "Camera".into(),
            mac: "".into(),
        }
    }
}
