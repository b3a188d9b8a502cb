//! Reading the counts that test runners print.

/// Tests that passed and tests that did not. A skipped test has not passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: u64,
    pub failed: u64,
}

impl Count {
    /// Adds another count.
    pub fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Which runner prints the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// None: only the exit status counts.
    Nothing,
    /// `cargo test`: one result line for each test binary.
    Cargo,
    /// `python -m unittest`: `Ran N tests`, then `OK` or `FAILED (failures=N, …)`.
    Unittest,
}

/// Sums up what a runner prints, line by line.
#[derive(Debug)]
pub struct Counter {
    runner: Runner,
    count: Count,
    /// Python: tests run, until the line that says how they ended.
    ran: u64,
}

impl Counter {
    /// Nothing counted yet.
    pub fn new(runner: Runner) -> Counter {
        Counter { runner, count: Count::default(), ran: 0 }
    }

    /// Takes one line of output.
    pub fn line(&mut self, line: &str) {
        let line = without_colour(line);
        match self.runner {
            Runner::Nothing => {}
            Runner::Cargo => self.cargo(line.trim()),
            Runner::Unittest => self.unittest(line.trim()),
        }
    }

    /// What was counted.
    pub fn count(&self) -> Count {
        self.count
    }

    /// `test result: ok. 31 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.11s`
    fn cargo(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split(';') {
            match part.trim().split_once(' ') {
                Some((number, "passed")) => self.count.passed += number.parse().unwrap_or(0),
                Some((number, "failed" | "ignored")) => self.count.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }

    /// `Ran 12 tests in 0.103s`, then `OK`, `OK (skipped=1)` or `FAILED (failures=1, errors=2)`.
    fn unittest(&mut self, line: &str) {
        if let Some((number, _)) = line.strip_prefix("Ran ").and_then(|rest| rest.split_once(" test")) {
            self.ran = number.parse().unwrap_or(0);
            return;
        }
        let word = line.split(' ').next().unwrap_or_default();
        if !matches!(word, "OK" | "FAILED") || (line != word && !line.starts_with(&format!("{word} ("))) {
            return;
        }
        let inside = line.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
        let bad: u64 = inside
            .split(',')
            .filter_map(|part| part.trim().split_once('='))
            .filter(|(what, _)| *what != "expected failures")
            .filter_map(|(_, number)| number.parse::<u64>().ok())
            .sum();
        let ran = std::mem::take(&mut self.ran);
        self.count.add(Count { passed: ran.saturating_sub(bad), failed: bad });
    }
}

/// The line without terminal colours (`ESC [ … m`).
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(runner: Runner, output: &str) -> Count {
        let mut counter = Counter::new(runner);
        output.lines().for_each(|line| counter.line(line));
        counter.count()
    }

    #[test]
    fn cargo_counts_add_up_over_binaries_and_ignored_is_not_passed() {
        let output = "running 3 tests\ntest a ... ok\n\
            test result: ok. 31 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.11s\n\
            \u{1b}[1mtest result\u{1b}[0m: \u{1b}[31mFAILED\u{1b}[0m. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s\n";
        assert_eq!(count(Runner::Cargo, output), Count { passed: 35, failed: 3 });
    }

    #[test]
    fn python_counts_are_told_by_the_line_that_ends_the_run() {
        for (output, passed, failed) in [
            ("Ran 12 tests in 0.103s\n\nOK\n", 12, 0),
            ("Ran 1 test in 0.1s\n\nOK\n", 1, 0),
            ("Ran 12 tests in 0.1s\n\nOK (skipped=2)\n", 10, 2),
            ("Ran 12 tests in 0.1s\n\nFAILED (failures=1, errors=2)\n", 9, 3),
            ("Ran 3 tests in 0.1s\n\nOK (expected failures=1)\n", 3, 0),
            ("OKAY then\nFAILED badly\n", 0, 0),
        ] {
            assert_eq!(count(Runner::Unittest, output), Count { passed, failed }, "{output}");
        }
    }

    #[test]
    fn a_step_without_tests_counts_nothing() {
        assert_eq!(count(Runner::Nothing, "test result: ok. 31 passed; 0 failed; 0 ignored"), Count::default());
    }
}
