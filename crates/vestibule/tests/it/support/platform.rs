//! A platform in a process of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::Http;
use super::program::{Done, Program};
use super::until;

const BINARY: &str = env!("CARGO_BIN_EXE_vestibule");

/// How long the platform may take to start or to end.
const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(30);

/// A listener of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    Http,
    Https,
    /// Over TLS.
    LbsTls,
    DasTls,
    /// The legacy ones.
    Lbs,
    Das,
    Mqtt,
    Mqtts,
}

impl Listener {
    pub const ALL: [Listener; 8] = [
        Listener::Http,
        Listener::Https,
        Listener::LbsTls,
        Listener::DasTls,
        Listener::Lbs,
        Listener::Das,
        Listener::Mqtt,
        Listener::Mqtts,
    ];

    /// Its key in the configuration.
    fn key(self) -> &'static str {
        match self {
            Listener::Http => "http.listen",
            Listener::Https => "http.tls_listen",
            Listener::LbsTls => "lbs.listen",
            Listener::DasTls => "das.listen",
            Listener::Lbs => "lbs.legacy_listen",
            Listener::Das => "das.legacy_listen",
            Listener::Mqtt => "mqtt.listen",
            Listener::Mqtts => "mqtt.tls_listen",
        }
    }

    /// Its name in the ready file.
    fn name(self) -> &'static str {
        match self {
            Listener::Http => "http",
            Listener::Https => "https",
            Listener::LbsTls => "lbs",
            Listener::DasTls => "das",
            Listener::Lbs => "lbs_legacy",
            Listener::Das => "das_legacy",
            Listener::Mqtt => "mqtt",
            Listener::Mqtts => "mqtts",
        }
    }
}

/// A platform that runs, or is stopped for a while, on a data directory of its own. Killed when dropped.
pub struct Platform {
    home: TempDir,
    /// An address of the loopback net for this platform alone: after a restart it finds its ports free.
    host: Ipv4Addr,
    child: Option<Child>,
    ready: Value,
    pub http: Http,
}

impl Platform {
    /// Starts one on an empty data directory, with every listener on a free port.
    pub fn start() -> Platform {
        Platform::launched(vestibule())
    }

    /// The same with variables of the environment, which a restart forgets.
    pub fn with_environment(variables: &[(&str, &str)]) -> Platform {
        let mut command = vestibule();
        command.envs(variables.iter().copied());
        Platform::launched(command)
    }

    /// The same with a configuration file, which a restart reads again.
    pub fn configured(file: &str) -> Platform {
        let mut platform = Platform::prepared();
        fs::write(platform.home.path().join("vestibule.toml"), file).expect("a configuration file");
        platform.launch(vestibule());
        platform
    }

    /// The same under strace, which writes every change of a file to the trace, all bytes in hexadecimal. It runs
    /// without strace after a restart.
    pub fn traced(trace: &Path, variables: &[(&str, &str)]) -> Platform {
        let calls = "trace=openat,write,pwrite64,pwritev,writev,ftruncate,fallocate,rename,renameat,renameat2,\
                     unlink,unlinkat,mkdir,mkdirat,fsync,fdatasync";
        let mut strace = Command::new("strace");
        strace.args(["-f", "--seccomp-bpf", "-y", "-xx", "-s", "1000000", "-e", calls, "-o"]).arg(trace);
        strace.envs(variables.iter().copied());
        Platform::launched(strace)
    }

    /// The same under a program of the test's, which is given the platform's command line.
    pub fn under(program: Command) -> Platform {
        Platform::launched(program)
    }

    /// One whose journal is on a volume of its own of 24 MiB, which only it sees.
    pub fn on_small_journal() -> Platform {
        const SCRIPT: &str = "umask 077 && mkdir -p data/journal && \
                              mount -t tmpfs -o size=24m journal data/journal && exec \"$@\"";
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"]);
        Platform::launched(unshare)
    }

    /// The directory of the journal as the platform sees it.
    pub fn journal_seen_from_inside(&self) -> PathBuf {
        let inside = PathBuf::from(format!("/proc/{}/root", self.pid()));
        inside.join(self.data().join("journal").strip_prefix("/").expect("an absolute path"))
    }

    fn launched(mut wrapper: Command) -> Platform {
        let mut platform = Platform::prepared();
        if wrapper.get_program() != BINARY {
            wrapper.arg(BINARY);
        }
        platform.launch(wrapper);
        platform
    }

