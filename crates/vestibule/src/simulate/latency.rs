//! How long things took, in a space that does not grow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

/// Steps of each power of two: a quantile is exact to 3 %.
const STEPS: u32 = 32;
const STEP_BITS: u32 = STEPS.ilog2();
/// Microseconds below this have a bucket each; above, every power of two has its steps.
const BUCKETS: usize = (STEPS * (64 - STEP_BITS + 1)) as usize;

/// Counts durations, from any thread.
#[derive(Debug)]
pub(crate) struct Latencies {
    buckets: Box<[AtomicU64]>,
    greatest: AtomicU64,
}

/// A summary, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    /// Half took no longer.
    pub median: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), greatest: AtomicU64::new(0) }
    }
}

impl Latencies {
    /// Counts one.
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket(micros)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.greatest.fetch_max(micros, Relaxed);
    }

    /// The summary; `None` when nothing was counted.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let greatest = self.greatest.load(Relaxed);
        let quantile = |percent: u64| {
            let rank = (total * percent).div_ceil(100);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            milliseconds(found.map_or(greatest, |bucket| middle(bucket).min(greatest)))
        };
        (total > 0).then(|| Quantiles { median: quantile(50), p99: quantile(99), max: milliseconds(greatest) })
    }
}

/// The bucket of a duration.
fn bucket(micros: u64) -> usize {
    let power = micros.max(1).ilog2();
    if power < STEP_BITS {
        return micros as usize;
    }
    let shift = power - STEP_BITS;
    // The leading bit says which power, the bits behind it which step.
    let step = (micros >> shift) & u64::from(STEPS - 1);
    (u64::from(STEPS * (shift + 1)) + step) as usize
}

/// The duration in the middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let (bucket, steps) = (bucket as u64, u64::from(STEPS));
    match (bucket / steps).checked_sub(1) {
        None => bucket,
        Some(shift) => ((steps + bucket % steps) << shift) + ((1_u64 << shift) >> 1),
    }
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        assert!((0..100_000_u64).map(bucket).is_sorted_by(|a, b| a == b || a + 1 == *b));
        assert!(bucket(u64::MAX) < BUCKETS);
        for micros in [0, 1, 31, 32, 33, 63, 64, 1_000, 123_456, 60_000_000, 1 << 40] {
            let shown = middle(bucket(micros));
            assert!(shown.abs_diff(micros) * 32 <= micros, "{micros} shows as {shown}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_samples() {
        let latencies = Latencies::default();
        assert_eq!(latencies.quantiles(), None);
        (1..=1_000).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        let quantiles = latencies.quantiles().expect("samples");
        assert!((485.0..=515.0).contains(&quantiles.median), "{quantiles:?}");
        assert!((960.0..=1_000.0).contains(&quantiles.p99), "{quantiles:?}");
        assert_eq!(quantiles.max, 1_000.0);
    }

    #[test]
    fn a_single_sample_is_every_quantile() {
        let latencies = Latencies::default();
        latencies.record(Duration::from_micros(1_001));
        let Quantiles { median, p99, max } = latencies.quantiles().expect("a sample");
        assert!(median <= max && p99 == median && max == 1.001, "{median} {p99} {max}");
    }
}
