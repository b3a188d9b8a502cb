//! Querying events.

use serde_json::{Value, json};
use vestibule_platform::Position;

use crate::site::{NOW, Site};

fn names(site: &Site, query: &str) -> Vec<String> {
    let page = site.get(&format!("/v1/events{query}")).json();
    let items = page["items"].as_array().unwrap_or_else(|| panic!("{page}"));
    items.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn an_event_has_the_agreed_shape() {
    let site = Site::new();
    let device = site.add("SN-1");
    let position = site.append(
        &device,
        "Fire",
        "Smoke",
        Some("e-1"),
        NOW - 1_500,
        "{\"level\": 1.50,\n \"big\": 12345678901234567890}",
    );
    site.durable(position);
    let answer = site.get("/v1/events");
    assert!(answer.body.contains("{\"level\": 1.50,\n \"big\": 12345678901234567890}"), "{}", answer.body);
    let mut event = answer.json()["items"][0].clone();
    assert_eq!(event["data"]["level"], 1.5);
    event["data"] = Value::Null;
    assert_eq!(
        event,
        json!({
            "position": position.get(), "id": "e-1", "device": {"id": device.id.to_string(), "serial": "SN-1"},
            "resource": "global", "index": "0", "area": "Fire", "name": "Smoke",
            "time": "2025-12-31T23:59:58.500Z", "received": "2026-01-01T00:00:00.000Z", "data": null, "flags": [],
        })
    );
}

#[test]
fn filters_and_times_select() {
    let site = Site::new();
    let (a, b) = (site.add("A"), site.add("B"));
    site.append(&a, "Fire", "Smoke", Some("1"), NOW - 3_000, "1");
    site.append(&a, "Fire", "Heat", Some("2"), NOW - 2_000, "1");
    site.append(&b, "Door", "Opened", Some("3"), NOW - 1_000, "1");
    let last = site.append(&b, "Fire", "Smoke", Some("4"), NOW, "1");
    site.durable(last);
    assert_eq!(names(&site, ""), ["4", "3", "2", "1"]);
    assert_eq!(names(&site, "?device=A"), ["2", "1"]);
    assert_eq!(names(&site, &format!("?device={}", b.id)), ["4", "3"]);
    assert_eq!(names(&site, "?area=Fire&type=Smoke"), ["4", "1"]);
    assert_eq!(names(&site, &format!("?from={}&to={}", NOW - 2_000, NOW)), ["3", "2"]);
    assert_eq!(names(&site, "?from=2025-12-31T23:59:59Z"), ["4", "3"]);
    assert_eq!(names(&site, "?to=2026-01-01T07:59:58%2B08:00"), ["1"]);
    // All were received at one moment, whatever their devices say.
    assert_eq!(names(&site, &format!("?received_from={NOW}&to={NOW}")), ["3", "2", "1"]);
    assert_eq!(names(&site, &format!("?received_from={}", NOW + 1)), [""; 0]);
    assert_eq!(names(&site, "?received_to=2026-01-01T00:00:00Z"), [""; 0]);
    assert_eq!(site.get("/v1/events?area=None").json(), json!({"items": [], "next": null}));
    // What a removed device reported is found by its id.
    assert_eq!(site.request("DELETE", "/v1/devices/A", &site.bearer(), "").status, 204);
    assert_eq!(names(&site, &format!("?device={}", a.id)), ["2", "1"]);
}

#[test]
fn pages_hold_every_event_once_while_more_arrive() {
    let site = Site::new();
    let device = site.add("A");
    let report = |n: i64| site.append(&device, "Fire", "Smoke", Some(&n.to_string()), NOW + n, "1");
    site.durable((1..=10).fold(Position::START, |_, n| report(n)));
    let (mut seen, mut cursor, mut more) = (Vec::new(), String::new(), 100);
    loop {
        let page = site.get(&format!("/v1/events?limit=4{cursor}")).json();
        seen.extend(
            page["items"].as_array().expect("items").iter().map(|event| event["position"].as_i64().expect("one")),
        );
        more += 1;
        site.durable(report(more));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=10).rev().collect::<Vec<i64>>());
}

#[test]
fn the_largest_page_knows_that_there_is_more() {
    let site = Site::new();
    let device = site.add("A");
    let report = |n: i64| site.append(&device, "Fire", "Smoke", Some(&n.to_string()), NOW, "1");
    site.durable((1..=1_001).fold(Position::START, |_, n| report(n)));
    let page = site.get("/v1/events?limit=1000").json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1_000));
    let rest = site.get(&format!("/v1/events?limit=1000&cursor={}", page["next"].as_str().expect("a cursor"))).json();
    assert_eq!((rest["items"][0]["position"].as_i64(), &rest["next"]), (Some(1), &Value::Null));
}

#[test]
fn a_page_of_large_events_is_bounded_and_loses_none() {
    let site = Site::new();
    let device = site.add("A");
    let large = format!("\"{}\"", "x".repeat(60_000));
    let report = |n: i64| site.append(&device, "Fire", "Smoke", Some(&n.to_string()), NOW, &large);
    site.durable((1..=150).fold(Position::START, |_, n| report(n)));
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer = site.get(&format!("/v1/events?limit=1000{cursor}"));
        assert!(answer.body.len() < 5 << 20, "{}", answer.body.len());
        let page = answer.json();
        seen.extend(page["items"].as_array().expect("items").iter().filter_map(|event| event["position"].as_i64()));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=150).rev().collect::<Vec<i64>>());
    assert!(pages > 1);
}
