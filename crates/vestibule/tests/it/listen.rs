//! Start, stop and start again.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{self, Listener, Load, Platform, Program, SecondDevice, minted, until};

const CODE: &str = "ABCDEF";

#[test]
fn the_ready_file_names_the_process_the_token_and_every_listener() {
    let mut platform = Platform::start();
    let ready = platform.ready().clone();
    assert_eq!(ready["pid"], platform.child());
    assert_eq!(ready["version"], env!("CARGO_PKG_VERSION"));
    let listeners = ready["listeners"].as_object().expect("listeners");
    let names: Vec<&String> = listeners.keys().collect();
    let all = ["das", "das_legacy", "http", "https", "lbs", "lbs_legacy", "mqtt", "mqtts"];
    assert_eq!(names, all, "what is off is absent");
    for listener in Listener::ALL {
        let address = platform.address(listener);
        TcpStream::connect(address).unwrap_or_else(|error| panic!("{listener:?} at {address}: {error}"));
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(platform.token_file()).expect("a token file").permissions().mode();
    assert_eq!(mode & 0o077, 0, "the token is for its owner only");
    let roots = fs::read_to_string(platform.ca_file()).expect("the roots");
    assert!(roots.starts_with("-----BEGIN CERTIFICATE-----"), "{roots}");
    let ready_file = platform.data().with_file_name("ready.json");
    platform.stop();
    assert!(!ready_file.exists(), "a stopped platform does not say that it listens");
}

/// Nobody who does not ask for it serves the legacy suites, and who does serves them where he says and nowhere else.
#[test]
fn osap_13_2_1_the_legacy_listeners_are_off_and_bind_to_the_address_they_are_given() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let ready_file = home.path().join("ready.json");
    let mut command = support::vestibule();
    command.args(["up", "--set", "http.listen=127.0.0.1:0", "--data"]).arg(home.path().join("data"));
    command.arg("--ready-file").arg(&ready_file).current_dir(home.path());
    let running = Program::of(command);
    let ready: Value =
        until("a platform with its defaults", || serde_json::from_slice(&fs::read(&ready_file).ok()?).ok());
    let names: Vec<&String> = ready["listeners"].as_object().expect("listeners").keys().collect();
    assert_eq!(names, ["http", "https"]);
    drop(running);

    let platform = Platform::start();
    for listener in [Listener::Lbs, Listener::Das] {
        let address = platform.address(listener);
        assert!(address.ip().is_loopback());
        TcpStream::connect(address).expect("it listens there");
        let elsewhere = SocketAddr::from(([127, 250, 250, 250], address.port()));
        assert!(TcpStream::connect(elsewhere).is_err(), "{listener:?} listens at {elsewhere}, too");
    }
}

/// Wherever a device shows that came in by a legacy suite.
#[test]
fn osap_13_2_9_a_legacy_session_is_labelled_wherever_it_shows() {
    const LABEL: &str = "legacy, not confidential";
    let platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let (_, _das) = support::enrol(&platform, &serial, CODE);
    let device = platform.device(&serial);
    assert_eq!((&device["security"], &device["confidential"]), (&json!(LABEL), &json!(false)));
    let listed = platform.http().get("/v1/devices").ok();
    assert_eq!(listed["items"][0]["security"], LABEL);
    for command in [&["device", "show", &serial][..], &["device", "list"]] {
        let told = platform.cli(command);
        assert!(told.stdout.contains(LABEL), "{command:?}: {}", told.stdout);
    }
    assert!(platform.http().text("/").contains("device.security"), "the live page shows the label of the API");
}

