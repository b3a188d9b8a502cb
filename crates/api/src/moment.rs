//! Moments in query strings.

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A moment in milliseconds since 1970, read from a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) i64);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        moment(&text).map(Moment).ok_or_else(|| {
            D::Error::custom("must be a moment: 2026-01-31T12:00:00Z (a + written as %2B) or milliseconds since 1970")
        })
    }
}

fn moment(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().or_else(|| text.parse::<Timestamp>().ok().map(|moment| moment.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_number() {
        assert_eq!(moment("0"), Some(0));
        assert_eq!(moment("-5"), Some(-5));
        assert_eq!(moment("1970-01-01T00:00:01.5Z"), Some(1_500));
        assert_eq!(moment("1970-01-01T01:00:00+01:00"), Some(0));
        for wrong in ["", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "1.5", "99999999999999999999"] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }
}
