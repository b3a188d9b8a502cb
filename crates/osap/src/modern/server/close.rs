//! Why the LBS ends a connection under a modern suite.

use std::fmt;

use crate::modern::message::{DasError, MessageError};
use crate::result::ResultCode;

/// Why the server ends a connection before the device has everything.
///
/// [`Display`](fmt::Display) is for logs and people, [`as_str`](Self::as_str) for metrics and
/// [`result`](Self::result) is what the device was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The bytes are not the frame that belongs here; closed without an answer.
    Message(MessageError),
    /// The device offered a type that is not the one to run.
    Mismatch {
        /// The type it offered.
        offered: u8,
    },
    /// The device certificate is that of another serial.
    CertificateSerial,
    /// The ticket is unknown, another device's, at its end, or its binder is wrong.
    Ticket {
        /// It was one of this device's, and others were issued since.
        dropped: bool,
    },
    /// The device came with the ticket it was provisioned with, others were issued since, and no window is open (rule 8).
    /// It is told the same.
    Provisioned,
    /// The same first message has come before; closed without an answer.
    Repeated,
    /// The share of the device is no public key; closed without an answer.
    Share,
    /// The device does not know the secrets of the run; closed without an answer.
    Mac,
    /// Nobody has registered the serial.
    UnknownSerial,
    /// The code is wrong, or the device has none.
    WrongCode,
    /// The code is right and may not be used: it is a short one and no window is open, or the device is enrolled already.
    EnrolmentClosed,
    /// Too many codes were wrong: none is looked at.
    Spent,
    /// Neither ticket nor certificate was shown where one is needed.
    NoProof,
    /// An operator has shut the device out.
    Disabled,
    /// The device has to show a certificate and has not.
    CertificateRequired,
    /// The DevID is not this device's.
    DevId,
    /// There is no DAS to send the device to.
    NoDas,
    /// The DAS has an address that no device can hold.
    DasUnusable(DasError),
    /// The store is not available.
    StoreUnavailable,
    /// Another run of the device came first.
    Outrun,
    /// A DAS was asked for before the device had stored what it was given.
    NotStored,
    /// The connection was abandoned inside a step.
    Abandoned,
}

impl CloseReason {
    /// The result the device is told; `None`: nothing, the connection is closed.
    #[must_use]
    pub fn result(self) -> Option<ResultCode> {
        match self {
            Self::Message(_) | Self::Repeated | Self::Share | Self::Mac | Self::Abandoned => None,
            Self::Mismatch { .. } => Some(ResultCode::InvalidData),
            Self::CertificateSerial | Self::UnknownSerial | Self::WrongCode | Self::EnrolmentClosed | Self::NoProof => {
                Some(ResultCode::CodeRefused)
            }
            Self::Ticket { .. } | Self::Provisioned => Some(ResultCode::MasterKeyInvalid),
            Self::NotStored => Some(ResultCode::OutOfOrder),
            Self::DevId => Some(ResultCode::DevIdMismatch),
            Self::Disabled | Self::CertificateRequired => Some(ResultCode::Refused),
            Self::Spent | Self::StoreUnavailable | Self::Outrun => Some(ResultCode::Unavailable),
            Self::NoDas | Self::DasUnusable(_) => Some(ResultCode::NoDas),
        }
    }

    /// A short name for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::Mismatch { .. } => "mismatch",
            Self::CertificateSerial => "certificate_serial",
            Self::Ticket { dropped: true } => "dropped_ticket",
            Self::Ticket { dropped: false } => "ticket",
            Self::Provisioned => "provisioned_ticket",
            Self::Repeated => "repeated",
            Self::Share => "share",
            Self::Mac => "mac",
            Self::UnknownSerial => "unknown_serial",
            Self::WrongCode => "wrong_code",
            Self::EnrolmentClosed => "enrolment_closed",
            Self::Spent => "spent",
            Self::NoProof => "no_proof",
            Self::Disabled => "disabled",
            Self::CertificateRequired => "certificate_required",
            Self::DevId => "dev_id",
            Self::NoDas => "no_das",
            Self::DasUnusable(_) => "das_unusable",
            Self::StoreUnavailable => "store_unavailable",
            Self::Outrun => "outrun",
            Self::NotStored => "not_stored",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            Self::Message(error) => return error.fmt(f),
            Self::Mismatch { offered } => {
                return write!(f, "the device offered protocol type {offered}, another one is to be run");
            }
            Self::DasUnusable(error) => return error.fmt(f),
            Self::CertificateSerial => "the certificate of the device was issued to another serial",
            Self::Ticket { dropped: true } => {
                "the device showed a ticket that was replaced since: its storage was copied, or restored from an old image"
            }
            Self::Ticket { dropped: false } => {
                "the ticket of the device is not one on record, or does not fit its secret"
            }
            Self::Provisioned => {
                "the device came with the ticket it was provisioned with, which needs an enrolment window by now: open one if the device has lost what it was given since"
            }
            Self::Repeated => "a recording of an earlier authentication was sent again",
            Self::Share => "the public key of the device is none",
            Self::Mac => {
                "the device does not know the secrets of the run: somebody stands between, or its ticket is a copy"
            }
            Self::UnknownSerial => "no device is registered with this serial",
            Self::WrongCode => "the verification code is wrong",
            Self::EnrolmentClosed => {
                "the code may not be used now: open an enrolment window for the device, or give it a code of 64 bits"
            }
            Self::Spent => "too many codes were wrong; no other one is looked at for a while",
            Self::NoProof => "the device showed neither ticket nor certificate",
            Self::Disabled => "the device is disabled",
            Self::CertificateRequired => "the device has to show a certificate",
            Self::DevId => "the DevID the device named is not its own",
            Self::NoDas => "there is no access server to send the device to",
            Self::StoreUnavailable => "the credential store is not available",
            Self::Outrun => "another authentication of the device came first",
            Self::NotStored => "the device asked for an access server before it had stored its ticket",
            Self::Abandoned => "the connection was abandoned inside a step",
        };
        f.write_str(sentence)
    }
}
