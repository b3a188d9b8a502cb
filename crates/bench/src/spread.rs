//! One figure from several runs.

use std::fmt;

use serde::Serialize;

/// Least, middle and greatest of the samples, and the samples in the order of the runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// One for each run.
    pub samples: Vec<f64>,
}

impl Spread {
    /// `None` without a sample.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let samples: Vec<f64> = samples.into_iter().map(rounded).collect();
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.get(sorted.len() / 2)?;
        let other = sorted.get(sorted.len().saturating_sub(1) / 2)?;
        let (median, min, max) = (rounded((middle + other) / 2.0), *sorted.first()?, *sorted.last()?);
        Some(Spread { median, min, max, samples })
    }
}

/// Nobody can measure more digits than these.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// `10.7 (10.2–11.9)`, with as many digits as the size of the figure deserves; a single sample stands alone. The
/// alternate form is the median only.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.median.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{:.digits$}", self.median)?;
        if f.alternate() || self.samples.len() < 2 {
            return Ok(());
        }
        write!(f, " ({:.digits$}–{:.digits$})", self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of([]), None);
        let odd = Spread::of([3.0, 1.0, 2.0]).expect("samples");
        assert_eq!((odd.min, odd.median, odd.max, &*odd.samples), (1.0, 2.0, 3.0, &[3.0, 1.0, 2.0][..]));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).expect("samples").median, 2.5);
    }

    #[test]
    fn digits_follow_the_size() {
        assert_eq!(Spread::of([1234.5]).expect("a sample").to_string(), "1234");
        assert_eq!(Spread::of([12.345, 11.0, 13.0]).expect("samples").to_string(), "12.3 (11.0–13.0)");
        assert_eq!(format!("{:#}", Spread::of([0.6789, 0.7]).expect("samples")), "0.69");
    }
}
