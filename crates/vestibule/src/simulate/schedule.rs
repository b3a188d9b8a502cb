//! What a simulated device does when: the same for the same seed.

use std::str::FromStr;
use std::time::Duration;

use super::dice::Dice;

/// The shortest and the longest silence, in milliseconds: from a hiccup of the network to the keep-alive of a device.
const SILENCE_MS: std::ops::RangeInclusive<u64> = 2_000..=10_000;

/// How often a device does something by itself, or is asked to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rates {
    /// Events of each device in a minute.
    pub events_per_minute: f64,
    /// Changed attributes of each device in a minute.
    pub reports_per_minute: f64,
    /// Operations each device is asked for in a minute.
    pub operations_per_minute: f64,
}

/// How often something goes wrong, for each device and hour.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// The connection is cut without a goodbye.
    pub drop: f64,
    /// The device neither reads nor writes for some seconds.
    pub pause: f64,
    /// The device stops in order and starts again with what it had stored.
    pub reconnect: f64,
}

impl Faults {
    /// Whether connections have to be interfered with.
    pub(crate) fn touch_connections(&self) -> bool {
        self.drop > 0.0 || self.pause > 0.0
    }
}

impl FromStr for Faults {
    type Err = String;

    /// Reads `drop=2,pause=1,reconnect=0.5`.
    fn from_str(text: &str) -> Result<Faults, String> {
        let mut faults = Faults::default();
        for part in text.split(',') {
            let (name, rate) = part.split_once('=').unwrap_or((part, ""));
            let place = match name.trim() {
                "drop" => &mut faults.drop,
                "pause" => &mut faults.pause,
                "reconnect" => &mut faults.reconnect,
                other => return Err(format!("there is no fault `{other}`; there are drop, pause and reconnect")),
            };
            *place = rate_from_text(rate.trim()).map_err(|why| format!("{}: {why}", name.trim()))?;
        }
        Ok(faults)
    }
}

/// Reads a rate: a number that is not negative.
///
/// # Errors
/// A sentence.
pub fn rate_from_text(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0);
    rate.ok_or_else(|| "expected a rate such as 6 or 0.5".to_owned())
}

/// One thing a device does, or suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// It reports an event.
    Event,
    /// It reports a changed attribute.
    Report,
    /// It is asked for an operation.
    Operation,
    /// Its connection is cut.
    Drop,
    /// It is silent for so long.
    Pause(Duration),
    /// It leaves and comes back.
    Reconnect,
}

/// The acts of one device, each kind at random intervals around its rate.
#[derive(Debug)]
pub(crate) struct Schedule {
    lines: [Line; 6],
}

/// The acts of one kind.
#[derive(Debug)]
struct Line {
    act: Act,
    /// Seconds between two, on average; without an end when there are none.
    mean: f64,
    /// Seconds from the beginning to the next one.
    next: f64,
    dice: Dice,
}

impl Schedule {
    /// The acts of the device with this number.
    pub(crate) fn new(seed: u64, device: u32, rates: &Rates, faults: &Faults) -> Schedule {
        let line = |purpose: u32, act, rate: f64, seconds: f64| {
            let mut dice = Dice::new(seed, device, purpose);
            let mean = if rate > 0.0 { seconds / rate } else { f64::INFINITY };
            // A first draw of exactly 0 would make 0 times infinity, which is no number.
            let next = if mean.is_finite() { dice.pause(mean) } else { f64::INFINITY };
            Line { act, mean, next, dice }
        };
        const MINUTE: f64 = 60.0;
        const HOUR: f64 = 3_600.0;
        Schedule {
            lines: [
                line(1, Act::Event, rates.events_per_minute, MINUTE),
                line(2, Act::Report, rates.reports_per_minute, MINUTE),
                line(3, Act::Operation, rates.operations_per_minute, MINUTE),
                line(4, Act::Drop, faults.drop, HOUR),
                line(5, Act::Pause(Duration::ZERO), faults.pause, HOUR),
                line(6, Act::Reconnect, faults.reconnect, HOUR),
            ],
        }
    }

    /// When the next act is due, counted from the beginning; `None` when there is none, or not in this century.
    pub(crate) fn due(&self) -> Option<Duration> {
        let next = self.lines.iter().map(|line| line.next).fold(f64::INFINITY, f64::min);
        (next < 100.0 * 365.25 * 86_400.0).then(|| Duration::from_secs_f64(next))
    }

