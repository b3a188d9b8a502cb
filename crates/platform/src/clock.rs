//! Where the platform takes the time from.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of time, passed in so that tests decide what time it is.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> i64;

    /// Milliseconds that go on by what really passes, from what [`now_ms`](Self::now_ms) said first in the process. What
    /// lasts for a while inside the process goes by it: nobody lengthens or ends that by setting the machine's clock. A
    /// clock that nobody sets is steady as it is.
    fn steady_ms(&self) -> i64 {
        self.now_ms()
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn steady_ms(&self) -> i64 {
        static BEGUN: LazyLock<(Instant, i64)> = LazyLock::new(|| (Instant::now(), SystemClock.now_ms()));
        let (begun, then) = *BEGUN;
        then.saturating_add(i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_clock_begins_with_the_other_and_goes_on() {
        let (first, wall) = (SystemClock.steady_ms(), SystemClock.now_ms());
        // Nobody sets the clock by an hour while a test runs.
        assert!((wall - first).abs() < 3_600_000, "{first} {wall}");
        assert!(SystemClock.steady_ms() >= first);
    }
}
