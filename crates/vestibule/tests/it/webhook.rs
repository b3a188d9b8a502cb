//! Webhooks: what devices report arrives at a receiver in Python, whatever becomes of either side.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Load, Platform, Program, SecondDevice, minted, python, until};

const CODE: &str = "ABCDEF";
const SECRET: &str = "whsec_dmVzdGlidWxlLXRlc3Qtc2VjcmV0LTAxMjM0NTY3";
pub const ALLOWING: &str = "[webhooks]\nallow = \"127.0.0.0/8\"\ntimeout = \"2s\"\n";

/// A receiver in a process of its own.
pub struct Receiver {
    program: Program,
    port: u16,
    home: TempDir,
}

impl Receiver {
    pub fn start() -> Receiver {
        let home = tempfile::tempdir().expect("a directory");
        let (program, port) = Receiver::launch(&home, 0, &[]);
        Receiver { program, port, home }
    }

    /// One that speaks TLS, under a certificate of an authority in this file.
    fn secured(authority: &Path) -> Receiver {
        let home = tempfile::tempdir().expect("a directory");
        let (program, port) = Receiver::launch(&home, 0, &["--tls", authority.to_str().expect("text")]);
        Receiver { program, port, home }
    }

    fn launch(home: &TempDir, port: u16, more: &[&str]) -> (Program, u16) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/webhook/receiver.py");
        let mut command = Command::new(python());
        command.arg("-B").arg(script).args(["--secret", SECRET, "--port", &port.to_string(), "--answers"]);
        command.arg(answers(home)).args(more);
        let mut program = Program::of(command);
        let told: Value = serde_json::from_str(&program.line().expect("its port")).expect("JSON");
        (program, told["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port"))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What it answers from now on.
    fn answer(&self, answer: &str) {
        // In one step: a request may come at any time.
        let next = self.home.path().join("next");
        fs::write(&next, answer).expect("written");
        fs::rename(next, answers(&self.home)).expect("renamed");
    }

    fn restart(&mut self) {
        self.program = Receiver::launch(&self.home, self.port, &[]).0;
    }

    /// The next request it was sent.
    #[track_caller]
    pub fn told(&mut self) -> Value {
        let told: Value = serde_json::from_str(&self.program.line().expect("a request")).expect("JSON");
        assert_eq!(told["valid"], true, "{told}");
        told
    }
}

fn answers(home: &TempDir) -> PathBuf {
    home.path().join("answers")
}

/// Adds a webhook and answers with its path in the API.
#[track_caller]
pub fn add(platform: &Platform, url: &str, more: Value) -> String {
    let mut body = json!({ "url": url, "secret": SECRET });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let webhook = platform.http().post("/v1/webhooks", &body).ok();
    assert!(webhook.get("secret").is_none(), "its owner has it: {webhook}");
    format!("/v1/webhooks/{}", webhook["id"].as_str().expect("an id"))
}

/// Has a new device report some events, and answers with its serial.
fn report(platform: &Platform, count: usize) -> String {
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let event = json!({ "level": 3 }).to_string();
    let flags = ["--event", &event, "--path", "Lamp/0/Alarm/Smoke", "--count", &count.to_string()];
    SecondDevice::run(platform, &serial, CODE, &flags).happened();
    serial
}

