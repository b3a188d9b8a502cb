//! Operations that the protocol itself has, under the paths by which callers know them: they are invoked like any other
//! operation of a device, and travel in their own channels (osap-wire 10.3, 10.4).

use osap::das::base::{Binding, Challenge};
use osap::das::command::Command;
use osap::das::ota::{self, Upgrade};
use osap::das::topic::{GLOBAL, Topic};
use serde::Deserialize;
use vestibule_platform::{DevicePath, NotSent};

/// The area of base commands.
pub(super) const BASE: &str = "base";

/// An operation of the protocol itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnOperation {
    /// `global/0/base/bind` `{"user": text or null}`: the device has another owner, or none.
    Bind,
    /// `global/0/base/challenge` `{"token": number, "period_s": number}`: somebody is to show that he is at the device.
    /// That he was comes as the event `global/0/base/presence`.
    Challenge,
    /// `global/0/ota/upgrade`, with the input as it travels (10.3): the device is to fetch other firmware.
    Upgrade,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BindInput {
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChallengeInput {
    token: u64,
    period_s: u32,
}

impl OwnOperation {
    /// The operation with this path, if it is one of the protocol's.
    pub(super) fn of(path: &DevicePath) -> Option<OwnOperation> {
        let DevicePath { resource, index, area, name } = path;
        match (&**resource, &**index, &**area, &**name) {
            (GLOBAL, "0", BASE, "bind") => Some(OwnOperation::Bind),
            (GLOBAL, "0", BASE, "challenge") => Some(OwnOperation::Challenge),
            (GLOBAL, "0", ota::MODULE, ota::UPGRADE) => Some(OwnOperation::Upgrade),
            _ => None,
        }
    }

    /// What it travels on.
    pub(super) fn topic(self, serial: &str) -> Topic<'_> {
        match self {
            OwnOperation::Bind => Command::BindingChanged.downlink(serial),
            OwnOperation::Challenge => Command::Challenge.downlink(serial),
            OwnOperation::Upgrade => Topic::Module {
                serial,
                sub: GLOBAL,
                index: "0",
                resource: GLOBAL,
                module: ota::MODULE,
                method: ota::UPGRADE,
                msg_type: "operate",
            },
        }
    }

    /// The body that says what the input says.
    pub(super) fn body(self, input: Option<&str>) -> Result<Vec<u8>, NotSent> {
        let input = input.unwrap_or("null");
        let mut body = Vec::new();
        match self {
            OwnOperation::Bind => {
                let BindInput { user } = serde_json::from_str(input).map_err(|_| BIND)?;
                Binding { user: user.filter(|user| !user.is_empty()) }.write(&mut body).map_err(|_| BIND)?;
            }
            OwnOperation::Challenge => {
                let ChallengeInput { token, period_s } = serde_json::from_str(input).map_err(|_| CHALLENGE)?;
                Challenge { token, period_s }.write(&mut body);
            }
            OwnOperation::Upgrade => {
                let upgrade = Upgrade::parse(input.as_bytes()).map_err(|_| UPGRADE)?;
                upgrade.write(&mut body).map_err(|_| UPGRADE)?;
            }
        }
        Ok(body)
    }
}

const BIND: NotSent = NotSent::Unacceptable("must be an object with user, a text of at most 128 bytes or null");
const CHALLENGE: NotSent = NotSent::Unacceptable("must be an object with the numbers token and period_s");
const UPGRADE: NotSent =
    NotSent::Unacceptable("must be an upgrade as OSAP devices take it: maxtry, interval, file_info");

#[cfg(test)]
mod tests {
    use super::*;

    fn own(area: &str, name: &str) -> Option<OwnOperation> {
        let [resource, index, area, name] = ["global", "0", area, name].map(Into::into);
        OwnOperation::of(&DevicePath { resource, index, area, name })
    }

    #[test]
    fn operations_of_the_protocol_have_paths_of_the_device_itself() {
        assert_eq!(own("base", "bind"), Some(OwnOperation::Bind));
        assert_eq!(own("ota", "upgrade"), Some(OwnOperation::Upgrade));
        assert_eq!(own("base", "other"), None);
    }

    #[test]
    fn an_input_that_the_protocol_cannot_say_is_refused() {
        let text = |own: OwnOperation, input| own.body(Some(input)).map(|body| String::from_utf8(body).expect("text"));
        let bound = text(OwnOperation::Bind, r#"{"user":"a<b"}"#).expect("a body");
        assert_eq!(bound, "<Request><UserId>a&lt;b</UserId></Request>");
        let unbound = text(OwnOperation::Bind, r#"{"user":null}"#).expect("a body");
        assert_eq!(unbound, "<Request><UserId></UserId></Request>");
        for wrong in ["null", "{}x", r#"{"user":1}"#, r#"{"usr":"a"}"#] {
            assert!(text(OwnOperation::Bind, wrong).is_err(), "{wrong}");
        }
        assert!(text(OwnOperation::Challenge, r#"{"token":-1,"period_s":3}"#).is_err());
        assert!(text(OwnOperation::Upgrade, r#"{"maxtry":3}"#).is_err());
    }
}
