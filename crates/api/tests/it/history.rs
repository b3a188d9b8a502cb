//! The past: what an attribute was, and exports.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use vestibule_api::ApiConfig;
use vestibule_platform::{Device, DevicePath, Position, RecordKind, Report};

use crate::site::{NOW, Site};

fn report(site: &Site, device: &Arc<Device>, index: &str, name: &str, data: &str) -> Position {
    let path = DevicePath { resource: "Lamp".into(), index: index.into(), area: "Light".into(), name: name.into() };
    let report = Report { kind: RecordKind::Attribute, path: Arc::new(path), id: None, time: None, data };
    site.platform.report(device, report).expect("taken")
}

fn values(page: &Value) -> Vec<&Value> {
    page["items"].as_array().unwrap_or_else(|| panic!("{page}")).iter().map(|item| &item["value"]).collect()
}

#[test]
fn an_attribute_has_a_past_page_by_page() {
    let site = Site::new();
    let (device, other) = (site.add("A"), site.add("B"));
    for value in 0..5 {
        report(&site, &device, "0", "Level", &value.to_string());
        report(&site, &device, "1", "Level", "\"another lamp\"");
        report(&site, &device, "0", "Power", "\"another attribute\"");
        let last = report(&site, &other, "0", "Level", "\"another device\"");
        site.durable(last);
        site.advance(Duration::from_secs(60));
    }
    let path = "/v1/devices/A/attributes/Lamp/0/Light/Level/history";
    let page = site.get(path).json();
    assert_eq!(
        (values(&page), &page["next"]),
        (vec![&json!(4), &json!(3), &json!(2), &json!(1), &json!(0)], &Value::Null)
    );
    let first = &page["items"][4];
    assert_eq!((&first["time"], &first["flags"]), (&json!("2026-01-01T00:00:00.000Z"), &json!(["no_time"])));
    assert_eq!(first["device"]["serial"], "A");

    let page = site.get(&format!("{path}?limit=2")).json();
    assert_eq!(values(&page), [4, 3]);
    let next = page["next"].as_str().expect("more");
    let page = site.get(&format!("{path}?limit=2&cursor={next}")).json();
    assert_eq!(values(&page), [2, 1]);
    let (from, to) = (NOW + 60_000, NOW + 180_000);
    assert_eq!(values(&site.get(&format!("{path}?received_from={from}&received_to={to}")).json()), [2, 1]);
    assert_eq!(values(&site.get(&format!("{path}?from={from}&to={to}")).json()), [2, 1]);
    let none = "/v1/devices/A/attributes/Lamp/0/Light/Never/history";
    assert!(values(&site.get(none).json()).is_empty());
    site.get("/v1/devices/Z/attributes/Lamp/0/Light/Level/history").problem(404, "unknown-device");
    site.get(&format!("{path}?cursor=x")).problem(422, "invalid-value");
}

#[test]
fn an_export_has_everything_once_oldest_first() {
    const EVENTS: usize = 350;
    let site = Site::new();
    let (a, b) = (site.add("A"), site.add("B"));
    let mut last = Position::START;
    for number in 0..EVENTS {
        let device = if number % 5 == 0 { &b } else { &a };
        last = site.append(device, "Fire", "Smoke", Some(&format!("e-{number}")), NOW, "{\n\"a\": 1}");
    }
    last = last.max(report(&site, &a, "0", "Level", "7"));
    site.durable(last);
    let answer = site.get("/v1/events/export");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"events.ndjson\""));
    let read: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: Vec<String> = read.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids, (0..EVENTS).map(|number| format!("e-{number}")).collect::<Vec<_>>());
    // As the list shows it.
    assert_eq!(read[EVENTS - 1], site.get("/v1/events?limit=1").json()["items"][0]);

    let answer = site.get("/v1/events/export?format=csv&device=B&name=Smoke");
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8; header=present"), "{}", answer.body);
    let mut lines = answer.body.split("\r\n");
    let head = "position,id,device_id,serial,resource,index,area,name,time,received,flags,data";
    assert_eq!(lines.next(), Some(head));
    assert_eq!(lines.filter(|line| line.contains(",B,global,0,Fire,Smoke,")).count(), EVENTS / 5);

    let answer = site.get("/v1/attributes/export");
    assert_eq!(answer.body.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Value>(&answer.body).expect("JSON")["value"], 7);
    assert_eq!(site.get("/v1/attributes/export?device=B").body, "");
    site.get("/v1/events/export?format=xml").problem(422, "invalid-value");
    site.get("/v1/events/export?device=Z").problem(404, "unknown-device");
}

