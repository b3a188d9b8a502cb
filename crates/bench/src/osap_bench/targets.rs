//! What the figures are held against.

use std::fmt;

use serde::Serialize;

use super::figures::FleetFigures;
use crate::spread::Spread;

/// CPU time of a stored event in the largest fleet, in µs.
const EVENT_US: f64 = 25.0;
/// By what share the same event may cost more or less in the largest fleet than in a small one.
const EVENT_DRIFT: f64 = 0.15;
/// The P-384 exchange as a share of a first authentication.
const P384_SHARE: f64 = 0.6;
/// User memory of an idle connection, in bytes. Held against all that a device takes from registered to connected,
/// which is more than the connection.
const IDLE_BYTES: f64 = 3_072.0;

/// Fleets from this size on say something about the cost of one device among many.
pub(super) const SMALL: usize = 100;
/// The targets for large fleets need one.
const LARGE: usize = 1_000;

/// A target and what was measured.
#[derive(Debug, PartialEq, Serialize)]
pub struct Target {
    name: &'static str,
    unit: &'static str,
    /// `true`: more is better.
    at_least: bool,
    target: f64,
    measured: f64,
    met: bool,
}

impl Target {
    fn at_most(name: &'static str, unit: &'static str, target: f64, measured: f64) -> Target {
        Target { name, unit, at_least: false, target, measured, met: measured <= target }
    }

    fn at_least(name: &'static str, unit: &'static str, target: f64, measured: f64) -> Target {
        Target { name, unit, at_least: true, target, measured, met: measured >= target }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { name, unit, target, measured, .. } = self;
        let (verdict, sign) = (if self.met { "met   " } else { "MISSED" }, if self.at_least { '≥' } else { '≤' });
        let digits = if measured.abs() >= 100.0 { 0 } else { 2 };
        write!(f, "{verdict}  {name}: {measured:.digits$} {unit} (target {sign} {target} {unit})")
    }
}

/// Those that can be looked at with these fleets.
pub fn of(fleets: &[FleetFigures]) -> Vec<Target> {
    let event = |fleet: &FleetFigures| fleet.events.first().map(|event| event.figure.cpu_us.clone());
    let mut targets = Vec::new();
    let Some(large) = fleets.iter().max_by_key(|fleet| fleet.devices).filter(|fleet| fleet.devices >= LARGE) else {
        return targets;
    };
    if let Some(measured) = event(large) {
        targets.push(Target::at_most("stored event", "µs", EVENT_US, measured.median));
        let small = fleets.iter().filter(|fleet| (SMALL..LARGE).contains(&fleet.devices));
        let base = small.min_by_key(|fleet| fleet.devices).and_then(event);
        if let Some(drift) = base.and_then(|base| drift(&base, &measured)) {
            targets.push(Target::at_most("stored event, small fleet to large", "of it", EVENT_DRIFT, drift.abs()));
        }
    }
    let share = large.first_authentication_p384_share.median;
    targets.push(Target::at_least("first authentication", "of the P-384 limit", P384_SHARE, share));
    let idle = large.memory.idle_device_bytes.median;
    targets.push(Target::at_most("idle device", "bytes", IDLE_BYTES, idle));
    targets
}

/// By what share the figure grows from one fleet to the other: the median over the runs, each with itself, because
/// the runs of two fleets that follow one another found the machine in the same state.
fn drift(from: &Spread, to: &Spread) -> Option<f64> {
    let pairs = from.samples.iter().zip(&to.samples);
    Spread::of(pairs.map(|(from, to)| to / from - 1.0)).map(|drift| drift.median)
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::fleet;
    use super::*;

    #[test]
    fn targets_need_the_fleets_they_speak_of() {
        assert!(of(&[]).is_empty());
        assert!(of(&[fleet(1, 400), fleet(100, 20)]).is_empty());
        assert_eq!(of(&[fleet(5_000, 20)]).len(), 3);
        assert_eq!(of(&[fleet(1, 400), fleet(100, 20), fleet(5_000, 20)]).len(), 4);
    }

    #[test]
    fn drift_compares_runs_that_followed_one_another() {
        let [from, to] = [[10.0, 20.0, 30.0], [11.0, 22.0, 60.0]].map(|samples| Spread::of(samples).expect("samples"));
        assert_eq!(drift(&from, &to), Some(0.1));
    }

    #[test]
    fn verdicts_follow_the_figures() {
        let met = of(&[fleet(100, 20), fleet(5_000, 22)]);
        assert!(met.iter().all(|target| target.met), "{met:?}");
        let missed = of(&[fleet(100, 20), fleet(5_000, 26)]);
        let verdicts: Vec<bool> = missed.iter().map(|target| target.met).collect();
        assert_eq!(verdicts, [false, false, true, true]);
        assert_eq!(missed[0].to_string(), "MISSED  stored event: 26.00 µs (target ≤ 25 µs)");
        assert_eq!(missed[3].to_string(), "met     idle device: 2048 bytes (target ≤ 3072 bytes)");
    }
}
