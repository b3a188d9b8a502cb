//! Firmware over the wire: what a device says it has, and orders to upgrade (osap-wire 10.3).

use std::sync::Arc;

use osap::das::login::FirstOrBreak::Break;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use vestibule_device::{
    Builder, Device, MemoryStorage, ReportError, State, Upgrade, UpgradeCode, UpgradeError, UpgradeProgress,
    UpgradeStatus,
};

use crate::life::first_connection;
use crate::server::{CODE, SERIAL, Seen, Server};
use crate::steered::online;
use crate::{reach, soon};

const ORDER: &str = "/iot/SN0000001/global/0-global/ota/upgrade/operate";

fn order(module: &str) -> String {
    let diff = json!({
        "url": "files.example/dt1.diff",
        "degist": "ffeeddccbbaa99887766554433221100",
        "fw_ver_dst": "1.0",
        "size": 3,
    });
    let file = json!({
        "module": module,
        "url": "files.example/dt1",
        "degist": "00112233445566778899AABBCCDDEEFF",
        "fw_ver": "2.0",
        "size": 5,
        "diffs": diff,
    });
    json!({"maxtry": 3, "interval": 5, "file_info": [file]}).to_string()
}

/// A message about firmware, and what it says.
async fn told(server: &mut Server, method: &str) -> Value {
    match server.next().await {
        Seen::Message { topic, body } => {
            assert_eq!(topic, format!("/iot/SN0000001/global/0-global/ota/{method}"));
            serde_json::from_str(&body).expect("JSON")
        }
        other => panic!("{method}: {other:?}"),
    }
}

fn inform(version: &str) -> Value {
    json!({"modules": [{"index": 0, "module": "DT1", "fw_ver": version}], "ver": "1.2.3"})
}

fn step(status: UpgradeStatus, percent: u8) -> Value {
    json!({"status": status.number(), "process": percent, "code": "0x00000000", "errorMsg": "success", "module": "DT1"})
}

fn accepted() -> Value {
    json!({"code": "0x00000000", "errorMsg": "Succeeded"})
}

fn refused(words: &str) -> Value {
    json!({"code": "0xffffffff", "errorMsg": words})
}

fn with_module(builder: Builder) -> Builder {
    builder.firmware("1.2.3").firmware_module("DT1", "1.0")
}

/// A device whose upgrades say what they were given, and end when they are let.
async fn upgrading(server: &mut Server) -> (Device, mpsc::UnboundedReceiver<Upgrade>, Arc<Notify>) {
    let (came, comes) = mpsc::unbounded_channel();
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let upgrade = move |upgrade: Upgrade, progress: UpgradeProgress| {
        came.send(upgrade).expect("the test listens");
        let wait = Arc::clone(&wait);
        async move {
            // Nobody may be there to hear it.
            let _ = progress.report("DT1", UpgradeStatus::Downloading, 50).await;
            wait.notified().await;
            Ok(())
        }
    };
    let device = online(server, |builder| with_module(builder).on_upgrade(upgrade)).await;
    assert_eq!(told(server, "inform/report").await, inform("1.0"));
    (device, comes, go_on)
}

#[tokio::test]
async fn osap_10_3_a_device_says_what_firmware_it_has() {
    let mut server = Server::start().await;
    let device = online(&mut server, with_module).await;
    assert_eq!(told(&mut server, "inform/report").await, inform("1.0"));
    device.firmware_module("DT1").expect("declared").set_version("1.1").unwrap();
    assert_eq!(told(&mut server, "inform/report").await, inform("1.1"));
    assert!(device.firmware_module("DT2").is_none());

    server.kill.notify_one();
    server.expect([Seen::Connect { full: false, which: Break, code: 0 }]).await;
    assert_eq!(told(&mut server, "inform/report").await, inform("1.1"), "after a light login, too");
    soon(device.stop()).await.unwrap();

    let device = Device::builder(SERIAL, CODE).lbs(server.lbs.to_string()).legacy().storage(MemoryStorage::new());
    assert!(with_module(device).firmware_module("DT1", "9").start().is_ok());
}

#[tokio::test]
async fn osap_10_3_an_order_is_answered_at_once_and_carried_out() {
    let mut server = Server::start().await;
    let (device, mut orders, go_on) = upgrading(&mut server).await;
    server.send(ORDER, 7, order("DT1")).await;
    assert_eq!(told(&mut server, "upgrade/operate_reply").await, accepted());
    let upgrade = soon(orders.recv()).await.expect("it came");
    assert_eq!((upgrade.max_try, upgrade.interval, upgrade.files.len()), (3, 5, 1));
    let file = &upgrade.files[0];
    assert_eq!((&*file.module, &*file.url, &*file.version, file.size), ("DT1", "files.example/dt1", "2.0", 5));
    assert_eq!(file.md5, 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes());
    let diff = file.diff.as_ref().expect("a difference");
    assert_eq!((&*diff.url, &*diff.version, diff.size), ("files.example/dt1.diff", "1.0", 3));
    assert_eq!(told(&mut server, "progress/report").await, step(UpgradeStatus::Downloading, 50));

    server.send(ORDER, 8, order("DT1")).await;
    assert_eq!(told(&mut server, "upgrade/operate_reply").await, refused("another upgrade is under way"));
    go_on.notify_one();
    assert_eq!(told(&mut server, "progress/report").await, step(UpgradeStatus::Succeeded, 100));
    assert_eq!(told(&mut server, "inform/report").await, inform("2.0"));
    assert_eq!(device.firmware_module("DT1").expect("declared").version(), "2.0");
    assert_eq!((device.counters().upgrades, device.counters().upgrades_refused), (1, 1));
}

