//! Why the server ends a connection.

use std::fmt;

use crate::lbs::das_info::DasInfoError;
use crate::lbs::frame::FrameError;
use crate::lbs::message::MessageError;
use crate::result::ResultCode;

/// Why the server ends a connection before the device has everything.
///
/// [`Display`](fmt::Display) is for logs, [`as_str`](Self::as_str) for metrics and
/// [`result`](Self::result) is what the device was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The bytes are no frame.
    Frame(FrameError),
    /// The frame is not the message its first byte names.
    Message(MessageError),
    /// A message of this first byte does not belong here.
    OutOfOrder(u8),
    /// The device speaks generation G0, which the policy leaves out.
    G0NotServed,
    /// The device speaks generation G1, which the policy leaves out.
    G1NotServed,
    /// The device asks for a secret key with 0xF0.
    SecretKey,
    /// The policy serves no suite at all.
    NothingServed,
    /// The device offered a protocol type that is not the one to run.
    Mismatch {
        /// The type it offered.
        offered: u8,
    },
    /// The device has come in by a modern suite: the legacy ones are closed to it (osap-wire 13.4).
    ModernDevice,
    /// No device has that serial.
    UnknownSerial,
    /// The device is shut out and asked with its code, or with another one: it is told what a stranger is told.
    Disabled,
    /// The device is shut out and asked with its DevID: it is told to come again.
    ShutOut,
    /// The code of the device is not the one on record.
    WrongCode,
    /// The device is known and its code cannot be read.
    CodeUnavailable,
    /// The device's public key is not a point of the curve.
    Point,
    /// The proof of the master key is wrong.
    Signature,
    /// A device with a committed DevID asked for another while it may not.
    EnrolmentClosed,
    /// The DevID is not one of the device's.
    DevIdUnknown,
    /// The DevID is the device's, its master key is not the one on record.
    MasterKey,
    /// The device did not return r2.
    Challenge,
    /// 0x92 does not prove the master key of the run. It has no answer.
    Confirmation,
    /// The request for a DAS does not open, is no request, or names another serial.
    ServiceRequest,
    /// The device asks for a STUN server.
    Stun,
    /// The device asks for a DAS after a refresh for STUN.
    WrongService,
    /// The device asks for a kind of server that does not exist.
    UnknownService,
    /// There is no DAS to send the device to.
    NoDas,
    /// The DAS has an address no device can hold.
    DasUnusable(DasInfoError),
    /// The store does not answer, or the serial has used up its attempts.
    StoreUnavailable,
    /// The machine was left in the middle of a step by a panic.
    Abandoned,
}

