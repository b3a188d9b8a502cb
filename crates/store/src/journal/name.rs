//! The names of segment files: the UTC day and a number within it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::OpenError;

const DAY_MS: i64 = 86_400_000;

/// The UTC day of a time, counted from 1970.
pub(super) fn day(ms: i64) -> i64 {
    ms.div_euclid(DAY_MS)
}

/// `2026-01-31-1.db`.
pub(super) fn file_name(day: i64, number: u64) -> String {
    let date = Timestamp::from_millisecond(day.saturating_mul(DAY_MS))
        .map(|time| time.strftime("%Y-%m-%d").to_string())
        // A day no calendar has: the device of a test or a broken clock.
        .unwrap_or_else(|_| format!("day{day}"));
    format!("{date}-{number}.db")
}

/// The day and number of a segment file's name; None for any other file.
pub(crate) fn parse_name(path: &Path) -> Option<(i64, u64)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".db")?;
    let (date, number) = stem.rsplit_once('-')?;
    let number = number.parse().ok()?;
    let day = match date.strip_prefix("day") {
        Some(day) => day.parse().ok()?,
        None => {
            let date: jiff::civil::Date = date.parse().ok()?;
            let start = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
            day(start.as_millisecond())
        }
    };
    Some((day, number))
}

/// The segment files in a directory, each with its day, in no order.
pub(crate) fn segment_files(dir: &Path) -> Result<Vec<(PathBuf, i64)>, OpenError> {
    let list = || -> std::io::Result<Vec<(PathBuf, i64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if let Some((day, _)) = parse_name(&path) {
                files.push((path, day));
            }
        }
        Ok(files)
    };
    list().map_err(|source| OpenError::Io { action: "list", path: dir.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_day_and_number() {
        assert_eq!(file_name(0, 1), "1970-01-01-1.db");
        for (day, number) in [(0, 1), (20_778, 12), (-1, 3), (i64::MAX / DAY_MS, 1)] {
            assert_eq!(parse_name(Path::new(&file_name(day, number))), Some((day, number)));
        }
        for other in ["control.db", "2026-01-31-1.db-wal", "2026-01-31.db", "2026-13-01-1.db"] {
            assert_eq!(parse_name(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_day_begins_at_midnight_utc() {
        assert_eq!(day(DAY_MS - 1), 0);
        assert_eq!(day(DAY_MS), 1);
        assert_eq!(day(-1), -1);
    }
}