    /// One that was never started.
    fn prepared() -> Platform {
        static HOSTS: AtomicU8 = AtomicU8::new(0);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let host = Ipv4Addr::new(127, 1 + (high & 0x7f), low, 2 + HOSTS.fetch_add(1, Ordering::Relaxed));
        Platform {
            home: tempfile::tempdir().expect("a temporary directory"),
            host,
            child: None,
            ready: Value::Null,
            http: Http::nowhere(),
        }
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same data and the same addresses.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "the platform still runs");
        self.launch(vestibule());
    }

    fn launch(&mut self, mut command: Command) {
        let ready_file = self.home.path().join("ready.json");
        // One that was killed has left it behind.
        let _ = fs::remove_file(&ready_file);
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        command.arg("up").arg("--data").arg(self.data()).arg("--ready-file").arg(&ready_file);
        for listener in Listener::ALL {
            let address = match self.ready["listeners"][listener.name()].as_str() {
                Some(former) => former.to_owned(),
                None => format!("{}:0", self.host),
            };
            command.args(["--set", &format!("{}={address}", listener.key())]);
        }
        command.args(["--set", "log.level=debug,sqlx=info"]);
        command.current_dir(self.home.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            panic!("{program} cannot be started: {error}. `cargo xtask test` installs what the tests need.")
        });
        let begun = Instant::now();
        self.ready = loop {
            if let Ok(text) = fs::read(&ready_file) {
                break serde_json::from_slice(&text).expect("the ready file is JSON");
            }
            if let Some(status) = child.try_wait().expect("a child") {
                panic!("the platform ended with {status} instead of getting ready:\n{}", self.log());
            }
            assert!(begun.elapsed() < START, "the platform did not get ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        };
        self.http = Http::new(self.address(Listener::Http), fs::read_to_string(self.token_file()).expect("a token"));
        self.child = Some(child);
    }

    /// Ends it by SIGTERM and answers with how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it runs");
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                return status;
            }
            if begun.elapsed() > END {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the platform did not end within {} s of SIGTERM:\n{}", END.as_secs(), self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it by SIGKILL: it gets no chance to write anything.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.take().expect("it runs").wait().expect("a child");
    }

    /// How it has ended by itself, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut().expect("it ran").try_wait().expect("a child")?;
        self.child = None;
        Some(status)
    }

    /// Asks it to look at its certificate again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        // An error says that it has ended by itself, which whoever waits for it finds out.
        let _ = kill_process(pid, signal);
    }

    /// The process that was started.
    pub fn child(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The process of the platform, as its ready file names it.
    pub fn pid(&self) -> u32 {
        assert!(self.child.is_some(), "it runs");
        self.ready["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("the ready file names the process")
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub fn token_file(&self) -> PathBuf {
        self.home.path().join(self.ready["token_file"].as_str().expect("the ready file names the token file"))
    }

    pub fn token(&self) -> String {
        fs::read_to_string(self.token_file()).expect("a token").trim().to_owned()
    }

    /// What the ready file said.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    pub fn address(&self, listener: Listener) -> SocketAddr {
        let text = self.ready["listeners"][listener.name()].as_str().expect("every listener is open");
        text.parse().expect("an address")
    }

    /// The file of the root that its certificate is trusted by.
    pub fn ca_file(&self) -> PathBuf {
        self.home.path().join(self.ready["ca_file"].as_str().expect("the ready file names the roots"))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address(Listener::Http))
    }

    pub fn http(&self) -> &Http {
        &self.http
    }

    pub fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// Everything it has logged so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// How many sockets it has open.
    pub fn sockets(&self) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs");
        let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// A `vestibule` command that talks to this platform.
    pub fn command(&self, arguments: &[&str]) -> Program {
        let mut command = vestibule();
        command.args(arguments).env("VESTIBULE_URL", self.url()).env("VESTIBULE_TOKEN_FILE", self.token_file());
        command.current_dir(self.home.path());
        Program::of(command)
    }

    /// Runs a `vestibule` command against this platform.
    pub fn cli(&self, arguments: &[&str]) -> Done {
        self.command(arguments).finish()
    }

    /// Registers a device.
    #[track_caller]
    pub fn add(&self, serial: &str, code: &str) {
        let answer = self.http.post("/v1/devices", &json!({ "serial": serial, "code": code }));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    /// A device as the API shows it.
    #[track_caller]
    pub fn device(&self, serial: &str) -> Value {
        self.http.get(&format!("/v1/devices/{serial}")).ok()
    }

    /// The connection facts of a device.
    #[track_caller]
    pub fn why(&self, serial: &str) -> Value {
        self.http.get(&format!("/v1/devices/{serial}/why")).ok()
    }

    /// The reasons among the connection facts of a device, oldest first.
    pub fn reasons(&self, serial: &str) -> Vec<String> {
        let why = self.why(serial);
        let facts = why["facts"].as_array().expect("facts");
        facts.iter().map(|fact| fact["reason"].as_str().expect("a reason").to_owned()).collect()
    }

    /// Waits for a state of presence with its reason.
    #[track_caller]
    pub fn until_presence(&self, serial: &str, state: &str, reason: &str) -> Value {
        until(&format!("{serial} {state} because of {reason}"), || {
            let device = self.device(serial);
            (device["presence"]["state"] == state && device["presence"]["reason"] == reason).then_some(device)
        })
    }

    /// All stored events, newest first; of one device where a serial is given.
    #[track_caller]
    pub fn events(&self, serial: Option<&str>) -> Vec<Value> {
        let only = serial.map(|serial| format!("&device={serial}")).unwrap_or_default();
        let (mut events, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.http.get(&format!("/v1/events?limit=1000{only}{cursor}")).ok();
            events.extend(page["items"].as_array().expect("items").iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return events,
            }
        }
    }

    /// The sum of the samples of a metric that carry all these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.http.text("/metrics");
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Fails when any task of the platform has panicked.
    #[track_caller]
    pub fn assert_no_panic(&self) {
        assert_eq!(self.metric("vestibule_panics_total", &[]), 0.0, "a connection panicked");
        assert_eq!(self.metric("vestibule_http_panics_total", &[]), 0.0, "a request panicked");
        let log = self.log();
        let line = log.lines().find(|line| line.contains("panicked"));
        assert_eq!(line, None, "the log tells of a panic");
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if self.child.is_some() && self.ready["pid"].is_u64() {
            // Not the child alone: under strace the platform would live on.
            self.signal(Signal::KILL);
        }
        if let Some(mut child) = self.child.take() {
            // An error says that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the platform's last lines:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// The binary, without anything the surroundings say about Vestibule.
pub fn vestibule() -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VESTIBULE_")) {
        command.env_remove(name);
    }
    // On by default, on ports that only one platform can have.
    for listener in ["VESTIBULE_LBS__LISTEN", "VESTIBULE_DAS__LISTEN"] {
        command.env(listener, "off");
    }
    command
}
