//! Orders and reports without a connection: what goes into the queue.

use std::time::Duration;

use osap::das::ota::Code;
use serde_json::{Value, json};

use super::*;
use crate::clock::SystemClock;
use crate::driver::now;
use crate::outbox::Limits;
use crate::profile::Profile;
use crate::shared::Token;

const ROOM: Limits = Limits { events: 64, bytes: 64 * 1024, window: 16 };

fn device(limits: Limits, declare: impl FnOnce(&mut Declared)) -> Arc<Shared> {
    let profile = Profile {
        serial: Serial::new("SN0000001").expect("a serial"),
        lbs_host: "lbs.example".into(),
        lbs_port: 8666,
        keep_alive: 30,
        firmware: "V1".into(),
        device_type: "Camera".into(),
        mac: "".into(),
    };
    let mut declared = Declared::default();
    declare(&mut declared);
    let firmware = declared.build(&profile.firmware).expect("good");
    let mut shared = Shared::new(profile, Arc::new(SystemClock), Arc::default(), limits);
    shared.firmware = firmware;
    Arc::new(shared)
}

fn modules(declared: &mut Declared) {
    declared.module("DT1".into(), "1.0".into());
    declared.module("MCU".into(), "7".into());
}

fn firmware(shared: &Shared) -> &Firmware {
    shared.firmware.as_ref().expect("declared")
}

/// What is due, which is acknowledged: the method of the topic and the body.
fn sent(shared: &Shared) -> Vec<(String, Value)> {
    let mut outbox = shared.outbox.lock();
    let mut sent = Vec::new();
    while let Some(due) = outbox.poll(now()) {
        let place = "/iot/SN0000001/global/0-global/ota/";
        let method = due.topic.strip_prefix(place).and_then(|rest| rest.strip_suffix("/report")).expect("ours");
        sent.push((method.to_owned(), serde_json::from_slice(due.body).expect("JSON")));
        let id = due.packet_id;
        match outbox.handle_puback(id).expect("it was sent") {
            Token::Waiting(token) => _ = token.send(()),
            Token::Cached { .. } | Token::Losses => panic!("no event"),
        }
    }
    sent
}

fn inform(version: &str) -> (String, Value) {
    let modules = json!([
        {"index": 0, "module": "DT1", "fw_ver": version},
        {"index": 1, "module": "MCU", "fw_ver": "7"},
    ]);
    ("inform".into(), json!({"modules": modules, "ver": "V1"}))
}

fn said(module: &str, status: u8, percent: u8) -> (String, Value) {
    let body =
        json!({"status": status, "process": percent, "code": "0x00000000", "errorMsg": "success", "module": module});
    ("progress".into(), body)
}

fn failed(module: &str, code: &str, message: &str) -> (String, Value) {
    let body = json!({"status": 8, "process": 0, "code": code, "errorMsg": message, "module": module});
    ("progress".into(), body)
}

fn order(modules: &[&str]) -> Vec<u8> {
    let file = |module: &&str| {
        let md5 = "00112233445566778899aabbccddeeff";
        json!({"module": module, "url": "files.example/fw", "degist": md5, "fw_ver": "2.0", "size": 5})
    };
    let files: Vec<Value> = modules.iter().map(file).collect();
    json!({"maxtry": 3, "interval": 5, "file_info": files}).to_string().into()
}

/// The code and the words of the answer; an order that was accepted is carried out.
async fn ordered(shared: &Arc<Shared>, order: &[u8]) -> (String, String) {
    let (upgrading, reply) = take(shared, order);
    if let Some(upgrading) = upgrading {
        let carried_out = tokio::time::timeout(Duration::from_secs(30), tokio::spawn(upgrading)).await;
        // A handler may panic.
        let _ = carried_out.expect("it takes too long");
    }
    let reply: Value = serde_json::from_slice(&reply).expect("JSON");
    let text = |member: &str| reply[member].as_str().expect(member).to_owned();
    (text("code"), text("errorMsg"))
}

/// Reports a step, and does not wait for the acknowledgement, which comes with [`sent`].
async fn say(progress: &UpgradeProgress, module: &str, status: Status, percent: u8) -> Result<(), ReportError> {
    let reported = tokio::time::timeout(Duration::ZERO, progress.report(module, status, percent)).await;
    reported.unwrap_or(Ok(()))
}

fn accepted() -> (String, String) {
    ("0x00000000".into(), "Succeeded".into())
}

