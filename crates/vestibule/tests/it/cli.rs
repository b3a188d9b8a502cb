//! The command line: exit status, JSON, help, and what it says of a configuration that cannot be used.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Done, Platform, Program, SecondDevice, minted, vestibule, wait};

const COMMANDS: [&[&str]; 33] = [
    &[],
    &["up"],
    &["demo"],
    &["device"],
    &["device", "add"],
    &["device", "enrol"],
    &["device", "describe"],
    &["device", "list"],
    &["device", "show"],
    &["device", "watch"],
    &["device", "children"],
    &["device", "invoke"],
    &["device", "queue"],
    &["device", "set"],
    &["device", "pass"],
    &["device", "redirect"],
    &["device", "keep-alive"],
    &["device", "silence"],
    &["device", "force-offline"],
    &["audit"],
    &["token", "add"],
    &["token", "list"],
    &["token", "remove"],
    &["user", "add"],
    &["user", "list"],
    &["user", "password"],
    &["user", "remove"],
    &["device", "why"],
    &["device", "remove"],
    &["event", "list"],
    &["event", "follow"],
    &["pass", "list"],
    &["pass", "follow"],
];

/// Runs a command that has no platform to talk to, in a directory of its own.
fn alone(directory: &Path, arguments: &[&str]) -> Done {
    let mut command = vestibule();
    command.args(arguments).current_dir(directory);
    Program::of(command).finish()
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let directory = directory();
    for command in COMMANDS {
        let done = alone(directory.path(), &[command, &["--help"]].concat()).expect(0);
        let example = [&["vestibule"], command].concat().join(" ");
        let (_, examples) = done.stdout.split_once("Example").unwrap_or_else(|| panic!("{command:?}: {done:?}"));
        assert!(examples.contains(&example), "{command:?}: {examples}");
        assert!(done.stdout.contains("--json"), "{command:?}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let directory = directory();
    let wrong: [&[&str]; 9] = [
        &["no-such-command"],
        &["up", "--no-such-flag"],
        &["up", "surplus"],
        &["device"],
        &["device", "add", "SN-1"],
        &["device", "add", "SN-1", "--code", "A", "--code-file", "x"],
        &["device", "enrol", "SN-1", "--window", "soon"],
        &["event", "list", "--limit", "0"],
        &["demo", "--port", "70000"],
    ];
    for arguments in wrong {
        let done = alone(directory.path(), arguments).expect(2);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{arguments:?}: {done:?}");
    }
}

#[test]
fn a_command_that_fails_ends_with_1_and_says_why() {
    let platform = Platform::start();
    for command in [&["device", "show"][..], &["device", "why"], &["device", "watch"], &["device", "remove"]] {
        let done = platform.cli(&[command, &["NO-SUCH"]].concat()).expect(1);
        assert!(done.stderr.starts_with("vestibule: ") && done.stderr.contains("No device"), "{done:?}");
        assert!(done.stdout.is_empty(), "{done:?}");
    }
    platform.add("SN-1", "ABCDEF");
    let done = platform.cli(&["device", "add", "SN-1", "--code", "ABCDEF"]).expect(1);
    assert!(done.stderr.contains("serial") || done.stderr.contains("Serial"), "{done:?}");

    let home = directory();
    let token = home.path().join("token");
    fs::write(&token, format!("vst_{}", "0".repeat(64))).expect("written");
    let token = token.to_str().expect("UTF-8");
    let done = platform.cli(&["device", "list", "--token-file", token]).expect(1);
    assert!(done.stderr.contains("oken"), "it names the token: {done:?}");

    let nobody = { TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address") };
    let url = format!("http://{nobody}");
    let done = platform.cli(&["device", "list", "--url", &url]).expect(1);
    assert!(done.stderr.contains(&nobody.to_string()), "it names the address: {done:?}");
}

#[test]
fn every_command_prints_json_that_programs_can_read() {
    let platform = Platform::start();
    let serial = minted("SN");
    let added = platform.cli(&["--json", "device", "add", &serial, "--code", "ABCDEF", "--name", "Hall"]).expect(0);
    assert_eq!(added.json(), platform.device(&serial));
    let listed = platform.cli(&["device", "list", "--json"]).expect(0).json();
    assert_eq!(listed, json!({ "items": [platform.device(&serial)], "next": null }));
    assert_eq!(platform.cli(&["device", "show", &serial, "--json"]).expect(0).json(), platform.device(&serial));
    let window = platform.cli(&["device", "enrol", &serial, "--json"]).expect(0).json();
    assert_eq!(window["until"], platform.why(&serial)["enrol_until"]);

    let mut follow = platform.command(&["event", "follow", "--json", "--after", "0"]);
    let mut watch = platform.command(&["device", "watch", &serial, "--json"]);
    let line = |program: &mut Program| -> Value {
        let line = program.line().expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    assert_eq!(line(&mut watch)["presence"]["presence"]["state"], "never_seen");
    let flags = ["--event", r#"{"level":3}"#, "--path", "Lamp/0/Alarm/Smoke"];
    let told = SecondDevice::run(&platform, &serial, "ABCDEF", &flags).happened();
    let id = &told.one("event")["uuid"];
    assert_eq!(line(&mut follow)["id"], *id);
    // No order is promised between events and presence, and presence is what it is when it is shown.
    let (mut events, mut states) = (Vec::new(), Vec::new());
    while events.is_empty() || states.last().is_none_or(|state| state != "offline") {
        let shown = line(&mut watch);
        match shown.get("event") {
            Some(event) => events.push(event["id"].clone()),
            None => states.push(shown["presence"]["presence"]["state"].clone()),
        }
    }
    assert_eq!(events.iter().collect::<Vec<_>>(), [id]);
    assert!([&["online", "offline"][..], &["offline"]].iter().any(|expected| states == *expected), "{states:?}");

    let listed = platform.cli(&["event", "list", "--device", &serial, "--json"]).expect(0).json();
    assert_eq!(listed["items"], Value::from(platform.events(Some(&serial))));
    assert_eq!(platform.cli(&["device", "why", &serial, "--json"]).expect(0).json(), platform.why(&serial));
    let removed = platform.cli(&["device", "remove", &serial, "--json"]).expect(0).json();
    assert_eq!(removed, json!({ "removed": serial }));
    assert_eq!(line(&mut watch)["removed"]["serial"], serial);
    assert_eq!(watch.finish().code, Some(0), "there is nothing left to watch");
}

#[test]
fn a_code_is_read_from_standard_input_and_never_shown() {
    let platform = Platform::start();
    let serial = minted("SN");
    let mut command = vestibule();
    command.args(["device", "add", &serial, "--code-file", "-"]);
    command.env("VESTIBULE_URL", platform.url()).env("VESTIBULE_TOKEN", platform.token());
    let done = Program::fed(command, "SECRET\n").finish().expect(0);
    SecondDevice::run(&platform, &serial, "SECRET", &[]).happened();
    let why = platform.cli(&["device", "why", &serial]).expect(0);
    let shown = [done.stdout, done.stderr, why.stdout, platform.device(&serial).to_string(), platform.log()];
    assert!(shown.iter().all(|text| !text.contains("SECRET")), "{shown:?}");
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_a_suggestion() {
    let home = directory();
    fs::write(home.path().join("vestibule.toml"), "# ours\n[http]\nlisten = \"127.0.0.1:0\"\nmax_conections = 5\n")
        .expect("written");
    let done = alone(home.path(), &["up"]).expect(2);
    let expected = "vestibule.toml:4: http.max_conections: unknown key; did you mean `http.max_connections`?";
    assert!(done.stderr.contains(expected), "{done:?}");
    assert!(!home.path().join("data").exists(), "nothing was begun");
    let done = alone(home.path(), &["up", "-c", "none.toml"]).expect(2);
    assert!(done.stderr.contains("none.toml"), "{done:?}");
    let done = alone(home.path(), &["up", "--set", "http.listen=0.0.0.0:0"]).expect(2);
    assert!(done.stderr.contains("http.insecure"), "plain HTTP for other machines has to be asked for: {done:?}");
}

#[test]
fn an_occupied_port_is_told_by_its_key_and_leaves_the_data_usable() {
    let home = directory();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for key in ["http.listen", "lbs.legacy_listen", "das.legacy_listen", "mqtt.listen"] {
        let setting = format!("{key}={address}");
        let done = alone(home.path(), &["up", "--set", "http.listen=127.0.0.1:0", "--set", &setting]).expect(1);
        assert!(done.stderr.contains(key) && done.stderr.contains(&address), "{key}: {done:?}");
        assert!(!home.path().join("ready.json").exists());
    }
}

#[test]
fn a_data_directory_in_use_is_refused_and_the_platform_in_it_goes_on() {
    let platform = Platform::start();
    let home = directory();
    let data = platform.data();
    let data = data.to_str().expect("UTF-8");
    let done = alone(home.path(), &["up", "--data", data, "--set", "http.listen=127.0.0.1:0"]).expect(1);
    assert!(done.stderr.contains(data) && done.stderr.contains("use"), "{done:?}");
    platform.add("SN-1", "ABCDEF");
    assert_eq!(platform.http().get("/readyz").ok()["ready"], true);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let platform = Platform::start();
    platform.add("SN-1", "ABCDEF");
    let mut command = vestibule();
    command.args(["device", "watch", "SN-1"]).env("VESTIBULE_URL", platform.url());
    command.env("VESTIBULE_TOKEN", platform.token()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("a standard output"));
    stdout.read_line(&mut String::new()).expect("a line");
    drop(stdout);
    platform.cli(&["device", "remove", "SN-1"]).expect(0);
    assert_eq!(wait(&mut child).code(), Some(0));
}
