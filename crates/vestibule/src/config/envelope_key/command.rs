//! A program that says the key.

use std::io::{self, ErrorKind, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use vestibule_store::EnvelopeKey;
use zeroize::Zeroizing;

use super::VARIABLE;

/// How long it may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// More than any notation of a key takes.
const MOST_OUT: u64 = 1_024;
/// What is shown of its complaints.
const MOST_ERR: u64 = 2_048;
/// How often it is asked whether it has ended, once it has closed its output.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the program without a shell and takes the key from its standard output, which is shown to nobody.
///
/// # Errors
/// When it cannot be run, fails, takes too long or says no key; with what it said on its standard error.
pub(super) fn ask(program: &str, arguments: &[String]) -> anyhow::Result<EnvelopeKey> {
    ask_within(program, arguments, DEADLINE)
}

fn ask_within(program: &str, arguments: &[String], deadline: Duration) -> anyhow::Result<EnvelopeKey> {
    let until = Instant::now() + deadline;
    let mut command = Command::new(program);
    command.args(arguments).env_remove(VARIABLE);
    // A group of its own: what it starts ends with it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().with_context(|| format!("{program} cannot be run"))?;
    let mut running = Running { child, is_reaped: false };
    let (Some(out), Some(err)) = (running.child.stdout.take(), running.child.stderr.take()) else {
        bail!("{program} has no output");
    };
    let has_line = Arc::new(AtomicBool::new(false));
    let (out, err) = (read(out, MOST_OUT, Arc::clone(&has_line)), read(err, MOST_ERR, Arc::default()));
    let left = || until.saturating_duration_since(Instant::now());
    let late = || format!("{program} has not said the key within {} s and was ended", deadline.as_secs_f32());
    let mut said = None;
    loop {
        said = said.or_else(|| out.try_recv().ok());
        let has_ended = running.has_ended().with_context(|| format!("{program} cannot be waited for"))?;
        if has_ended && (said.is_some() || has_line.load(Ordering::Acquire)) {
            break;
        }
        if left().is_zero() {
            bail!(late());
        }
        thread::sleep(LOOK);
    }
    // What it has started and left behind keeps its outputs open, and ends now.
    let status = running.end().with_context(|| format!("{program} cannot be waited for"))?;
    let said = said.or_else(|| out.recv_timeout(left()).ok()).with_context(late)?;
    let complaints = err.recv_timeout(left()).map_err(|_| anyhow::anyhow!(late()))?;
    let complaints = String::from_utf8_lossy(&complaints);
    let complaints = match complaints.trim() {
        "" => "it said nothing on its standard error".to_owned(),
        words => format!("it said: {}", words.escape_debug()),
    };
    if !status.success() {
        bail!("{program} failed ({status}); {complaints}");
    }
    EnvelopeKey::parse(&said, format!("the command {program}")).context(complaints)
}

/// Reads that much to the end, beside the caller, and says so when a line is there.
fn read(from: impl Read + Send + 'static, most: u64, has_line: Arc<AtomicBool>) -> Receiver<Zeroizing<Vec<u8>>> {
    let (told, heard) = mpsc::sync_channel(1);
    thread::spawn(move || {
        // It never grows, which would leave a copy behind.
        let mut said = Zeroizing::new(Vec::with_capacity(most as usize + 1));
        let (mut from, most) = (from, most as usize);
        let mut part = Zeroizing::new([0; 1_024]);
        loop {
            match from.read(&mut *part) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(read) => {
                    // What is too much is read as well, or whoever writes it would wait.
                    let room = most.saturating_sub(said.len());
                    said.extend_from_slice(&part[..read.min(room)]);
                    if part[..read].contains(&b'\n') {
                        has_line.store(true, Ordering::Release);
                    }
                }
            }
        }
        let _ = told.send(said);
    });
    heard
}

