//! `vestibule demo --check`: every flow, driven from processes of their own over real sockets and read back over HTTP.

mod custody;
mod process;
mod traffic;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use vestibule_platform::Secret;

use crate::cli::Out;
use crate::client::{Client, ClientError, Follow, Followed, Route, Token};
use crate::running::Running;
use process::DeviceProcess;

/// How long something may take to show that nobody can be told of.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// What one check found.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
    ms: u64,
}

/// What all checks found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    checks: Vec<Check>,
    passed: usize,
    failed: usize,
}

impl Report {
    /// Prints the outcome; a failed check is an error.
    pub(super) fn print(&self, out: &mut Out<'_>) -> anyhow::Result<()> {
        if out.is_json() {
            out.json(&serde_json::to_value(self)?)?;
        } else {
            for Check { name, ok, detail, ms } in &self.checks {
                out.line(format!("{} {name:<18} {ms:>6} ms  {detail}", if *ok { "ok  " } else { "FAIL" }))?;
            }
            out.line(format!("{} passed, {} failed", self.passed, self.failed))?;
        }
        ensure!(self.failed == 0, "{} of {} checks failed", self.failed, self.checks.len());
        Ok(())
    }
}

/// One flow; says what it has seen.
type Flow = fn(&Bench) -> anyhow::Result<String>;

/// What the checks share: the platform's addresses, and ids nobody else can know.
pub(super) struct Bench {
    binary: PathBuf,
    url: String,
    /// The same over TLS, and the root it is trusted by.
    secure_url: String,
    ca_file: PathBuf,
    /// Over TLS, and for devices of the legacy suite.
    lbs: String,
    legacy_lbs: String,
    token_file: PathBuf,
    state: PathBuf,
    client: Client,
    serial: String,
    code: String,
    /// What it is changed to.
    new_code: String,
    /// A sub-device, with the first code.
    child: String,
    /// A device of the legacy suite, with the first code, too.
    legacy: String,
}

impl Bench {
    pub(super) fn new(running: &Running, data: &Path) -> anyhow::Result<Bench> {
        let url = format!("http://{}", running.listeners().http);
        let token = Token::read(running.token_file()).map_err(anyhow::Error::msg)?;
        let minted = uuid::Uuid::new_v4().simple().to_string();
        let code = || String::from_utf8_lossy(Secret::random_code().expose()).into_owned();
        Ok(Bench {
            binary: std::env::current_exe().context("this program's own path is not known")?,
            client: Client::new(&url, token)?,
            url,
            secure_url: running.url(),
            ca_file: running.ca_file().clone(),
            lbs: format!("osaps://{}", running.listeners().lbs.context("the check needs an LBS over TLS")?),
            legacy_lbs: running.listeners().lbs_legacy.context("the check needs a legacy LBS")?.to_string(),
            token_file: running.token_file().clone(),
            state: data.join("check"),
            serial: format!("CHECK-{}", &minted[..12]),
            code: code(),
            new_code: code(),
            child: format!("PLUG-{}", &minted[12..24]),
            legacy: format!("OLD-{}", &minted[24..]),
        })
    }