#[test]
fn an_export_that_nobody_takes_is_not_read_ahead() {
    let site = Site::new();
    let device = site.add("A");
    let data = format!("\"{}\"", "x".repeat(8_000));
    let mut last = Position::START;
    for number in 0..2_000 {
        last = site.append(&device, "Fire", "Smoke", Some(&format!("e-{number}")), NOW, &data);
    }
    site.durable(last);
    let mut stream = site.connect();
    let head =
        format!("GET /v1/events/export HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n", site.bearer());
    stream.write_all(head.as_bytes()).expect("sent");
    // What comes while it runs is not in it: it ends with what was there.
    let mut text = vec![0; 4_096];
    stream.read_exact(&mut text).expect("its beginning");
    let late = site.append(&device, "Fire", "Smoke", Some("late"), NOW, "1");
    site.durable(late);
    stream.read_to_end(&mut text).expect("the rest");
    let text = String::from_utf8(text).expect("text");
    assert_eq!(text.matches("\"id\":\"e-").count(), 2_000);
    assert!(!text.contains("late") && text.ends_with("0\r\n\r\n"), "complete");
}

#[test]
fn an_export_that_retention_overtakes_never_looks_complete() {
    let day = Duration::from_secs(24 * 3_600);
    let site = Site::storing(ApiConfig::default(), |store| (store.retention, store.segment_rows) = (day, 100));
    let device = site.add("A");
    let data = format!("\"{}\"", "x".repeat(8_000));
    let mut last = Position::START;
    for number in 0..2_000 {
        last = site.append(&device, "Fire", "Smoke", Some(&format!("e-{number}")), NOW, &data);
    }
    site.durable(last);
    let mut stream = site.connect();
    let head =
        format!("GET /v1/events/export HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n", site.bearer());
    stream.write_all(head.as_bytes()).expect("sent");
    let mut text = vec![0; 4_096];
    stream.read_exact(&mut text).expect("its beginning");
    // The next days have segments of their own; what is in the first ones has its time over.
    for number in 0..3 {
        site.advance(2 * day);
        let late = site.append(&device, "Fire", "Smoke", Some(&format!("late-{number}")), NOW, "1");
        site.durable(late);
    }
    let oldest = site.wait(site.platform.journal().oldest()).expect("readable").expect("one is left");
    assert!(oldest > last, "retention has taken them: {oldest}");
    // It may end with a reset, too.
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).expect("text");
    assert!(text.matches("\"id\":\"e-").count() < 2_000);
    assert!(!text.ends_with("0\r\n\r\n"), "its client sees that it is not complete");
}

