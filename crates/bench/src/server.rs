//! The platform in a process of its own: the release binary as users run it, on an empty data directory.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::affinity;
use crate::cpu::CpuMeter;
use crate::http::Http;
use crate::memory::Memory;

const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// A platform that runs. Killed when dropped.
pub struct Server {
    child: Child,
    home: TempDir,
    lbs: SocketAddr,
    http: Http,
    cpu: CpuMeter,
}

#[derive(Deserialize)]
struct Ready {
    pid: u32,
    token_file: PathBuf,
    listeners: Listeners,
}

#[derive(Deserialize)]
struct Listeners {
    http: SocketAddr,
    lbs_legacy: SocketAddr,
}

/// The binary to measure: the given one, or `vestibule` beside this program.
///
/// # Errors
/// When it is not there.
pub fn binary(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("this program does not know where it is")?.with_file_name("vestibule"),
    };
    if !path.is_file() {
        bail!("{} is not there; `cargo build --release -p vestibule` builds it", path.display());
    }
    path.canonicalize().with_context(|| path.display().to_string())
}

impl Server {
    /// Starts one on free ports of the loopback address, its data in a fresh directory below `dir`, on one core
    /// where there are several. This thread is on the core `back` afterwards.
    ///
    /// # Errors
    /// When it does not get ready; the end of its log is in the error.
    pub fn start(binary: &Path, dir: &Path, cores: Option<affinity::Cores>) -> anyhow::Result<Server> {
        Ok(Server::prepared(binary, dir, cores, &[], |_| Ok(()))?.0)
    }

    /// The same on a data directory that was prepared, with further settings; what preparing it gave as well.
    ///
    /// # Errors
    /// As above, and when it cannot be prepared.
    pub fn prepared<T>(
        binary: &Path,
        dir: &Path,
        cores: Option<affinity::Cores>,
        settings: &[&str],
        prepare: impl FnOnce(&Path) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Server, T)> {
        let home = tempfile::Builder::new().prefix("vestibule-bench-").tempdir_in(dir);
        let home = home.with_context(|| format!("no directory can be made in {}", dir.display()))?;
        let prepared = prepare(&home.path().join("data"))?;
        let ready_file = home.path().join("ready.json");
        let log = File::create(home.path().join("log")).context("the platform's log cannot be written")?;
        let mut command = Command::new(binary);
        command.arg("up").arg("--data").arg(home.path().join("data")).arg("--ready-file").arg(&ready_file);
        for listener in ["http.listen", "lbs.listen", "das.listen", "lbs.legacy_listen", "das.legacy_listen"] {
            command.args(["--set", &format!("{listener}=127.0.0.1:0")]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        // What is measured is the defaults, whatever the surroundings say.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VESTIBULE_")) {
            command.env_remove(name);
        }
        command.current_dir(home.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = start_on(&mut command, cores)?;
        let mut starting = Starting(Some(child));
        let ready = starting.ready(&ready_file).with_context(|| log_end(home.path()))?;
        let token = fs::read_to_string(&ready.token_file).context("the platform's token cannot be read")?;
        let child = starting.0.take().context("the platform has ended")?;
        let (http, cpu) = (Http::new(ready.listeners.http, &token), CpuMeter::of(ready.pid));
        Ok((Server { child, home, lbs: ready.listeners.lbs_legacy, http, cpu }, prepared))
    }

    /// Where devices authenticate.
    pub fn lbs(&self) -> SocketAddr {
        self.lbs
    }

    /// Its API.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Its CPU time.
    pub fn cpu(&self) -> &CpuMeter {
        &self.cpu
    }

    /// Its memory.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of(self.child.id())
    }

    /// The last lines of its log, for an error.
    pub fn log_end(&self) -> String {
        log_end(self.home.path())
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it does not end, or says that it failed.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("the platform has no id")?;
        kill_process(pid, Signal::TERM).context("the platform cannot be told to stop")?;
        let begun = Instant::now();
        while begun.elapsed() < END {
            match self.child.try_wait().context("the platform's end cannot be awaited")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the platform ended with {status}\n{}", self.log_end()),
                None => sleep(LOOK),
            }
        }
        bail!("the platform did not stop within {} s\n{}", END.as_secs(), self.log_end())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child inherits the core of the thread that starts it.
fn start_on(command: &mut Command, cores: Option<affinity::Cores>) -> anyhow::Result<Child> {
    if let Some(cores) = cores {
        affinity::pin(cores.server)?;
    }
    let started = command.spawn().context("the platform cannot be started");
    if let Some(cores) = cores {
        affinity::pin(cores.generator)?;
    }
    started
}

/// A platform that has not got ready yet. Killed when dropped.
struct Starting(Option<Child>);

impl Starting {
    fn ready(&mut self, file: &Path) -> anyhow::Result<Ready> {
        let child = self.0.as_mut().context("there is no platform")?;
        let begun = Instant::now();
        while begun.elapsed() < START {
            if let Ok(text) = fs::read(file) {
                return serde_json::from_slice(&text).context("the ready file is not understood");
            }
            if let Some(status) = child.try_wait().context("the platform's end cannot be awaited")? {
                bail!("the platform ended with {status} instead of getting ready");
            }
            sleep(LOOK);
        }
        bail!("the platform did not get ready within {} s", START.as_secs())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn log_end(home: &Path) -> String {
    let text = fs::read_to_string(home.join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default();
    format!("the platform's log ends with:\n{}", end.join("\n"))
}
