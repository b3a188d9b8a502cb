//! What a device is doing, as its program sees it.

use std::fmt;
use std::io;
use std::time::Instant;

use osap::ResultCode;

/// What the device is doing just now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Talking to the LBS: the device proves who it is and learns the address of its DAS.
    Authenticating,
    /// Opening the connection to the DAS and logging in.
    Connecting,
    /// Logged in: events reach the platform.
    Online,
    /// Out of work until the next attempt.
    Waiting {
        /// When the next attempt starts.
        until: Instant,
        /// Why the last one failed.
        reason: Reason,
    },
    /// Over; nothing but a new [`Device`](crate::Device) leads out of here.
    Stopped(StopReason),
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No conversation with the LBS came about, or it broke off.
    LbsUnreachable(io::ErrorKind),
    /// The LBS said no.
    Refused(ResultCode),
    /// The LBS sent something that is no answer, or does not know what it claims to know: a wrong
    /// signature, a key that does not open. Perhaps it is not the LBS.
    LbsAnswer,
    /// The LBS wants another suite than this device may speak; the number is its protocol type.
    SuiteMismatch(u8),
    /// The LBS serves none of the suites that this device may speak there.
    NothingInCommon,
    /// The device has no ticket, certificate or code to come in with.
    NoCredential,
    /// No TLS connection with the LBS came about.
    LbsTls(TlsFault),
    /// No TLS connection with the DAS came about.
    DasTls(TlsFault),
    /// New credentials could not be stored. The device does not log in with them before they are.
    Storage,
    /// No connection to the DAS came about.
    DasUnreachable(io::ErrorKind),
    /// The DAS refused the login with this CONNACK code (osap-wire 9.3).
    LoginRefused(u8),
    /// The connection to the DAS ended.
    LinkLost(LinkFault),
}

/// Why no TLS connection came about. None of these leads to a connection without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFault {
    /// No anchor of the device vouches for the server's certificate, or it is not valid now.
    Untrusted,
    /// The certificate is for another name.
    Name,
    /// The server does not speak OSAP: it did not choose the protocol of an LBS or a DAS (ALPN).
    Protocol,
    /// The server refuses the device's certificate.
    Refused,
    /// The DAS has no TLS, and a device that comes in over TLS does not go on without.
    Missing,
    /// The handshake failed.
    Handshake,
}

/// How a connection to the DAS ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkFault {
    /// The DAS closed it.
    Closed,
    /// Reading or writing failed.
    Io(io::ErrorKind),
    /// Nothing came for two keep-alive intervals.
    Silent,
    /// An answer the login waits for did not come.
    NoAnswer,
    /// A filter was refused.
    SubscriptionRefused,
    /// The DAS sent something that is not MQTT, or not what belongs at this point.
    Protocol,
    /// The DAS did not prove that it is the one the LBS has named: perhaps somebody else answered.
    NotAuthentic,
    /// A message does not open, or one is missing before it: somebody has interfered.
    Broken,
    /// On plain TCP, no receipt came for two keep-alive intervals: perhaps somebody acknowledges what does not arrive.
    NoReceipt,
    /// The login has carried as many messages as it may, and another one follows.
    Exhausted,
}

/// Why a device stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// [`stop`](crate::Device::stop) was called, or the last [`Device`](crate::Device) dropped.
    Requested,
    /// The DAS answered CONNACK 10: the device is not wanted until its program is started again.
    Blacklisted,
    /// The platform sent the device away (osap-wire 10.5): it is not wanted until its program starts it again.
    ForcedOffline,
    /// The SDK itself failed: a storage or another part of it panicked, or the runtime it ran on
    /// went away.
    Crashed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authenticating => f.write_str("authenticating"),
            Self::Connecting => f.write_str("connecting"),
            Self::Online => f.write_str("online"),
            Self::Waiting { reason, .. } => write!(f, "waiting, because {reason}"),
            Self::Stopped(reason) => write!(f, "stopped, because {reason}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LbsUnreachable(kind) => write!(f, "the LBS cannot be reached: {kind}"),
            Self::Refused(code) => write!(f, "the LBS answered {code}: {}", code.sentence()),
            Self::LbsAnswer => f.write_str("the answer of the LBS is not valid"),
            Self::SuiteMismatch(number) => {
                write!(f, "the LBS wants protocol type {number}, which this device may not use")
            }
            Self::NothingInCommon => f.write_str("the LBS serves no suite that this device may speak"),
            Self::NoCredential => f.write_str("the device has nothing to come in with"),
            Self::LbsTls(fault) => write!(f, "no TLS with the LBS: {fault}"),
            Self::DasTls(fault) => write!(f, "no TLS with the DAS: {fault}"),
            Self::Storage => f.write_str("the credentials cannot be stored"),
            Self::DasUnreachable(kind) => write!(f, "the DAS cannot be reached: {kind}"),
            Self::LoginRefused(code) => write!(f, "the DAS refused the login with code {code}"),
            Self::LinkLost(fault) => write!(f, "the connection to the DAS was lost: {fault}"),
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untrusted => "no anchor of the device vouches for the certificate, or it is not valid now",
            Self::Name => "the certificate is for another name",
            Self::Protocol => "the server does not speak OSAP there",
            Self::Refused => "the server refuses the certificate of the device",
            Self::Missing => "the server has none",
            Self::Handshake => "the handshake failed",
        })
    }
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the server closed it"),
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Silent => f.write_str("nothing came for two keep-alive intervals"),
            Self::NoAnswer => f.write_str("an answer did not come in time"),
            Self::SubscriptionRefused => f.write_str("a subscription was refused"),
            Self::Protocol => f.write_str("the server broke the protocol"),
            Self::NotAuthentic => f.write_str("the server could not prove that it is the device's own"),
            Self::Broken => f.write_str("a message of the server was changed or is missing"),
            Self::NoReceipt => f.write_str("no receipt came for two keep-alive intervals"),
            Self::Exhausted => f.write_str("the login has carried as many messages as it may"),
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("it was asked to"),
            Self::Blacklisted => f.write_str("the server does not want this device"),
            Self::ForcedOffline => f.write_str("the server sent this device away"),
            Self::Crashed => f.write_str("a part of it failed"),
        }
    }
}
