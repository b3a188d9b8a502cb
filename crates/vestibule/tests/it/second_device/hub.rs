//! A hub none of our code is part of, and the devices behind it (osap-wire 10.6).

use serde_json::{Value, json};

use super::{CODE, Fresh, PATH, event};
use crate::support::{Platform, SecondDevice, minted, until};

const CHILD_CODE: &str = "ZXCVBN";

/// A registered hub and a registered device that is nobody's child yet.
fn hub_and_child(platform: &Platform) -> (Fresh, String) {
    let child = minted("SUB");
    platform.add(&child, CHILD_CODE);
    (Fresh::on(platform), child)
}

fn proven(child: &str) -> String {
    format!("{child}={CHILD_CODE}")
}

/// Brings a child with this code to its end, and says whether it was accepted.
#[track_caller]
fn brings(platform: &Platform, hub: &str, child: &str, code: &str, more: &[&str]) -> bool {
    let child = format!("{child}={code}");
    let told = SecondDevice::run(platform, hub, CODE, &[&["--child", &child], more].concat()).happened();
    told.one("child")["accepted"].as_bool().expect("a verdict")
}

/// Waits for what a hub did that it may not.
#[track_caller]
fn misdeed(platform: &Platform, hub: &str, child: &str, reason: &str) {
    let row = until("the refused child in the audit", || {
        let rows = platform.http().get(&format!("/v1/audit?device={hub}&action=hub.child_refused")).ok();
        rows["items"].as_array().expect("a list").first().cloned()
    });
    assert_eq!(row["detail"], json!({"child": child, "reason": reason}), "{row}");
    assert_eq!((&row["actor"], &row["ok"]), (&json!("device"), &json!(false)));
}

#[test]
fn osap_10_6_a_hub_proves_its_child_lists_it_and_speaks_for_it() {
    let platform = Platform::start();
    let (hub, child) = hub_and_child(&platform);
    let (proven, body) = (proven(&child), event("behind"));
    let flags = ["--child", &proven, "--as", &child, "--event", &body, "--path", PATH, "--answer", "echo"];
    let mut running = hub.start(&platform, &[&flags[..], &["--hold", "60"]].concat());
    assert_eq!(running.until("child")["accepted"], true);
    let sent = running.until("event");
    assert_eq!(sent["acked"], true);
    running.until("ping");

    let shown = platform.device(&child);
    assert_eq!(shown["presence"]["state"], "online", "{shown}");
    assert_eq!(shown["parent"], platform.device(&hub.serial)["id"]);
    assert_eq!((&shown["suite"], &shown["confidential"]), (&json!("legacy"), &json!(false)));
    assert_eq!(platform.device(&hub.serial)["children"], 1);
    let listed = platform.http().get(&format!("/v1/devices/{}/children", hub.serial)).ok();
    assert_eq!(listed["items"][0]["serial"], child);
    assert!(platform.reasons(&child).contains(&"behind_hub".to_owned()));

    let [stored] = &platform.events(None)[..] else { panic!("not one event") };
    assert_eq!((&stored["id"], &stored["device"]["serial"]), (&sent["uuid"], &json!(child)));
    let operation = format!("/v1/devices/{child}/operations/Lamp/0/Light/Blink");
    let end = platform.http().post(&operation, &json!({"input": {"count": 3}})).ok();
    assert_eq!((&end["outcome"], &end["output"]), (&json!("done"), &json!({"count": 3})));
    let carried_out = running.until("operation");
    assert_eq!((&carried_out["sub"], &carried_out["operation"]), (&json!(child), &json!("Lamp/0/Light/Blink")));

    running.kill();
    platform.until_presence(&child, "offline", "hub_offline");
    let end = platform.http().post(&operation, &json!({})).ok();
    assert_eq!(end["outcome"], "offline");
}

#[test]
fn osap_10_6_a_hub_tells_which_children_it_reaches_and_has() {
    let platform = Platform::start();
    let (hub, lost) = hub_and_child(&platform);
    let forgotten = minted("SUB");
    platform.add(&forgotten, CHILD_CODE);
    let (first, second) = (proven(&lost), proven(&forgotten));
    let told = hub
        .start(&platform, &["--child", &first, "--child", &second, "--lose", &lost, "--forget", &forgotten])
        .finish()
        .happened();
    let answers = |command: u32| {
        let topic = format!("/{}/7002/{command}", hub.serial);
        let downlinks = told.all("downlink");
        let answers: Vec<&Value> = downlinks.into_iter().filter(|downlink| downlink["topic"] == topic).collect();
        assert!(answers.iter().all(|it| it["general"]["CmdVer"] == "V2.0.0" && it["general"]["MsgType"] == 2));
        answers.len()
    };
    assert_eq!((answers(17), answers(2), answers(4)), (2, 3, 2), "{told:?}");
    for child in [&lost, &forgotten] {
        platform.until_presence(child, "offline", "hub_says");
        assert!(platform.reasons(child).contains(&"behind_hub".to_owned()), "it was there before");
        assert_eq!(platform.device(child)["parent"], platform.device(&hub.serial)["id"], "what is registered stays");
    }
}

#[test]
fn osap_10_6_a_child_whose_code_the_hub_does_not_know_is_refused() {
    let platform = Platform::start();
    let (hub, child) = hub_and_child(&platform);
    assert!(!brings(&platform, &hub.serial, &child, "WRONGC", &[]));
    misdeed(&platform, &hub.serial, &child, "child_unproven");
    assert!(platform.reasons(&hub.serial).contains(&"child_unproven".to_owned()));
    let shown = platform.device(&child);
    assert_eq!((&shown["parent"], &shown["presence"]["state"]), (&Value::Null, &json!("never_seen")));

    // The proof is made with upper-case digits only (10.6); one of lower-case digits proves nothing.
    let other = Fresh::on(&platform);
    assert!(!brings(&platform, &other.serial, &child, CHILD_CODE, &["--case", "lower"]));
    let nobody = minted("NO");
    let third = Fresh::on(&platform);
    assert!(!brings(&platform, &third.serial, &nobody, CHILD_CODE, &[]));
    misdeed(&platform, &third.serial, &nobody, "child_unproven");
}

#[test]
fn osap_10_6_a_child_of_another_hub_and_a_device_of_its_own_are_refused() {
    let platform = Platform::start();
    let (hub, child) = hub_and_child(&platform);
    assert!(brings(&platform, &hub.serial, &child, CHILD_CODE, &[]));
    let other = Fresh::on(&platform);
    assert!(!brings(&platform, &other.serial, &child, CHILD_CODE, &[]), "it is behind the first hub");
    misdeed(&platform, &other.serial, &child, "child_elsewhere");

    let itself = Fresh::on(&platform);
    itself.start(&platform, &[]).finish().happened();
    let third = Fresh::on(&platform);
    assert!(!brings(&platform, &third.serial, &itself.serial, CODE, &[]), "it comes by itself");
    misdeed(&platform, &third.serial, &itself.serial, "child_elsewhere");
    assert_eq!(platform.device(&child)["parent"], platform.device(&hub.serial)["id"]);
}
