//! Operations over HTTP, with a device that answers as its operation is named.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use vestibule_platform::{Answer, Connection, Device, DeviceLink, NotSent, Operate, SetAttribute};

use crate::site::Site;

/// Answers at once.
struct Echo;

impl DeviceLink for Echo {
    fn close(&self, _: &'static str) {}

    fn operate(&self, operation: Operate<'_>) -> Result<(), NotSent> {
        let answer = match &*operation.path.name {
            "Echo" => Answer::Done(operation.input.map(Into::into)),
            "Fail" => Answer::Failed { code: 7, message: Some("stuck".into()) },
            "Lose" => {
                drop(operation.reply);
                return Ok(());
            }
            "Busy" => return Err(NotSent::Busy),
            "Large" => return Err(NotSent::TooLarge),
            "Leave" => return Err(NotSent::Ending),
            _ => return Err(NotSent::NotAddressable("is unknown")),
        };
        assert!(operation.reply.answer(answer));
        Ok(())
    }

    fn set(&self, _: SetAttribute<'_>) -> Result<(), NotSent> {
        Err(NotSent::Ending)
    }
}

fn online(site: &Site, serial: &str) -> Arc<Device> {
    let device = site.add(serial);
    let peer = SocketAddr::from(([192, 0, 2, 7], 5_000));
    let connection = Connection { suite: "legacy", confidential: false, peer, link: Arc::new(Echo) };
    site.platform.connected(&device, connection);
    device
}

fn route(name: &str) -> String {
    format!("/v1/devices/A/operations/global/0/Area/{name}")
}

#[test]
fn the_answer_says_how_it_ended() {
    let site = Site::new();
    online(&site, "A");
    let input = json!({"a": [1, 2.5, null, "x"], "b": {}});
    for (name, body, expected) in [
        ("Echo", json!({"input": input}), json!({"outcome": "done", "output": input})),
        ("Echo", json!({}), json!({"outcome": "done"})),
        ("Echo", json!({"input": false, "deadline_ms": 25_000}), json!({"outcome": "done", "output": false})),
        ("Fail", json!({"input": 1}), json!({"outcome": "failed", "code": 7, "message": "stuck"})),
        ("Lose", json!({"input": 1}), json!({"outcome": "unknown"})),
        ("Leave", json!({"input": 1}), json!({"outcome": "offline"})),
    ] {
        let answer = site.post(&route(name), &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        let mut end = answer.json();
        let id = end.as_object_mut().expect("an object").remove("operation_id").expect("an id");
        assert_eq!(id.as_str().map(str::len), Some(36));
        assert_eq!(end, expected);
    }
}

#[test]
fn what_was_not_sent_is_a_problem() {
    let site = Site::new();
    online(&site, "A");
    site.post(&route("Busy"), "{}").problem(503, "device-busy");
    assert_eq!(site.post(&route("Large"), "{}").problem(413, "body-too-large")["field"], "input");
    assert_eq!(site.post(&route("Other"), "{}").problem(422, "invalid-value")["field"], "path");
    for deadline in ["99", "25001", "-1", "1.5", "\"1s\""] {
        let answer = site.post(&route("Echo"), &format!("{{\"deadline_ms\":{deadline}}}"));
        assert_eq!(answer.status, 422, "{deadline}");
        assert_eq!(answer.json()["field"], "deadline_ms");
    }
    let deep = format!("{{\"input\":{}{}}}", "[".repeat(40), "]".repeat(40));
    assert_eq!(site.post(&route("Echo"), &deep).problem(422, "invalid-value")["field"], "input");
    site.post(&route("Echo"), r#"{"inputs":1}"#).problem(422, "unknown-field");
    site.post("/v1/devices/B/operations/global/0/Area/Echo", "{}").problem(404, "unknown-device");
    site.post(&route(&"x".repeat(129)), "{}").problem(422, "invalid-value");
    site.post(&route("%00"), "{}").problem(422, "invalid-value");
    site.request("POST", &route("Echo"), "content-type: application/json\r\n", "{}").problem(401, "unauthenticated");
}

#[test]
fn what_was_done_is_listed_newest_first() {
    let site = Site::new();
    let device = online(&site, "A");
    for input in 0..5 {
        assert_eq!(site.post(&route("Echo"), &json!({"input": input}).to_string()).status, 200);
    }
    site.post(&route("Fail"), "{}");
    let last = site.platform.journal().appended();
    site.durable(last);
    let page = site.get("/v1/operations?device=A&limit=4").json();
    let next = page["next"].as_str().expect("more").to_owned();
    let items = page["items"].as_array().expect("a list").clone();
    assert_eq!(items.len(), 4);
    let mut first = items[0].clone();
    let fields = first.as_object_mut().expect("an object");
    for field in ["position", "operation_id", "took_ms"] {
        fields.remove(field).expect("is there");
    }
    let expected = json!({
        "device": {"id": device.id.to_string(), "serial": "A"},
        "resource": "global", "index": "0", "area": "Area", "name": "Fail", "ended": "2026-01-01T00:00:00.000Z",
        "by": "administrator", "outcome": "failed", "code": 7, "message": "stuck",
    });
    assert_eq!(first, expected);
    let rest = site.get(&format!("/v1/operations?device=A&limit=4&cursor={next}")).json();
    assert_eq!(rest["next"], Value::Null);
    let inputs: Vec<&Value> =
        items[1..].iter().chain(rest["items"].as_array().expect("a list")).map(|item| &item["input"]).collect();
    assert_eq!(inputs, [4, 3, 2, 1, 0]);
    assert_eq!(site.get("/v1/operations?name=Fail").json()["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(site.get("/v1/events").json()["items"], json!([]), "an operation is no event");
}
