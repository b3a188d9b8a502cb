//! Operations over HTTP down to a device none of our code is part of, and to one made with the SDK.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use vestibule_device::{Device, MemoryStorage, State};

use crate::support::{Listener, Platform, SecondDevice, minted, until};

const CODE: &str = "ABCDEF";

fn invoke(platform: &Platform, serial: &str, name: &str, body: Value) -> Value {
    platform.http().post(&format!("/v1/devices/{serial}/operations/Lamp/0/Light/{name}"), &body).ok()
}

/// The end without what differs each time.
fn end(mut answer: Value) -> Value {
    answer.as_object_mut().expect("an object").remove("operation_id").expect("an id");
    answer
}

/// A second device that answers in this way, once it is in.
fn second(platform: &Platform, answer: &str) -> (String, SecondDevice) {
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let mut device = SecondDevice::start(platform, &serial, CODE, &["--answer", answer, "--hold", "60"]);
    device.until("ping");
    (serial, device)
}

#[test]
fn osap_10_1_a_device_of_another_make_is_asked_and_answers_in_each_shape() {
    let platform = Platform::start();
    let input = json!({"count": 3, "ä": [null, 1.5]});
    for (answer, expected) in [
        ("echo", json!({"outcome": "done", "output": input})),
        ("model", json!({"outcome": "done", "output": input})),
        ("fail", json!({"outcome": "failed", "code": -1})),
        ("twice", json!({"outcome": "done", "output": input})),
        ("astray", json!({"outcome": "done", "output": input})),
    ] {
        let (serial, mut device) = second(&platform, answer);
        assert_eq!(end(invoke(&platform, &serial, "Blink", json!({"input": input}))), expected, "{answer}");
        let told = device.until("operation");
        assert_eq!((&told["operation"], &told["input"]), (&json!("Lamp/0/Light/Blink"), &input));
        if answer == "twice" || answer == "astray" {
            until("the stray reply shows in why", || {
                platform.reasons(&serial).contains(&"reply_to_nothing".to_owned()).then_some(())
            });
        }
        device.kill();
    }
}

#[test]
fn a_device_that_dies_with_an_operation_leaves_it_unknown() {
    let platform = Platform::start();
    let (serial, mut device) = second(&platform, "none");
    let outcome = std::thread::scope(|scope| {
        let invoked = scope.spawn(|| invoke(&platform, &serial, "Blink", json!({"deadline_ms": 25_000})));
        device.until("operation");
        device.kill();
        end(invoked.join().expect("no panic"))
    });
    assert_eq!(outcome, json!({"outcome": "unknown"}));
    let silent = invoke(&platform, &serial, "Blink", json!({}));
    assert_eq!(end(silent), json!({"outcome": "offline"}));
    let log = platform.http().get(&format!("/v1/operations?device={serial}")).ok();
    let outcomes: Vec<&Value> = log["items"].as_array().expect("a list").iter().map(|item| &item["outcome"]).collect();
    assert_eq!(outcomes, ["offline", "unknown"]);
}

#[test]
fn a_device_made_with_the_sdk_carries_out_what_it_can() {
    let platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (begun, mut begins) = mpsc::unbounded_channel();
    let device = runtime.block_on(async {
        Device::builder(&serial, CODE)
            .lbs(platform.address(Listener::Lbs).to_string())
            .legacy()
            .storage(MemoryStorage::new())
            .operation("Lamp", 0, "Light", "Double", async |n: u32| Ok(2 * n))
            .operation("Lamp", 0, "Light", "Panic", async |(): ()| -> Result<(), _> { panic!("on purpose") })
            .operation("Lamp", 0, "Light", "Hang", move |(): ()| {
                let begun = begun.clone();
                async move {
                    // Nobody listens only when the test is over.
                    let _ = begun.send(());
                    std::future::pending::<Result<(), _>>().await
                }
            })
            .start()
            .expect("started")
    });
    runtime.block_on(async {
        let mut state = device.watch_state();
        let online = state.wait_for(|state| *state == State::Online);
        tokio::time::timeout(Duration::from_secs(20), online).await.expect("in time").expect("it runs");
    });
    let ask = |name: &str, body: Value| end(invoke(&platform, &serial, name, body));
    assert_eq!(ask("Double", json!({"input": 21})), json!({"outcome": "done", "output": 42}));
    assert_eq!(ask("Double", json!({"input": "x"}))["outcome"], "failed");
    let unknown = json!({"outcome": "failed", "code": -1, "message": "the device has no such operation"});
    assert_eq!(ask("Fly", json!({})), unknown);
    let crashed = json!({"outcome": "failed", "code": -1, "message": "the device's program failed"});
    assert_eq!(ask("Panic", json!({})), crashed);
    assert_eq!(ask("Hang", json!({"deadline_ms": 100})), json!({"outcome": "timed_out"}));
    begins.blocking_recv().expect("it was begun");
    assert_eq!(ask("Double", json!({"input": 4})), json!({"outcome": "done", "output": 8}), "it goes on");
    let counters = device.counters();
    assert_eq!((counters.operations, counters.operations_refused), (5, 1));
    runtime.block_on(device.stop()).expect("in order");
    platform.assert_no_panic();
}
