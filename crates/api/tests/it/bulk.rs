//! The same is done to many devices.

use serde_json::{Value, json};
use vestibule_platform::{Caller, NewToken, OrgPath, Role};

use crate::site::{Site, until};

/// Does it and waits for its end.
fn change(site: &Site, body: &Value) -> Value {
    let answer = site.post("/v1/bulk", &body.to_string());
    assert_eq!(answer.status, 202, "{}", answer.body);
    let address = answer.header("location").expect("an address").to_owned();
    until("it has ended", || site.get(&address).json()["state"] != "running");
    let job = site.get(&address).json();
    assert_eq!(job["state"], "done", "{job}");
    job
}

fn counts(job: &Value) -> [u64; 5] {
    ["devices", "seen", "changed", "unchanged", "failed"].map(|name| job[name].as_u64().expect("a number"))
}

fn found(site: &Site, query: &str) -> usize {
    site.get(&format!("/v1/devices?limit=1000&{query}")).json()["items"].as_array().expect("items").len()
}

#[test]
fn each_action_does_to_many_what_is_done_to_one() {
    let site = Site::new();
    for n in 0..150 {
        let new = json!({"serial": format!("S{n}"), "code": "ABCDEF", "product": if n < 100 { "cam" } else { "door" }});
        assert_eq!(site.post("/v1/devices", &new.to_string()).status, 201);
    }
    let cams = json!({"product": "cam"});
    let dry = site.post("/v1/bulk", &json!({"action": "remove", "filter": cams, "dry_run": true}).to_string());
    assert_eq!((dry.status, &dry.json()["devices"]), (200, &json!(100)));
    assert_eq!(dry.json()["sample"].as_array().map(Vec::len), Some(10));
    let label = json!({"action": "label", "filter": cams, "labels": {"floor": "2", "none": null}});
    assert_eq!(counts(&change(&site, &label)), [100, 100, 100, 0, 0]);
    assert_eq!(counts(&change(&site, &label)), [100, 100, 0, 100, 0]);
    assert_eq!(found(&site, "label=floor:2"), 100);
    let away = json!({"action": "move", "filter": {"label": ["floor:2"], "text": "s1"}, "org": "/a"});
    let there = found(&site, "label=floor:2&text=s1");
    assert_eq!(counts(&change(&site, &away))[2], there as u64);
    assert_eq!(found(&site, "org=/a"), there);
    let some = json!(["S0", "S1", "S0"]);
    assert_eq!(counts(&change(&site, &json!({"action": "disable", "devices": some}))), [2, 2, 2, 0, 0]);
    assert_eq!(found(&site, "disabled=true"), 2);
    assert_eq!(counts(&change(&site, &json!({"action": "enable", "filter": {"disabled": true}})))[2], 2);
    change(&site, &json!({"action": "enrol", "devices": some, "window_seconds": 60}));
    assert!(site.get("/v1/devices/S1/why").json()["enrol_until"].is_string());
    assert_eq!(counts(&change(&site, &json!({"action": "remove", "filter": cams})))[2], 100);
    assert_eq!(found(&site, ""), 50);
    // Each is in the audit, and so is the whole.
    assert_eq!(
        site.get("/v1/audit?action=device.remove&limit=1000").json()["items"].as_array().map(Vec::len),
        Some(100)
    );
    assert_eq!(site.get("/v1/audit?action=devices.bulk").json()["items"].as_array().map(Vec::len), Some(7));
    assert_eq!(site.get("/v1/bulk").json()["items"].as_array().map(Vec::len), Some(7));
}

#[test]
fn what_cannot_be_done_to_a_device_is_told_of_it() {
    let site = Site::new();
    for n in 0..3 {
        let labels: serde_json::Map<String, Value> = (0..n * 16).map(|n| (format!("l{n}"), json!(""))).collect();
        let new = json!({"serial": format!("S{n}"), "code": "ABCDEF", "labels": labels});
        assert_eq!(site.post("/v1/devices", &new.to_string()).status, 201);
    }
    let job = change(&site, &json!({"action": "label", "filter": {"org": "/"}, "labels": {"more": "x"}}));
    assert_eq!(counts(&job), [3, 3, 2, 0, 1]);
    assert_eq!(job["errors"][0]["serial"], "S2");
    assert!(job["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains("32")), "{job}");
}

#[test]
fn what_is_asked_must_be_one_thing_about_some_devices() {
    let site = Site::new();
    site.add("S1");
    for (body, field) in [
        (json!({"action": "remove"}), "devices"),
        (json!({"action": "remove", "devices": ["S1"], "filter": {"text": "s"}}), "devices"),
        (json!({"action": "remove", "devices": []}), "devices"),
        (json!({"action": "remove", "filter": {}}), "filter"),
        (json!({"action": "explode", "devices": ["S1"]}), "action"),
        (json!({"action": "remove", "devices": ["S1"], "org": "/"}), "org"),
        (json!({"action": "move", "devices": ["S1"]}), "org"),
        (json!({"action": "label", "devices": ["S1"], "labels": {}}), "labels"),
        (json!({"action": "enrol", "devices": ["S1"], "window_seconds": 0}), "window_seconds"),
        (json!({"action": "remove", "filter": {"presence": "here"}}), "presence"),
    ] {
        assert_eq!(site.post("/v1/bulk", &body.to_string()).problem(422, "invalid-value")["field"], field, "{body}");
    }
    site.post("/v1/bulk", r#"{"action":"remove","devices":["NOBODY"]}"#).problem(404, "unknown-device");
    assert_eq!(found(&site, ""), 1);
}

#[test]
fn rights_are_those_for_one_device() {
    let site = Site::new();
    site.add("ROOT");
    let org = |path: &str| OrgPath::parse(path).expect("a place");
    let token = |role, place: &str| {
        let new = NewToken { name: format!("{role:?}{place}"), role, subtree: Some(org(place)), expires_in: None };
        site.wait(site.platform.add_token(new, &Caller::program())).expect("made").1.to_string()
    };
    let ask = |token: &str, body: &Value| {
        let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
        site.request("POST", "/v1/bulk", &headers, &body.to_string())
    };
    let (operator, bound) = (token(Role::Operator, "/"), token(Role::Admin, "/a"));
    let all = json!({"org": "/"});
    ask(&operator, &json!({"action": "remove", "filter": all, "dry_run": true})).problem(403, "forbidden");
    ask(&operator, &json!({"action": "move", "filter": all, "org": "/a"})).problem(403, "forbidden");
    assert_eq!(ask(&operator, &json!({"action": "disable", "filter": all, "dry_run": true})).json()["devices"], 1);
    assert_eq!(ask(&bound, &json!({"action": "remove", "filter": all, "dry_run": true})).json()["devices"], 0);
    let away = ask(&bound, &json!({"action": "move", "filter": all, "org": "/b"}));
    assert_eq!(away.problem(422, "invalid-value")["field"], "org");
}