#[test]
fn a_restart_keeps_devices_credentials_events_and_positions() {
    let mut platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let state = tempfile::tempdir().expect("a temporary directory");
    let state = state.path().join("state.json");
    let state = state.to_str().expect("UTF-8");
    let flags = |level: u8| {
        let event = json!({ "level": level }).to_string();
        ["--state", state, "--event", &event, "--path", "Lamp/0/Alarm/Smoke", "--count", "3"].map(str::to_owned)
    };
    let visit = |platform: &Platform, level: u8| {
        let flags = flags(level);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        SecondDevice::run(platform, &serial, CODE, &flags).happened()
    };
    visit(&platform, 1);
    platform.until_presence(&serial, "offline", "disconnect");
    let (device, events, token) = (platform.device(&serial), platform.events(None), platform.token());
    assert_eq!(events.len(), 3);

    assert_eq!(platform.stop().code(), Some(0));
    platform.restart();
    assert_eq!(platform.token(), token);
    assert_eq!(platform.device(&serial), device);
    assert_eq!(platform.events(None), events);

    let told = visit(&platform, 2);
    assert_eq!(told.story()[..3], ["authenticated plain_refresh", "das", "connack 0"], "it comes in by its keys");
    let after = platform.events(None);
    assert_eq!(after.len(), 6);
    assert_eq!(after[3..], events);
    let position = |event: &Value| event["position"].as_i64().expect("a position");
    assert!(after.iter().zip(&after[1..]).all(|(newer, older)| position(newer) > position(older)), "{after:?}");
}

#[test]
fn a_device_that_was_online_is_offline_after_a_restart_with_the_reason() {
    let mut platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let (access, das) = support::enrol(&platform, &serial, CODE);
    platform.until_presence(&serial, "online", "login");
    assert_eq!(platform.stop().code(), Some(0));
    drop(das);
    platform.restart();
    platform.until_presence(&serial, "offline", "shutdown");

    // The session key outlives the restart: the device need not go to the LBS.
    let noted = platform.metric("vestibule_control_writes_total", &[]);
    let (answer, das) = support::connect(&serial, &access);
    assert_eq!(answer, 0);
    platform.until_presence(&serial, "online", "login");
    // Presence is written behind the devices' backs; one that was not written cannot be restored.
    until("the note of the presence", || {
        (platform.metric("vestibule_control_writes_total", &[]) > noted).then_some(())
    });
    platform.kill();
    drop(das);
    platform.restart();
    platform.until_presence(&serial, "offline", "platform_restart");
}

#[test]
fn sigterm_waits_for_no_idle_peer() {
    let mut platform = Platform::start();
    platform.add("SN-1", CODE);
    let (_, mut device) = support::enrol(&platform, "SN-1", CODE);
    let silent = Listener::ALL.map(|listener| TcpStream::connect(platform.address(listener)).expect("it listens"));
    let mut follow = platform.command(&["device", "watch", "SN-1", "--json"]);
    follow.line().expect("the stream is open");
    let begun = Instant::now();
    assert_eq!(platform.stop().code(), Some(0), "{}", platform.log());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    assert_eq!(device.drained().len(), 0, "a legacy device is told by the end of the connection");
    drop(silent);
}

#[test]
fn a_follower_sees_every_event_once_over_a_restart_and_a_crash() {
    let mut platform = Platform::start();
    let mut follow = platform.command(&["event", "follow", "--json", "--after", "0"]);
    let load = Load::start(&platform, 2);
    load.acknowledges(100);
    platform.stop();
    platform.restart();
    load.acknowledges(100);
    platform.kill();
    platform.restart();
    load.acknowledges(100);
    let mut missing = load.finish();
    let mut position = 0;
    while !missing.is_empty() {
        let line = follow.line().expect("it follows until it is stopped");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        let id = event["id"].as_str().expect("an id");
        assert!(missing.remove(id), "shown twice, or never sent: {event}");
        let at = event["position"].as_i64().expect("a position");
        assert!(at > position, "{at} after {position}");
        position = at;
    }
}

#[test]
fn sigterm_under_load_ends_within_seconds_and_no_event_is_lost_or_stored_twice() {
    let mut platform = Platform::start();
    let load = Load::start(&platform, 3);
    load.acknowledges(300);
    let begun = Instant::now();
    let status = platform.stop();
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(0), "{}", platform.log());
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    let acknowledged = load.acknowledged();

    platform.restart();
    let stored = counted(&platform);
    let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains_key(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and gone: {lost:?}");

    // The devices come back by themselves and send again what was not acknowledged.
    load.acknowledges(100);
    let book = load.finish();
    let stored = counted(&platform);
    assert!(stored.values().all(|&count| count == 1), "stored twice");
    assert_eq!(stored.len(), book.len());
    assert!(book.iter().all(|id| stored.contains_key(id)));
    platform.assert_no_panic();
}

/// How often each event id is stored.
pub fn counted(platform: &Platform) -> HashMap<String, usize> {
    let mut counted = HashMap::new();
    for event in platform.events(None) {
        *counted.entry(event["id"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    counted
}
