//! Where a run is, and what it knows there.

use super::CloseReason;
use super::entry::Entered;
use super::hello::Hello;
use super::record::Record;
use crate::id::Serial;
use crate::modern::message::Das;
use crate::modern::schedule::Schedule;
use crate::modern::secret::TicketId;
use crate::modern::ticket::{Held, Ticket, Used};
use crate::suite::Suite;

#[derive(Debug)]
pub(super) enum State {
    Start,
    Lookup(Box<Hello>),
    Fresh(Box<Hello>),
    /// Types 8 and 16: agree.
    Compute(Box<Hello>),
    /// Type 4: the exporter.
    Export(Box<Hello>, [u8; 32]),
    /// 0x2A is out: 0x72 or 0x42 follows.
    WaitEntry(Box<Run>),
    /// The proof of a code has come.
    Attempt(Box<Run>, Box<Entered>),
    /// A certificate was asked for.
    Certify(Box<Run>, Box<Issuing>),
    /// Which DAS?
    Assign(Box<Run>, Box<Entered>),
    /// The ticket is to be durable.
    Issue(Box<Run>, Box<Issuing>),
    /// 0x82 or 0x62 is out: 0x92 follows.
    WaitStored(Box<Run>, Box<Session>),
    /// It has come.
    Confirm(Box<Run>, Box<Session>),
    /// 0xA2 follows.
    WaitService(Box<Run>, Box<Session>),
    /// The session at the DAS is to be durable.
    Session(Box<Run>, Box<Session>),
    Done,
    Closed(CloseReason),
    /// Between two states; never seen from outside.
    Moving,
}

/// What a run knows from AUTH-II on.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) serial: Serial,
    pub(super) suite: Suite,
    pub(super) record: Record,
    /// The ticket that was shown, and whose binder was right.
    pub(super) shown: Option<Held>,
    pub(super) schedule: Schedule,
    pub(super) has_certificate: bool,
}

/// What is to be sent once it is durable.
#[derive(Debug)]
pub(super) struct Issuing {
    pub(super) entered: Entered,
    pub(super) das: Das,
    pub(super) ticket: Ticket,
}

/// What leads to the DAS.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) das: Das,
    pub(super) used: Used,
    /// What was handed out.
    pub(super) ticket: TicketId,
    pub(super) rev: u64,
    /// 0x92 was stored.
    pub(super) confirmed: bool,
    /// 0x92 came and was not stored, for this reason.
    pub(super) failed: Option<CloseReason>,
}

/// Which answer a refusal belongs into.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Entry { returning: bool },
    Service,
}
