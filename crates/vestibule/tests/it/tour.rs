//! docs/api.md, docs/mqtt.md and docs/tls.md are true: their commands are run, and their answers are those that come.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Listener, Platform, Program, until};

/// A fenced block: what stands behind the fence, and its lines.
struct Block<'a> {
    kind: &'a str,
    text: String,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block { kind, text: text.join("\n") });
        }
    }
    blocks
}

/// Every member that the page shows is there, of the same type; `…`, null, `{}` and `[]` stand for anything.
#[track_caller]
fn shows(page: &Value, answer: &Value, whole: &str) {
    match (page, answer) {
        (Value::Object(shown), Value::Object(came)) => {
            for (name, value) in shown {
                let found = came.get(name).unwrap_or_else(|| panic!("{name} is not in the answer {whole}"));
                shows(value, found, whole);
            }
        }
        (Value::Array(shown), Value::Array(came)) => {
            if let Some(first) = shown.first() {
                shows(first, came.first().unwrap_or_else(|| panic!("an empty list in {whole}")), whole);
            }
        }
        (Value::Null, _) => {}
        (Value::Object(shown), _) if shown.is_empty() => {}
        (Value::String(shown), came) if shown == "…" => {
            assert!(came.is_string() || came.is_null(), "{came} in {whole}")
        }
        (Value::Number(_), Value::Number(_)) => {}
        (shown, came) => assert_eq!(shown, came, "in {whole}"),
    }
}

#[test]
fn the_tour_of_the_api_is_true() {
    let (commands, answers) = is_true("api.md");
    assert!(commands >= 14 && answers >= 14, "{commands} commands, {answers} answers");
}

#[test]
fn the_page_about_mqtt_is_true() {
    let (commands, answers) = is_true("mqtt.md");
    assert!(commands >= 5 && answers >= 4, "{commands} commands, {answers} answers");
}

#[test]
fn the_commands_of_the_page_about_tls_work() {
    let platform = Platform::start();
    for serial in ["SN0000001", "SN0000002"] {
        platform.add(serial, "ABCDEF");
    }
    let place = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(platform.data(), place.path().join("data")).expect("linked");
    fs::create_dir(place.path().join("requests")).expect("made");
    let begins = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / -keyout /dev/null";
    let run = |text: &str| {
        let mut bash = Command::new("bash");
        let binary = Path::new(env!("CARGO_BIN_EXE_vestibule")).parent().expect("a directory").to_owned();
        let known = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([binary].into_iter().chain(std::env::split_paths(&known)));
        bash.args(["-euo", "pipefail", "-c", text]).current_dir(place.path()).env("PATH", path.expect("a path"));
        bash.env("VESTIBULE_URL", platform.url()).env("VESTIBULE_TOKEN", platform.token());
        bash.env("TOKEN", platform.token());
        Program::of(bash).finish().expect(0).stdout
    };
    run(&format!("{begins} -out requests/SN0000002.csr"));

    let https = platform.address(Listener::Https).to_string();
    let mqtts = platform.address(Listener::Mqtts);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tls.md");
    let page = fs::read_to_string(page).expect("the page");
    let page = page.replace("localhost:8443", &https);
    let page = page.replace("-h localhost -p 8883", &format!("-h {} -p {}", mqtts.ip(), mqtts.port()));
    // These two have never been in.
    let page = page.replace("admin ca retire servers", "admin ca retire servers --force");
    let said: Vec<String> =
        blocks(&page).iter().filter(|block| block.kind == "sh").map(|block| run(&block.text)).collect();
    let [reached, rolled, issued, demanded] = said.as_slice() else { panic!("other commands: {said:?}") };
    assert!(reached.contains("SN0000001"), "{reached}");
    assert!(rolled.contains("root"), "{rolled}");
    assert!(issued.contains("SN0000001"), "{issued}");
    assert!(demanded.contains("SN0000001"), "{demanded}");
    let roots = fs::read_to_string(place.path().join("ca.pem")).expect("exported");
    assert!(roots.starts_with("-----BEGIN CERTIFICATE-----"), "{roots}");
    for certificate in ["SN0000001.pem", "certificates/SN0000002.pem"] {
        let text = fs::read_to_string(place.path().join(certificate)).expect("issued");
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----"), "{text}");
    }
    platform.assert_no_panic();
}

/// Runs the commands of a page; how many there were, and how many answers were compared.
fn is_true(page: &str) -> (usize, usize) {
    let platform = Platform::start();
    let lbs = platform.address(Listener::Lbs).to_string();
    let flags = "--devices 3 --profile camera --ramp 10ms --events-per-minute 600 --reports-per-minute 600 --keep";
    let fleet = [&["simulate", "--lbs", &lbs][..], &flags.split_whitespace().collect::<Vec<_>>()].concat();
    let mut fleet = platform.command(&fleet);
    let history = "/v1/devices/SIM-0001/attributes/Camera/0/Image/Illuminance/history";
    until("devices that are online and have said something", || {
        let came = |path: &str| {
            let page = platform.http().get(path);
            page.status == 200 && page.ok()["items"].as_array().is_some_and(|items| !items.is_empty())
        };
        (came("/v1/events?device=SIM-0001") && came(history)).then_some(())
    });

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let page = fs::read_to_string(page).expect("the page");
    let all = blocks(&page);
    assert_eq!(all[0].kind, "sh setup");
    let functions: Vec<&str> = all[0].text.lines().filter(|line| line.contains("() {")).collect();
    let mqtt = platform.address(Listener::Mqtt);
    let mut answer = String::new();
    let (mut commands, mut answers) = (0, 0);
    for block in &all[1..] {
        match block.kind {
            "sh" => {
                let mut bash = Command::new("bash");
                bash.args(["-euo", "pipefail", "-c", &format!("{}\n{}", functions.join("\n"), block.text)]);
                bash.env("URL", platform.url()).env("TOKEN", platform.token());
                bash.env("HOST", mqtt.ip().to_string()).env("PORT", mqtt.port().to_string());
                answer = Program::of(bash).finish().expect(0).stdout;
                commands += 1;
            }
            "json" | "json last" => {
                let shown: Value = serde_json::from_str(&block.text).expect("JSON on the page");
                let text = if block.kind == "json" { &answer } else { answer.lines().last().expect("an answer") };
                let came = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {answer}"));
                shows(&shown, &came, &answer);
                answers += 1;
            }
            "text" => {
                for line in block.text.lines() {
                    let begins = answer.lines().any(|came| came.starts_with(line));
                    assert!(begins, "no line begins with {line:?} in {answer}");
                }
                answers += 1;
            }
            other => panic!("a block of {other}"),
        }
    }
    fleet.kill();
    platform.assert_no_panic();
    (commands, answers)
}
