//! How long the journal has run: what ages records, whatever the wall clock does.
//!
//! The wall clock says when a record was received; stepped forward by mistake, it would make every record old at once. So
//! a record is old when the wall clock says so and the journal has run for as long since. What passes while it is stopped
//! counts as the wall clock says, up to a day for each stop.

use super::watermark::State;
use crate::config::Clock;

/// What one stop counts for at most.
const STOP: i64 = 86_400_000;

/// A clock that only goes forward, by what really passed, over restarts.
pub(super) struct Age {
    elapsed: Clock,
    /// What it said at `since`.
    ran: i64,
    since: i64,
}

impl Age {
    /// Goes on from what a former process left, or from the newest record when nothing is left of that.
    pub(super) fn new(before: Option<State>, newest: i64, elapsed: Clock, now: i64) -> Age {
        let stopped = before.map_or(0, |state| now.saturating_sub(state.clock).clamp(0, STOP));
        let ran = before.map_or(0, |state| state.ran).max(newest).saturating_add(stopped);
        let since = elapsed();
        Age { elapsed, ran, since }
    }

    /// How long the journal has run, in milliseconds.
    pub(super) fn ran(&self) -> i64 {
        let passed = (self.elapsed)().saturating_sub(self.since).max(0);
        self.ran.saturating_add(passed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_stop_counts_up_to_a_day_and_a_clock_set_back_for_nothing() {
        let before = State { ran: 100, clock: 1_000, ..State::default() };
        let at = |now| Age::new(Some(before), 0, Arc::new(|| 7), now).ran();
        assert_eq!((at(1_500), at(0), at(i64::MAX)), (600, 100, 100 + STOP));
        assert_eq!(Age::new(None, 40, Arc::new(|| 7), 9).ran(), 40);
        assert_eq!(Age::new(Some(before), 400, Arc::new(|| 7), 1_000).ran(), 400);
    }
}
