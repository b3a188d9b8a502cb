//! Tokens over HTTP, and what their holders see.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};
use vestibule_api::ApiConfig;

use crate::site::{Answer, NOW, Site};

fn make(site: &Site, new: Value) -> Value {
    let made = site.post("/v1/tokens", &new.to_string());
    assert_eq!(made.status, 201, "{}", made.body);
    made.json()
}

fn secret(made: &Value) -> String {
    made["token"].as_str().expect("a secret").to_owned()
}

fn get_as(site: &Site, token: &str, path: &str) -> Answer {
    site.request("GET", path, &format!("authorization: Bearer {token}\r\n"), "")
}

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().expect("a list").iter().map(|item| item["name"].as_str().expect("a name")).collect()
}

#[test]
fn a_token_is_shown_once_used_and_removed() {
    let site = Site::new();
    let made = make(&site, json!({"name": "ci", "role": "operator", "subtree": "/plant-1/", "expires_in": 60}));
    let expected = json!({
        "id": made["id"], "token": made["token"], "name": "ci", "role": "operator", "subtree": "/plant-1",
        "created": "2026-01-01T00:00:00.000Z", "created_by": "administrator",
        "expires": "2026-01-01T00:01:00.000Z", "last_used": null,
    });
    assert_eq!(made, expected);
    let token = secret(&made);
    assert_eq!(get_as(&site, &token, "/v1/devices").status, 200);
    let listed = site.get("/v1/tokens");
    assert!(!listed.body.contains(&token) && !listed.body.contains("\"token\""));
    assert_eq!(listed.json()["items"][0]["last_used"], "2026-01-01T00:00:00.000Z");
    let refused = get_as(&site, &token, "/v1/tokens").problem(403, "forbidden");
    assert!(refused["detail"].as_str().expect("words").contains("tokens_manage"), "{refused}");
    let location = format!("/v1/tokens/{}", made["id"].as_str().expect("an id"));
    assert_eq!(site.request("DELETE", &location, &site.bearer(), "").status, 204);
    get_as(&site, &token, "/v1/devices").problem(401, "unauthenticated");
    site.request("DELETE", &location, &site.bearer(), "").problem(404, "unknown-token");
    let by_name = make(&site, json!({"name": "ci", "role": "viewer"}));
    assert_eq!(site.request("DELETE", "/v1/tokens/ci", &site.bearer(), "").status, 204);
    get_as(&site, &secret(&by_name), "/v1/devices").problem(401, "unauthenticated");
}

#[test]
fn a_token_ends_by_itself() {
    let site = Site::new();
    let token = secret(&make(&site, json!({"name": "short", "role": "viewer", "expires_in": 60})));
    site.advance(Duration::from_secs(59));
    assert_eq!(get_as(&site, &token, "/v1/devices").status, 200);
    site.advance(Duration::from_secs(1));
    get_as(&site, &token, "/v1/devices").problem(401, "unauthenticated");
}

#[test]
fn what_cannot_be_a_token_is_refused_by_field() {
    let site = Site::new();
    make(&site, json!({"name": "taken", "role": "viewer"}));
    for (new, status, kind, field) in [
        (json!({"role": "viewer"}), 422, "missing-field", "name"),
        (json!({"name": "a"}), 422, "missing-field", "role"),
        (json!({"name": "a", "role": "Viewer"}), 422, "invalid-value", "role"),
        (json!({"name": "a", "role": 1}), 422, "wrong-type", "role"),
        (json!({"name": "program", "role": "viewer"}), 422, "invalid-value", "name"),
        (json!({"name": "a", "role": "viewer", "subtree": "plant"}), 422, "invalid-value", "subtree"),
        (json!({"name": "a", "role": "viewer", "expires_in": 0}), 422, "invalid-value", "expires_in"),
        (json!({"name": "a", "role": "viewer", "token": "x"}), 422, "unknown-field", "token"),
        (json!({"name": "taken", "role": "viewer"}), 409, "name-taken", "name"),
    ] {
        let problem = site.post("/v1/tokens", &new.to_string()).problem(status, kind);
        assert_eq!(problem["field"], field, "{problem}");
    }
}