    /// Runs all checks, each on what the ones before it have left.
    pub(super) fn run(&self) -> Report {
        let flows: [(&'static str, Flow); 21] = [
            ("ready", Bench::ready),
            ("https", Bench::secure),
            ("stranger", Bench::stranger),
            ("device add", Bench::add),
            ("device comes in", Bench::comes_in),
            ("device comes back", Bench::comes_back),
            ("device invoke", Bench::invoke),
            ("device queue", Bench::queue),
            ("device get, set", Bench::attribute),
            ("event follow", Bench::follow),
            ("device pass", Bench::pass),
            ("device children", Bench::children),
            ("device keep-alive", Bench::keep_alive),
            ("legacy device", Bench::legacy),
            ("wrong code", Bench::wrong_code),
            ("device enrol", Bench::enrol),
            ("device disable", Bench::disable),
            ("device rotate", Bench::rotate),
            ("event list", Bench::list),
            ("audit", Bench::audit),
            ("device remove", Bench::remove),
        ];
        let mut checks = Vec::new();
        for (name, flow) in flows {
            let begun = Instant::now();
            let (ok, detail) = match flow(self) {
                Ok(detail) => (true, detail),
                Err(error) => (false, format!("{error:#}")),
            };
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            checks.push(Check { name, ok, detail, ms });
        }
        let passed = checks.iter().filter(|check| check.ok).count();
        let failed = checks.len() - passed;
        Report { checks, passed, failed }
    }

    fn ready(&self) -> anyhow::Result<String> {
        let health: Value = self.client.get(&Route::new("/readyz"))?;
        ensure!(health["ready"] == true, "not ready: {health}");
        Ok("the platform stores and acknowledges".to_owned())
    }

    fn secure(&self) -> anyhow::Result<String> {
        let token = || Token::read(&self.token_file).map_err(anyhow::Error::msg);
        let roots = std::fs::read(&self.ca_file).with_context(|| self.ca_file.display().to_string())?;
        let client = Client::trusting(&self.secure_url, token()?, Some(&roots))?;
        let _: Value = client.get(&Route::new("/v1/devices"))?;
        // Whoever does not know the root does not believe it.
        match Client::new(&self.secure_url, token()?)?.get::<Value>(&Route::new("/v1/devices")) {
            Err(ClientError::Unreachable { .. }) => Ok(format!("by the root in {}", self.ca_file.display())),
            other => bail!("without the root it was answered with {other:?}"),
        }
    }

    fn stranger(&self) -> anyhow::Result<String> {
        let token = Token::new(&format!("vst_{}", "0".repeat(64))).map_err(anyhow::Error::msg)?;
        let client = Client::new(&self.url, token)?;
        match client.get::<Value>(&Route::new("/v1/devices")) {
            Err(ClientError::Refused(refusal)) if refusal.status == 401 => Ok("refused with 401".to_owned()),
            other => bail!("a wrong token was answered with {other:?}"),
        }
    }

    fn add(&self) -> anyhow::Result<String> {
        let mut command = self.command(&["device", "add", &self.serial, "--name", "Check", "--code-file", "-"]);
        let done = feed(command.stdin(Stdio::piped()), &self.code)?;
        ensure!(done.status.success(), "device add: {}", String::from_utf8_lossy(&done.stderr));
        let device = self.device()?;
        ensure!(device["presence"]["state"] == "never_seen", "a new device is {}", device["presence"]);
        Ok(format!("{} has the id {}", self.serial, device["id"]))
    }

    fn comes_in(&self) -> anyhow::Result<String> {
        // Opened before the device exists on the wire, so that the event has to arrive by itself.
        let route = Route::new("/v1/events/stream").query("device", &self.serial);
        let mut stream = Follow::open(&self.client, route, None)?;
        let (id, mut device) = self.visit(&self.code, "state", "comes-in")?;
        let begun = Instant::now();
        loop {
            ensure!(begun.elapsed() < PATIENCE, "event {id} was not followed within {} s", PATIENCE.as_secs());
            if let Some(Followed::Event(event)) = stream.step()?
                && event["id"] == *id
            {
                break;
            }
        }
        let shown = self.device()?;
        ensure!(shown["presence"]["state"] == "online", "the device is {}", shown["presence"]);
        ensure!(shown["confidential"] == true && shown["suite"] == "tls", "the suite shows as {}", shown["suite"]);
        device.leave()?;
        self.until("offline", |device| {
            device["presence"]["state"] == "offline" && device["presence"]["reason"] == "disconnect"
        })?;
        let event = self.stored(&id)?;
        ensure!(event["data"]["marker"] == "comes-in", "the event holds {}", event["data"]);
        Ok(format!("event {id} was followed, and is stored at position {}", event["position"]))
    }

    fn comes_back(&self) -> anyhow::Result<String> {
        let (id, mut device) = self.visit(&self.code, "state", "comes-back")?;
        device.leave()?;
        self.stored(&id)?;
        ensure!(self.why()?.contains("returned"), "the connection facts show no return");
        Ok("with the ticket it was given".to_owned())
    }

    fn invoke(&self) -> anyhow::Result<String> {
        let operate = |name: &str, input: Option<&str>| {
            let operation = format!("Check/0/Check/{name}");
            let mut arguments = vec!["device", "invoke", &self.serial, &operation];
            arguments.extend(input);
            self.told(&arguments)
        };
        let (status, end) = operate("Echo", None)?;
        ensure!(status == Some(1) && end["outcome"] == "offline", "without a device, it ended {end}");
        let (_, mut device) = self.visit(&self.code, "state", "operated")?;
        let input = json!({ "marker": self.serial, "list": [1, null, "ä"] });
        let (status, end) = operate("Echo", Some(&input.to_string()))?;
        ensure!(status == Some(0) && end["outcome"] == "done" && end["output"] == input, "an echo ended {end}");
        let (status, failed) = operate("Fail", None)?;
        ensure!(status == Some(1) && failed["outcome"] == "failed" && failed["code"] == 7, "a failure ended {failed}");
        device.leave()?;
        let log: Value = self.client.get(&Route::new("/v1/operations").query("device", &self.serial))?;
        let outcomes: Vec<&str> =
            log["items"].as_array().context("no items")?.iter().filter_map(|item| item["outcome"].as_str()).collect();
        ensure!(outcomes == ["failed", "done", "offline"], "the operation log holds {outcomes:?}");
        Ok(format!("operation {} came back, a failure and an absence were told as such", end["operation_id"]))
    }

    /// A device of a broken suite is let in and labelled; one that came in by a better suite is not let in by this one.
    fn legacy(&self) -> anyhow::Result<String> {
        let mut command = self.command(&["device", "add", &self.legacy, "--code-file", "-"]);
        let done = feed(command.stdin(Stdio::piped()), &self.code)?;
        ensure!(done.status.success(), "device add: {}", String::from_utf8_lossy(&done.stderr));
        let mut device = self.start_legacy(&self.legacy, "legacy-state")?;
        device.reported()?;
        let shown = self.done(&["device", "show", &self.legacy])?;
        ensure!(shown["security"] == "legacy, not confidential", "it is labelled {}", shown["security"]);
        device.leave()?;
        self.done(&["device", "remove", &self.legacy])?;
        let mut device = self.start_legacy(&self.serial, "downgraded-state")?;
        self.until_why("modern_device")?;
        device.kill();
        Ok(format!("{} was let in and labelled; for {} that suite is closed", self.legacy, self.serial))
    }

    fn wrong_code(&self) -> anyhow::Result<String> {
        let mut device = self.start("not-it", "stranger-state", "stranger")?;
        self.until_why("wrong_code")?;
        device.kill();
        Ok("refused, and `why` says so".to_owned())
    }

    fn enrol(&self) -> anyhow::Result<String> {
        let mut device = self.start(&self.code, "second-state", "too-early")?;
        self.until_why("enrolment_closed")?;
        device.kill();
        let done = self.command(&["device", "enrol", &self.serial, "--window", "5m"]).output()?;
        ensure!(done.status.success(), "device enrol: {}", String::from_utf8_lossy(&done.stderr));
        let (id, mut device) = self.visit(&self.code, "second-state", "enrolled-again")?;
        device.leave()?;
        self.stored(&id)?;
        Ok("refused without a window, let in with one".to_owned())
    }

    fn list(&self) -> anyhow::Result<String> {
        let done = self.command(&["--json", "event", "list", "--device", &self.serial]).output()?;
        let text = String::from_utf8_lossy(&done.stdout);
        for marker in ["comes-in", "comes-back", "operated", "followed", "enrolled-again", "enabled", "rotated"] {
            ensure!(text.contains(marker), "the list lacks the event {marker}");
        }
        ensure!(!text.contains("stranger") && !text.contains("too-early"), "the list holds what was refused");
        Ok("what each visit reported, nothing of those who were refused".to_owned())
    }

    fn remove(&self) -> anyhow::Result<String> {
        let done = self.command(&["device", "remove", &self.serial]).output()?;
        ensure!(done.status.success(), "device remove: {}", String::from_utf8_lossy(&done.stderr));
        match self.device() {
            Err(error) if error.downcast_ref::<ClientError>().is_some_and(is_not_found) => Ok("gone".to_owned()),
            other => bail!("a removed device was answered with {other:?}"),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env("VESTIBULE_URL", &self.url).env("VESTIBULE_TOKEN_FILE", &self.token_file);
        command.env_remove("VESTIBULE_TOKEN").env_remove("VESTIBULE_ENVELOPE_KEY").stdin(Stdio::null());
        command
    }

    /// Runs a command with --json: its exit status, and what it says.
    fn told(&self, arguments: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
        let done = self.command(arguments).arg("--json").output()?;
        let (said, words) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        let told =
            serde_json::from_str(&said).with_context(|| format!("{} said {said:?} {words}", arguments.join(" ")));
        Ok((done.status.code(), told?))
    }

    /// The same of a command that has to succeed.
    fn done(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let (status, told) = self.told(arguments)?;
        ensure!(status == Some(0), "{} ended with {status:?}: {told}", arguments.join(" "));
        Ok(told)
    }

    fn device(&self) -> anyhow::Result<Value> {
        Ok(self.client.get(&Route::new("/v1/devices").segment(&self.serial))?)
    }

    fn why(&self) -> anyhow::Result<String> {
        let why: Value = self.client.get(&Route::new("/v1/devices").segment(&self.serial).segment("why"))?;
        Ok(why["facts"].to_string())
    }

    /// The stored event with this id.
    fn stored(&self, id: &str) -> anyhow::Result<Value> {
        let page: Value = self.client.get(&Route::new("/v1/events").query("device", &self.serial))?;
        let items = page["items"].as_array().context("no items")?;
        items.iter().find(|event| event["id"] == id).cloned().with_context(|| format!("event {id} is not stored"))
    }

    /// Starts a device process and waits until its event is acknowledged.
    fn visit(&self, code: &str, state: &str, marker: &str) -> anyhow::Result<(String, DeviceProcess)> {
        let mut device = self.start(code, state, marker)?;
        let id = device.reported()?;
        Ok((id, device))
    }

    fn start(&self, code: &str, state: &str, marker: &str) -> anyhow::Result<DeviceProcess> {
        self.start_with(code, state, marker, &[])
    }

    fn start_with(&self, code: &str, state: &str, marker: &str, more: &[&str]) -> anyhow::Result<DeviceProcess> {
        let mut command = self.command(&["demo-device", "--lbs", &self.lbs, "--ca"]);
        command.arg(&self.ca_file).args(["--serial", &self.serial, "--marker", marker, "--state"]);
        DeviceProcess::start(command.arg(self.state.join(state)).args(more), code)
    }

    /// Starts a device process that speaks the legacy suite.
    fn start_legacy(&self, serial: &str, state: &str) -> anyhow::Result<DeviceProcess> {
        let mut command = self.command(&["demo-device", "--lbs", &self.legacy_lbs, "--serial", serial]);
        DeviceProcess::start(command.args(["--marker", "legacy", "--state"]).arg(self.state.join(state)), &self.code)
    }

    fn until(&self, what: &str, seen: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        wait_for(what, || Ok(seen(&self.device()?)))
    }

    fn until_why(&self, reason: &str) -> anyhow::Result<()> {
        wait_for(reason, || Ok(self.why()?.contains(reason)))
    }
}

/// Runs a command with this on its standard input.
fn feed(command: &mut Command, text: &str) -> anyhow::Result<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
    Ok(child.wait_with_output()?)
}

/// Looks until something shows that nobody announces.
fn wait_for(what: &str, mut seen: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if seen()? {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    bail!("{what} was not seen within {} s", PATIENCE.as_secs())
}

fn is_not_found(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(refusal) if refusal.status == 404)
}