#[test]
fn osap_10_3_modules_are_told_after_a_login_and_when_a_version_changes() {
    let shared = device(ROOM, modules);
    let firmware = firmware(&shared);
    firmware.handle_login(&shared);
    firmware.handle_login(&shared);
    assert_eq!(sent(&shared), [inform("1.0")], "once, however often the connection breaks before it is acknowledged");
    firmware.handle_login(&shared);
    assert_eq!(sent(&shared), [inform("1.0")]);
    let module = FirmwareModule::of(&shared, "DT1").expect("declared");
    module.set_version("1.0").expect("room");
    assert_eq!(sent(&shared), [], "it is known");
    module.set_version("1.1").expect("room");
    assert_eq!((sent(&shared), module.version()), (vec![inform("1.1")], "1.1".to_owned()));
    assert!(matches!(module.set_version(&"x".repeat(65)), Err(ReportError::Invalid(_))));
    assert_eq!((sent(&shared), module.version()), (vec![], "1.1".to_owned()));
    assert!(FirmwareModule::of(&shared, "DT2").is_none());
}

#[test]
fn a_version_that_finds_no_room_is_told_later() {
    let shared = device(Limits { events: 1, ..ROOM }, modules);
    let module = FirmwareModule::of(&shared, "DT1").expect("declared");
    firmware(&shared).handle_login(&shared);
    assert!(matches!(module.set_version("1.1"), Err(ReportError::Full { .. })));
    assert!(matches!(module.set_version("1.1"), Err(ReportError::Full { .. })), "not taken for told");
    assert_eq!(sent(&shared), [inform("1.0")]);
    firmware(&shared).handle_login(&shared);
    assert_eq!(sent(&shared), [inform("1.1")]);
}

#[test]
fn what_cannot_be_told_is_refused_at_the_start() {
    let build = |declare: &dyn Fn(&mut Declared)| {
        let mut declared = Declared::default();
        declare(&mut declared);
        declared.build("V1").map(|firmware| firmware.is_some())
    };
    assert_eq!(build(&|_| ()), Ok(false));
    assert_eq!(build(&|declared| declared.module("x".repeat(64), "x".repeat(64))), Ok(true));
    for bad in ["", "a/b", "a+", "#", "a\n", &"x".repeat(65)] {
        assert!(build(&|declared| declared.module(bad.into(), "1".into())).is_err(), "{bad}");
    }
    assert!(build(&|declared| declared.module("a".into(), "x".repeat(65))).is_err());
    let many = |number: u32, version: &'static str| {
        build(&move |declared| (0..number).for_each(|n| declared.module(format!("{n:064}"), version.into())))
    };
    assert_eq!((many(64, "1"), many(65, "1").is_err()), (Ok(true), true));
    // Each of these takes six bytes on the wire.
    let version: &'static str = "\u{1}".repeat(64).leak();
    assert!(many(64, version).is_err(), "all of them have to fit into one message");
}

#[test]
fn osap_10_3_a_failure_always_has_a_code_of_its_own() {
    assert_eq!(UpgradeError::new(Code::Success, "").code(), Code::Unknown);
    assert_eq!(UpgradeError::new(Code::Other(0x0050_0036), "").code(), Code::Digest);
    let error = UpgradeError::new(Code::Other(7), "jammed");
    assert_eq!((error.code(), error.to_string()), (Code::Other(7), "jammed (code 0x00000007)".to_owned()));
    let serial = Serial::new("SN0000001").expect("a serial");
    for words in [256, 257] {
        let told = failure("DT1", &UpgradeError::new(Code::Burn, "x".repeat(words)));
        assert_eq!(told.message.len(), words % 257, "words that are too long are left out");
        assert!(message(&serial, &told).is_ok());
    }
}

