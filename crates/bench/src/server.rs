//! The platform in a process of its own: the release binary as users run it, on an empty data directory.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use osap::Suite;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::affinity;
use crate::cpu::CpuMeter;
use crate::http::Http;
use crate::memory::Memory;
use crate::trust::Trust;

const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// A platform that runs. Killed when dropped.
pub struct Server {
    child: Child,
    home: TempDir,
    launch: Launch,
    ready: Ready,
    http: Http,
    cpu: CpuMeter,
}

/// How a platform is started.
struct Launch {
    binary: PathBuf,
    cores: Option<affinity::Cores>,
    settings: Vec<String>,
}

#[derive(Deserialize)]
struct Ready {
    pid: u32,
    token_file: PathBuf,
    ca_file: PathBuf,
    listeners: Listeners,
}

#[derive(Clone, Copy, Deserialize)]
struct Listeners {
    http: SocketAddr,
    lbs: SocketAddr,
    das: SocketAddr,
    lbs_legacy: Option<SocketAddr>,
    lbs_plain: Option<SocketAddr>,
}

/// Settings that open the listeners for types 8 and 16.
pub const PLAIN: [&str; 2] = ["lbs.plain_listen=127.0.0.1:0", "das.plain_listen=127.0.0.1:0"];

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
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let launch = Launch { binary: binary.to_owned(), cores, settings };
        let mut listen = Vec::new();
        for listener in ["http.listen", "lbs.listen", "das.listen", "lbs.legacy_listen", "das.legacy_listen"] {
            listen.push(format!("{listener}=127.0.0.1:0"));
        }
        let (child, ready) = launch.start(home.path(), &listen)?;
        let (http, cpu) = ready.meet()?;
        Ok((Server { child, home, launch, ready, http, cpu }, prepared))
    }

    /// Kills it, as a loss of power would.
    ///
    /// # Errors
    /// When the system does not.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("the platform cannot be killed")?;
        self.child.wait().map(drop).context("the platform's end cannot be awaited")
    }

    /// Starts it once more, after it was killed, on its data; devices that come over TLS find it where it was.
    ///
    /// # Errors
    /// As at the first start.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let Listeners { lbs, das, .. } = self.ready.listeners;
        let listen = ["http.listen=127.0.0.1:0".to_owned(), format!("lbs.listen={lbs}"), format!("das.listen={das}")];
        (self.child, self.ready) = self.launch.start(self.home.path(), &listen)?;
        (self.http, self.cpu) = self.ready.meet()?;
        Ok(())
    }

    /// Where devices of the legacy suite authenticate.
    ///
    /// # Errors
    /// When they cannot, as after the platform was started again.
    pub fn lbs(&self) -> anyhow::Result<SocketAddr> {
        self.lbs_of(Suite::Legacy)
    }

    /// Where devices of a suite authenticate.
    ///
    /// # Errors
    /// When it is not served.
    pub fn lbs_of(&self, suite: Suite) -> anyhow::Result<SocketAddr> {
        let Listeners { lbs, lbs_legacy, lbs_plain, .. } = self.ready.listeners;
        match suite {
            Suite::Legacy => lbs_legacy.context("the platform does not listen for the legacy suite"),
            Suite::Tls => Ok(lbs),
            _ => lbs_plain.context("the platform does not listen for types 8 and 16"),
        }
    }

    /// What vouches for it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn trust(&self) -> anyhow::Result<Trust> {
        Trust::of(&self.ready.ca_file)
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

impl Launch {
    /// Starts the platform on the data in `home`, with these listeners, and waits until it is ready.
    fn start(&self, home: &Path, listen: &[String]) -> anyhow::Result<(Child, Ready)> {
        let ready_file = home.join("ready.json");
        // Of an earlier start.
        let _ = fs::remove_file(&ready_file);
        let log = File::create(home.join("log")).context("the platform's log cannot be written")?;
        let mut command = Command::new(&self.binary);
        command.arg("up").arg("--data").arg(home.join("data")).arg("--ready-file").arg(&ready_file);
        for setting in listen.iter().chain(&self.settings) {
            command.args(["--set", setting]);
        }
        // What is measured is the defaults, whatever the surroundings say.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VESTIBULE_")) {
            command.env_remove(name);
        }
        command.current_dir(home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut starting = Starting(Some(start_on(&mut command, self.cores)?));
        let ready = starting.ready(&ready_file).with_context(|| log_end(home))?;
        Ok((starting.0.take().context("the platform has ended")?, ready))
    }
}

impl Ready {
    /// Its API, and its CPU time.
    fn meet(&self) -> anyhow::Result<(Http, CpuMeter)> {
        let token = fs::read_to_string(&self.token_file).context("the platform's token cannot be read")?;
        Ok((Http::new(self.listeners.http, &token), CpuMeter::of(self.pid)))
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