#[test]
fn an_event_arrives_as_a_signed_cloud_event() {
    let platform = Platform::configured(ALLOWING);
    let mut receiver = Receiver::start();
    let secret = receiver.home.path().join("secret");
    fs::write(&secret, SECRET).expect("written");
    let file = secret.to_str().expect("text");
    let add = ["webhook", "add", &receiver.url("/in?a=b"), "--type", "Smoke", "--secret-file", file, "--json"];
    let webhook = platform.cli(&add).expect(0).json();
    let id = webhook["id"].as_str().expect("an id");

    platform.cli(&["webhook", "test", id]).expect(0);
    let told = receiver.told();
    assert_eq!(
        (&told["event"]["type"], &told["event"]["data"]),
        (&json!("vestibule.webhook.test"), &json!({"webhook": id}))
    );

    let serial = report(&platform, 3);
    let stored = platform.events(Some(&serial));
    for event in stored.iter().rev() {
        let told = receiver.told();
        let position = event["position"].to_string();
        assert_eq!((&told["path"], &told["media_type"]), (&json!("/in?a=b"), &json!("application/cloudevents+json")));
        assert!(told["id"].as_str().is_some_and(|id| id.ends_with(&format!("_{position}"))), "{told}");
        let cloud = &told["event"];
        let source = format!("urn:uuid:{}", event["device"]["id"].as_str().expect("an id"));
        assert_eq!(
            *cloud,
            json!({
                "specversion": "1.0", "id": position, "source": source, "type": "vestibule.device.event",
                "subject": "Lamp/0/Alarm/Smoke", "time": event["time"], "datacontenttype": "application/json",
                "data": event,
            })
        );
    }
    let shown = until("everything told", || {
        let shown = platform.cli(&["webhook", "show", id, "--json"]).expect(0).json();
        (shown["lag"]["positions"] == 0).then_some(shown)
    });
    assert!(shown["last_success"].is_string() && shown["last_error"].is_null(), "{shown}");
    assert!(platform.cli(&["webhook", "list"]).expect(0).stdout.contains(" ok "));
    let metrics = platform.http().text("/metrics");
    assert!(metrics.contains("vestibule_webhook_deliveries_total{outcome=\"delivered\"}"), "{metrics}");
    platform.cli(&["webhook", "remove", id]).expect(0);
    platform.cli(&["webhook", "show", id]).expect(1);
    let audit = platform.cli(&["audit", "--json"]).expect(0);
    assert!(audit.stdout.contains("webhook.add") && audit.stdout.contains("webhook.test"), "{audit:?}");
    assert!(!audit.stdout.contains("whsec_") && !platform.log().contains("whsec_"), "a secret shows");
    platform.assert_no_panic();
}

#[test]
fn kill_9_in_the_middle_leaves_nothing_untold() {
    let mut platform = Platform::configured(ALLOWING);
    let mut receiver = Receiver::start();
    add(&platform, &receiver.url("/in"), json!({ "after": "0" }));
    let load = Load::start(&platform, 4);
    for _ in 0..2 {
        load.acknowledges(150);
        platform.kill();
        platform.restart();
    }
    load.acknowledges(50);
    load.finish();
    let stored: BTreeSet<i64> =
        platform.events(None).iter().map(|event| event["position"].as_i64().expect("a position")).collect();
    let (mut seen, mut last, mut repeated) = (BTreeSet::new(), BTreeMap::new(), 0);
    while seen.len() < stored.len() {
        let told = receiver.told();
        let position = told["event"]["data"]["position"].as_i64().expect("a position");
        assert_eq!(told["event"]["id"], position.to_string());
        if !seen.insert(position) {
            repeated += 1;
            continue;
        }
        let source = told["event"]["source"].as_str().expect("a source").to_owned();
        let before = last.insert(source, position);
        assert!(before.is_none_or(|before| before < position), "{position} after {before:?} of the same device");
    }
    assert_eq!(seen, stored);
    println!("{} events told, {repeated} more than once", seen.len());
    platform.assert_no_panic();
}

#[test]
fn a_receiver_that_was_down_is_told_what_it_missed() {
    let platform = Platform::configured(ALLOWING);
    let mut receiver = Receiver::start();
    let hook = add(&platform, &receiver.url("/in"), json!({}));
    report(&platform, 1);
    receiver.told();
    receiver.program.kill();
    let serial = report(&platform, 5);
    let failing = until("a webhook that fails", || {
        let shown = platform.http().get(&hook).ok();
        (shown["failures"].as_u64() >= Some(2)).then_some(shown)
    });
    assert!(failing["failing_since"].is_string() && failing["next_attempt"].is_string(), "{failing}");
    assert!(failing["last_error"]["reason"].as_str().is_some_and(|reason| reason.contains("connect")), "{failing}");
    assert_eq!((&failing["lag"]["positions"], &failing["dead_letters"]), (&json!(5), &json!(0)));

    receiver.answer("503 1");
    receiver.restart();
    assert_eq!(receiver.told()["answer"], 503);
    receiver.answer("204");
    let mut positions = Vec::new();
    while positions.len() < 5 {
        let told = receiver.told();
        if told["answer"] == 204 {
            positions.push(told["event"]["data"]["position"].as_i64().expect("a position"));
        }
    }
    let stored = platform.events(Some(&serial));
    let expected: Vec<i64> = stored.iter().rev().filter_map(|event| event["position"].as_i64()).collect();
    assert_eq!(positions, expected);
    until("a webhook that is well", || (platform.http().get(&hook).ok()["failures"] == 0).then_some(()));
    platform.assert_no_panic();
}

