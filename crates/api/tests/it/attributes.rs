//! Attributes over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use vestibule_platform::{
    Answer, Connection, Device, DeviceLink, DevicePath, NotSent, Operate, RecordKind, Report, SetAttribute,
};

use crate::site::Site;

/// Takes numbers and refuses all else.
struct Meter;

impl DeviceLink for Meter {
    fn close(&self, _: &'static str) {}

    fn operate(&self, _: Operate<'_>) -> Result<(), NotSent> {
        Err(NotSent::Ending)
    }

    fn set(&self, set: SetAttribute<'_>) -> Result<(), NotSent> {
        let answer = match set.value.parse::<f64>() {
            Ok(_) => Answer::Done(None),
            Err(_) => Answer::Failed { code: -1, message: Some("a number, please".into()) },
        };
        assert!(set.reply.answer(answer));
        Ok(())
    }
}

fn report(site: &Site, device: &Arc<Device>, name: &str, data: &str) {
    let path = DevicePath { resource: "global".into(), index: "0".into(), area: "Light".into(), name: name.into() };
    let report = Report { kind: RecordKind::Attribute, path: Arc::new(path), id: None, time: None, data };
    site.platform.report(device, report).expect("taken");
}

fn put(site: &Site, name: &str, headers: &str, body: &Value) -> crate::site::Answer {
    let headers = format!("{}content-type: application/json\r\n{headers}", site.bearer());
    site.request("PUT", &format!("/v1/devices/A/attributes/global/0/Light/{name}"), &headers, &body.to_string())
}

#[test]
fn what_a_device_reports_is_shown_with_its_version_as_etag() {
    let site = Site::new();
    let device = site.add("A");
    site.get("/v1/devices/A/attributes/global/0/Light/Level").problem(404, "unknown-attribute");
    report(&site, &device, "Level", "1.50");
    report(&site, &device, "Level", "2.50");
    let answer = site.get("/v1/devices/A/attributes/global/0/Light/Level");
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"2\"")));
    assert!(answer.body.contains("2.50"), "as the device wrote it: {}", answer.body);
    let now = "2026-01-01T00:00:00.000Z";
    let expected = json!({
        "resource": "global", "index": "0", "area": "Light", "name": "Level", "version": 2,
        "reported": {"value": 2.5, "time": now, "received": now, "version": 2}, "desired": null,
    });
    assert_eq!(answer.json(), expected);
}

#[test]
fn attributes_are_listed_by_path_in_pages() {
    let site = Site::new();
    let device = site.add("A");
    for n in 0..5 {
        report(&site, &device, &format!("L{n}"), "1");
    }
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = site.get(&format!("/v1/devices/A/attributes?limit=2{cursor}")).json();
        names.extend(page["items"].as_array().expect("a list").iter().map(|item| item["name"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        let encoded: String = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
        cursor = format!("&cursor={encoded}");
    }
    assert_eq!(names, ["L0", "L1", "L2", "L3", "L4"]);
    site.get("/v1/devices/A/attributes?cursor=x").problem(422, "invalid-value");
    site.get("/v1/devices/B/attributes").problem(404, "unknown-device");
}

#[test]
fn a_wish_is_answered_with_what_becomes_of_it() {
    let site = Site::new();
    let device = site.add("A");
    let pending = put(&site, "Level", "", &json!({"value": 5}));
    assert_eq!((pending.status, &pending.json()["desired"]["outcome"]), (202, &json!("pending")));
    assert_eq!(pending.json()["desired"]["expires"], Value::Null);
    let expiring = put(&site, "Level", "", &json!({"value": 5, "expires_in": 60}));
    assert_eq!(expiring.json()["desired"]["expires"], "2026-01-01T00:01:00.000Z");
    let peer = SocketAddr::from(([192, 0, 2, 7], 5_000));
    let connection = Connection { suite: "legacy", confidential: false, peer, link: Arc::new(Meter) };
    site.platform.connected(&device, connection);
    let applied = put(&site, "Level", "", &json!({"value": 6.5}));
    let desired = applied.json()["desired"].clone();
    assert_eq!((applied.status, &desired["outcome"], &desired["value"]), (200, &json!("applied"), &json!(6.5)));
    assert_eq!(desired["by"], "administrator");
    let refused = put(&site, "Level", "", &json!({"value": "x", "wait_ms": 25_000}));
    let desired = refused.json()["desired"].clone();
    assert_eq!((refused.status, &desired["outcome"], &desired["code"]), (200, &json!("refused"), &json!(-1)));
    assert_eq!(desired["message"], "a number, please");
}

#[test]
fn a_wish_for_a_version_that_is_gone_changes_nothing() {
    let site = Site::new();
    let device = site.add("A");
    report(&site, &device, "Level", "1");
    let tag = site.get("/v1/devices/A/attributes/global/0/Light/Level").header("etag").expect("a tag").to_owned();
    report(&site, &device, "Level", "2");
    put(&site, "Level", &format!("if-match: {tag}\r\n"), &json!({"value": 5})).problem(412, "stale");
    assert_eq!(site.get("/v1/devices/A/attributes/global/0/Light/Level").json()["desired"], Value::Null);
    assert_eq!(put(&site, "Level", "if-match: \"2\"\r\n", &json!({"value": 5})).status, 202);
}

#[test]
fn what_cannot_be_wished_is_refused_with_its_field() {
    let site = Site::new();
    site.add("A");
    for (headers, body, field) in [
        ("", json!({"value": 1, "wait_ms": 25_001}), "wait_ms"),
        ("", json!({"value": 1, "expires_in": 0}), "expires_in"),
        ("", json!({"value": 1, "expires_in": 31_622_401}), "expires_in"),
        ("", json!({}), "value"),
        ("if-match: 7\r\n", json!({"value": 1}), "If-Match"),
        ("", json!({"value": "x".repeat(70_000)}), "value"),
        ("", json!({"value": 1, "values": 1}), "values"),
    ] {
        let answer = put(&site, "Level", headers, &body);
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert_eq!(answer.json()["field"], field);
    }
}

#[test]
fn a_wish_whose_time_is_over_shows_as_expired() {
    let site = Site::new();
    site.add("A");
    put(&site, "Level", "", &json!({"value": 5, "expires_in": 60}));
    let desired = |site: &Site| site.get("/v1/devices/A/attributes/global/0/Light/Level").json()["desired"].clone();
    site.advance(Duration::from_secs(59));
    assert_eq!(desired(&site)["outcome"], "pending");
    site.advance(Duration::from_secs(1));
    assert_eq!(desired(&site)["outcome"], "expired");
}
