//! How often a device shows that it is alive, and how long it waits for a sign of the platform (osap-wire 9.9).

use std::time::Duration;

/// Seconds between two pings; the platform may want others from the next one on (osap-wire 10.5).
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    /// Before the last ping.
    former: u16,
    /// Since the last ping.
    pub present: u16,
    /// From the next ping on.
    pub next: u16,
}

impl KeepAlive {
    pub(crate) fn new(seconds: u16) -> Self {
        Self { former: seconds, present: seconds, next: seconds }
    }

    /// A ping goes out; the time to the next one.
    pub(crate) fn ping(&mut self) -> Duration {
        *self = Self { former: self.present, present: self.next, next: self.next };
        Duration::from_secs(self.present.into())
    }

    /// How long nothing may come (osap-wire 9.9). What came last may be as old as the longest of these.
    pub(crate) fn silence(&self) -> Duration {
        2 * Duration::from_secs(self.former.max(self.present).max(self.next).into())
    }
}
