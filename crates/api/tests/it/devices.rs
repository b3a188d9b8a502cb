//! Registering, listing, showing, removing, explaining.

use serde_json::{Value, json};
use vestibule_platform::{Fact, Step};

use crate::site::Site;

#[test]
fn a_registered_device_is_shown_under_both_its_names() {
    let site = Site::new();
    let made = site.post("/v1/devices", r#"{"serial":"SN-1","code":"ABCDEF","name":"Door","product":"P1"}"#);
    assert_eq!(made.status, 201, "{}", made.body);
    let device = made.json();
    let id = device["id"].as_str().expect("an id").to_owned();
    assert_eq!(made.header("location"), Some(&*format!("/v1/devices/{id}")));
    assert_eq!(
        device,
        json!({
            "id": id, "family": "osap", "serial": "SN-1", "product": "P1", "name": "Door",
            "presence": {"state": "never_seen", "since": null, "reason": "never_seen", "peer": null},
            "suite": null, "confidential": null, "security": null, "disabled": false,
            "suites": {"legacy": true, "plain": true, "certificate": "product", "certificate_demanded": false},
            "code": {"one_time": false, "spent": null}, "parent": null,
            "children": 0, "org": "/", "labels": {}, "version": 1,
            "created": "2026-01-01T00:00:00.000Z",
        })
    );
    assert_eq!(site.get(&format!("/v1/devices/{id}")).json(), device);
    assert_eq!(site.get("/v1/devices/SN-1").json(), device);
}

#[test]
fn a_device_is_shut_out_and_let_in_again() {
    let site = Site::new();
    site.add("A");
    for (verb, disabled) in [("disable", true), ("disable", true), ("enable", false)] {
        let shown = site.request("POST", &format!("/v1/devices/A/{verb}"), &site.bearer(), "");
        assert_eq!((shown.status, &shown.json()["disabled"]), (200, &json!(disabled)), "{}", shown.body);
        assert_eq!(site.get("/v1/devices/A").json()["disabled"], disabled);
    }
    site.request("POST", "/v1/devices/B/disable", &site.bearer(), "").problem(404, "unknown-device");
}

#[test]
fn a_new_code_is_shown_once_when_the_platform_made_it() {
    let site = Site::new();
    site.add("A");
    let made = site.post("/v1/devices/A/rotate", "{}");
    assert_eq!((made.status, made.json()["code"].as_str().map(str::len)), (200, Some(16)));
    let given = site.post("/v1/devices/A/rotate", r#"{"code":"SECRETCODE"}"#);
    assert_eq!((given.status, given.json()), (200, json!({})));
    let wrong = site.post("/v1/devices/A/rotate", r#"{"code":"SECRET CODE"}"#);
    assert_eq!(wrong.problem(422, "invalid-value")["field"], "code");
    assert!(!wrong.body.contains("SECRET CODE"));
}

#[test]
fn a_code_that_works_once_is_said_so_and_a_certificate_demanded_of_device_or_product() {
    let site = Site::new();
    let made = site.post("/v1/devices", r#"{"serial":"A","code":"SECRETCODE","product":"hub","one_time":true}"#);
    assert_eq!((made.status, &made.json()["code"]), (201, &json!({"one_time": true, "spent": null})), "{}", made.body);
    assert!(!made.body.contains("SECRETCODE"));
    site.post("/v1/devices/A/rotate", r#"{"code":"SECRETCODE"}"#);
    assert_eq!(site.get("/v1/devices/A").json()["code"]["one_time"], false);
    site.post("/v1/devices/A/rotate", r#"{"one_time":true}"#);
    assert_eq!(site.get("/v1/devices/A").json()["code"]["one_time"], true);
    let window = site.post("/v1/devices/A/enrolment", r#"{"window_seconds":60,"rearm":true}"#);
    assert_eq!(window.status, 200, "{}", window.body);
    let import = "serial,code,one_time\nB,SECRETCODE,true\nC,SECRETCODE,\n";
    let head = format!("{}content-type: text/csv\r\n", site.bearer());
    assert_eq!(site.request("POST", "/v1/imports", &head, import).status, 201);
    let one_time = |serial: &str| site.get(&format!("/v1/devices/{serial}")).json()["code"]["one_time"].clone();
    assert_eq!((one_time("B"), one_time("C")), (json!(true), json!(false)));

    let put = |path: &str, body: &str| {
        let head = format!("{}content-type: application/json\r\n", site.bearer());
        site.request("PUT", path, &head, body)
    };
    let demanded = || site.get("/v1/devices/A").json()["suites"]["certificate_demanded"].clone();
    let rule = put("/v1/product-rules/hub", r#"{"certificate":true}"#);
    assert_eq!((rule.status, rule.json()), (200, json!({"product": "hub", "certificate": true})), "{}", rule.body);
    assert_eq!(demanded(), true);
    let list = site.get("/v1/product-rules").json();
    assert_eq!(list, json!({"items": [{"product": "hub", "certificate": true}], "next": null}));
    for (says, is_demanded) in [("optional", false), ("product", true), ("demanded", true)] {
        let shown = put("/v1/devices/A/suites", &format!(r#"{{"certificate":"{says}"}}"#));
        assert_eq!((shown.status, &shown.json()["suites"]["certificate"]), (200, &json!(says)), "{}", shown.body);
        assert_eq!(demanded(), is_demanded, "{says}");
    }
    let wrong = put("/v1/devices/A/suites", r#"{"certificate":"perhaps"}"#);
    assert_eq!(wrong.problem(422, "invalid-value")["field"], "certificate");
    put("/v1/devices/A/suites", r#"{"certificate":"product"}"#);
    put("/v1/product-rules/hub", r#"{"certificate":false}"#);
    assert_eq!(demanded(), false);
    let long = "x".repeat(129);
    put(&format!("/v1/product-rules/{long}"), r#"{"certificate":true}"#).problem(422, "invalid-value");
}

#[test]
fn a_code_is_never_told_back() {
    let site = Site::new();
    for body in [
        r#"{"serial":"A","code":"SECRETCODE","colour":1}"#,
        r#"{"serial":"A/B","code":"SECRETCODE"}"#,
        r#"{"serial":7,"code":"SECRETCODE"}"#,
        r#"{"serial":"A","code":["SECRETCODE"]}"#,
        r#"{"serial":"A","code":"SECRETCODE "}"#,
        r#"{"serial":"A","code":"SECRETCODE""#,
    ] {
        let answer = site.post("/v1/devices", body);
        assert!((400..500).contains(&answer.status), "{body}");
        assert!(!answer.body.contains("SECRETCODE"), "{body}: {}", answer.body);
    }
    let made = site.post("/v1/devices", r#"{"serial":"A","code":"SECRETCODE"}"#);
    assert!(made.status == 201 && !made.body.contains("SECRETCODE"));
}

#[test]
fn what_cannot_be_registered_is_refused_with_its_field() {
    let site = Site::new();
    site.add("TAKEN");
    let long = "x".repeat(72);
    for (body, status, kind, field) in [
        (r#"{"serial":"TAKEN","code":"A"}"#.to_owned(), 409, "serial-taken", "serial"),
        (r#"{"serial":"","code":"A"}"#.to_owned(), 422, "invalid-value", "serial"),
        (r#"{"serial":"a/b","code":"A"}"#.to_owned(), 422, "invalid-value", "serial"),
        (format!(r#"{{"serial":"{long}","code":"A"}}"#), 422, "invalid-value", "serial"),
        (r#"{"serial":"a","code":""}"#.to_owned(), 422, "invalid-value", "code"),
        (r#"{"serial":"a","code":"A","name":"\u0000"}"#.to_owned(), 422, "invalid-value", "name"),
        (r#"{"serial":"a"}"#.to_owned(), 422, "missing-field", "code"),
        (r#"{"serial":"a","code":5}"#.to_owned(), 422, "wrong-type", "code"),
        (r#"{"serial":"a","code":"A","kode":"B"}"#.to_owned(), 422, "unknown-field", "kode"),
        (r#"{"serial":"a","serial":"b","code":"A"}"#.to_owned(), 422, "duplicate-field", "serial"),
    ] {
        assert_eq!(site.post("/v1/devices", &body).problem(status, kind)["field"], field, "{body}");
    }
}

#[test]
fn pages_hold_every_device_once() {
    let site = Site::new();
    let serials: Vec<String> = (0..7).map(|n| format!("SN-{n}")).collect();
    for serial in &serials {
        site.add(serial);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = site.get(&format!("/v1/devices?limit=3{cursor}")).json();
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 3);
        seen.extend(items.iter().map(|device| device["serial"].as_str().expect("a serial").to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, serials);
    let exact = site.get("/v1/devices?limit=7").json();
    assert_eq!((exact["items"].as_array().map(Vec::len), &exact["next"]), (Some(7), &Value::Null));
}

#[test]
fn a_list_is_of_those_to_which_all_that_is_asked_applies() {
    let site = Site::new();
    for (serial, product, org, labels) in [
        ("S3", "cam", "/a", json!({"floor": "2", "door": ""})),
        ("S1", "cam", "/a/b", json!({"floor": "3"})),
        ("S2", "lock", "/b", json!({"floor": "2"})),
    ] {
        let new = json!({"serial": serial, "code": "ABCDEF", "product": product, "org": org, "labels": labels});
        assert_eq!(site.post("/v1/devices", &new.to_string()).status, 201);
    }
    site.post("/v1/devices/S2/disable", "");
    let found = |query: &str| -> String {
        let page = site.get(&format!("/v1/devices?{query}")).json();
        let items = page["items"].as_array().unwrap_or_else(|| panic!("{query}: {page}"));
        items.iter().map(|item| item["serial"].as_str().expect("a serial")).collect::<Vec<_>>().join(" ")
    };
    for (query, wanted) in [
        ("", "S3 S1 S2"),
        ("order=serial", "S1 S2 S3"),
        ("order=-serial", "S3 S2 S1"),
        ("order=-added", "S2 S1 S3"),
        ("product=cam", "S3 S1"),
        ("product=cam&order=serial", "S1 S3"),
        ("label=floor:2", "S3 S2"),
        ("label=floor:2&label=door", "S3"),
        ("label=floor:2&label=floor:3", ""),
        ("org=/a", "S3 S1"),
        ("org=/a&text=s1&product=cam&label=floor", "S1"),
        ("text=LOCK", "S2"),
        ("presence=never_seen", "S3 S1 S2"),
        ("presence=online", ""),
        ("suite=legacy", ""),
        ("disabled=true", "S2"),
        ("disabled=false&family=osap", "S3 S1"),
    ] {
        assert_eq!(found(query), wanted, "{query}");
    }
    for (query, field) in [
        ("presence=here", "presence"),
        ("family=oic", "family"),
        ("disabled=yes", "disabled"),
        ("order=id", "order"),
        ("text=", "text"),
        ("text=%00", "text"),
        ("org=a", "org"),
    ] {
        let problem = site.get(&format!("/v1/devices?{query}")).problem(422, "invalid-value");
        assert_eq!(problem["field"], field, "{query}");
    }
    let next =
        site.get("/v1/devices?limit=1&label=floor&label=floor:2").json()["next"].as_str().expect("more").to_owned();
    assert_eq!(found(&format!("label=floor:2&label=floor&cursor={next}")), "S2");
    for other in ["", "&label=floor", "&label=floor&label=floor:2&order=name"] {
        let problem = site.get(&format!("/v1/devices?cursor={next}{other}")).problem(422, "invalid-value");
        assert_eq!(problem["field"], "cursor");
    }
}

#[test]
fn a_view_is_a_list_to_come_back_to() {
    let site = Site::new();
    for (serial, product) in [("S1", "cam"), ("S3", "cam"), ("S2", "lock")] {
        let new = json!({"serial": serial, "code": "ABCDEF", "product": product, "labels": {"floor": "2"}});
        assert_eq!(site.post("/v1/devices", &new.to_string()).status, 201);
    }
    let put = |name: &str, body: Value| {
        let headers = format!("{}content-type: application/json\r\n", site.bearer());
        site.request("PUT", &format!("/v1/views/{name}"), &headers, &body.to_string())
    };
    let found = |query: &str| -> Vec<String> {
        let page = site.get(&format!("/v1/devices?{query}")).json();
        let items = page["items"].as_array().unwrap_or_else(|| panic!("{query}: {page}"));
        items.iter().map(|item| item["serial"].as_str().expect("a serial").to_owned()).collect()
    };
    let kept = put("my%20cams", json!({"filter": {"product": "cam", "label": ["floor:2"]}, "order": "-serial"}));
    assert_eq!((kept.status, &kept.json()["name"]), (200, &json!("my cams")));
    assert_eq!(found("view=my%20cams"), ["S3", "S1"]);
    assert_eq!(found("view=my%20cams&order=serial"), ["S1", "S3"]);
    assert_eq!(found("view=my%20cams&product=lock"), ["S2"]);
    assert!(found("view=my%20cams&label=floor:3").is_empty());
    let next = site.get("/v1/devices?view=my%20cams&limit=1").json()["next"].as_str().expect("more").to_owned();
    assert_eq!(found(&format!("view=my%20cams&cursor={next}")), ["S1"]);
    let shown = site.get("/v1/views/my%20cams").json();
    assert_eq!((&shown["filter"]["product"], &shown["changed_by"]), (&json!("cam"), &json!("administrator")));
    assert_eq!(site.get("/v1/views").json()["items"], json!([shown]));
    assert_eq!(put("my%20cams", json!({})).status, 200);
    assert_eq!(found("view=my%20cams"), ["S1", "S3", "S2"]);
    site.get(&format!("/v1/devices?view=my%20cams&cursor={next}")).problem(422, "invalid-value");
    for (name, body, field) in [
        ("x", json!({"order": "id"}), "order"),
        ("x", json!({"filter": {"presence": "here"}}), "presence"),
        ("%20", json!({}), "name"),
        (&*"x".repeat(65), json!({}), "name"),
    ] {
        assert_eq!(put(name, body).problem(422, "invalid-value")["field"], field);
    }
    put("x", json!({"filter": {"parent": "NOBODY"}})).problem(404, "unknown-device");
    assert_eq!(site.request("DELETE", "/v1/views/my%20cams", &site.bearer(), "").status, 204);
    site.request("DELETE", "/v1/views/my%20cams", &site.bearer(), "").problem(404, "unknown-view");
    site.get("/v1/views/my%20cams").problem(404, "unknown-view");
    site.get("/v1/devices?view=my%20cams").problem(404, "unknown-view");
    for n in 0..100 {
        assert_eq!(put(&format!("v{n}"), json!({})).status, 200);
    }
    put("one-more", json!({})).problem(409, "too-many-views");
    assert_eq!(put("v7", json!({"order": "name"})).status, 200);
}

#[test]
fn a_removed_device_is_gone() {
    let site = Site::new();
    site.add("SN-1");
    assert_eq!(site.request("DELETE", "/v1/devices/SN-1", &site.bearer(), "").status, 204);
    site.get("/v1/devices/SN-1").problem(404, "unknown-device");
    site.request("DELETE", "/v1/devices/SN-1", &site.bearer(), "").problem(404, "unknown-device");
    assert_eq!(site.get("/v1/devices").json(), json!({"items": [], "next": null}));
}

#[test]
fn an_enrolment_window_has_an_end() {
    let site = Site::new();
    let device = site.add("SN-1");
    let open = site.post("/v1/devices/SN-1/enrolment", r#"{"window_seconds":60}"#);
    assert_eq!((open.status, open.json()), (200, json!({"until": "2026-01-01T00:01:00.000Z"})));
    assert_eq!(device.enrol_until(), crate::site::NOW + 60_000);
    for wrong in ["0", "86401", "18446744073709551615"] {
        let answer = site.post("/v1/devices/SN-1/enrolment", &format!(r#"{{"window_seconds":{wrong}}}"#));
        assert_eq!(answer.problem(422, "invalid-value")["field"], "window_seconds");
    }
    site.post("/v1/devices/SN-1/enrolment", r#"{"window_seconds":"60"}"#).problem(422, "wrong-type");
    site.post("/v1/devices/SN-2/enrolment", r#"{"window_seconds":60}"#).problem(404, "unknown-device");
}

#[test]
fn why_tells_the_last_steps_and_the_last_failure() {
    let site = Site::new();
    let device = site.add("SN-1");
    let peer = "192.0.2.7".parse().ok();
    for _ in 0..3 {
        site.platform.fact(&device, Fact::failure(Step::Login, "bad_key", "The key is wrong.", peer));
    }
    site.platform.fact(&device, Fact::ok(Step::Login, "accepted", "Logged in.", peer));
    let fact = |ok, reason, text, count| {
        json!({"at": "2026-01-01T00:00:00.000Z", "step": "login", "ok": ok, "reason": reason, "text": text,
               "peer": "192.0.2.7", "count": count})
    };
    let failed = fact(false, "bad_key", "The key is wrong.", 3);
    let why = site.get("/v1/devices/SN-1/why").json();
    assert_eq!(why["device"], json!({"id": device.id.to_string(), "serial": "SN-1"}));
    assert_eq!(why["presence"]["state"], "never_seen");
    assert_eq!(why["enrol_until"], Value::Null);
    assert_eq!(why["facts"], json!([failed, fact(true, "accepted", "Logged in.", 1)]));
    assert_eq!(why["last_failure"]["reason"], "bad_key");
}

#[test]
fn a_serial_may_need_percent_encoding() {
    let site = Site::new();
    site.add("a%b?c&d=e");
    assert_eq!(site.get("/v1/devices/a%25b%3Fc%26d=e").json()["serial"], "a%b?c&d=e");
    site.get("/v1/devices/%FF%FE").problem(404, "unknown-device");
}

#[test]
fn a_device_is_registered_under_another_and_found_there() {
    let site = Site::new();
    let hub = site.post("/v1/devices", r#"{"serial":"HUB","code":"ABCDEF"}"#).json();
    let id = hub["id"].as_str().expect("an id");
    for (serial, parent) in [("C1", "HUB"), ("C2", id), ("C3", "HUB")] {
        let made = site.post("/v1/devices", &json!({"serial": serial, "code": "ABCDEF", "parent": parent}).to_string());
        assert_eq!((made.status, &made.json()["parent"]), (201, &json!(id)), "{}", made.body);
    }
    assert_eq!(site.get("/v1/devices/HUB").json()["children"], 3);
    let serials = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().expect("a list").iter();
        items.map(|item| item["serial"].as_str().expect("a serial").to_owned()).collect()
    };
    for list in ["/v1/devices/HUB/children?", "/v1/devices?parent=HUB&", &format!("/v1/devices?parent={id}&")] {
        let first = site.get(&format!("{list}limit=2")).json();
        assert_eq!(serials(&first), ["C1", "C2"]);
        let next = first["next"].as_str().expect("more");
        let second = site.get(&format!("{list}limit=2&cursor={next}")).json();
        assert_eq!((serials(&second), &second["next"]), (vec!["C3".to_owned()], &Value::Null));
    }
    assert_eq!(site.get("/v1/devices/C1/children").json(), json!({"items": [], "next": null}));
    site.get("/v1/devices?parent=NOBODY").problem(404, "unknown-device");
    site.get("/v1/devices/NOBODY/children").problem(404, "unknown-device");
    for parent in ["NOBODY", "C1"] {
        let body = json!({"serial": "C4", "code": "ABCDEF", "parent": parent}).to_string();
        assert_eq!(site.post("/v1/devices", &body).problem(422, "invalid-value")["field"], "parent");
    }
    assert_eq!(site.request("DELETE", "/v1/devices/HUB", &site.bearer(), "").status, 204);
    assert_eq!(site.get("/v1/devices/C1").json()["parent"], Value::Null);
}
