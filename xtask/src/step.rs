//! One step: a command whose output streams through while it is counted.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use crate::count::{Count, Counter, Runner};

/// How a step ended.
#[derive(Debug)]
pub struct Outcome {
    /// What its runner counted.
    pub count: Count,
    /// Why the step itself failed, if it did, as a sentence.
    pub failure: Option<String>,
}

/// Runs a command to its end. Its output goes to ours line by line as it comes.
pub fn run(command: Command, runner: Runner) -> Outcome {
    run_to(command, runner, io::stdout(), io::stderr())
}

fn run_to(mut command: Command, runner: Runner, to_stdout: impl Write + Send, to_stderr: impl Write + Send) -> Outcome {
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            let program = command.get_program().to_string_lossy().into_owned();
            return Outcome { count: Count::default(), failure: Some(format!("{program} cannot be started: {error}")) };
        }
    };
    let counter = Mutex::new(Counter::new(runner));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| pass_on(stdout, to_stdout, &counter));
        scope.spawn(|| pass_on(stderr, to_stderr, &counter));
    });
    let count = counter.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).count();
    let failure = match child.wait() {
        // Failed tests explain a failed runner; they are counted already.
        Ok(status) if status.success() || count.failed > 0 => None,
        Ok(status) => Some(status.to_string()),
        Err(error) => Some(format!("its end cannot be awaited: {error}")),
    };
    let failure = match failure {
        None if runner != Runner::Nothing && count == Count::default() => Some("no test ran".to_owned()),
        other => other,
    };
    Outcome { count, failure }
}

fn pass_on(from: Option<impl Read>, mut to: impl Write, counter: &Mutex<Counter>) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // Read on even when our own output is gone: a child that blocks on a full pipe never ends.
    while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let _ = to.write_all(&line).and_then(|()| to.flush());
        let text = String::from_utf8_lossy(&line);
        counter.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).line(&text);
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output goes nowhere: a run of all tests would count the results printed here as its own.
    fn shell(script: &str, runner: Runner) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run_to(command, runner, io::sink(), io::sink())
    }

    #[test]
    fn counts_come_from_both_outputs() {
        let script = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; echo 'test result: ok. 3 passed; 0 failed; 0 ignored' >&2";
        let outcome = shell(script, Runner::Cargo);
        assert_eq!((outcome.count, outcome.failure), (Count { passed: 5, failed: 0 }, None));
    }

    #[test]
    fn the_output_passes_through() {
        let mut command = Command::new("sh");
        command.args(["-c", "printf 'one\\ntwo'; echo three >&2"]);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        run_to(command, Runner::Nothing, &mut stdout, &mut stderr);
        assert_eq!((stdout, stderr), (b"one\ntwo".to_vec(), b"three\n".to_vec()));
    }

    #[test]
    fn a_runner_that_dies_without_a_count_is_a_failure() {
        let outcome = shell("echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; exit 101", Runner::Cargo);
        assert_eq!(outcome.count.passed, 2);
        assert!(outcome.failure.expect("a failure").contains("101"));
    }

    #[test]
    fn failed_tests_are_not_counted_twice() {
        let outcome = shell("echo 'test result: FAILED. 2 passed; 1 failed; 0 ignored'; exit 101", Runner::Cargo);
        assert_eq!((outcome.count, outcome.failure), (Count { passed: 2, failed: 1 }, None));
    }

    #[test]
    fn a_runner_that_runs_nothing_is_a_failure() {
        assert_eq!(shell("true", Runner::Unittest).failure.as_deref(), Some("no test ran"));
        assert_eq!(shell("true", Runner::Nothing).failure, None);
    }

    #[test]
    fn a_program_that_is_not_there_is_a_failure() {
        let outcome = run(Command::new("/no/such/program"), Runner::Nothing);
        assert!(outcome.failure.expect("a failure").starts_with("/no/such/program cannot be started"));
    }
}