    /// Takes the next act.
    pub(crate) fn take(&mut self) -> Option<Act> {
        let line = self.lines.iter_mut().min_by(|a, b| a.next.total_cmp(&b.next))?;
        if !line.next.is_finite() {
            return None;
        }
        line.next += line.dice.pause(line.mean);
        Some(match line.act {
            Act::Pause(_) => Act::Pause(Duration::from_millis(line.dice.within(SILENCE_MS))),
            act => act,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { events_per_minute: 6.0, reports_per_minute: 60.0, operations_per_minute: 2.0 };

    /// Everything of an hour, with its time.
    fn hour(seed: u64, device: u32, rates: &Rates, faults: &Faults) -> Vec<(Duration, Act)> {
        let mut schedule = Schedule::new(seed, device, rates, faults);
        let mut acts = Vec::new();
        while let Some(due) = schedule.due().filter(|due| *due < Duration::from_secs(3_600)) {
            acts.push((due, schedule.take().expect("it is due")));
        }
        acts
    }

    fn count(acts: &[(Duration, Act)], wanted: fn(&Act) -> bool) -> usize {
        acts.iter().filter(|(_, act)| wanted(act)).count()
    }

    #[test]
    fn the_same_seed_brings_the_same_acts() {
        let faults = Faults { drop: 3.0, pause: 3.0, reconnect: 3.0 };
        assert_eq!(hour(1, 5, &RATES, &faults), hour(1, 5, &RATES, &faults));
        assert_ne!(hour(1, 5, &RATES, &faults), hour(2, 5, &RATES, &faults));
        assert_ne!(hour(1, 5, &RATES, &faults), hour(1, 6, &RATES, &faults));
    }

    #[test]
    fn rates_are_kept_and_time_never_runs_back() {
        let acts = hour(1, 0, &RATES, &Faults { drop: 20.0, ..Faults::default() });
        assert!(acts.is_sorted_by_key(|(due, _)| *due));
        let near = |count: usize, rate: usize| count.abs_diff(rate) * 4 <= rate;
        assert!(near(count(&acts, |act| *act == Act::Event), 360), "{}", acts.len());
        assert!(near(count(&acts, |act| *act == Act::Report), 3_600), "{}", acts.len());
        assert!(near(count(&acts, |act| *act == Act::Operation), 120), "{}", acts.len());
        assert!((5..=45).contains(&count(&acts, |act| *act == Act::Drop)));
        assert_eq!(count(&acts, |act| matches!(act, Act::Pause(_) | Act::Reconnect)), 0);
    }

    #[test]
    fn one_rate_does_not_move_what_another_brings() {
        let events = |rates: &Rates| {
            let mut acts = hour(1, 0, rates, &Faults::default());
            acts.retain(|(_, act)| *act == Act::Event);
            acts
        };
        assert_eq!(events(&RATES), events(&Rates { reports_per_minute: 1.0, operations_per_minute: 0.0, ..RATES }));
    }

    #[test]
    fn nothing_to_do_is_never_due() {
        let rates = Rates { events_per_minute: 0.0, reports_per_minute: 0.0, operations_per_minute: 0.0 };
        let mut schedule = Schedule::new(1, 0, &rates, &Faults::default());
        assert_eq!((schedule.due(), schedule.take()), (None, None));
    }

    #[test]
    fn a_silence_has_some_seconds() {
        let acts = hour(1, 0, &RATES, &Faults { pause: 50.0, ..Faults::default() });
        let seconds = Duration::from_secs(2)..=Duration::from_secs(10);
        let silences = acts.iter().filter_map(|(_, act)| match act {
            Act::Pause(silence) => Some(silence),
            _ => None,
        });
        let silences: Vec<_> = silences.collect();
        assert!(silences.len() > 10 && silences.iter().all(|silence| seconds.contains(silence)), "{silences:?}");
    }

    #[test]
    fn faults_are_read_by_name() {
        assert_eq!("drop=2,pause=0.5".parse(), Ok(Faults { drop: 2.0, pause: 0.5, reconnect: 0.0 }));
        assert_eq!(" reconnect = 1 ".parse(), Ok(Faults { reconnect: 1.0, ..Faults::default() }));
        for wrong in ["", "drop", "drop=", "drop=-1", "drop=inf", "drop=NaN", "fire=1", "drop=1,", "drop=1;pause=1"] {
            assert!(wrong.parse::<Faults>().is_err(), "{wrong}");
        }
    }
}