#[test]
fn attributes_are_shown_as_they_were_at_a_moment() {
    let site = Site::storing(ApiConfig::default(), |store| store.segment_rows = 4);
    let (device, other) = (site.add("A"), site.add("B"));
    let mut last = report(&site, &device, "0", "Color", "\"red\"");
    for value in 0..9 {
        site.advance(Duration::from_secs(60));
        report(&site, &device, "0", "Level", &value.to_string());
        last = report(&site, &other, "0", "Level", "\"another device\"");
    }
    site.advance(Duration::from_secs(60));
    last = last.max(report(&site, &device, "0", "Power", "true"));
    site.durable(last);
    site.advance(Duration::from_secs(60));

    let list = "/v1/devices/A/attributes";
    let at = |minutes: i64| NOW + minutes * 60_000 + 1;
    let shown = |minutes: i64| {
        let page = site.get(&format!("{list}?at={}", at(minutes))).json();
        assert_eq!((&page["next"], &page["past"]["known_from"]), (&Value::Null, &json!("2026-01-01T00:00:00.000Z")));
        let items = page["items"].as_array().expect("items").clone();
        let value =
            |item: &Value| (item["name"].as_str().expect("a name").to_owned(), item["reported"]["value"].clone());
        items.iter().map(value).collect::<Vec<_>>()
    };
    for minutes in 0..11 {
        let level = if minutes == 0 { Value::Null } else { json!((minutes - 1).min(8)) };
        let power = if minutes < 10 { Value::Null } else { json!(true) };
        let expected = [("Color", json!("red")), ("Level", level), ("Power", power)];
        assert_eq!(shown(minutes), expected.map(|(name, value)| (name.to_owned(), value)), "minute {minutes}");
    }
    // Before anything was reported nothing is said of it.
    assert!(shown(-1).iter().all(|(_, value)| value.is_null()));

    let one = format!("{list}/Lamp/0/Light/Level?at=2026-01-01T00:03:30Z");
    let answer = site.get(&one);
    let expected = json!({
        "resource": "Lamp", "index": "0", "area": "Light", "name": "Level", "desired": null,
        "reported": {"value": 2, "time": "2026-01-01T00:03:00.000Z", "received": "2026-01-01T00:03:00.000Z"},
        "past": {"at": "2026-01-01T00:03:30.000Z", "known_from": "2026-01-01T00:00:00.000Z"},
    });
    assert_eq!((answer.json(), answer.header("etag")), (expected, None));
    assert!(site.get(list).json().get("past").is_none());

    // Page by page, as now.
    let page = site.get(&format!("{list}?at={}&limit=2", at(10))).json();
    let next: String = page["next"].as_str().expect("more").bytes().map(|byte| format!("%{byte:02X}")).collect();
    let rest = site.get(&format!("{list}?at={}&limit=2&cursor={next}", at(10))).json();
    let names = |page: &Value| {
        page["items"].as_array().expect("items").iter().map(|item| item["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((names(&page), names(&rest)), (vec![json!("Color"), json!("Level")], vec![json!("Power")]));

    site.get(&format!("{list}?at={}", at(60))).problem(422, "invalid-value");
    site.get(&format!("{list}?at=yesterday")).problem(422, "invalid-value");
    site.get(&format!("{list}/Lamp/0/Light/Never?at={}", at(1))).problem(404, "unknown-attribute");
}

#[test]
fn a_moment_before_what_is_kept_says_from_when_on_it_is_known() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let site = Site::storing(ApiConfig::default(), |store| store.retention = DAY);
    let device = site.add("A");
    report(&site, &device, "0", "Color", "\"red\"");
    site.durable(report(&site, &device, "0", "Level", "1"));
    // What it was reported as then goes with the days.
    for value in 2..6 {
        site.advance(DAY);
        site.durable(report(&site, &device, "0", "Level", &value.to_string()));
    }
    let known_from = || {
        let page = site.get(&format!("/v1/devices/A/attributes?at={}", NOW + 1)).json();
        (page["past"]["known_from"].as_str().expect("a time") > "2026-01-01").then_some(page)
    };
    let begun = std::time::Instant::now();
    let page = loop {
        match known_from().filter(|page| page["past"]["known_from"] != "2026-01-01T00:00:00.000Z") {
            Some(page) => break page,
            None => assert!(begun.elapsed() < Duration::from_secs(20), "retention never comes"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(page["items"][1]["reported"], Value::Null, "it is not known any more");
    // What was not reported again is known for ever.
    assert_eq!(page["items"][0]["reported"]["value"], "red");
}
