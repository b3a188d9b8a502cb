//! Operations over HTTP, with a device that answers as its operation is named.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use vestibule_platform::{Answer, Connection, Device, DeviceLink, NotSent, Operate, Reply, SetAttribute};

use crate::site::Site;

/// Replies that are kept, so that their operations stay under way.
static HELD: Mutex<Vec<Reply>> = Mutex::new(Vec::new());

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
            "Hold" => {
                HELD.lock().expect("a lock").push(operation.reply);
                return Ok(());
            }
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
    connect(site, &device);
    device
}

fn connect(site: &Site, device: &Arc<Device>) {
    let peer = SocketAddr::from(([192, 0, 2, 7], 5_000));
    let connection = Connection { suite: "legacy", confidential: false, peer, link: Arc::new(Echo) };
    site.platform.connected(device, connection);
}

/// The answer without what differs each time.
fn end(answer: &crate::site::Answer) -> Value {
    let mut end = answer.json();
    end.as_object_mut().expect("an object").remove("operation_id").expect("an id");
    end
}

fn post_as(site: &Site, key: &str, name: &str, body: &Value) -> crate::site::Answer {
    let headers = format!("{}content-type: application/json\r\nidempotency-key: {key}\r\n", site.bearer());
    site.request("POST", &route(name), &headers, &body.to_string())
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

#[test]
fn what_waits_is_shown_taken_back_and_sent_when_the_device_comes() {
    let site = Site::new();
    let device = site.add("A");
    let wait = |input: u64| {
        let answer = site.post(&route("Echo"), &json!({"input": input, "queue": {"expires_in": 600}}).to_string());
        assert_eq!(answer.status, 202, "{}", answer.body);
        let end = answer.json();
        let id = end["operation_id"].as_str().expect("an id").to_owned();
        let expected = json!({"operation_id": id, "outcome": "queued", "expires": "2026-01-01T00:10:00.000Z"});
        assert_eq!(end, expected);
        id
    };
    let (first, second) = (wait(1), wait(2));
    let listed = site.get("/v1/devices/A/queue").json();
    let expected = json!({
        "operation_id": first, "resource": "global", "index": "0", "area": "Area", "name": "Echo", "input": 1,
        "created": "2026-01-01T00:00:00.000Z", "expires": "2026-01-01T00:10:00.000Z", "by": "administrator",
    });
    assert_eq!(listed["items"][0], expected);
    assert_eq!((listed["items"].as_array().map(Vec::len), &listed["next"]), (Some(2), &Value::Null));
    let cancel = |id: &str| site.request("DELETE", &format!("/v1/devices/A/queue/{id}"), &site.bearer(), "");
    assert_eq!(cancel(&first).status, 204);
    for unknown in [&*first, "nothing", "00000000-0000-7000-8000-000000000000"] {
        cancel(unknown).problem(404, "unknown-operation");
    }
    connect(&site, &device);
    let ended = |id: &str| -> Option<Value> {
        let log = site.get("/v1/operations?device=A").json();
        log["items"].as_array().expect("a list").iter().find(|entry| entry["queued"] == id).cloned()
    };
    let begun = std::time::Instant::now();
    let done = loop {
        match ended(&second) {
            Some(done) => break done,
            None => assert!(begun.elapsed().as_secs() < 20, "it is never sent"),
        }
    };
    assert_eq!((&done["outcome"], &done["output"]), (&json!("done"), &json!(2)));
    assert_eq!(ended(&first).expect("in the log")["outcome"], "cancelled");
    assert_eq!(site.get("/v1/devices/A/queue").json()["items"], json!([]));
    site.get("/v1/devices/B/queue").problem(404, "unknown-device");
}

#[test]
fn what_cannot_wait_is_refused_with_its_field() {
    let site = Site::new();
    site.add("A");
    for (queue, field) in [
        (json!({"expires_in": 0}), "expires_in"),
        (json!({"expires_in": 86_401}), "expires_in"),
        (json!({"expires_in": "1h"}), "expires_in"),
        (json!({}), "expires_in"),
        (json!({"expires_in": 1, "expires": 1}), "expires"),
        (json!(600), "queue"),
    ] {
        let answer = site.post(&route("Echo"), &json!({"queue": queue}).to_string());
        assert_eq!((answer.status, &answer.json()["field"]), (422, &json!(field)), "{}", answer.body);
    }
    for _ in 0..256 {
        assert_eq!(site.post(&route("Echo"), r#"{"queue":{"expires_in":600}}"#).status, 202);
    }
    site.post(&route("Echo"), r#"{"queue":{"expires_in":600}}"#).problem(503, "queue-full");
}

#[test]
fn a_request_with_a_key_is_carried_out_once() {
    let site = Site::new();
    online(&site, "A");
    let first = post_as(&site, "k1", "Echo", &json!({"input": 1}));
    assert_eq!((first.status, end(&first)), (200, json!({"outcome": "done", "output": 1})));
    let again = post_as(&site, "k1", "Echo", &json!({"input": 1}));
    assert_eq!((again.status, again.json()), (200, first.json()));
    let other = post_as(&site, "k1", "Echo", &json!({"input": 2}));
    assert_eq!(other.problem(422, "key-taken")["field"], "Idempotency-Key");
    assert_ne!(post_as(&site, "k2", "Echo", &json!({"input": 1})).json(), first.json());
    assert_eq!(site.get("/v1/operations").json()["items"].as_array().map(Vec::len), Some(2));
    for wrong in ["", &"x".repeat(256), "a\r\nidempotency-key: b", "ä"] {
        let answer = post_as(&site, wrong, "Echo", &json!({}));
        assert_eq!(answer.problem(422, "invalid-value")["field"], "Idempotency-Key", "{wrong}");
    }
}

#[test]
fn a_key_under_way_is_told_from_one_that_is_done() {
    let site = Site::new();
    online(&site, "A");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| post_as(&site, "k1", "Hold", &json!({})));
        let begun = std::time::Instant::now();
        let reply = loop {
            match HELD.lock().expect("a lock").pop() {
                Some(reply) => break reply,
                None => assert!(begun.elapsed().as_secs() < 20, "it is never sent"),
            }
            std::thread::yield_now();
        };
        post_as(&site, "k1", "Hold", &json!({})).problem(409, "key-under-way");
        assert!(reply.answer(Answer::Done(None)));
        let first = first.join().expect("answered");
        assert_eq!((first.status, end(&first)), (200, json!({"outcome": "done"})));
        assert_eq!(post_as(&site, "k1", "Hold", &json!({})).json(), first.json());
    });
}