/// A program that ends, with all that it has started, when nobody waits for it any more.
struct Running {
    child: Child,
    /// Nobody has its number any more, or somebody else has.
    is_reaped: bool,
}

impl Running {
    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Whether it has ended by itself. It keeps its number, which is that of its group.
    fn has_ended(&self) -> io::Result<bool> {
        let Some(pid) = self.pid().filter(|_| !self.is_reaped) else { return Ok(true) };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(pid), options)?.is_some())
    }

    /// Ends what is left of its group, and then its number is nobody's.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(group) = self.pid().filter(|_| !self.is_reaped) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = self.child.wait();
        self.is_reaped = true;
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_reaped {
            let _ = self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn shell(script: &str, seconds: u64) -> Result<EnvelopeKey, String> {
        let arguments = ["-c".to_owned(), script.to_owned()];
        ask_within("sh", &arguments, Duration::from_secs(seconds)).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_the_program_says_is_the_key() {
        let said = EnvelopeKey::parse(HEX.as_bytes(), "x").expect("a key").id();
        assert_eq!(ask("echo", &[HEX.to_owned()]).expect("a key").id(), said);
        // Its complaints do not count as long as it succeeds.
        assert_eq!(shell(&format!("echo careful >&2; echo {HEX}"), 10).expect("a key").id(), said);
    }

    #[test]
    fn there_is_no_shell() {
        let error = ask("echo $HOME", &[]).err().map(|error| format!("{error:#}")).expect("no such program");
        assert!(error.contains("cannot be run"), "{error}");
    }

    #[test]
    fn a_failure_shows_what_it_complained_of_and_nothing_it_said() {
        let error = shell(&format!("echo {HEX}; echo the vault is sealed >&2; exit 3"), 10).err().expect("it failed");
        assert!(error.contains("the vault is sealed") && error.contains('3'), "{error}");
        assert!(!error.contains(&HEX[..8]), "{error}");
        let error = shell(&format!("echo {HEX}00; echo deprecated >&2"), 10).err().expect("no key");
        assert!(
            error.contains("holds no key") && error.contains("deprecated") && !error.contains(&HEX[..8]),
            "{error}"
        );
    }

    #[test]
    fn one_that_does_not_end_is_ended_with_what_it_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let pid = dir.path().join("pid");
        // Both keep its output open.
        let error = shell(&format!("sleep 600 & echo $! > {0}.part; mv {0}.part {0}; sleep 600", pid.display()), 1);
        assert!(error.err().expect("too late").contains("was ended"));
        expect_gone(&pid);
    }

    /// That the process whose number is in the file ends.
    fn expect_gone(pid: &std::path::Path) {
        let pid = std::fs::read_to_string(pid).expect("it had begun").trim().to_owned();
        let is_gone = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            status.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
        };
        let until = Instant::now() + Duration::from_secs(10);
        while !is_gone() {
            assert!(Instant::now() < until, "{pid} is still there");
            thread::yield_now();
        }
    }

    #[test]
    fn what_it_leaves_behind_holds_nobody_up_and_is_ended() {
        let begun = Instant::now();
        let dir = tempfile::tempdir().expect("a directory");
        let pid = dir.path().join("pid");
        let key = shell(&format!("sleep 600 & echo $! > {}; echo {HEX}", pid.display()), 60).expect("a key");
        assert_eq!(key.id(), EnvelopeKey::parse(HEX.as_bytes(), "x").expect("a key").id());
        assert!(begun.elapsed() < Duration::from_secs(30), "it was waited for");
        expect_gone(&pid);
        // Nothing was said, and what is left will say nothing.
        let error = shell("sleep 600 &", 1).err().expect("no key");
        assert!(error.contains("was ended"), "{error}");
    }

    #[test]
    fn one_that_says_too_much_is_read_to_its_end_and_says_no_key() {
        let error = shell("head -c 3000000 /dev/zero | tr '\\0' a", 10).err().expect("no key");
        assert!(error.contains("holds no key"), "{error}");
    }
}
