//! Devices made with the SDK that come in by the modern suites, side by side with one of another make that cannot.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use vestibule_device::{Anchor, DevId, Device, FileStorage, MemoryStorage, Psk, Slot, State, Suite, TicketId};

use crate::support::{self, Listener, Platform, minted};

/// A code of 64 bits, which needs no window.
const LONG_CODE: &str = "ABCDEFGHJKMNP";
const PATIENCE: Duration = Duration::from_secs(60);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Waits until the device is there.
async fn online(device: &Device) {
    let mut state = device.watch_state();
    let there = state.wait_for(|state| *state == State::Online);
    tokio::time::timeout(PATIENCE, there).await.expect("it comes in").expect("it lives");
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("text");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("digits")).collect()
}

#[test]
fn osap_13_3_a_device_comes_in_over_tls_reports_is_operated_and_outlives_a_crash_of_the_platform() {
    let mut platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, LONG_CODE);
    let runtime = runtime();
    let device = runtime.block_on(async {
        let device = Device::builder(&serial, LONG_CODE)
            .lbs(format!("osaps://{}", platform.address(Listener::LbsTls)))
            .first_use()
            .storage(MemoryStorage::new())
            .operation("Lamp", 0, "Light", "Blink", |input: Value| async move { Ok(input) })
            .start()
            .expect("it starts");
        online(&device).await;
        device.event("Lamp", 0, "Alarm", "Smoke").report(&json!({"level": 3})).await.expect("stored");
        device
    });
    let shown = platform.device(&serial);
    assert_eq!(
        (&shown["suite"], &shown["confidential"], &shown["security"]),
        (&json!("tls"), &json!(true), &Value::Null)
    );
    assert_eq!((&shown["suites"]["legacy"], &shown["suites"]["plain"]), (&json!(false), &json!(true)));
    let answer = platform
        .http()
        .post(&format!("/v1/devices/{serial}/operations/Lamp/0/Light/Blink"), &json!({"input": {"count": 3}}))
        .ok();
    assert_eq!((&answer["outcome"], &answer["output"]), (&json!("done"), &json!({"count": 3})));

    platform.kill();
    platform.restart();
    runtime.block_on(async {
        let report = device.event("Lamp", 0, "Alarm", "Smoke");
        tokio::time::timeout(PATIENCE, report.report(&json!({"level": 4}))).await.expect("in time").expect("stored");
    });
    let events = platform.http().get(&format!("/v1/events?device={serial}")).ok();
    let levels: Vec<&Value> =
        events["items"].as_array().expect("events").iter().map(|event| &event["data"]["data"]["level"]).collect();
    assert_eq!(levels.len(), 2, "{events}");

    // One of another make cannot do that; both are there, and labelled.
    let legacy = minted("SN");
    platform.add(&legacy, "ABCDEF");
    let (_, _das) = support::enrol(&platform, &legacy, "ABCDEF");
    assert_eq!(platform.device(&legacy)["security"], "legacy, not confidential");
    // Nor is the modern one let in by the legacy suite any more, whatever it proves.
    let told = platform.cli(&["device", "suites", &serial, "--legacy", "closed"]);
    assert!(told.stdout.contains("legacy suites closed"), "{}", told.stdout);
    runtime.block_on(device.stop()).expect("stopped");
}

