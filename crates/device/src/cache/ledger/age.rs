//! How old an event is.

use std::time::{Duration, Instant};

/// Clocks that show an earlier time have not been set, 2020-01-01T00:00:00Z in milliseconds.
const CLOCK_IS_SET: i64 = 1_577_836_800_000;

/// What one stop counts for at most.
const STOP: Duration = Duration::from_secs(24 * 60 * 60);

/// A clock that only goes forward, by what really passed, over restarts: what the age of events goes by, whatever is done
/// to the wall clock.
///
/// While the program runs, the monotonic clock counts. What passes while it is stopped counts as the wall clock says, if it
/// shows a time after 2020 before and after and has not gone back, and up to a day for each stop: without a clock that
/// runs on its own a device does not know better. So an event may be kept for longer than it should, and is never dropped
/// because somebody set a clock; count and bytes bound what is kept in any case.
#[derive(Debug)]
pub(super) struct Age {
    /// What it showed at `since`.
    ran: Duration,
    since: Instant,
}

/// A time of this clock in seconds, and the wall clock then: what a former run leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub ran: u32,
    pub at: i64,
}

impl Age {
    pub(super) fn new(now: Instant) -> Self {
        Self { ran: Duration::ZERO, since: now }
    }

    /// Goes on from what a former run left.
    pub(super) fn resumed(before: Stamp, now: Instant, now_ms: i64) -> Self {
        let known = before.at >= CLOCK_IS_SET && now_ms >= CLOCK_IS_SET;
        let stopped = u64::try_from(now_ms.saturating_sub(before.at)).ok().filter(|_| known).unwrap_or(0);
        let ran = Duration::from_secs(before.ran.into()) + Duration::from_millis(stopped).min(STOP);
        Self { ran, since: now }
    }

    /// What it shows, in seconds: enough for a century.
    pub(super) fn seconds(&self, now: Instant) -> u32 {
        let ran = self.ran + now.saturating_duration_since(self.since);
        u32::try_from(ran.as_secs()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;
    const SET: i64 = CLOCK_IS_SET + 1000 * DAY;

    fn after_stop(at: i64, now_ms: i64) -> u32 {
        let now = Instant::now();
        Age::resumed(Stamp { ran: 100, at }, now, now_ms).seconds(now) - 100
    }

    #[test]
    fn a_stop_counts_up_to_a_day_and_a_clock_that_is_not_believed_for_nothing() {
        assert_eq!(after_stop(SET, SET + 3_600_000), 3600);
        assert_eq!(after_stop(SET, SET + 2 * 365 * DAY), 86_400, "a year that passed, or a clock that was set");
        assert_eq!(after_stop(SET, i64::MAX), 86_400);
        for (at, now_ms) in [(SET, SET - DAY), (1000, SET), (SET, 1000), (1000, 2000), (i64::MIN, i64::MAX)] {
            assert_eq!(after_stop(at, now_ms), 0, "{at} {now_ms}");
        }
    }

    #[test]
    fn a_run_counts_by_the_monotonic_clock() {
        let now = Instant::now();
        let age = Age::new(now);
        assert_eq!(age.seconds(now + Duration::from_millis(7999)), 7);
        let long = Age::resumed(Stamp { ran: u32::MAX, at: 0 }, now, 0);
        assert_eq!(long.seconds(now + Duration::from_secs(9)), u32::MAX);
    }
}
