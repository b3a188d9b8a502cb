//! How long a device waits before it tries the LBS again (osap-wire 5.12).

use std::time::Duration;

/// What made an attempt fail, as far as the delay depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The name did not resolve, nobody listened, or the server named a type to try instead.
    Unreached,
    /// The exchange failed.
    Failed,
    /// The server serves nothing the device could run; trying soon is of no use.
    NothingInCommon,
}

const STEP: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(120);
const LONGEST_WITHOUT_SUITE: Duration = Duration::from_secs(3600);

/// The delay after `failures` failed attempts in a row, the last of them for `trouble`. It is
/// counted from the start of that attempt.
///
/// 2 s for each failure up to 120 s; always 2 s when the server was not reached; doubling up to
/// an hour when there is nothing in common.
#[must_use]
pub fn delay(trouble: Trouble, failures: u32) -> Duration {
    match trouble {
        Trouble::Unreached => STEP,
        Trouble::Failed => STEP.saturating_mul(failures.max(1)).min(LONGEST),
        Trouble::NothingInCommon => {
            let doublings = failures.clamp(1, 12) - 1;
            STEP.saturating_mul(1 << doublings).min(LONGEST_WITHOUT_SUITE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_by_two_seconds_to_two_minutes() {
        for (failures, seconds) in [(0, 2), (1, 2), (2, 4), (59, 118), (60, 120), (61, 120), (u32::MAX, 120)] {
            assert_eq!(delay(Trouble::Failed, failures), Duration::from_secs(seconds), "{failures}");
        }
        assert_eq!(delay(Trouble::Unreached, 100), Duration::from_secs(2));
    }

    #[test]
    fn without_a_common_suite_it_grows_to_an_hour() {
        for (failures, seconds) in [(0, 2), (1, 2), (2, 4), (11, 2048), (12, 3600), (u32::MAX, 3600)] {
            assert_eq!(delay(Trouble::NothingInCommon, failures), Duration::from_secs(seconds), "{failures}");
        }
    }
}
