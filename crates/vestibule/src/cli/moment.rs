//! Points in time as people type them.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::duration_from_text;

/// A point in time: `2026-01-31T12:00:00Z`, `2026-01-31` (midnight UTC), or `15m` (ago).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl Moment {
    /// The point in time, seen from `now`, RFC 3339.
    pub(super) fn rfc3339(self, now: Timestamp) -> String {
        match self {
            Moment::At(time) => time,
            Moment::Ago(duration) => now
                .saturating_sub(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX))
                .unwrap_or(Timestamp::MIN),
        }
        .to_string()
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Moment::At(time));
        }
        if let Some(time) = text.parse::<Date>().ok().and_then(|date| date.to_zoned(TimeZone::UTC).ok()) {
            return Ok(Moment::At(time.timestamp()));
        }
        duration_from_text(text).map(Moment::Ago).map_err(|_| {
            "expected a time such as 2026-01-31T12:00:00Z, a day such as 2026-01-31, or how long ago, such as 15m"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_days_or_ages() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().expect("a time");
        for (text, time) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05+08:00", "2026-01-01T19:04:05Z"),
            ("2026-01-02", "2026-01-02T00:00:00Z"),
            ("15m", "2026-01-31T11:45:00Z"),
            ("1d", "2026-01-30T12:00:00Z"),
        ] {
            assert_eq!(text.parse::<Moment>().expect(text).rfc3339(now), time, "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "12:00"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
