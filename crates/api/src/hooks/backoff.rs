//! How long to wait before a delivery is tried again.

use std::time::Duration;

use jiff::Timestamp;

/// The first wait, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The wait after so many failures in a row, one at least: it doubles, and between its half and its whole the dice decide,
/// so that receivers that come back do not hear from everybody at once.
pub(crate) fn wait(failures: u32, dice: u32) -> Duration {
    let whole = FIRST.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST);
    let half = whole / 2;
    half + half.mul_f64(f64::from(dice) / f64::from(u32::MAX))
}

/// The wait that a receiver asks for by `Retry-After`, in seconds or as a date; never longer than the longest.
pub(crate) fn asked(retry_after: &str, now_ms: i64) -> Option<Duration> {
    let text = retry_after.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => LONGEST,
        Err(_) => {
            let date: Timestamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::from_millis(u64::try_from(date.as_millisecond().saturating_sub(now_ms)).unwrap_or(0))
        }
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        let longest = |failures| wait(failures, u32::MAX).as_secs();
        assert_eq!([1, 2, 3, 10].map(longest), [1, 2, 4, 512]);
        assert_eq!([12, 13, 40, u32::MAX].map(longest), [2_048, 3_600, 3_600, 3_600]);
        assert_eq!(wait(1, 0), Duration::from_millis(500));
        assert_eq!(wait(3, 0), Duration::from_secs(2));
        assert!(
            wait(3, u32::MAX / 2) > Duration::from_millis(2_900)
                && wait(3, u32::MAX / 2) < Duration::from_millis(3_100)
        );
    }

    #[test]
    fn a_receiver_may_ask_for_a_wait_and_not_for_ever() {
        // 2026-01-01T00:00:00Z, a Thursday.
        let now = 1_767_225_600_000;
        let asked = |text| asked(text, now).map(|wait| wait.as_secs());
        assert_eq!(asked("0"), Some(0));
        assert_eq!(asked(" 120 "), Some(120));
        assert_eq!(asked("86400"), Some(3_600));
        assert_eq!(asked("99999999999999999999999999"), Some(3_600));
        assert_eq!(asked("Thu, 01 Jan 2026 00:02:00 GMT"), Some(120));
        assert_eq!(asked("Wed, 31 Dec 2025 00:02:00 GMT"), Some(0));
        for nothing in ["", "soon", "-1", "1.5"] {
            assert_eq!(asked(nothing), None, "{nothing}");
        }
    }
}