#[test]
fn osap_13_3_rule_8_a_provisioned_device_comes_in_over_plain_tcp() {
    let platform =
        Platform::configured("[lbs]\nplain_listen = \"127.0.0.1:0\"\n[das]\nplain_listen = \"127.0.0.1:0\"\n");
    let serial = minted("SN");
    platform.add(&serial, LONG_CODE);
    let told = platform.cli(&["device", "provision", &serial, "--json"]);
    let given: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let dev_id = DevId::parse(given["dev_id"].as_str().expect("text").as_bytes()).expect("a DevID");
    let ticket = TicketId::new(unhex(&given["ticket"]).try_into().expect("sixteen bytes"));
    let slot = Slot { ticket, psk: Psk::from_bytes(&unhex(&given["psk"])).expect("48 bytes") };
    let lbs = platform.ready()["listeners"]["lbs_plain"].as_str().expect("it listens").to_owned();
    runtime().block_on(async {
        let device = Device::builder(&serial, LONG_CODE)
            .lbs(format!("osap://{lbs}"))
            .suites([Suite::X25519])
            .provisioned(dev_id, slot)
            .storage(MemoryStorage::new())
            .start()
            .expect("it starts");
        online(&device).await;
        let report = device.event("Lamp", 0, "Alarm", "Smoke");
        tokio::time::timeout(PATIENCE, report.report(&json!({"level": 3}))).await.expect("in time").expect("stored");
        device.stop().await.expect("stopped");
    });
    assert_eq!(platform.device(&serial)["suite"], "x25519");
    let log = platform.log();
    assert!(!log.contains(given["psk"].as_str().expect("text")), "the secret is in no log");
}

/// Every file below a directory.
/// With the SDK, which asks for a certificate when it is told to, and shows the one it has.
#[test]
fn osap_13_3_a_device_of_a_product_that_demands_certificates_comes_in_with_a_one_time_code() {
    let platform = Platform::start();
    let (serial, other) = (minted("SN"), minted("SN"));
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let code = file("code", LONG_CODE);
    let add = ["device", "add", &serial, "--code-file", &code, "--one-time", "--product", "vault", "--json"];
    assert_eq!(platform.cli(&add).expect(0).json()["code"], json!({"one_time": true, "spent": null}));
    let rule = ["device", "suites", "--product", "vault", "--certificate", "demanded"];
    assert!(platform.cli(&rule).expect(0).stdout.contains("certificate demanded"));
    let lbs = format!("osaps://{}", platform.address(Listener::LbsTls));
    let start = |name: &str| {
        let storage = FileStorage::new(dir.path().join(name)).expect("a directory");
        Device::builder(&serial, LONG_CODE)
            .lbs(lbs.clone())
            .first_use()
            .request_certificate()
            .storage(storage)
            .start()
            .expect("it starts")
    };
    runtime().block_on(async {
        for _ in 0..3 {
            let device = start("first");
            online(&device).await;
            device.stop().await.expect("stopped");
        }
    });
    let shown = platform.cli(&["device", "show", &serial]).expect(0).stdout;
    assert!(shown.contains("one-time, spent at 20") && !shown.contains(LONG_CODE), "{shown}");
    let certificates = platform.http().get(&format!("/v1/devices/{serial}/certificates")).ok();
    assert_eq!(
        certificates["items"].as_array().map(Vec::len),
        Some(1),
        "it was shown, not asked for anew: {certificates}"
    );

    // Somebody who has read the label comes too late, and the technician sees why.
    let late = runtime();
    let device = late.block_on(async { start("late") });
    support::until("the operator is told", || {
        platform.reasons(&serial).contains(&"code_spent".to_owned()).then_some(())
    });
    let why = platform.cli(&["device", "why", &serial]).expect(0).stdout;
    assert!(why.contains("was used up on 20") && why.contains("--rearm"), "{why}");
    // In a window, with the code armed anew, it comes in.
    platform.cli(&["device", "enrol", &serial, "--rearm", "--window", "10m"]).expect(0);
    late.block_on(async {
        online(&device).await;
        device.stop().await.expect("stopped");
    });

    // Codes by the list.
    let serials = file("serials", &format!("{other}\n"));
    let made = platform.cli(&["device", "codes", &serials, "--one-time"]).expect(0).stdout;
    assert!(made.starts_with("serial,code,one_time\n") && made.trim_end().ends_with(",true"), "{made}");
    platform.cli(&["device", "import", &file("devices.csv", &made)]).expect(0);
    assert_eq!(platform.device(&other)["code"]["one_time"], true);
    platform.assert_no_panic();
}

