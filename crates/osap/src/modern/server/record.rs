//! What the machine has to know of a device.

use crate::key::Code;
use crate::lbs::Standing;
use crate::modern::ticket::Tickets;
use crate::suite::Suite;

/// A device as the machine needs it.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Whether it may get in at all; of an unknown one the rest is made up.
    pub standing: Standing,
    /// Its code; `None` when it has none, or it was spent.
    pub code: Option<Code>,
    /// Its identity and its tickets.
    pub tickets: Tickets,
    /// An operator has opened an enrolment window.
    pub window: bool,
    /// A device whose enrolment is over may enrol again with a long code.
    pub may_enrol_again: bool,
    /// It has to show a certificate. As long as it never has, and in a window, it may ask for one instead: it comes in with
    /// the run in which it is granted.
    pub certificate_required: bool,
    /// It has shown one before, in a run that came to its end.
    pub certified: bool,
    /// It may come over TLS alone.
    pub tls_only: bool,
}

impl Record {
    /// Whether the device may come in without a certificate that is demanded, if it is granted one in this run. Without TLS it
    /// could not show it.
    pub(super) fn may_ask(&self, suite: Suite) -> bool {
        suite == Suite::Tls && (self.window || !self.certified)
    }

    /// Whether this code may enrol the device now, if it is proven.
    pub(super) fn may_use_code(&self) -> bool {
        let long = self.code.as_ref().is_some_and(Code::is_long);
        self.window || (long && (!self.tickets.confirmed || self.may_enrol_again))
    }
}
