//! CPU time of another process, from the kernel's accounting.
//!
//! `/proc/PID/task/*/schedstat` counts nanoseconds, for threads that live. `/proc/PID/stat` counts in ticks of 10 ms
//! and knows the threads that have ended as well. The first is the figure; the second steps in when it says more than
//! its own coarseness explains, which means that a thread took its time with it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Differences of the two accounts up to this many ticks are rounding.
const ROUNDING: u32 = 2;
/// How often a process is looked at that is to become quiet.
const LOOK: Duration = Duration::from_millis(50);
/// Quiet for so long: the platform writes presence at most once a second, and that write belongs to its cause.
const QUIET: Duration = Duration::from_millis(1_250);
/// CPU time in one look that still counts as quiet: 1 %.
const MURMUR: Duration = Duration::from_micros(500);
/// What never becomes quiet is measured as it is.
const PATIENCE: Duration = Duration::from_secs(15);

/// A process whose CPU time is read.
#[derive(Debug, Clone)]
pub struct CpuMeter {
    root: PathBuf,
    tick: Duration,
}

/// The CPU time a process has used so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    threads: BTreeMap<String, Duration>,
    ticks: Duration,
}

/// The CPU time between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// The figure.
    pub cpu: Duration,
    /// The other account, as a cross-check.
    pub ticks: Duration,
}

impl CpuMeter {
    /// The meter of a process of this user.
    pub fn of(pid: u32) -> CpuMeter {
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100).max(1);
        CpuMeter { root: PathBuf::from(format!("/proc/{pid}")), tick: Duration::from_secs(1) / per_second }
    }

    /// Reads both accounts.
    ///
    /// # Errors
    /// When the process has ended, or the kernel does not account.
    pub fn read(&self) -> anyhow::Result<Reading> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(self.root.join("task")).context("the platform's threads cannot be read")? {
            let task = task.context("the platform's threads cannot be read")?;
            let text = match fs::read_to_string(task.path().join("schedstat")) {
                Ok(text) => text,
                // The thread has ended since it was listed.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => continue,
                Err(_) if !task.path().exists() => continue,
                Err(error) => return Err(error).context("the kernel does not account CPU time for each thread"),
            };
            let run = parse_schedstat(&text).with_context(|| format!("schedstat is not understood: {text:?}"))?;
            threads.insert(task.file_name().to_string_lossy().into_owned(), run);
        }
        let stat = fs::read_to_string(self.root.join("stat")).context("the platform's CPU time cannot be read")?;
        let ticks = parse_stat(&stat).with_context(|| format!("stat is not understood: {stat:?}"))?;
        Ok(Reading { threads, ticks: self.tick * ticks })
    }

    /// Waits until what was asked of the process is done to the last write, which may come after the last answer.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn settle(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (mut before, mut quiet_since) = (self.read()?, begun);
        while quiet_since.elapsed() < QUIET && begun.elapsed() < PATIENCE {
            sleep(LOOK);
            let now = self.read()?;
            if now.threads_since(&before) > MURMUR {
                quiet_since = Instant::now();
            }
            before = now;
        }
        Ok(())
    }

    /// The time used since a reading.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn since(&self, before: &Reading) -> anyhow::Result<Spent> {
        Ok(self.read()?.since(before, self.tick * ROUNDING))
    }
}

impl Reading {
    fn threads_since(&self, before: &Reading) -> Duration {
        let earlier = |id| before.threads.get(id).copied().unwrap_or_default();
        self.threads.iter().map(|(id, run)| run.saturating_sub(earlier(id))).sum()
    }

    fn since(&self, before: &Reading, rounding: Duration) -> Spent {
        let cpu = self.threads_since(before);
        let ticks = self.ticks.saturating_sub(before.ticks);
        Spent { cpu: if ticks > cpu + rounding { ticks } else { cpu }, ticks }
    }
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, more: Spent) {
        self.cpu += more.cpu;
        self.ticks += more.ticks;
    }
}

/// The time a thread has run: the first of three numbers, in nanoseconds.
fn parse_schedstat(text: &str) -> Option<Duration> {
    let mut fields = text.split_ascii_whitespace();
    let run = fields.next()?.parse().ok()?;
    (fields.count() == 2).then(|| Duration::from_nanos(run))
}

/// `utime` + `stime` of `/proc/PID/stat`, in ticks. The name before them may contain anything, brackets too.
fn parse_stat(text: &str) -> Option<u32> {
    let (_, fields) = text.rsplit_once(')')?;
    // Behind the name comes field 3; utime and stime are 14 and 15.
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    ticks()?.checked_add(ticks()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_is_read() {
        assert_eq!(parse_schedstat("123456789 42 7\n"), Some(Duration::from_nanos(123_456_789)));
        for wrong in ["", "x 1 2", "1", "1 2", "1 2 3 4", "-1 2 3"] {
            assert_eq!(parse_schedstat(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn stat_is_read_whatever_the_process_is_called() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 1200 34 0 0 20 0 5 0 99";
        assert_eq!(parse_stat(&format!("17 (vestibule) {tail}")), Some(1234));
        assert_eq!(parse_stat(&format!("17 (a) b) 1 (c) {tail}")), Some(1234));
        assert_eq!(parse_stat("17 (vestibule) S 1 2 3"), None);
        assert_eq!(parse_stat("17 vestibule"), None);
    }

    fn reading(threads: &[(&str, u64)], ticks: u64) -> Reading {
        let threads = threads.iter().map(|(id, ms)| ((*id).to_owned(), Duration::from_millis(*ms))).collect();
        Reading { threads, ticks: Duration::from_millis(ticks) }
    }

    #[test]
    fn threads_that_began_count_from_zero() {
        let spent = reading(&[("1", 150), ("2", 30)], 190).since(&reading(&[("1", 100)], 100), ROUND);
        assert_eq!((spent.cpu, spent.ticks), (Duration::from_millis(80), Duration::from_millis(90)));
    }

    #[test]
    fn a_thread_that_ended_is_found_in_the_ticks() {
        let spent = reading(&[("1", 150)], 400).since(&reading(&[("1", 100), ("2", 10)], 110), ROUND);
        assert_eq!(spent.cpu, Duration::from_millis(290));
    }

    const ROUND: Duration = Duration::from_millis(20);

    #[test]
    fn the_meter_sees_this_process_work() {
        let meter = CpuMeter::of(std::process::id());
        let before = meter.read().expect("a reading");
        let begun = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let worked = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            (now.tv_sec - begun.tv_sec) * 1_000_000_000 + now.tv_nsec - begun.tv_nsec
        };
        while worked() < 40_000_000 {
            std::hint::black_box(0);
        }
        // The account of a thread that runs is brought up to date at every tick.
        assert!(meter.since(&before).expect("a reading").cpu >= Duration::from_millis(30));
    }
}