#[test]
fn what_is_refused_becomes_a_dead_letter_and_can_be_told_once_more() {
    let mut platform = Platform::configured(ALLOWING);
    let mut receiver = Receiver::start();
    let hook = add(&platform, &receiver.url("/in"), json!({ "kinds": ["event", "attribute"] }));
    let id = hook.rsplit('/').next().expect("an id");
    receiver.answer("422");
    let serial = report(&platform, 3);
    for _ in 0..3 {
        receiver.told();
    }
    until("three dead letters", || (platform.http().get(&hook).ok()["dead_letters"] == 3).then_some(()));
    receiver.answer("204");
    report(&platform, 1);
    receiver.told();
    let letters = platform.cli(&["webhook", "dead-letters", id, "--json"]).expect(0).json();
    let positions: Vec<i64> =
        letters["items"].as_array().expect("items").iter().filter_map(|letter| letter["position"].as_i64()).collect();
    assert!(positions.len() == 3 && positions.is_sorted_by(|a, b| a > b), "{letters}");
    let letter = &letters["items"][0];
    assert_eq!((&letter["status"], &letter["attempts"], &letter["kind"]), (&json!(422), &json!(1), &json!("event")));
    assert_eq!(letter["device"]["serial"], serial);

    // Over a crash, too: first one, then the rest.
    let oldest = positions[2].to_string();
    platform.cli(&["webhook", "replay", id, "--position", &oldest]).expect(0);
    assert_eq!(receiver.told()["event"]["id"], oldest);
    until("a letter that is gone", || (platform.http().get(&hook).ok()["dead_letters"] == 2).then_some(()));
    platform.http().post(&format!("{hook}/disable"), &json!({})).ok();
    platform.cli(&["webhook", "replay", id]).expect(0);
    platform.kill();
    platform.restart();
    assert_eq!(platform.http().get(&hook).ok()["dead_letters"], 2);
    platform.cli(&["webhook", "enable", id]).expect(0);
    let replayed: BTreeSet<String> =
        (0..2).map(|_| receiver.told()["event"]["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(replayed, BTreeSet::from([positions[0].to_string(), positions[1].to_string()]));
    until("no letters", || (platform.http().get(&hook).ok()["dead_letters"] == 0).then_some(()));

    receiver.answer("410");
    report(&platform, 1);
    receiver.told();
    let disabled = until("a webhook that is disabled", || {
        let shown = platform.http().get(&hook).ok();
        (shown["enabled"] == false).then_some(shown)
    });
    assert!(disabled["disabled_because"].as_str().is_some_and(|why| why.contains("410")), "{disabled}");
    receiver.answer("204");
    platform.cli(&["webhook", "enable", id]).expect(0);
    assert_eq!(receiver.told()["answer"], 204, "it goes on with what it was told last");
    platform.assert_no_panic();
}

#[test]
fn a_letter_that_is_told_once_more_is_tried_once_and_only_while_it_is_wanted() {
    let platform = Platform::configured(ALLOWING);
    let mut receiver = Receiver::start();
    let hook = add(&platform, &receiver.url("/in"), json!({}));
    let replay = || platform.http().post(&format!("{hook}/dead-letters/replay"), &json!({})).ok();
    let letter = |reason: &str| {
        until("the letter is back", || {
            let letters = platform.http().get(&format!("{hook}/dead-letters")).ok();
            let letter = &letters["items"][0];
            let is_back =
                letter["replay"] == false && letter["reason"].as_str().is_some_and(|why| why.contains(reason));
            is_back.then(|| letter.clone())
        })
    };
    receiver.answer("422");
    report(&platform, 1);
    assert_eq!(receiver.told()["answer"], 422);
    letter("422");

    // It fails otherwise this time, and is not tried again; what is live goes on at once.
    receiver.answer("500");
    replay();
    assert_eq!(receiver.told()["answer"], 500);
    assert_eq!(letter("500")["attempts"], 1);
    assert_eq!(platform.http().get(&hook).ok()["failures"], 0);
    receiver.answer("204");
    let serial = report(&platform, 1);
    let told = receiver.told();
    assert_eq!((&told["answer"], &told["event"]["data"]["device"]["serial"]), (&json!(204), &json!(serial)));

    let changed = json!({ "url": receiver.url("/in"), "type": "Fire" });
    assert_eq!(platform.http().put(&hook, &changed).status, 200);
    replay();
    letter("not told of such records any more");
    platform.assert_no_panic();
}

#[test]
fn what_fails_for_too_long_becomes_a_dead_letter_and_the_next_is_told() {
    let platform = Platform::configured(&format!("{ALLOWING}give_up_after = \"1s\"\n"));
    let mut receiver = Receiver::start();
    let hook = add(&platform, &receiver.url("/in"), json!({}));
    receiver.answer("500");
    report(&platform, 1);
    let letters = until("a dead letter", || {
        let letters = platform.http().get(&format!("{hook}/dead-letters")).ok();
        (letters["items"][0]["status"] == 500).then_some(letters)
    });
    let letter = &letters["items"][0];
    assert!(letter["attempts"].as_u64() > Some(1), "{letter}");
    receiver.answer("204");
    report(&platform, 1);
    let mut told = receiver.told();
    while told["answer"] == 500 {
        assert_eq!(told["event"]["data"]["position"], letter["position"]);
        told = receiver.told();
    }
    assert_ne!(told["event"]["data"]["position"], letter["position"]);
    platform.assert_no_panic();
}

#[test]
fn a_receiver_is_told_over_tls_when_its_authority_is_known() {
    let home = tempfile::tempdir().expect("a directory");
    let authority = home.path().join("authority.pem");
    let mut receiver = Receiver::secured(&authority);
    let url = format!("https://localhost:{}/in", receiver.port);
    let configured = |more: &str| Platform::configured(&format!("{ALLOWING}{more}\n"));

    let stranger = configured("");
    let id = add(&stranger, &url, json!({})).rsplit('/').next().expect("an id").to_owned();
    let refused = stranger.cli(&["webhook", "test", &id]).expect(1);
    assert!(refused.stderr.contains("no secure connection"), "{refused:?}");

    let platform = configured(&format!("ca_file = \"{}\"", authority.display()));
    add(&platform, &url, json!({}));
    report(&platform, 1);
    assert_eq!(receiver.told()["event"]["type"], "vestibule.device.event");
    platform.assert_no_panic();
}

#[test]
fn one_that_hangs_holds_up_nobody() {
    let platform = Platform::configured(ALLOWING);
    let mut receiver = Receiver::start();
    let hooks: Vec<String> =
        (0..19).map(|number| add(&platform, &receiver.url(&format!("/{number}")), json!({ "after": "0" }))).collect();
    let hanging = add(&platform, &receiver.url("/hang"), json!({ "after": "0" }));
    let before = platform.resident_kib();
    let load = Load::start(&platform, 4);
    load.acknowledges(200);
    let ids = load.finish();
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while told.len() < hooks.len() || told.values().any(|told| told.len() < ids.len()) {
        let request = receiver.told();
        let event = request["event"]["data"]["id"].as_str().expect("an id").to_owned();
        told.entry(request["path"].as_str().expect("a path").to_owned()).or_default().insert(event);
    }
    let shown = until("that one hangs", || {
        let shown = platform.http().get(&hanging).ok();
        (shown["failures"].as_u64() > Some(0)).then_some(shown)
    });
    assert!(shown["last_error"]["reason"].as_str().is_some_and(|reason| reason.contains("no answer")), "{shown}");
    assert_eq!(shown["position"], 0);
    let grown = platform.resident_kib().saturating_sub(before);
    println!("{} events to 19 receivers, memory grew by {grown} KiB", ids.len());
    assert!(grown < 128 * 1024, "{grown} KiB");
    platform.assert_no_panic();
}

#[test]
fn ssrf_the_inside_is_told_nothing_unless_it_is_allowed() {
    let platform = Platform::start();
    let inside = Receiver::start();
    for url in [
        inside.url("/in"),
        format!("http://2130706433:{}/", inside.port),
        format!("http://0x7f.1:{}/", inside.port),
        format!("http://0177.0.0.1:{}/", inside.port),
        format!("http://[::ffff:127.0.0.1]:{}/", inside.port),
        format!("http://[::1]:{}/", inside.port),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://user:pass@hall.example/".to_owned(),
        "ftp://hall.example/".to_owned(),
    ] {
        let answer = platform.http().post("/v1/webhooks", &json!({ "url": url }));
        assert_eq!((answer.status, &answer.body["field"]), (422, &json!("url")), "{url}: {}", answer.body);
    }
    // A name is looked at when it is connected to.
    let url = format!("http://localhost:{}/in", inside.port);
    let added = platform.http().post("/v1/webhooks", &json!({ "url": url })).ok();
    assert!(added["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")), "{added}");
    let id = added["id"].as_str().expect("an id");
    let tested = platform.cli(&["webhook", "test", id]).expect(1);
    assert!(tested.stderr.contains("loopback") && tested.stderr.contains("webhooks.allow"), "{tested:?}");
    let shown = platform.http().get(&format!("/v1/webhooks/{id}")).ok();
    assert!(shown.get("secret").is_none(), "{shown}");
    platform.assert_no_panic();
}
