//! Operations that wait for a device made with the SDK, from the command line and through the platform's death.

use serde_json::{Value, json};
use vestibule_device::{Device, MemoryStorage};

use crate::support::{Listener, Platform, minted, until};

const CODE: &str = "ABCDEF";
const DOUBLE: &str = "Lamp/0/Light/Double";

/// How the operation that waited under this id has ended, if it has.
fn ended(platform: &Platform, serial: &str, id: &str) -> Option<Value> {
    let log = platform.http().get(&format!("/v1/operations?device={serial}")).ok();
    log["items"].as_array().expect("a list").iter().find(|entry| entry["queued"] == id).cloned()
}

#[test]
fn what_waits_survives_the_platform_is_sent_once_and_can_be_taken_back() {
    let mut platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let offline = platform.cli(&["device", "invoke", &serial, DOUBLE, "21"]).expect(1);
    assert!(offline.stderr.contains("nothing was sent"), "{offline:?}");

    let ask = ["device", "invoke", &serial, DOUBLE, "21", "--queue", "10m", "--idempotency-key", "k-1", "--json"];
    let first = platform.cli(&ask).expect(0).json();
    assert_eq!(first["outcome"], "queued");
    let id = first["operation_id"].as_str().expect("an id").to_owned();
    let shown = platform.cli(&["device", "invoke", &serial, DOUBLE, "4", "--queue", "10m"]).expect(0).stdout;
    assert!(shown.starts_with(&format!("queued: it waits for {serial} until ")), "{shown}");
    let waiting = platform.cli(&["device", "queue", &serial, "--json"]).expect(0).json();
    let ids: Vec<&Value> =
        waiting["items"].as_array().expect("a list").iter().map(|item| &item["operation_id"]).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], &id, "asked twice with one key it waits once");
    let other = ids[1].as_str().expect("an id");
    let table = platform.cli(&["device", "queue", &serial]).expect(0).stdout;
    assert!(table.contains(other) && table.contains(DOUBLE), "{table}");

    let taken = platform.cli(&["device", "queue", &serial, "--cancel", other]).expect(0);
    assert!(taken.stdout.contains("does not wait any more"), "{taken:?}");
    let gone = platform.cli(&["device", "queue", &serial, "--cancel", other]).expect(1);
    assert!(gone.stderr.contains("No such operation"), "{gone:?}");
    assert_eq!(ended(&platform, &serial, other).expect("in the log")["outcome"], "cancelled");

    platform.kill();
    platform.restart();
    let again = platform.cli(&ask).expect(0).json();
    assert_eq!(again, first, "the key is known to the next process");
    let other_input = platform.cli(&["device", "invoke", &serial, DOUBLE, "5", "--idempotency-key", "k-1"]).expect(1);
    assert!(other_input.stderr.contains("used for another request"), "{other_input:?}");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let device = runtime.block_on(async {
        Device::builder(&serial, CODE)
            .lbs(platform.address(Listener::Lbs).to_string())
            .legacy()
            .storage(MemoryStorage::new())
            .operation("Lamp", 0, "Light", "Double", async |n: u32| Ok(2 * n))
            .start()
            .expect("started")
    });
    let done = until("what waited is carried out", || ended(&platform, &serial, &id));
    assert_eq!((&done["outcome"], &done["input"], &done["output"]), (&json!("done"), &json!(21), &json!(42)));
    assert_eq!(device.counters().operations, 1, "and nothing else");
    assert_eq!(platform.cli(&["device", "queue", &serial, "--json"]).expect(0).json()["items"], json!([]));
    runtime.block_on(device.stop()).expect("in order");
    platform.assert_no_panic();
}
