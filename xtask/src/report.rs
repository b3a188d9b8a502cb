//! What has been proved so far, and the closing line.

use std::fmt;
use std::time::{Duration, Instant};

use crate::count::Count;
use crate::step::Outcome;

/// The outcome of a whole run.
#[derive(Debug, Default)]
pub struct Report {
    count: Count,
    /// Steps that failed as such, with the reason.
    failures: Vec<(String, String)>,
    times: Vec<(String, Duration)>,
}

impl Report {
    /// Runs a step and takes in how it ended.
    pub fn step(&mut self, name: &str, run: impl FnOnce() -> Outcome) {
        eprintln!("\n=== {name}");
        let began = Instant::now();
        let outcome = run();
        self.times.push((name.to_owned(), began.elapsed()));
        self.count.add(outcome.count);
        if let Some(reason) = outcome.failure {
            self.fail(name, reason);
        }
    }

    /// Counts a failed step.
    pub fn fail(&mut self, name: &str, reason: String) {
        eprintln!("xtask: {name}: {reason}");
        self.count.failed += 1;
        self.failures.push((name.to_owned(), reason));
    }

    /// Whether nothing failed.
    pub fn is_success(&self) -> bool {
        self.count.failed == 0
    }
}

/// Times, failed steps, and last the closing line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, time) in &self.times {
            writeln!(f, "{:>7.1} s  {name}", time.as_secs_f64())?;
        }
        for (name, reason) in &self.failures {
            writeln!(f, "failed: {name}: {reason}")?;
        }
        write!(f, "{} passed, {} failed", self.count.passed, self.count.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_counts_and_the_counts_stand_in_the_last_line() {
        let mut report = Report::default();
        report.step("tests", || Outcome { count: Count { passed: 7, failed: 1 }, failure: None });
        report.step("format", || Outcome { count: Count::default(), failure: Some("exit status: 1".to_owned()) });
        assert!(!report.is_success());
        let text = report.to_string();
        assert!(text.contains("failed: format: exit status: 1"));
        assert_eq!(text.lines().last(), Some("7 passed, 2 failed"));
    }

    #[test]
    fn success_is_no_failure_at_all() {
        let mut report = Report::default();
        report.step("tests", || Outcome { count: Count { passed: 7, failed: 0 }, failure: None });
        assert!(report.is_success());
        assert_eq!(report.to_string().lines().last(), Some("7 passed, 0 failed"));
    }
}
