//! The wall clock, for the time an event carries.

use std::time::{SystemTime, UNIX_EPOCH};

/// Gives the time written into events (`basic.dateTime`, osap-wire 10.1).
///
/// Only that: delays and deadlines run on the monotonic clock and do not jump when the wall clock
/// is set.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> i64;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}