fn files(directory: &std::path::Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

/// A secret as it might have been written down: raw, in hexadecimal digits, or in base64 wherever it begins in a triple.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    for skipped in 0..3 {
        // What stands in front of it changes the letters at the edges; those in the middle are the same.
        let whole = secret.len().saturating_sub(skipped) / 3 * 3;
        let inner = &secret[skipped..skipped + whole];
        forms.push(STANDARD_NO_PAD.encode(inner).into_bytes());
        forms.push(URL_SAFE_NO_PAD.encode(inner).into_bytes());
    }
    forms
}

#[test]
fn osap_13_7_9_no_secret_is_in_the_data_directory_a_backup_or_a_log() {
    let platform =
        Platform::configured("[lbs]\nplain_listen = \"127.0.0.1:0\"\n[das]\nplain_listen = \"127.0.0.1:0\"\n");
    let mut secrets: Vec<(&str, Vec<u8>)> = vec![("code", LONG_CODE.as_bytes().to_vec())];
    // One over TLS, with a certificate of its own; one provisioned, over plain TCP; one of the legacy suite.
    let (over_tls, plain, legacy) = (minted("SN"), minted("SN"), minted("SN"));
    platform.add(&over_tls, LONG_CODE);
    platform.add(&plain, LONG_CODE);
    platform.add(&legacy, "QZXWVK");
    secrets.push(("legacy code", b"QZXWVK".to_vec()));
    let given: Value =
        serde_json::from_str(&platform.cli(&["device", "provision", &plain, "--json"]).stdout).expect("JSON");
    secrets.push(("provisioned PSK", unhex(&given["psk"])));
    let ca = platform.ready()["ca_file"].as_str().expect("a root").to_owned();
    let home = tempfile::tempdir().expect("a temporary directory");
    let state = home.path().join("state");
    runtime().block_on(async {
        let device = Device::builder(&over_tls, LONG_CODE)
            .lbs(format!("osaps://{}", platform.address(Listener::LbsTls)))
            .anchors(Anchor::from_pem(&std::fs::read(ca).expect("the root")).expect("a certificate"))
            .request_certificate()
            .storage(FileStorage::new(&state).expect("a directory"))
            .start()
            .expect("it starts");
        online(&device).await;
        device.event("Lamp", 0, "Alarm", "Smoke").report(&json!({"level": 3})).await.expect("stored");
        device.stop().await.expect("stopped");
        let dev_id = DevId::parse(given["dev_id"].as_str().expect("text").as_bytes()).expect("a DevID");
        let ticket = TicketId::new(unhex(&given["ticket"]).try_into().expect("sixteen bytes"));
        let slot = Slot { ticket, psk: Psk::from_bytes(&unhex(&given["psk"])).expect("48 bytes") };
        let lbs = platform.ready()["listeners"]["lbs_plain"].as_str().expect("it listens").to_owned();
        let device = Device::builder(&plain, LONG_CODE)
            .lbs(format!("osap://{lbs}"))
            .suites([Suite::X25519])
            .provisioned(dev_id, slot)
            .storage(FileStorage::new(&state).expect("a directory"))
            .start()
            .expect("it starts");
        online(&device).await;
        device.stop().await.expect("stopped");
    });
    let (_, _das) = support::enrol(&platform, &legacy, "QZXWVK");
    // What the devices keep, the platform has too: every secret in their storage is one.
    let mut kept = Vec::new();
    files(&state, &mut kept);
    for path in &kept {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let words = text.split('"').filter(|word| word.len() == 64);
        secrets.extend(words.filter_map(|word| STANDARD.decode(word).ok()).map(|psk| ("ticket's PSK", psk)));
    }
    assert!(secrets.len() > 5, "the storage of the devices holds their PSKs: {kept:?}");

    let backup = home.path().join("backup");
    let made = platform.cli(&[
        "admin",
        "backup",
        backup.to_str().expect("text"),
        "--data",
        platform.data().to_str().expect("text"),
    ]);
    assert!(backup.exists(), "{}", made.stdout);
    let mut written = Vec::new();
    files(&platform.data(), &mut written);
    files(&backup, &mut written);
    written.push(platform.log_path());
    assert!(written.len() > 8);
    for path in written {
        let bytes = std::fs::read(&path).unwrap_or_default();
        for (name, secret) in &secrets {
            for form in forms(secret) {
                let found = bytes.windows(form.len()).any(|window| window == form);
                assert!(!found, "the {name} is in {}", path.display());
            }
        }
    }
}