impl CloseReason {
    /// A short name in snake case.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Frame(_) => "bad_frame",
            Self::Message(_) => "bad_message",
            Self::OutOfOrder(_) => "out_of_order",
            Self::G0NotServed => "generation_g0",
            Self::G1NotServed => "generation_g1",
            Self::SecretKey => "secret_key",
            Self::NothingServed => "nothing_served",
            Self::Mismatch { .. } => "mismatch",
            Self::ModernDevice => "modern_device",
            Self::UnknownSerial => "unknown_serial",
            Self::Disabled => "disabled",
            Self::ShutOut => "shut_out",
            Self::WrongCode => "wrong_code",
            Self::CodeUnavailable => "code_unavailable",
            Self::Point => "bad_point",
            Self::Signature => "bad_signature",
            Self::EnrolmentClosed => "enrolment_closed",
            Self::DevIdUnknown => "dev_id_unknown",
            Self::MasterKey => "wrong_master_key",
            Self::Challenge => "wrong_challenge",
            Self::Confirmation => "wrong_confirmation",
            Self::ServiceRequest => "bad_service_request",
            Self::Stun => "stun",
            Self::WrongService => "wrong_service",
            Self::UnknownService => "unknown_service",
            Self::NoDas => "no_das",
            Self::DasUnusable(_) => "das_unusable",
            Self::StoreUnavailable => "unavailable",
            Self::Abandoned => "abandoned",
        }
    }

    /// The result the device is told, or `None` when the connection is closed without one
    /// (osap-wire 5.11).
    #[must_use]
    pub fn result(&self) -> Option<ResultCode> {
        Some(match self {
            Self::UnknownSerial | Self::Disabled | Self::WrongCode | Self::Signature => ResultCode::CodeRefused,
            Self::Mismatch { .. } | Self::ModernDevice | Self::Point | Self::WrongService | Self::UnknownService => {
                ResultCode::InvalidData
            }
            Self::DevIdUnknown => ResultCode::DevIdMismatch,
            Self::SecretKey | Self::CodeUnavailable | Self::EnrolmentClosed => ResultCode::Refused,
            Self::ShutOut | Self::StoreUnavailable => ResultCode::Unavailable,
            Self::Stun | Self::NoDas | Self::DasUnusable(_) => ResultCode::NoDas,
            Self::MasterKey => ResultCode::MasterKeyInvalid,
            Self::Frame(_)
            | Self::Message(_)
            | Self::OutOfOrder(_)
            | Self::G0NotServed
            | Self::G1NotServed
            | Self::NothingServed
            | Self::Challenge
            | Self::Confirmation
            | Self::ServiceRequest
            | Self::Abandoned => return None,
        })
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            Self::Frame(error) => return error.fmt(f),
            Self::Message(error) => return error.fmt(f),
            Self::DasUnusable(error) => return error.fmt(f),
            Self::OutOfOrder(first) => {
                return write!(f, "a message with the first byte 0x{first:02x} does not belong here");
            }
            Self::Mismatch { offered } => {
                return write!(f, "the device offered protocol type {offered}, which is not the one to run here");
            }
            Self::G0NotServed => "the device speaks generation G0 (without key agreement), which is not served here",
            Self::G1NotServed => "the device speaks generation G1 (SDK 1.5), which is not served here",
            Self::Stun => "the device asks for a STUN server, and there is none",
            Self::SecretKey => {
                "the device asks for a secret key because it does not accept its verification code; \
                 only the vendor can answer that"
            }
            Self::NothingServed => "the listener serves no suite",
            Self::UnknownSerial => "no device is registered with this serial",
            Self::ModernDevice => {
                "the device has come in by a modern suite before, and asks by a legacy one: somebody may stand between; \
                 `vestibule device suites --legacy open` lets it"
            }
            Self::Disabled | Self::ShutOut => "the device is disabled",
            Self::WrongCode => "the verification code of the device is not the one registered",
            Self::CodeUnavailable => "the verification code on record cannot be read",
            Self::Point => "the public key of the device is not a point on P-384",
            Self::Signature => "the proof of the master key is wrong",
            Self::EnrolmentClosed => {
                "the device already has a DevID and asks for another; open an enrolment window if it was reset"
            }
            Self::DevIdUnknown => "the DevID the device named is not its own",
            Self::MasterKey => "the master key of the device is not the one on record",
            Self::Challenge => "the device did not return the challenge of the refresh",
            Self::Confirmation => "the confirmation of the DevID does not prove the master key",
            Self::ServiceRequest => "the request for an access server cannot be read",
            Self::WrongService => "the device asks for an access server after a refresh for a STUN server",
            Self::UnknownService => "the device asks for a kind of server that does not exist",
            Self::NoDas => "there is no access server to send the device to",
            Self::StoreUnavailable => "the credential store is not available, or there were too many attempts",
            Self::Abandoned => "the connection was abandoned inside a step",
        };
        f.write_str(sentence)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The server mapping of osap-wire 5.11, and what has no result because it closes.
    #[test]
    fn osap_5_11_each_reason_has_the_result_of_the_table() {
        use CloseReason as R;
        let table: [(u8, &[R]); 7] = [
            (1, &[R::UnknownSerial, R::Disabled, R::WrongCode, R::Signature]),
            (3, &[R::Mismatch { offered: 4 }, R::ModernDevice, R::Point, R::WrongService, R::UnknownService]),
            (4, &[R::DevIdUnknown]),
            (5, &[R::CodeUnavailable, R::EnrolmentClosed, R::SecretKey]),
            (6, &[R::ShutOut, R::StoreUnavailable]),
            (9, &[R::NoDas, R::DasUnusable(DasInfoError::Nowhere), R::Stun]),
            (10, &[R::MasterKey]),
        ];
        let silent = [
            R::Frame(FrameError::Length),
            R::Message(MessageError::Length),
            R::OutOfOrder(0x72),
            R::G0NotServed,
            R::G1NotServed,
            R::NothingServed,
            R::Challenge,
            R::Confirmation,
            R::ServiceRequest,
            R::Abandoned,
        ];
        for (number, reasons) in table {
            for reason in reasons {
                assert_eq!(reason.result().map(u8::from), Some(number), "{reason}");
            }
        }
        for reason in silent {
            assert_eq!(reason.result(), None, "{reason}");
        }
        let all = table.iter().flat_map(|(_, reasons)| reasons.iter()).chain(&silent);
        let names: BTreeSet<_> = all.clone().map(CloseReason::as_str).collect();
        assert_eq!(names.len(), all.count(), "each has a name of its own");
    }
}