#[tokio::test]
async fn osap_10_3_an_upgrade_says_how_far_it_is() {
    let shared = device(ROOM, |declared| {
        modules(declared);
        declared.on_upgrade(async |upgrade: Upgrade, progress: UpgradeProgress| {
            assert_eq!((upgrade.max_try, upgrade.interval), (3, 5));
            say(&progress, "DT1", Status::Downloading, 40).await.expect("room");
            let wrong = say(&progress, "DT1", Status::Downloading, 101).await;
            assert!(matches!(wrong, Err(ReportError::Invalid(_))));
            let wrong = say(&progress, "DT2", Status::Starting, 0).await;
            assert!(matches!(wrong, Err(ReportError::Invalid(_))));
            say(&progress, "MCU", Status::Rebooting, 0).await.expect("room");
            Ok(())
        });
    });
    assert_eq!(ordered(&shared, &order(&["DT1", "MCU"])).await, accepted());
    assert_eq!(
        sent(&shared),
        [said("DT1", 2, 40), said("MCU", 6, 0), said("DT1", 7, 100), inform("2.0")],
        "what restarts says itself how it went"
    );
    assert_eq!((shared.counters().upgrades, shared.counters().upgrades_refused), (1, 0));
    assert_eq!(FirmwareModule::of(&shared, "DT1").expect("declared").version(), "2.0");
}

#[tokio::test]
async fn osap_10_3_an_upgrade_that_fails_is_told_with_its_code() {
    let shared = device(ROOM, |declared| {
        modules(declared);
        declared.on_upgrade(async |upgrade: Upgrade, progress: UpgradeProgress| {
            assert!(upgrade.files.len() == 2, "on purpose");
            say(&progress, "MCU", Status::Succeeded, 100).await.expect("room");
            let again = say(&progress, "MCU", Status::Burning, 1).await;
            assert!(matches!(again, Err(ReportError::UpgradeEnded)));
            Err(UpgradeError::new(Code::Digest, "another file"))
        });
    });
    assert_eq!(ordered(&shared, &order(&["DT1", "MCU"])).await, accepted());
    let mut told = inform("1.0");
    told.1["modules"][1]["fw_ver"] = json!("2.0");
    assert_eq!(sent(&shared), [said("MCU", 7, 100), told, failed("DT1", "0x00500036", "another file")]);
    assert_eq!(ordered(&shared, &order(&["DT1"])).await, accepted(), "the next one may come");
    assert_eq!(sent(&shared), [failed("DT1", "0x0050003b", "the device's program failed")], "it panicked");
    assert_eq!(ordered(&shared, &order(&["DT1"])).await, accepted(), "and the next one");
}

#[tokio::test]
async fn nothing_is_said_after_the_end() {
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let shared = device(ROOM, |declared| {
        modules(declared);
        declared.on_upgrade(move |_, progress| {
            *keep.lock() = Some(progress);
            async { Ok(()) }
        });
    });
    ordered(&shared, &order(&["DT1"])).await;
    assert_eq!(sent(&shared), [said("DT1", 7, 100), inform("2.0")]);
    let progress = kept.lock().take().expect("it ran");
    assert!(matches!(progress.report("DT1", Status::Burning, 1).await, Err(ReportError::UpgradeEnded)));
    drop(shared);
    assert!(matches!(progress.report("DT1", Status::Burning, 1).await, Err(ReportError::Stopped)));
}

#[tokio::test]
async fn osap_10_3_an_order_that_cannot_be_obeyed_is_refused() {
    let refused = |words: &str| ("0xffffffff".to_owned(), words.to_owned());
    let unable = device(ROOM, modules);
    assert_eq!(ordered(&unable, &order(&["DT1"])).await, refused("the device takes no upgrades"));
    let without = device(ROOM, |_| ());
    assert_eq!(ordered(&without, &order(&["DT1"])).await, refused("the device takes no upgrades"));

    let shared = device(ROOM, |declared| {
        modules(declared);
        declared.on_upgrade(|_, _| std::future::pending());
    });
    for (order, words) in [
        (order(&["DT1", "DT2"]), "the device has no such module"),
        (order(&[]), "the order names no file"),
        (b"{}".to_vec(), "the order is wrong: the body has no member file_info"),
        (b"\xff".to_vec(), "the order is wrong: the body is not of the kind that belongs here"),
        (order(&["DT1"; 65]), "the order is wrong: the body has more than the allowed number of file_info"),
    ] {
        assert_eq!(ordered(&shared, &order).await, refused(words));
    }
    let text = String::from_utf8(order(&["DT1"])).expect("JSON");
    for (good, bad) in [
        ("files.example", "http://files.example"),
        ("files.example", &"x".repeat(270)),
        ("00112233445566778899aabbccddeeff", "0011"),
        ("\"size\":5", "\"size\":-5"),
    ] {
        let (code, words) = ordered(&shared, text.replace(good, bad).as_bytes()).await;
        assert!(code == "0xffffffff" && words.starts_with("the order is wrong"), "{bad}: {code} {words}");
    }
    let (upgrading, _) = take(&shared, text.as_bytes());
    let upgrading = upgrading.expect("it begins");
    assert_eq!(ordered(&shared, text.as_bytes()).await, refused("another upgrade is under way"));
    drop(upgrading);
    assert!(take(&shared, text.as_bytes()).0.is_some(), "the end of the first lets the next begin");
    assert_eq!((shared.counters().upgrades, shared.counters().upgrades_refused), (2, 10));
}

