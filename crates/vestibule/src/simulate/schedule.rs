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
    /// A child of a hub is out of its reach for some seconds; for each child and hour.
    pub child: f64,
}

impl Faults {
    /// Those of a device that has a connection.
    pub(crate) fn of_device(self) -> Faults {
        Faults { child: 0.0, ..self }
    }

    /// Those of a child, which has none.
    pub(crate) fn of_child(self) -> Faults {
        Faults { child: self.child, ..Faults::default() }
    }

    /// Whether connections have to be interfered with.
    pub(crate) fn touch_connections(&self) -> bool {
        self.drop > 0.0 || self.pause > 0.0
    }
}

impl FromStr for Faults {
    type Err = String;

    /// Reads `drop=2,pause=1,reconnect=0.5,child=6`.
    fn from_str(text: &str) -> Result<Faults, String> {
        let mut faults = Faults::default();
        for part in text.split(',') {
            let (name, rate) = part.split_once('=').unwrap_or((part, ""));
            let place = match name.trim() {
                "drop" => &mut faults.drop,
                "pause" => &mut faults.pause,
                "reconnect" => &mut faults.reconnect,
                "child" => &mut faults.child,
                other => {
                    return Err(format!("there is no fault `{other}`; there are drop, pause, reconnect and child"));
                }
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
    /// Its hub does not reach it any more.
    Away,
    /// Its hub reaches it again.
    Back,
}

/// The acts of one device, each kind at random intervals around its rate.
#[derive(Debug)]
pub(crate) struct Schedule {
    lines: [Line; 7],
    /// Seconds from the beginning to the end of an absence.
    back: Option<f64>,
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
                line(7, Act::Away, faults.child, HOUR),
            ],
            back: None,
        }
    }

    /// When the next act is due, counted from the beginning; `None` when there is none, or not in this century.
    pub(crate) fn due(&self) -> Option<Duration> {
        let next = self.lines.iter().map(|line| line.next).chain(self.back).fold(f64::INFINITY, f64::min);
        (next < 100.0 * 365.25 * 86_400.0).then(|| Duration::from_secs_f64(next))
    }

    /// Takes the next act.
    pub(crate) fn take(&mut self) -> Option<Act> {
        let line = self.lines.iter_mut().min_by(|a, b| a.next.total_cmp(&b.next))?;
        if self.back.is_some_and(|back| back <= line.next) {
            self.back = None;
            return Some(Act::Back);
        }
        if !line.next.is_finite() {
            return None;
        }
        let due = line.next;
        line.next += line.dice.pause(line.mean);
        let mut silence = || Duration::from_millis(line.dice.within(SILENCE_MS));
        Some(match line.act {
            Act::Pause(_) => Act::Pause(silence()),
            Act::Away => {
                let back = due + silence().as_secs_f64();
                // One that is away already may stay so for longer.
                self.back = Some(self.back.map_or(back, |before| before.max(back)));
                Act::Away
            }
            act => act,
        })
    }

    /// Whether its hub does not reach it.
    pub(crate) fn is_away(&self) -> bool {
        self.back.is_some()
    }
}

#[cfg(test)]
mod tests;
