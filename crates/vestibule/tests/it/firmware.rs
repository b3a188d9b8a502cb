//! Firmware and owner of devices made with the SDK, over HTTP and through the real platform (osap-wire 10.3, 10.4).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use vestibule_device::{
    Builder, Device, MemoryStorage, State, Upgrade, UpgradeCode, UpgradeError, UpgradeProgress, UpgradeStatus,
};

use crate::support::{Listener, Platform, minted, until};

const CODE: &str = "ABCDEF";
const PATIENCE: Duration = Duration::from_secs(20);

/// A device that is there.
fn online(runtime: &Runtime, platform: &Platform, serial: &str, with: impl FnOnce(Builder) -> Builder) -> Device {
    platform.add(serial, CODE);
    let builder = Device::builder(serial, CODE)
        .lbs(platform.address(Listener::Lbs).to_string())
        .legacy()
        .storage(MemoryStorage::new());
    let device = runtime.block_on(async { with(builder).start().expect("started") });
    runtime.block_on(async {
        let mut state = device.watch_state();
        let online = state.wait_for(|state| *state == State::Online);
        tokio::time::timeout(PATIENCE, online).await.expect("in time").expect("it runs");
    });
    device
}

fn own(platform: &Platform, serial: &str, area: &str, name: &str) -> Value {
    let attribute = platform.http().get(&format!("/v1/devices/{serial}/attributes/global/0/{area}/{name}"));
    if attribute.status == 200 { attribute.ok()["reported"]["value"].clone() } else { Value::Null }
}

fn until_own(platform: &Platform, serial: &str, area: &str, name: &str, value: &Value) {
    until(&format!("{area}/{name} is {value}"), || (own(platform, serial, area, name) == *value).then_some(()));
}

/// Has the device do what the protocol itself has, and gives the end without what differs each time.
fn ask(platform: &Platform, serial: &str, area: &str, name: &str, input: &Value) -> Value {
    let path = format!("/v1/devices/{serial}/operations/global/0/{area}/{name}");
    let mut end = platform.http().post(&path, &json!({ "input": input })).ok();
    end.as_object_mut().expect("an object").remove("operation_id").expect("an id");
    end
}

fn order(modules: &[&str], version: &str) -> Value {
    let file = |module: &&str| {
        json!({
            "module": module,
            "url": "files.example/firmware",
            "degist": "00112233445566778899aabbccddeeff",
            "fw_ver": version,
            "size": 5,
        })
    };
    json!({"maxtry": 3, "interval": 5, "file_info": modules.iter().map(file).collect::<Vec<_>>()})
}

fn step(status: UpgradeStatus, percent: u8) -> Value {
    json!({"status": status.number(), "percent": percent, "code": 0, "message": "success"})
}

#[test]
fn osap_10_3_an_upgrade_goes_from_the_order_to_the_new_version() {
    let platform = Platform::start();
    let serial = minted("SN");
    let runtime = Runtime::new().expect("a runtime");
    let (came, mut comes) = mpsc::unbounded_channel();
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let upgrade = move |upgrade: Upgrade, progress: UpgradeProgress| {
        let (came, wait) = (came.clone(), Arc::clone(&wait));
        async move {
            progress.report("DT1", UpgradeStatus::Downloading, 40).await.expect("it is told");
            // Nobody listens only when the test is over.
            let _ = came.send(upgrade);
            wait.notified().await;
            progress.fail("MCU", &UpgradeError::new(UpgradeCode::AttachedMcu, "no answer")).await.expect("it is told");
            Ok(())
        }
    };
    let device = online(&runtime, &platform, &serial, |builder| {
        let builder = builder.firmware("V1.0.0").firmware_module("DT1", "V1").firmware_module("MCU", "7");
        builder.on_upgrade(upgrade)
    });
    until_own(&platform, &serial, "ota", "DT1", &json!({"index": 0, "version": "V1", "whole": "V1.0.0"}));
    until_own(&platform, &serial, "ota", "MCU", &json!({"index": 1, "version": "7", "whole": "V1.0.0"}));

    let asked = |modules: &[&str]| ask(&platform, &serial, "ota", "upgrade", &order(modules, "V2"));
    let refused = |words: &str| json!({"outcome": "failed", "code": u32::MAX, "message": words});
    assert_eq!(asked(&["DT1", "MCU"]), json!({"outcome": "done"}), "it begins");
    let upgrade = comes.blocking_recv().expect("it came");
    assert_eq!((upgrade.files[0].url.as_str(), upgrade.files[1].size), ("files.example/firmware", 5));
    assert_eq!(own(&platform, &serial, "ota_progress", "DT1"), step(UpgradeStatus::Downloading, 40));
    assert_eq!(asked(&["DT1"]), refused("another upgrade is under way"));

    go_on.notify_one();
    until_own(&platform, &serial, "ota_progress", "DT1", &step(UpgradeStatus::Succeeded, 100));
    until_own(&platform, &serial, "ota", "DT1", &json!({"index": 0, "version": "V2", "whole": "V1.0.0"}));
    let failed = json!({"status": 8, "percent": 0, "code": 0x0050_003e, "message": "no answer"});
    assert_eq!(own(&platform, &serial, "ota_progress", "MCU"), failed);
    assert_eq!(own(&platform, &serial, "ota", "MCU")["version"], "7");

    assert_eq!(asked(&["DT2"]), refused("the device has no such module"));
    device.firmware_module("MCU").expect("declared").set_version("8").expect("room");
    until_own(&platform, &serial, "ota", "MCU", &json!({"index": 1, "version": "8", "whole": "V1.0.0"}));
    let counters = device.counters();
    assert_eq!((counters.upgrades, counters.upgrades_refused, counters.ignored), (1, 2, 0));
    runtime.block_on(device.stop()).expect("in order");
    platform.assert_no_panic();
}