#[test]
fn a_new_root_comes_to_devices_and_the_older_one_goes_without_leaving_any_behind() {
    let mut platform = Platform::start();
    let (serial, away) = (minted("SN"), minted("SN"));
    platform.add(&serial, LONG_CODE);
    platform.add(&away, LONG_CODE);
    let first = std::fs::read(platform.ca_file()).expect("roots");
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    let device = |platform: &Platform, serial: &str| {
        let _in = runtime.enter();
        Device::builder(serial, LONG_CODE)
            .lbs(format!("osaps://{}", platform.address(Listener::LbsTls)))
            .anchors(Anchor::from_pem(&first).expect("a root"))
            .storage(FileStorage::new(dir.path()).expect("a directory"))
            .start()
            .expect("it starts")
    };
    let visit = |platform: &Platform, serial: &str| {
        let device = device(platform, serial);
        runtime.block_on(async {
            online(&device).await;
            device.stop().await.expect("stopped");
        });
    };
    let overdue = |platform: &Platform| {
        let listed = platform.cli(&["admin", "ca", "overdue", "--json"]).expect(0).json();
        let items = listed["roots"]["items"].as_array().expect("a list").clone();
        items.iter().map(|one| one["serial"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    visit(&platform, &serial);
    visit(&platform, &away);
    assert_eq!(overdue(&platform), [] as [String; 0]);

    platform.cli(&["admin", "ca", "roll", "servers"]).expect(0);
    let mut both = vec![serial.clone(), away.clone()];
    both.sort();
    assert_eq!(overdue(&platform), both);
    let refused = platform.cli(&["admin", "ca", "retire", "servers"]).expect(1);
    assert!(refused.stderr.contains("2 devices do not know the newest root yet"), "{refused:?}");
    // It is told in one run and says so in the next, whatever is restarted between.
    visit(&platform, &serial);
    assert!(platform.stop().success());
    platform.restart();
    visit(&platform, &serial);
    assert_eq!(overdue(&platform), std::slice::from_ref(&away));
    let told = platform.cli(&["admin", "ca", "overdue"]).expect(0).stdout;
    assert!(told.contains(&away) && told.contains("the newest root of servers: 1"), "{told}");

    platform.cli(&["admin", "ca", "retire", "servers", "--force"]).expect(0);
    let roots = std::fs::read_to_string(platform.ca_file()).expect("roots");
    assert_eq!(roots.matches("BEGIN CERTIFICATE").count(), 1, "{roots}");
    assert!(platform.stop().success());
    platform.restart();
    visit(&platform, &serial);
    // Who was away all the time is left outside, and knows why.
    let late = device(&platform, &away);
    runtime.block_on(async {
        let mut state = late.watch_state();
        let waits = state.wait_for(|state| matches!(state, State::Waiting { .. }));
        let waits = tokio::time::timeout(PATIENCE, waits).await.expect("in time").expect("it lives").clone();
        let State::Waiting { reason, .. } = waits else { panic!("it waits") };
        assert!(reason.to_string().contains("no anchor of the device vouches for the certificate"), "{reason}");
    });
    platform.assert_no_panic();
}
