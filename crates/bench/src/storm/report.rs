//! What came out of a storm.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{Arrival, Storm};
use crate::memory::Memory;
use crate::metrics::Metrics;

/// What the platform counts of those whom it did not let in, and the value of the label of those whom it did.
const COUNTERS: [(&str, &str); 6] = [
    ("vestibule_connections_refused_total", ""),
    ("vestibule_lbs_refused_total", ""),
    ("vestibule_lbs_modern_runs_total", "result=\"ok\""),
    ("vestibule_tls_handshakes_total", "result=\"ok\""),
    ("vestibule_connections_ended_total", "phase=\"session\""),
    ("vestibule_das_logins_total", "result=\"ok\""),
];
/// Those that have no labels.
const PLAIN_COUNTERS: [&str; 2] = ["vestibule_lbs_made_room_total", "vestibule_das_guests_gone_total"];

/// What devices were told, or were not, and how often.
pub(super) type Troubles = BTreeMap<String, u64>;

/// What the devices have seen.
pub(super) struct Outcome {
    pub(super) arrivals: Vec<Arrival>,
    pub(super) troubles: Troubles,
    /// Of one core.
    pub(super) generator_busy: f64,
}

/// What the platform says.
pub(super) struct Platform {
    pub(super) metrics: Metrics,
    pub(super) cpu: Duration,
    pub(super) memory_before: Memory,
    pub(super) memory_after: Memory,
}

/// All figures.
#[derive(Debug, Serialize)]
pub struct StormFigures {
    benchmark: &'static str,
    devices: usize,
    kept_sessions: bool,
    all_in_seconds: f64,
    /// How often a device tried, the last time included.
    attempts: Ranks,
    /// Until a device was in.
    came_in_seconds: Ranks,
    /// Failed attempts, as the devices saw them.
    failures: Troubles,
    /// Whom the platform did not let in, by its own counters.
    refused: BTreeMap<String, u64>,
    cpu_us_per_device: f64,
    /// How much of its core the load generator used meanwhile.
    generator_busy: f64,
    /// Started anew, nobody connected.
    memory_before: Memory,
    /// All connected.
    memory_after: Memory,
    memory_bytes_per_device: f64,
}

/// The middle, 99 of 100, the greatest.
#[derive(Debug, PartialEq, Serialize)]
struct Ranks {
    median: f64,
    p99: f64,
    max: f64,
}