#[test]
fn tokens_are_listed_in_pages() {
    let site = Site::new();
    for n in 0..5 {
        make(&site, json!({"name": format!("t{n}"), "role": "viewer"}));
    }
    let first = site.get("/v1/tokens?limit=3").json();
    let rest = site.get(&format!("/v1/tokens?limit=3&cursor={}", first["next"].as_str().expect("more"))).json();
    assert_eq!((names(&first), names(&rest), &rest["next"]), (vec!["t0", "t1", "t2"], vec!["t3", "t4"], &Value::Null));
    site.get("/v1/tokens?cursor=x").problem(422, "invalid-value");
}

#[test]
fn what_belongs_elsewhere_is_not_there() {
    let site = Site::new();
    for (serial, place) in [("A", "/a"), ("B", "/b"), ("R", "/")] {
        let device = json!({"serial": serial, "code": "ABCDEF", "org": place, "labels": {"floor": "2"}});
        assert_eq!(site.post("/v1/devices", &device.to_string()).status, 201);
    }
    let shown = site.get("/v1/devices/A");
    assert_eq!((&shown.json()["org"], &shown.json()["labels"]), (&json!("/a"), &json!({"floor": "2"})));
    assert_eq!(shown.header("etag"), Some("\"1\""));
    let hidden = site.get("/v1/devices/B").json()["id"].as_str().expect("an id").to_owned();
    let device = site.platform.device("B", &vestibule_platform::Caller::program()).expect("there");
    site.durable(site.append(&device, "Alarm", "Smoke", None, NOW, "1"));
    let token = secret(&make(&site, json!({"name": "bound", "role": "admin", "subtree": "/a"})));
    let serials = |path: &str| {
        let page = get_as(&site, &token, path).json();
        page["items"].as_array().expect("a list").iter().map(|item| item["serial"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(serials("/v1/devices"), ["\"A\""]);
    assert_eq!(serials("/v1/devices?org=/b"), [""; 0]);
    assert_eq!(site.get("/v1/devices?org=/b").json()["items"][0]["serial"], "B");
    assert_eq!(site.get("/v1/devices?org=b").problem(422, "invalid-value")["field"], "org");
    for key in ["B", "R", &hidden] {
        get_as(&site, &token, &format!("/v1/devices/{key}")).problem(404, "unknown-device");
        for list in ["events", "operations", "pass", "audit", "events/stream", "attributes/stream", "pass/stream"] {
            get_as(&site, &token, &format!("/v1/{list}?device={key}")).problem(404, "unknown-device");
        }
        get_as(&site, &token, &format!("/v1/devices?parent={key}")).problem(404, "unknown-device");
    }
    let by_parent = json!({"serial": "C", "code": "ABCDEF", "parent": "B"}).to_string();
    let headers = format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    assert_eq!(
        site.request("POST", "/v1/devices", &headers, &by_parent).problem(422, "invalid-value")["field"],
        "parent"
    );
    get_as(&site, &token, "/metrics").problem(403, "forbidden");
}

#[test]
fn a_device_is_described_by_a_merge_patch() {
    let site = Site::new();
    site.add("A");
    let patch = |headers: &str, body: Value| {
        let headers = format!("{}content-type: application/merge-patch+json\r\n{headers}", site.bearer());
        site.request("PATCH", "/v1/devices/A", &headers, &body.to_string())
    };
    let labelled = patch("if-match: \"1\"\r\n", json!({"name": "Tür", "org": "/a/b", "labels": {"x": "1", "y": "2"}}));
    assert_eq!((labelled.status, labelled.header("etag")), (200, Some("\"2\"")));
    let shown = labelled.json();
    assert_eq!(
        (&shown["name"], &shown["org"], &shown["labels"]),
        (&json!("Tür"), &json!("/a/b"), &json!({"x": "1", "y": "2"}))
    );
    patch("if-match: \"1\"\r\n", json!({"name": "late"})).problem(412, "stale");
    let shown = patch("", json!({"labels": {"x": null, "z": "3"}})).json();
    assert_eq!((&shown["labels"], &shown["version"]), (&json!({"y": "2", "z": "3"}), &json!(3)));
    let shown = patch("", json!({"name": null, "org": null, "labels": null})).json();
    assert_eq!((&shown["name"], &shown["org"], &shown["labels"]), (&Value::Null, &json!("/"), &json!({})));
    for (body, field) in [
        (json!({"serial": "B"}), "serial"),
        (json!({"org": "b"}), "org"),
        (json!({"name": "n".repeat(129)}), "name"),
        (json!({"labels": {"a": 1}}), "labels"),
        (json!({"labels": {"": "a"}}), "labels"),
    ] {
        let refused = patch("", body);
        assert_eq!((refused.status, &refused.json()["field"]), (422, &json!(field)), "{}", refused.body);
    }
    let headers = format!("{}content-type: text/plain\r\n", site.bearer());
    site.request("PATCH", "/v1/devices/A", &headers, "{}").problem(415, "unsupported-media-type");
    let rows = site.get("/v1/audit?action=device.describe").json();
    assert_eq!(
        rows["items"][2]["detail"],
        json!({"name": "Tür", "org": "/a/b", "from": "/", "labels": {"x": "1", "y": "2"}})
    );
}

#[test]
fn a_stream_ends_with_the_rights_of_who_opened_it() {
    let site = Site::with(ApiConfig { keep_alive: Duration::from_millis(50), ..ApiConfig::default() });
    let token = secret(&make(&site, json!({"name": "t", "role": "viewer"})));
    let mut stream = site.connect();
    let head = format!("GET /v1/events/stream HTTP/1.0\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line in time"));
    assert!(lines.any(|line| line.starts_with("id: ")), "it is open");
    assert!(lines.any(|line| line == ": keep-alive"), "and stays so");
    assert_eq!(site.request("DELETE", "/v1/tokens/t", &site.bearer(), "").status, 204);
    assert!(lines.all(|line| line.is_empty() || line == ": keep-alive"), "until it ends");
}

#[test]
fn who_asks_for_too_much_is_in_the_audit_once() {
    let site = Site::new();
    let token = secret(&make(&site, json!({"name": "curious", "role": "viewer"})));
    for _ in 0..3 {
        get_as(&site, &token, "/v1/audit").problem(403, "forbidden");
    }
    let rows = loop {
        let rows = site.get("/v1/audit?action=access.denied").json()["items"].clone();
        if rows != json!([]) {
            break rows;
        }
    };
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
    let expected = (&json!("curious"), &json!({"permission": "audit_read"}), &json!(false));
    assert_eq!((&rows[0]["actor"], &rows[0]["detail"], &rows[0]["ok"]), expected);
}

#[test]
fn a_token_that_is_removed_while_a_request_is_under_way_does_nothing_more() {
    let site = Site::new();
    let made = site.post("/v1/tokens", r#"{"name":"thief","role":"admin"}"#).json();
    let bearer = format!("authorization: Bearer {}\r\n", made["token"].as_str().expect("shown once"));
    let data = format!("\"{}\"", "x".repeat(8_000));
    let device = site.add("A");
    let positions =
        (0..2_000).map(|number| site.append(&device, "Fire", "Smoke", Some(&number.to_string()), NOW, &data));
    site.durable(positions.last().expect("some"));
    let mut export = site.connect();
    write!(export, "GET /v1/events/export HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{bearer}\r\n")
        .expect("sent");
    let mut text = vec![0; 4_096];
    export.read_exact(&mut text).expect("its beginning");
    let mut grab = site.connect();
    let body = r#"{"name":"heir","role":"admin"}"#;
    let head = format!(
        "POST /v1/tokens HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{bearer}content-type: application/json\r\ncontent-length: {}\r\n\r\n{{",
        body.len()
    );
    grab.write_all(head.as_bytes()).expect("sent");
    // The request is under way once another one behind it has been answered.
    assert_eq!(site.get("/v1/tokens").status, 200);
    let id = made["id"].as_str().expect("an id");
    assert_eq!(site.request("DELETE", &format!("/v1/tokens/{id}"), &site.bearer(), "").status, 204);
    grab.write_all(&body.as_bytes()[1..]).expect("sent");
    let mut answer = String::new();
    grab.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let names = site.get("/v1/tokens").json().to_string();
    assert!(!names.contains("heir"), "{names}");
    export.read_to_end(&mut text).expect("what was ready");
    assert!(!text.ends_with(b"0\r\n\r\n"), "an export that was cut looks complete");
    let taken = format!(r#"{{"name":"{id}","role":"viewer"}}"#);
    site.post("/v1/tokens", &taken).problem(422, "invalid-value");
}
