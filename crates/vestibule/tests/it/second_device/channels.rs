//! Everything a device none of our code is part of says, asks and is told, read back over HTTP (osap-wire 10).

use serde_json::{Value, json};

use super::{Fresh, PATH, event};
use crate::support::{Platform, SecondDevice, minted, until};

fn attribute(platform: &Platform, serial: &str, path: &str) -> Value {
    platform.http().get(&format!("/v1/devices/{serial}/attributes/{path}")).ok()
}

/// Waits until an attribute is as it is reported.
#[track_caller]
fn until_reported(platform: &Platform, serial: &str, path: &str, value: &Value) {
    until(&format!("{path} reported as {value}"), || {
        (attribute(platform, serial, path)["reported"]["value"] == *value).then_some(())
    });
}

fn set(platform: &Platform, serial: &str, path: &str, value: Value) -> Value {
    let desired = platform.http().put(&format!("/v1/devices/{serial}/attributes/{path}"), &json!({ "value": value }));
    desired.ok()["desired"].clone()
}

#[test]
fn osap_10_1_an_attribute_is_reported_and_set_through_the_model() {
    let platform = Platform::start();
    for answer in ["echo", "model"] {
        let device = Fresh::on(&platform);
        let flags = ["--through", "model", "--attribute", "Lamp/0/Light/Power=false", "--answer", answer];
        let mut running = device.start(&platform, &[&flags[..], &["--hold", "60"]].concat());
        running.until("ping");
        let power = "Lamp/0/Light/Power";
        until_reported(&platform, &device.serial, power, &json!(false));
        assert_eq!(set(&platform, &device.serial, power, json!({"on": true}))["outcome"], "applied", "{answer}");
        let told = running.until("set");
        assert_eq!((&told["value"], &told["by"]), (&json!({"on": true}), &json!("model")));
        until_reported(&platform, &device.serial, power, &json!({"on": true}));
        let unknown = set(&platform, &device.serial, "Lamp/0/Light/Colour", json!("red"));
        assert_eq!((&unknown["outcome"], &unknown["code"]), (&json!("refused"), &json!(-1)), "{answer}");
        running.kill();
    }
}

#[test]
fn osap_10_1_a_device_of_the_model_is_told_of_a_wish_once_it_reports() {
    let platform = Platform::start();
    let (device, power) = (Fresh::on(&platform), "Lamp/0/Light/Power");
    assert_eq!(set(&platform, &device.serial, power, json!(7))["outcome"], "pending");
    let flags = ["--through", "model", "--attribute", "Lamp/0/Light/Power=1", "--hold", "60"];
    let mut running = device.start(&platform, &flags);
    assert_eq!(running.until("set")["value"], 7);
    until_reported(&platform, &device.serial, power, &json!(7));
    assert_eq!(attribute(&platform, &device.serial, power)["desired"]["outcome"], "applied");
    running.kill();
}

#[test]
fn osap_10_2_after_a_login_all_is_reported_before_a_resource_is_asked_for() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    for (path, value) in [("Lamp/0/Light/Power", json!(true)), ("Fan/1/Air/Speed", json!(3))] {
        assert_eq!(set(&platform, &device.serial, path, value)["outcome"], "pending");
    }
    let values = ["Lamp/0/Light/Power=false", "Lamp/0/Light/Level=1", "Fan/1/Air/Speed=0"];
    let flags: Vec<&str> = values.iter().flat_map(|value| ["--attribute", value]).chain(["--hold", "60"]).collect();
    let mut running = device.start(&platform, &flags);
    let mut sets = [running.until("set"), running.until("set")];
    sets.sort_by_key(|set| set["path"].to_string());
    for (set, (path, value)) in sets.iter().zip([("Fan/1/Air/Speed", json!(3)), ("Lamp/0/Light/Power", json!(true))]) {
        assert_eq!((&set["path"], &set["value"], &set["by"]), (&json!(path), &value, &json!("query_reply")));
        until_reported(&platform, &device.serial, path, &value);
    }
    until_reported(&platform, &device.serial, "Lamp/0/Light/Level", &json!(1));
    running.kill();
}

#[test]
fn osap_10_2_each_resource_is_answered_for_itself_and_with_an_empty_list_where_nothing_is_wished() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    set(&platform, &device.serial, "Fan/1/Air/Speed", json!(3));
    let flags = ["--attribute", "Lamp/0/Light/Power=false", "--attribute", "Fan/1/Air/Speed=0"];
    let told = device.start(&platform, &flags).finish().happened();
    let story = told.story();
    let said: Vec<&String> = story.iter().filter(|step| ["attribute", "query"].contains(&step.as_str())).collect();
    assert_eq!(said, ["attribute", "attribute", "query", "query"]);
    let answered = |place: &str| {
        let topic = format!("/iot/{}/global/{place}/basic/shadow/query_reply", device.serial);
        let reply = told.all("downlink").into_iter().find(|downlink| downlink["topic"] == topic).expect("a reply");
        let body: Value = serde_json::from_str(reply["application"].as_str().expect("text")).expect("JSON");
        assert_eq!((&body["code"], &body["method"]), (&json!(0), &json!("query_reply")));
        body["state"]["desired"].clone()
    };
    assert_eq!(answered("0-Lamp"), json!([]));
    assert_eq!(answered("1-Fan"), json!([{"domain": "Air", "identifier": "Speed", "value": 3}]));
}

