//! What a device has lived through, to be summed up at the end.

use super::ledger::Ledger;

/// What became of messages of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub sent: u64,
    pub acknowledged: u64,
    /// Given up: the device stopped before an acknowledgement came.
    pub given_up: u64,
    /// Not sent: too many waited already.
    pub not_sent: u64,
}

/// How often something was done to a device.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FaultCount {
    pub drop: u64,
    pub pause: u64,
    pub reconnect: u64,
    /// Absences of its children.
    pub child: u64,
}

/// What a device has lived through.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    pub number: u32,
    /// Of the device and its children, in the order of [`Registered::entries`].
    pub lives: Vec<Life>,
    pub events: Count,
    pub reports: Count,
    pub faults: FaultCount,
    pub authentications: u64,
    pub logins: u64,
    pub entry: Entry,
}

/// What is known of one device or child for itself.
#[derive(Debug, Default)]
pub(crate) struct Life {
    pub serial: String,
    pub ledger: Ledger,
    /// A child: the platform has accepted it.
    pub accepted: bool,
}

/// How a device came in.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Its turn to start had not come.
    #[default]
    NotStarted,
    /// It was on its way.
    UnderWay,
    /// It was kept out, and said why.
    Refused(String),
    /// It came in.
    In,
}
