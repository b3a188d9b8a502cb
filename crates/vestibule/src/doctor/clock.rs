//! The clock: events carry its time, and it decides what expires.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use vestibule_store::newest_segment;

use super::Finding;
use crate::config::Config;

/// No platform of this kind was built before.
const EARLIEST: &str = "2026-01-01T00:00:00Z";
/// Where the usual services say that they have set the clock.
const SYNCHRONISED: [&str; 2] = ["/run/systemd/timesync/synchronized", "/run/chrony/chronyd.sock"];

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    vec![judge(Timestamp::now(), written(&config.data), SYNCHRONISED.iter().any(|path| Path::new(path).exists()))]
}

/// When the journal was last written to.
fn written(data: &Path) -> Option<Timestamp> {
    let newest = newest_segment(data)?;
    Timestamp::try_from(fs::metadata(newest).ok()?.modified().ok()?).ok()
}

fn judge(now: Timestamp, written: Option<Timestamp>, is_synchronised: bool) -> Finding {
    const CURE: &str = "set the clock, and keep it by NTP (systemd-timesyncd, chrony)";
    if EARLIEST.parse().is_ok_and(|earliest: Timestamp| now < earliest) {
        return Finding::wrong("clock", format!("it is {now}, which cannot be"), CURE);
    }
    if let Some(written) = written
        && now < written
    {
        let words = format!("it is {now}, and the journal was written to at {written}: the clock has been set back");
        return Finding::wrong("clock", words, CURE);
    }
    match is_synchronised {
        true => Finding::good("clock", format!("it is {now}, and a time service is at work")),
        false => Finding::doubtful("clock", format!("it is {now}; no time service was found that keeps it so"), CURE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_clock_that_cannot_be_right_is_wrong() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let now = at("2026-11-21T00:00:00Z");
        assert_eq!(judge(at("1970-01-01T00:01:00Z"), None, true).verdict, Verdict::Wrong);
        assert_eq!(judge(now, Some(at("2026-11-21T01:00:00Z")), true).verdict, Verdict::Wrong);
        assert_eq!(judge(now, Some(at("2026-11-20T23:59:59Z")), true).verdict, Verdict::Good);
        assert_eq!(judge(now, None, false).verdict, Verdict::Doubtful);
    }
}