#[test]
fn osap_10_1_what_a_device_asks_of_the_platform_is_answered_in_the_shape_of_its_library() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let ask = |flags: &[&str]| {
        let told = device.start(&platform, flags).finish().happened();
        let body = told.one("answered")["body"].as_str().expect("text").to_owned();
        serde_json::from_str::<Value>(&body).expect("JSON")
    };
    let nothing = json!({"status": 404, "code": "0x1", "errorMsg": "nothing serves this here"});
    assert_eq!(ask(&["--query", "Lamp/0/Light/Power"]), nothing);
    assert_eq!(ask(&["--call", "Lamp/0/Light/Ask={\"n\":1}"]), nothing);
    assert!(platform.reasons(&device.serial).contains(&"operation_not_served".to_owned()));
    let value = |value: Value| json!({"status": 200, "code": "0x0", "errorMsg": "success", "data": {"Value": value}});
    let reported = ["--through", "model", "--attribute", "Lamp/0/Light/Power=true", "--query", "Lamp/0/Light/Power"];
    assert_eq!(ask(&reported), value(json!(true)));
    // What is wished comes before what was.
    set(&platform, &device.serial, "Lamp/0/Light/Colour", json!("red"));
    assert_eq!(ask(&["--query", "Lamp/0/Light/Colour"]), value(json!("red")));
}

#[test]
fn osap_10_3_what_a_device_tells_of_its_firmware_is_read_as_attributes() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let flags = ["--inform", "DT1=V1.2.3 build 200101", "--progress", "DT1=2:40"];
    device.start(&platform, &flags).finish().happened();
    let inform = json!({"index": 0, "version": "V1.2.3 build 200101", "whole": "V1.0.0"});
    until_reported(&platform, &device.serial, "global/0/ota/DT1", &inform);
    let progress = json!({"code": 0, "message": "success", "percent": 40, "status": 2});
    until_reported(&platform, &device.serial, "global/0/ota_progress/DT1", &progress);
}

#[test]
fn osap_10_4_a_device_asks_who_owns_it_and_announces_that_it_leaves() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let told = device.start(&platform, &["--owner", "--notice"]).finish().happened();
    let owner = told.one("owner");
    assert_eq!((&owner["result"], &owner["user"]), (&json!(1_055_746), &Value::Null));
    platform.until_presence(&device.serial, "offline", "disconnect");
    let reasons = platform.reasons(&device.serial);
    assert_eq!(reasons[reasons.len() - 2..], ["leaving", "disconnect"]);
}

#[test]
fn osap_9_9_a_device_of_g1_announces_that_it_leaves_unasked() {
    let platform = Platform::start();
    let device = Fresh::on(&platform);
    let flags = ["--generation", "g1", "--owner", "--event", &event("g1"), "--path", PATH];
    let told = device.start(&platform, &flags).finish().happened();
    assert_eq!(told.one("owner")["result"], 1_055_746, "it announces another version of the domain");
    platform.until_presence(&device.serial, "offline", "disconnect");
    assert!(platform.reasons(&device.serial).contains(&"leaving".to_owned()));
    assert_eq!(platform.events(Some(&device.serial)).len(), 1);
}

#[test]
fn messages_pass_through_both_ways_untouched() {
    let platform = Platform::start();
    let (device, child) = (Fresh::on(&platform), minted("SUB"));
    platform.add(&child, "ZXCVBN");
    let (path, proven) = ("Lamp/0/Meter/Serial", format!("{child}=ZXCVBN"));
    let flags = ["--child", &proven, "--pass", "Lamp/0/Meter/Serial=application/x-meter:00ff80", "--hold", "60"];
    let mut running = device.start(&platform, &flags);
    assert_eq!(running.until("passed")["acked"], true);
    running.until("ping");
    for (serial, sub) in [(&device.serial, "global"), (&child, &child)] {
        let address = format!("/v1/devices/{serial}/pass/{path}");
        let end = platform.http().post_as(&address, "text/plain; charset=utf-8", &[0xe4, 0, 0xff]).ok();
        assert_eq!(end["outcome"], "delivered");
        let delivered = running.until("delivered");
        assert_eq!((&delivered["sub"], &delivered["path"]), (&json!(sub), &json!(path)));
        assert_eq!(
            (&delivered["media_type"], &delivered["hex"]),
            (&json!("text/plain; charset=utf-8"), &json!("e400ff"))
        );
    }
    let kept = platform.http().get(&format!("/v1/pass?device={}", device.serial)).ok();
    let [down, up] = &kept["items"].as_array().expect("a list")[..] else { panic!("{kept}") };
    assert_eq!((&up["direction"], &up["media_type"]), (&json!("up"), &json!("application/x-meter")));
    assert_eq!((&up["base64"], &up["bytes"]), (&json!("AP+A"), &json!(3)));
    assert_eq!(
        (&down["direction"], &down["outcome"], &down["base64"]),
        (&json!("down"), &json!("delivered"), &json!("5AD/"))
    );
    running.kill();
    platform.until_presence(&device.serial, "offline", "connection_lost");
    let address = format!("/v1/devices/{}/pass/{path}", device.serial);
    assert_eq!(platform.http().post_as(&address, "text/plain", b"x").ok()["outcome"], "offline");
}

#[test]
fn what_is_passed_for_a_child_is_the_childs() {
    let platform = Platform::start();
    let (device, child) = (Fresh::on(&platform), minted("SUB"));
    platform.add(&child, "ZXCVBN");
    let proven = format!("{child}=ZXCVBN");
    let passed = "Lamp/0/Meter/Serial=application/octet-stream:01";
    let told = SecondDevice::run(
        &platform,
        &device.serial,
        super::CODE,
        &["--child", &proven, "--as", &child, "--pass", passed],
    );
    told.happened();
    let kept = platform.http().get("/v1/pass").ok();
    let [only] = &kept["items"].as_array().expect("a list")[..] else { panic!("{kept}") };
    assert_eq!((&only["device"]["serial"], &only["base64"]), (&json!(child), &json!("AQ==")));
}