impl Ranks {
    fn of(values: impl Iterator<Item = f64>) -> Option<Ranks> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values.get((values.len() as f64 * share).ceil() as usize - 1).copied();
        if values.is_empty() {
            return None;
        }
        Some(Ranks { median: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

impl StormFigures {
    /// `None` when nobody has come.
    pub(super) fn new(storm: &Storm, outcome: Outcome, platform: &Platform) -> Option<StormFigures> {
        let Outcome { arrivals, troubles, generator_busy } = outcome;
        let Platform { metrics, cpu, memory_before, memory_after } = platform;
        let came_in_seconds = Ranks::of(arrivals.iter().map(|arrival| rounded(arrival.after.as_secs_f64())))?;
        let grown = memory_after.pss_kib as f64 - memory_before.pss_kib as f64;
        Some(StormFigures {
            benchmark: "storm",
            devices: storm.devices,
            kept_sessions: storm.keeps_sessions,
            all_in_seconds: came_in_seconds.max,
            attempts: Ranks::of(arrivals.iter().map(|arrival| f64::from(arrival.attempts)))?,
            came_in_seconds,
            failures: troubles,
            refused: refused(metrics),
            cpu_us_per_device: rounded(cpu.as_secs_f64() * 1e6 / storm.devices as f64),
            generator_busy: rounded(generator_busy),
            memory_before: *memory_before,
            memory_after: *memory_after,
            memory_bytes_per_device: rounded(grown * 1024.0 / storm.devices as f64),
        })
    }
}

/// What stands in the counters of refusals, without those that are 0.
fn refused(metrics: &Metrics) -> BTreeMap<String, u64> {
    let labelled = COUNTERS.into_iter().flat_map(|(name, good)| {
        let bad = metrics.samples(name).filter(move |(labels, _)| good.is_empty() || !labels.contains(good));
        bad.map(move |(labels, count)| (format!("{name}{{{labels}}}"), count as u64))
    });
    let plain = PLAIN_COUNTERS.into_iter().map(|name| (name.to_owned(), metrics.sum(name) as u64));
    labelled.chain(plain).filter(|(_, count)| *count > 0).collect()
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl fmt::Display for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median {}, 99 % {}, greatest {}", self.median, self.p99, self.max)
    }
}

impl fmt::Display for StormFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = if self.kept_sessions { "with their sessions" } else { "with their tickets" };
        writeln!(f, "{} devices {sessions}: all in after {} s, none given up", self.devices, self.all_in_seconds)?;
        writeln!(f, "  attempts: {}", self.attempts)?;
        writeln!(f, "  seconds until in: {}", self.came_in_seconds)?;
        let listed = |f: &mut fmt::Formatter<'_>, title: &str, counts: &BTreeMap<String, u64>| {
            writeln!(f, "  {title}: {}", if counts.is_empty() { "none" } else { "" })?;
            counts.iter().try_for_each(|(what, count)| writeln!(f, "    {count:>7}  {what}"))
        };
        listed(f, "failed attempts, as the devices saw them", &self.failures)?;
        listed(f, "not let in, as the platform counts", &self.refused)?;
        writeln!(
            f,
            "  CPU of the platform {} µs a device; the generator used {} of its core",
            self.cpu_us_per_device, self.generator_busy
        )?;
        writeln!(
            f,
            "  memory {:.1} MiB before, {:.1} MiB after, {} bytes a device",
            self.memory_before.pss_kib as f64 / 1024.0,
            self.memory_after.pss_kib as f64 / 1024.0,
            self.memory_bytes_per_device
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_of_the_values_that_were_there() {
        assert_eq!(Ranks::of(std::iter::empty()), None);
        let ranks = Ranks::of((1..=200).map(f64::from)).expect("values");
        assert_eq!(ranks, Ranks { median: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(Ranks::of([3.0].into_iter()).map(|ranks| ranks.p99), Some(3.0));
    }

    #[test]
    fn figures_tell_whom_the_platform_did_not_let_in_and_why() {
        let metrics = Metrics::new(
            "vestibule_tls_handshakes_total{listener=\"das\",result=\"ok\"} 9\n\
             vestibule_tls_handshakes_total{listener=\"das\",result=\"tls_handshakes\"} 3\n\
             vestibule_lbs_made_room_total 2\nvestibule_das_guests_gone_total 0\n"
                .to_owned(),
        );
        let memory = |pss_kib| Memory { pss_kib, anonymous_kib: pss_kib };
        let platform = Platform {
            metrics,
            cpu: Duration::from_millis(3),
            memory_before: memory(1_000),
            memory_after: memory(1_012),
        };
        let arrivals = [1, 2, 4].map(|n| Arrival { attempts: n, after: Duration::from_secs(n.into()) }).to_vec();
        let outcome = Outcome { arrivals, troubles: [("LBS, TLS: reset".to_owned(), 4)].into(), generator_busy: 0.5 };
        let storm = Storm { devices: 3, keeps_sessions: false, attempts: 9 };
        let figures = StormFigures::new(&storm, outcome, &platform).expect("figures");
        assert_eq!((figures.all_in_seconds, figures.cpu_us_per_device), (4.0, 1_000.0));
        assert_eq!((figures.attempts.median, figures.memory_bytes_per_device), (2.0, 4_096.0));
        let refused = [
            ("vestibule_lbs_made_room_total".to_owned(), 2),
            ("vestibule_tls_handshakes_total{listener=\"das\",result=\"tls_handshakes\"}".to_owned(), 3),
        ];
        assert_eq!(figures.refused, refused.into());
        assert!(figures.to_string().contains("all in after 4 s"), "{figures}");
    }
}