#[test]
fn osap_10_3_a_device_that_takes_no_upgrades_says_so() {
    let platform = Platform::start();
    let serial = minted("SN");
    let runtime = Runtime::new().expect("a runtime");
    let _device = online(&runtime, &platform, &serial, |builder| builder);
    let refused = json!({"outcome": "failed", "code": u32::MAX, "message": "the device takes no upgrades"});
    assert_eq!(ask(&platform, &serial, "ota", "upgrade", &order(&["DT1"], "V2")), refused);
}

#[test]
fn osap_10_4_a_device_knows_whose_it_is() {
    let platform = Platform::start();
    let serial = minted("SN");
    let runtime = Runtime::new().expect("a runtime");
    let device = online(&runtime, &platform, &serial, |builder| builder);
    let owner = || runtime.block_on(device.owner());
    assert_eq!(owner(), Ok(None));
    let bind = |user: Value| ask(&platform, &serial, "base", "bind", &json!({ "user": user }));
    assert_eq!(bind(json!("a<b")), json!({"outcome": "done"}));
    assert_eq!(owner(), Ok(Some("a<b".to_owned())));

    device.bind("nobody knows it").expect("sent");
    until("the token shows in why", || platform.reasons(&serial).contains(&"bind_not_served".to_owned()).then_some(()));
    assert!(
        !platform.why(&serial).to_string().contains("nobody knows it") && !platform.log().contains("nobody knows it")
    );
    assert_eq!(platform.metric("vestibule_das_messages_dropped_total", &[("reason", "bind_not_served")]), 1.0);
    assert_eq!(owner(), Ok(Some("a<b".to_owned())), "it does no harm");
    assert_eq!(bind(Value::Null), json!({"outcome": "done"}));
    assert_eq!(owner(), Ok(None));
    runtime.block_on(device.stop()).expect("in order");
    platform.assert_no_panic();
}

#[test]
fn a_simulated_camera_says_what_firmware_it_has_and_takes_another() {
    let platform = Platform::start();
    let lbs = platform.address(Listener::Lbs).to_string();
    let flags = ["--json", "simulate", "--lbs", &lbs, "--devices", "1", "--profile", "camera"];
    let simulation = platform.command(&flags);
    until("it has firmware", || (own(&platform, "SIM-0001", "ota", "main") != Value::Null).then_some(()));
    let done = ask(&platform, "SIM-0001", "ota", "upgrade", &order(&["main"], "99"));
    assert_eq!(done, json!({"outcome": "done"}));
    until_own(&platform, "SIM-0001", "ota_progress", "main", &step(UpgradeStatus::Succeeded, 100));
    until("it has the new one", || (own(&platform, "SIM-0001", "ota", "main")["version"] == "99").then_some(()));
    simulation.interrupt();
    assert_eq!(simulation.finish().expect(0).json()["ok"], true);
}