#[tokio::test]
async fn osap_9_5_an_order_that_is_sent_twice_is_carried_out_once() {
    let mut server = Server::start().await;
    let (device, mut orders, go_on) = upgrading(&mut server).await;
    server.send(ORDER, 7, order("DT1")).await;
    assert_eq!(told(&mut server, "upgrade/operate_reply").await, accepted());
    assert_eq!(told(&mut server, "progress/report").await, step(UpgradeStatus::Downloading, 50));
    server.send(ORDER, 7, order("DT1")).await;
    assert_eq!(told(&mut server, "upgrade/operate_reply").await, accepted(), "while it is under way");
    server.send(ORDER, 8, order("DT1")).await;
    let busy = refused("another upgrade is under way");
    assert_eq!(told(&mut server, "upgrade/operate_reply").await, busy);
    go_on.notify_one();
    told(&mut server, "progress/report").await;
    told(&mut server, "inform/report").await;
    server.send(ORDER, 7, order("DT1")).await;
    assert_eq!(told(&mut server, "upgrade/operate_reply").await, accepted(), "and after its end");
    server.send(ORDER, 8, order("DT1")).await;
    assert_eq!(told(&mut server, "upgrade/operate_reply").await, busy, "what was refused stays so");
    soon(orders.recv()).await.expect("it came");
    assert!(orders.try_recv().is_err(), "and no other");
    assert_eq!(device.counters().upgrades, 1);
}

#[tokio::test]
async fn osap_10_3_an_upgrade_outlives_its_connection() {
    let mut server = Server::start().await;
    let (device, mut orders, go_on) = upgrading(&mut server).await;
    server.send(ORDER, 7, order("DT1")).await;
    told(&mut server, "upgrade/operate_reply").await;
    soon(orders.recv()).await.expect("it came");
    told(&mut server, "progress/report").await;
    // The next login is under another session key.
    server.world.lock().connacks.push_back(11);
    server.kill.notify_one();
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(Seen::Message { .. })) {
        seen.push(server.next().await);
    }
    assert!(seen.contains(&Seen::Connect { full: true, which: Break, code: 0 }), "{seen:?}");
    reach(&device, |state| *state == State::Online).await;
    server.send(ORDER, 7, order("DT1")).await;
    let reply = told(&mut server, "upgrade/operate_reply").await;
    assert_eq!(reply, refused("another upgrade is under way"), "still one at a time");
    go_on.notify_one();
    assert_eq!(told(&mut server, "progress/report").await, step(UpgradeStatus::Succeeded, 100));
}

#[tokio::test]
async fn osap_10_3_orders_that_are_none_are_refused() {
    let mut server = Server::start().await;
    let (device, _orders, _) = upgrading(&mut server).await;
    for (seq, (order, words)) in (1..).zip([
        (order("DT2"), "the device has no such module"),
        ("[]".to_owned(), "the order is wrong: the body is not of the kind that belongs here"),
        (String::new(), "the order is wrong: the body is not of the kind that belongs here"),
        (
            order("DT1").replace("files.example/dt1\"", "http://files.example/dt1\""),
            "the order is wrong: the member url of the body is not acceptable",
        ),
    ]) {
        server.send(ORDER, seq, order).await;
        assert_eq!(told(&mut server, "upgrade/operate_reply").await, refused(words));
    }
    assert_eq!((device.counters().upgrades, device.counters().upgrades_refused), (0, 4));
    // Not its own, and no order.
    for topic in
        ["/iot/SN0000001/SUB1/0-global/ota/upgrade/operate", "/iot/SN0000001/global/0-global/ota/upgrade/other"]
    {
        server.send(topic, 9, order("DT1")).await;
    }
    server.send(ORDER, 10, "{}").await;
    told(&mut server, "upgrade/operate_reply").await;
    assert_eq!(device.counters().ignored, 2);
}

#[tokio::test]
async fn osap_10_3_a_device_without_a_handler_refuses() {
    let mut server = Server::start().await;
    let _device = online(&mut server, |builder| builder).await;
    server.send(ORDER, 7, order("DT1")).await;
    assert_eq!(told(&mut server, "upgrade/operate_reply").await, refused("the device takes no upgrades"));
}

#[tokio::test]
async fn osap_10_3_after_a_restart_the_program_says_how_it_went() {
    let mut server = Server::start().await;
    let device = online(&mut server, with_module).await;
    told(&mut server, "inform/report").await;
    let module = device.firmware_module("DT1").expect("declared");
    soon(module.report(UpgradeStatus::Succeeded, 100)).await.unwrap();
    assert_eq!(told(&mut server, "progress/report").await, step(UpgradeStatus::Succeeded, 100));
    let back = UpgradeError::new(UpgradeCode::Recovered, "it did not start");
    soon(module.fail(&back)).await.unwrap();
    let failed = told(&mut server, "progress/report").await;
    assert_eq!(
        (&failed["status"], &failed["code"], &failed["errorMsg"]),
        (&json!(8), &json!("0x0050003d"), &json!("it did not start"))
    );
    assert!(matches!(module.report(UpgradeStatus::Burning, 101).await, Err(ReportError::Invalid(_))));
}

#[tokio::test]
async fn a_device_without_modules_says_nothing_of_them() {
    let mut server = Server::start().await;
    let builder = Device::builder(SERIAL, CODE).lbs(server.lbs.to_string()).legacy().storage(MemoryStorage::new());
    let device = builder.start().unwrap();
    server.expect(first_connection()).await;
    soon(device.event("Camera", 0, "Detection", "Motion").report(&json!({}))).await.unwrap();
    server.event().await;
}
