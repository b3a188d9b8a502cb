//! What came out of a flood.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::attack::{Ends, Strangers};
use super::{Args, Arrival};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::spread::Spread;

/// Why the LBS refuses, as it counts it.
const REASONS: [&str; 5] = ["serial_budget", "address_budget", "network_budget", "compute_queue", "crowd"];

/// All figures.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    benchmark: &'static str,
    devices: usize,
    replays_per_second: u32,
    codes_per_second: u32,
    addresses: u32,
    known: Option<Group>,
    new: Option<Group>,
    strangers: Strangers,
    refused: BTreeMap<&'static str, u64>,
    seconds: f64,
    cpu_seconds: f64,
    memory_before: Memory,
    memory_after: Memory,
}

/// Good devices of one kind.
#[derive(Debug, Serialize)]
struct Group {
    devices: usize,
    attempts_median: f64,
    attempts_max: f64,
    /// How many needed so many attempts.
    attempts: BTreeMap<u32, usize>,
    /// Until the last one was in, from when all began to come.
    all_in_seconds: f64,
}

impl Group {
    fn of(arrivals: &[Arrival], new: bool) -> Option<Group> {
        let arrivals: Vec<&Arrival> = arrivals.iter().filter(|arrival| arrival.new == new).collect();
        let spread = Spread::of(arrivals.iter().map(|arrival| f64::from(arrival.attempts)))?;
        let mut attempts = BTreeMap::new();
        for arrival in &arrivals {
            *attempts.entry(arrival.attempts).or_default() += 1;
        }
        let last = arrivals.iter().map(|arrival| arrival.after).max()?;
        Some(Group {
            devices: arrivals.len(),
            attempts_median: spread.median,
            attempts_max: spread.max,
            attempts,
            all_in_seconds: seconds(last),
        })
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100.0).round() / 100.0
}

impl Report {
    pub(super) fn new(
        args: &Args,
        arrivals: &[Arrival],
        strangers: Strangers,
        metrics: &Metrics,
        (cpu, wall): (Duration, Duration),
        (memory_before, memory_after): (Memory, Memory),
    ) -> Report {
        let refused = |reason| (reason, metrics.labelled("vestibule_lbs_refused_total", "reason", reason) as u64);
        Report {
            benchmark: "flood",
            devices: args.devices,
            replays_per_second: args.replays,
            codes_per_second: args.codes,
            addresses: args.addresses,
            known: Group::of(arrivals, false),
            new: Group::of(arrivals, true),
            strangers,
            refused: REASONS.map(refused).into(),
            seconds: seconds(wall),
            cpu_seconds: seconds(cpu),
            memory_before,
            memory_after,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { replays_per_second, codes_per_second, addresses, devices, strangers, .. } = self;
        writeln!(
            f,
            "{replays_per_second} replayed AUTH-I/s and {codes_per_second} wrong codes/s from {addresses} addresses, \
             {devices} good devices"
        )?;
        for (name, group) in [("with keys", &self.known), ("new", &self.new)] {
            let Some(group) = group else { continue };
            writeln!(
                f,
                "{:>6} {name}: attempts median {}, max {}; all in after {} s",
                group.devices, group.attempts_median, group.attempts_max, group.all_in_seconds
            )?;
        }
        for (name, Ends { looked_at, told_to_come_again, closed, not_sent }) in
            [("replays", strangers.replays), ("codes", strangers.codes)]
        {
            writeln!(
                f,
                "{name}: {looked_at} looked at, {told_to_come_again} told to come again, {closed} closed, {not_sent} not sent"
            )?;
        }
        let refused: Vec<String> = self.refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        writeln!(f, "the platform refused: {}", refused.join(", "))?;
        writeln!(
            f,
            "CPU {} s in {} s; memory {:.1} MiB before, {:.1} MiB after",
            self.cpu_seconds,
            self.seconds,
            self.memory_before.pss_kib as f64 / 1024.0,
            self.memory_after.pss_kib as f64 / 1024.0
        )
    }
}