/// Acknowledges everything that is sent, as a connection does.
fn delivered(shared: &Shared) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    loop {
        let sent = sent(shared);
        if sent.is_empty() {
            return all;
        }
        all.extend(sent);
        firmware(shared).handle_room(shared);
    }
}

#[tokio::test]
async fn osap_10_3_the_end_of_an_upgrade_is_told_also_when_the_queue_is_full() {
    let shared = device(Limits { events: 2, ..ROOM }, |declared| {
        modules(declared);
        declared.on_upgrade(async |upgrade: Upgrade, progress: UpgradeProgress| {
            for percent in [10, 20] {
                say(&progress, "DT1", Status::Downloading, percent).await.expect("room");
            }
            let dropped = say(&progress, "DT1", Status::Downloading, 30).await;
            assert!(matches!(dropped, Err(ReportError::Full { .. })));
            if upgrade.files.len() == 2 {
                let jammed = UpgradeError::new(Code::Burn, "jammed");
                let told = tokio::time::timeout(Duration::ZERO, progress.fail("MCU", &jammed)).await;
                assert!(told.is_err(), "it waits for the acknowledgement");
            }
            Ok(())
        });
    });
    assert_eq!(ordered(&shared, &order(&["DT1", "MCU"])).await, accepted());
    let waits = ("0xffffffff".to_owned(), "the end of another upgrade is not told yet".to_owned());
    assert_eq!(ordered(&shared, &order(&["DT1"])).await, waits);
    assert_eq!(
        delivered(&shared),
        [
            said("DT1", 2, 10),
            said("DT1", 2, 20),
            failed("MCU", "0x0050003a", "jammed"),
            said("DT1", 7, 100),
            inform("2.0")
        ]
    );
    assert_eq!(ordered(&shared, &order(&["DT1"])).await, accepted());
}

#[tokio::test]
async fn osap_10_3_each_of_many_modules_has_a_place_for_its_end() {
    let names: Vec<String> = (0..MAX_MODULES).map(|number| format!("{number:0>64}")).collect();
    let shared = device(Limits { events: 1, bytes: 1000, window: 128 }, |declared| {
        names.iter().for_each(|name| declared.module(name.clone(), "1".into()));
        declared.on_upgrade(async |_, _| Err(UpgradeError::new(Code::Burn, "\u{1}".repeat(256))));
    });
    shared.queue(GLOBAL, Message { topic: "/x".into(), body: vec![0; 990].into() });
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    assert_eq!(ordered(&shared, &order(&names)).await, accepted());
    assert_eq!(shared.outbox.lock().len(), 1 + MAX_MODULES);
}

#[tokio::test]
async fn osap_10_3_an_end_that_is_told_after_a_restart_finds_room_and_leaves_an_upgrade_its_places() {
    let shared = device(Limits { events: 1, ..ROOM }, |declared| {
        modules(declared);
        declared.on_upgrade(async |_, _| std::future::pending().await);
    });
    firmware(&shared).handle_login(&shared);
    let module = FirmwareModule::of(&shared, "DT1").expect("declared");
    assert!(matches!(module.report(Status::Burning, 1).await, Err(ReportError::Full { .. })));
    let waits = tokio::time::timeout(Duration::ZERO, module.report(Status::Succeeded, 100)).await;
    assert!(waits.is_err(), "it waits for the acknowledgement");
    assert!(take(&shared, &order(&["DT1"])).0.is_none(), "its place is taken");
    assert_eq!(delivered(&shared), [inform("1.0"), said("DT1", 7, 100)]);

    let (upgrading, _) = take(&shared, &order(&["DT1"]));
    assert!(upgrading.is_some());
    shared.queue(GLOBAL, Message { topic: "/x".into(), body: (*b"{}").into() });
    let full = module.report(Status::Succeeded, 100).await;
    assert!(matches!(full, Err(ReportError::Full { .. })));
}
