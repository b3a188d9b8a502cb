//! Attributes of a device none of our code is part of, read and set over HTTP and from the command line.

use std::time::Duration;

use serde_json::{Value, json};
use vestibule_device::{Device, FileStorage, OperationError};

use crate::support::{Listener, Platform, SecondDevice, minted, until};

const CODE: &str = "ABCDEF";
const PATIENCE: Duration = Duration::from_secs(20);
const POWER: &str = "Lamp/0/Light/Power";

fn attribute(platform: &Platform, serial: &str) -> Value {
    platform.http().get(&format!("/v1/devices/{serial}/attributes/{POWER}")).ok()
}

fn start(platform: &Platform, serial: &str, state: &std::path::Path) -> SecondDevice {
    let state = state.to_str().expect("UTF-8");
    let attribute = format!("{POWER}=false");
    SecondDevice::start(platform, serial, CODE, &["--state", state, "--attribute", &attribute, "--hold", "60"])
}

#[test]
fn osap_10_2_a_device_of_another_make_is_read_set_and_told_of_what_it_missed() {
    let mut platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let state = directory.path().join("state.json");

    let mut device = start(&platform, &serial, &state);
    device.until("ping");
    assert_eq!(attribute(&platform, &serial)["reported"]["value"], json!(false));
    let done = platform.cli(&["device", "set", &serial, POWER, "true"]).expect(0);
    assert!(done.stdout.contains("has taken it"), "{done:?}");
    let set = device.until("set");
    assert_eq!((&set["value"], &set["by"]), (&json!(true), &json!("set")));
    until("it reports what it was set to", || {
        (attribute(&platform, &serial)["reported"]["value"] == json!(true)).then_some(())
    });
    let unknown = platform.cli(&["device", "set", &serial, "Lamp/0/Light/Colour", "\"red\""]).expect(1);
    assert!(unknown.stderr.contains("does not take it: code -1"), "{unknown:?}");
    device.kill();
    platform.until_presence(&serial, "offline", "connection_lost");

    let done = platform.cli(&["device", "set", &serial, POWER, "7"]).expect(0);
    assert!(done.stdout.contains("told again when it comes"), "{done:?}");
    // A wish that was taken survives the platform's death, like everything else.
    platform.kill();
    platform.restart();
    assert_eq!(attribute(&platform, &serial)["desired"]["outcome"], "pending");
    let before = attribute(&platform, &serial)["reported"].clone();
    assert_eq!(before["value"], json!(true));
    let mut device = start(&platform, &serial, &state);
    // What became of the other wish may not have been written yet when the platform died: it may be told once more.
    let set = loop {
        let set = device.until("set");
        if set["path"] == POWER {
            break set;
        }
    };
    assert_eq!((&set["value"], &set["by"]), (&json!(7), &json!("query_reply")));
    until("it reports what it was told", || {
        (attribute(&platform, &serial)["desired"]["outcome"] == "applied").then_some(())
    });
    let shown = platform.cli(&["device", "get", &serial]).expect(0).stdout;
    assert!(shown.lines().any(|line| line.starts_with(POWER) && line.contains("applied")), "{shown}");
    // What it was before, from the journal.
    let at = before["received"].as_str().expect("a time");
    let was = platform.cli(&["--json", "device", "get", &serial, POWER, "--at", at]).expect(0).json();
    assert_eq!((&was["reported"]["value"], &was["past"]["at"]), (&json!(true), &json!(at)));
    let was = platform.cli(&["device", "get", &serial, "--at", at]).expect(0).stdout;
    assert!(was.lines().any(|line| line.starts_with(POWER) && line.contains("true")), "{was}");
    assert!(was.contains("reports are known from"), "{was}");
    device.kill();
    platform.assert_no_panic();
}

#[test]
fn a_device_made_with_the_sdk_reports_is_set_and_hears_what_it_missed() {
    let platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let storage = tempfile::tempdir().expect("a directory");
    let start = || {
        runtime.block_on(async {
            Device::builder(&serial, CODE)
                .lbs(platform.address(Listener::Lbs).to_string())
                .legacy()
                .storage(FileStorage::new(storage.path()).expect("a storage"))
                .attribute("Lamp", 0, "Light", "Power", async |_: bool| Ok(()))
                .attribute("Lamp", 0, "Light", "Level", async |level: u8| match level {
                    0..=100 => Ok(()),
                    _ => Err(OperationError::new(22, "too bright")),
                })
                .start()
                .expect("started")
        })
    };
    let report = |device: &Device, value: bool| {
        let power = device.attribute("Lamp", 0, "Light", "Power");
        let reported = runtime.block_on(async { tokio::time::timeout(PATIENCE, power.report(&value)).await });
        reported.expect("in time").expect("stored");
    };
    let set = |name: &str, value: Value| {
        let address = format!("/v1/devices/{serial}/attributes/Lamp/0/Light/{name}");
        platform.http().put(&address, &json!({ "value": value })).ok()
    };
    let device = start();
    report(&device, false);
    assert_eq!(attribute(&platform, &serial)["reported"]["value"], json!(false));
    assert_eq!(set("Power", json!(true))["desired"]["outcome"], "applied");
    until("it reports what it was set to", || {
        (attribute(&platform, &serial)["reported"]["value"] == json!(true)).then_some(())
    });
    for (name, value) in [("Level", json!(101)), ("Level", json!("x")), ("Colour", json!(1))] {
        assert_eq!(set(name, value)["desired"]["outcome"], "refused", "{name}");
    }
    runtime.block_on(device.stop()).expect("in order");
    assert_eq!(set("Power", json!(false))["desired"]["outcome"], "pending");
    let device = start();
    until("it is told, and says so", || {
        let power = attribute(&platform, &serial);
        (power["desired"]["outcome"] == "applied" && power["reported"]["value"] == json!(false)).then_some(())
    });
    runtime.block_on(device.stop()).expect("in order");
    platform.assert_no_panic();
}
