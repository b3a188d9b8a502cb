//! A device of the check in a process of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// A device in a process of its own; killed when dropped.
pub(super) struct DeviceProcess {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl DeviceProcess {
    pub(super) fn start(command: &mut Command, code: &str) -> anyhow::Result<DeviceProcess> {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = piped.spawn().context("the device process cannot be started")?;
        let stdin = child.stdin.as_mut().context("the device process has no standard input")?;
        writeln!(stdin, "{code}")?;
        let stdout = child.stdout.take().context("the device process has no standard output")?;
        Ok(DeviceProcess { child, stdout: BufReader::new(stdout) })
    }

    /// The id of the event it reported.
    pub(super) fn reported(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).context("the device process ended without its event")?;
        said["reported"].as_str().map(str::to_owned).with_context(|| format!("the device process said {line}"))
    }

    /// Has it leave in order.
    pub(super) fn leave(&mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the device process ended with {status}");
        Ok(())
    }

    pub(super) fn kill(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for DeviceProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
