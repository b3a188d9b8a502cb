//! Messages passed through over HTTP, with a device that takes them as their names say.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use vestibule_platform::{
    Answer, Connection, Device, DeviceLink, DevicePath, NotSent, Operate, PassMessage, SetAttribute,
};

use crate::site::Site;

struct Relay;

impl DeviceLink for Relay {
    fn close(&self, _: &'static str) {}

    fn operate(&self, _: Operate<'_>) -> Result<(), NotSent> {
        Err(NotSent::Unsupported)
    }

    fn set(&self, _: SetAttribute<'_>) -> Result<(), NotSent> {
        Err(NotSent::Unsupported)
    }

    fn pass(&self, message: PassMessage<'_>) -> Result<(), NotSent> {
        match &*message.path.name {
            "Take" => assert!(message.reply.answer(Answer::Done(None))),
            "Lose" => drop(message.reply),
            "Busy" => return Err(NotSent::Busy),
            "Large" => return Err(NotSent::TooLarge),
            "Leave" => return Err(NotSent::Ending),
            "Strange" => return Err(NotSent::Unacceptable("is in no format that the device reads")),
            "Foreign" => return Err(NotSent::Unsupported),
            _ => return Err(NotSent::NotAddressable("is unknown")),
        }
        Ok(())
    }
}

fn online(site: &Site) -> Arc<Device> {
    let device = site.add("A");
    let peer = SocketAddr::from(([192, 0, 2, 7], 5_000));
    let connection = Connection { suite: "legacy", confidential: false, peer, link: Arc::new(Relay) };
    site.platform.connected(&device, connection);
    device
}

fn send(site: &Site, name: &str, query: &str, media_type: Option<&str>, body: &[u8]) -> crate::site::Answer {
    let kind = media_type.map(|kind| format!("content-type: {kind}\r\n")).unwrap_or_default();
    let head = format!(
        "POST /v1/devices/A/pass/Meter/0/Raw/{name}{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}{kind}\
         content-length: {}\r\n\r\n",
        site.bearer(),
        body.len()
    );
    site.raw(&[head.as_bytes(), body].concat())
}

const BYTES: Option<&str> = Some("application/octet-stream");

#[test]
fn the_answer_says_what_became_of_a_message() {
    let site = Site::new();
    online(&site);
    for (name, media_type, outcome) in [
        ("Take", BYTES, "delivered"),
        ("Take", Some("application/json"), "delivered"),
        ("Take", Some("text/xml; charset=utf-8"), "delivered"),
        ("Lose", BYTES, "unknown"),
        ("Leave", BYTES, "offline"),
    ] {
        let answer = send(&site, name, "?deadline_ms=25000", media_type, b"\x00\xff");
        assert_eq!((answer.status, answer.json()), (200, json!({"outcome": outcome})), "{name} {media_type:?}");
    }
}

#[test]
fn what_cannot_be_passed_is_a_problem() {
    let site = Site::new();
    online(&site);
    send(&site, "Busy", "", BYTES, b"x").problem(503, "device-busy");
    send(&site, "Foreign", "", BYTES, b"x").problem(422, "unsupported");
    assert_eq!(send(&site, "Other", "", BYTES, b"x").problem(422, "invalid-value")["field"], "path");
    assert_eq!(send(&site, "Strange", "", BYTES, b"x").problem(422, "invalid-value")["field"], "body");
    assert_eq!(send(&site, "Large", "", BYTES, b"x").problem(413, "body-too-large")["field"], "body");
    assert_eq!(send(&site, "Take", "", BYTES, &[0; 65_537]).problem(413, "body-too-large")["field"], "body");
    send(&site, "Take", "", None, b"x").problem(415, "unsupported-media-type");
    assert_eq!(send(&site, "Take", "", Some("bytes"), b"x").problem(422, "invalid-value")["field"], "Content-Type");
    for deadline in ["99", "25001", "soon"] {
        let answer = send(&site, "Take", &format!("?deadline_ms={deadline}"), BYTES, b"x");
        assert_eq!((answer.status, &answer.json()["field"]), (422, &json!("deadline_ms")));
    }
    assert_eq!(send(&site, "Take", "", BYTES, &[0; 65_536]).status, 200);
    // What is not JSON is let through here and nowhere else.
    let headers = format!("{}content-type: application/octet-stream\r\n", site.bearer());
    site.request("POST", "/v1/devices", &headers, "{}").problem(415, "unsupported-media-type");
}

#[test]
fn messages_of_both_directions_are_listed_and_followed() {
    let site = Site::new();
    let device = online(&site);
    let mut stream = site.connect();
    let head = format!("GET /v1/pass/stream?device=A&after=0 HTTP/1.0\r\nhost: x\r\n{}\r\n", site.bearer());
    stream.write_all(head.as_bytes()).expect("sent");
    let path = |name: &str| {
        let level = |text: &str| text.into();
        Arc::new(DevicePath { resource: level("Meter"), index: level("0"), area: level("Raw"), name: level(name) })
    };
    let position = site.wait(async { site.platform.passed(&device, &path("Up"), "text/plain", b"\x00up") });
    site.durable(position.expect("taken"));
    assert_eq!(send(&site, "Take", "", BYTES, b"\xffdown").status, 200);

    let page = site.get("/v1/pass?device=A&limit=1").json();
    let now = "2026-01-01T00:00:00.000Z";
    let down = json!({
        "position": 2, "device": {"id": device.id.to_string(), "serial": "A"}, "resource": "Meter", "index": "0",
        "area": "Raw", "name": "Take", "time": now, "direction": "down", "media_type": "application/octet-stream",
        "bytes": 5, "base64": "/2Rvd24=", "by": "administrator", "outcome": "delivered",
    });
    assert_eq!(page["items"], json!([down]));
    let rest = site.get(&format!("/v1/pass?limit=1&cursor={}", page["next"].as_str().expect("more"))).json();
    let up = json!({
        "position": 1, "device": {"id": device.id.to_string(), "serial": "A"}, "resource": "Meter", "index": "0",
        "area": "Raw", "name": "Up", "time": now, "direction": "up", "media_type": "text/plain", "bytes": 3,
        "base64": "AHVw",
    });
    assert_eq!(rest, json!({"items": [up], "next": null}));
    assert_eq!(site.get("/v1/events").json()["items"], json!([]), "a message is no event");

    let followed: Vec<Value> = BufReader::new(stream)
        .lines()
        .map(|line| line.expect("a line in time"))
        .filter_map(|line| line.strip_prefix("data: ").map(|data| serde_json::from_str(data).expect("JSON")))
        .take(2)
        .collect();
    assert_eq!(followed, [up, down]);
    site.get("/v1/pass?device=B").problem(404, "unknown-device");
}
