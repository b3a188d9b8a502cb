//! Devices made with the SDK that come in by the modern suites, side by side with one of another make that cannot.

use std::time::Duration;

use serde_json::{Value, json};
use vestibule_device::{DevId, Device, MemoryStorage, Psk, Slot, State, Suite, TicketId};

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
    assert_eq!(shown["suites"], json!({"legacy": false, "plain": true}));
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
