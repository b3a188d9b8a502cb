//! The event stream: nothing missed, nothing twice, and it ends.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use vestibule_api::ApiConfig;
use vestibule_platform::{
    Connection, Device, DeviceLink, DevicePath, NotSent, Operate, Position, RecordKind, Report, SetAttribute,
};

use crate::site::{NOW, Site};

/// A client of the stream.
struct Client {
    lines: BufReader<TcpStream>,
}

#[derive(Debug, Default, PartialEq)]
struct Message {
    kind: String,
    id: Option<i64>,
    data: Value,
}

impl Client {
    fn open(site: &Site, query: &str, last: Option<i64>) -> Client {
        Client::of(site, &format!("/v1/events/stream{query}"), last)
    }

    fn of(site: &Site, path: &str, last: Option<i64>) -> Client {
        let mut stream = site.connect();
        let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        // HTTP/1.0, so that the body comes without chunks and a line is a line.
        let head = format!("GET {path} HTTP/1.0\r\nhost: x\r\n{}{last}\r\n", site.bearer());
        stream.write_all(head.as_bytes()).expect("sent");
        let mut client = Client { lines: BufReader::new(stream) };
        assert!(client.line().starts_with("HTTP/1.0 200"));
        let mut kind = String::new();
        loop {
            match client.line().as_str() {
                "" => break,
                line => kind.push_str(&format!("{line}\n")),
            }
        }
        assert!(kind.contains("content-type: text/event-stream"), "{kind}");
        client
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.lines.read_line(&mut line).expect("a line in time"), 0, "the stream ended");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// The next message with data.
    fn next(&mut self) -> Message {
        let mut message = Message::default();
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("event", kind)) => message.kind = kind.to_owned(),
                Some(("id", id)) => message.id = id.parse().ok(),
                Some(("data", data)) => message.data = serde_json::from_str(data).expect("JSON"),
                _ if line.is_empty() && message.data != Value::Null => return message,
                _ if line.is_empty() => message = Message::default(),
                _ => {}
            }
        }
    }
}

struct NoLink;

impl DeviceLink for NoLink {
    fn close(&self, _: &'static str) {}

    fn operate(&self, _: Operate<'_>) -> Result<(), NotSent> {
        Err(NotSent::Ending)
    }

    fn set(&self, _: SetAttribute<'_>) -> Result<(), NotSent> {
        Err(NotSent::Ending)
    }
}

fn connection() -> Connection {
    let peer = SocketAddr::from(([192, 0, 2, 7], 5_000));
    Connection { suite: "legacy", confidential: false, peer, link: Arc::new(NoLink) }
}

#[test]
fn a_client_that_comes_and_goes_misses_nothing_and_gets_nothing_twice() {
    const EVENTS: i64 = 3_000;
    let site = Site::new();
    let device = site.add("A");
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=EVENTS {
                let position = site.append(&device, "Fire", "Smoke", Some(&format!("e{n}")), NOW, &n.to_string());
                if n % 10 == 0 {
                    site.durable(position);
                }
            }
        });
        let (mut last, mut visit) = (0, 0);
        while (got.len() as i64) < EVENTS {
            let mut client = Client::open(&site, "", Some(last));
            visit += 1;
            for _ in 0..(visit * 37) % 400 + 1 {
                let message = client.next();
                assert_eq!(message.kind, "event");
                assert_eq!(message.data["position"].as_i64(), message.id);
                last = message.id.expect("a position");
                got.push(message.data["id"].as_str().expect("an id").to_owned());
                if got.len() as i64 == EVENTS {
                    break;
                }
            }
        }
    });
    let set: BTreeSet<String> = got.iter().cloned().collect();
    assert_eq!(set.len(), got.len(), "nothing twice");
    assert_eq!(set, (1..=EVENTS).map(|n| format!("e{n}")).collect());
}

#[test]
fn the_stream_begins_where_it_is_told() {
    let site = Site::new();
    let device = site.add("A");
    let report = |name: &str, n: i64| site.append(&device, "Fire", name, None, NOW, &n.to_string());
    site.durable((1..=3).fold(Position::START, |_, n| report("Smoke", n)));
    let mut now = Client::open(&site, "", None);
    let mut after = Client::open(&site, "?after=1", None);
    let mut both = Client::open(&site, "?after=1", Some(2));
    let mut heat = Client::open(&site, "?type=Heat&area=Fire&device=A", None);
    report("Smoke", 4);
    report("Heat", 5);
    for (client, positions) in
        [(&mut now, &[4, 5][..]), (&mut after, &[2, 3, 4, 5]), (&mut both, &[3, 4, 5]), (&mut heat, &[5])]
    {
        for position in positions {
            let message = client.next();
            assert_eq!((message.id, message.data["data"].as_i64()), (Some(*position), Some(*position)));
        }
    }
}

#[test]
fn a_stream_says_at_once_where_it_begins() {
    let site = Site::new();
    let device = site.add("A");
    site.durable(site.append(&device, "Fire", "Smoke", None, NOW, "1"));
    for (query, last, id) in [("", None, 1), ("?after=0", None, 0), ("?after=1", Some(0), 0)] {
        let mut client = Client::open(&site, query, last);
        assert_eq!(
            (client.line(), client.line(), client.line()),
            ("retry: 2000".into(), format!("id: {id}"), "".into())
        );
    }
}

#[test]
fn a_position_that_never_was_is_a_lag() {
    let site = Site::new();
    let device = site.add("A");
    site.durable(site.append(&device, "Fire", "Smoke", None, NOW, "1"));
    let mut client = Client::open(&site, "", Some(1_000));
    let lagged = client.next();
    assert_eq!((lagged.kind.as_str(), lagged.id, &lagged.data), ("lagged", Some(1), &serde_json::json!({"resume": 1})));
    site.append(&device, "Fire", "Smoke", None, NOW, "2");
    assert_eq!(client.next().id, Some(2));
}

#[test]
fn presence_is_told_as_it_changes() {
    let site = Site::new();
    let (a, b) = (site.add("A"), site.add("B"));
    let mut all = Client::open(&site, "", None);
    let mut only = Client::open(&site, "?device=B", None);
    let id = site.platform.connected(&a, connection());
    let message = all.next();
    assert_eq!((message.kind.as_str(), message.id), ("presence", None));
    let shown = message.data;
    assert_eq!(
        (&shown["serial"], &shown["presence"]["state"], &shown["suite"], &shown["security"], &shown["confidential"]),
        (&"A".into(), &"online".into(), &"legacy".into(), &"legacy, not confidential".into(), &false.into())
    );
    assert_eq!(shown["presence"]["peer"], "192.0.2.7:5000");
    site.platform.disconnected(&a, id, "keep_alive_timeout");
    assert_eq!(all.next().data["presence"]["reason"], "keep_alive_timeout");
    site.platform.connected(&b, connection());
    assert_eq!(only.next().data["serial"], "B");
}

#[test]
fn changes_of_presence_do_not_keep_events_back() {
    let site = Site::new();
    let (device, restless) = (site.add("A"), site.add("B"));
    // More than the journal has in memory, so that the stream reads files while presence changes all the time.
    site.durable(
        (1..=6_000).fold(Position::START, |_, n| site.append(&device, "Fire", "Smoke", None, NOW, &n.to_string())),
    );
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Not for ever, so that a failure of the other side ends the test as well.
            let began = std::time::Instant::now();
            while !over.load(std::sync::atomic::Ordering::Relaxed) && began.elapsed() < Duration::from_secs(60) {
                let id = site.platform.connected(&restless, connection());
                site.platform.disconnected(&restless, id, "closed");
            }
        });
        let mut client = Client::open(&site, "", Some(1));
        let mut events = 0;
        for _ in 0..20_000 {
            events += usize::from(client.next().kind == "event");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(events > 0);
    });
}

#[test]
fn line_breaks_in_a_devices_json_do_not_break_the_message() {
    let site = Site::new();
    let device = site.add("A");
    let mut client = Client::open(&site, "", None);
    site.append(&device, "Fire", "Smoke", None, NOW, "{\n\"a\":\r\n\"event: presence\\n\"\n}");
    assert_eq!(client.next().data["data"], serde_json::json!({"a": "event: presence\n"}));
}

#[test]
fn a_quiet_stream_says_that_it_is_alive() {
    let site = Site::with(ApiConfig { keep_alive: Duration::from_millis(50), ..ApiConfig::default() });
    let mut client = Client::open(&site, "", None);
    let mut comments = 0;
    while comments < 3 {
        comments += usize::from(client.line().starts_with(": "));
    }
}

#[test]
fn streams_over_the_limit_are_refused_until_one_ends() {
    let site = Site::with(ApiConfig { max_streams: 1, ..ApiConfig::default() });
    let held = Client::open(&site, "", None);
    let refused = site.get("/v1/events/stream");
    refused.problem(503, "too-many-streams");
    assert_eq!(refused.header("retry-after"), Some("5"));
    drop(held);
    let began = std::time::Instant::now();
    let head = format!("GET /v1/events/stream HTTP/1.1\r\nhost: x\r\n{}\r\n", site.bearer());
    loop {
        let mut next = site.connect();
        next.write_all(head.as_bytes()).expect("sent");
        let mut status = [0; 12];
        next.read_exact(&mut status).expect("answered");
        if &status == b"HTTP/1.1 200" {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "the place is free again");
    }
}

#[test]
fn streams_end_at_shutdown() {
    let mut site = Site::new();
    let mut client = Client::open(&site, "", None);
    let began = std::time::Instant::now();
    site.stop();
    assert!(began.elapsed() < Duration::from_secs(4), "the server did not have to cut the stream");
    let mut rest = String::new();
    client.lines.read_to_string(&mut rest).expect("an orderly end");
}

#[test]
fn attributes_are_followed_without_presence_and_taken_up_again() {
    let site = Site::new();
    let (device, other) = (site.add("A"), site.add("B"));
    let report = |device: &Arc<Device>, area: &str, name: &str, data: &str| {
        let path = DevicePath { resource: "Lamp".into(), index: "0".into(), area: area.into(), name: name.into() };
        let report = Report { kind: RecordKind::Attribute, path: Arc::new(path), id: None, time: Some(NOW), data };
        site.durable(site.platform.report(device, report).expect("taken"));
    };
    let mut all = Client::of(&site, "/v1/attributes/stream", None);
    let mut one = Client::of(&site, "/v1/attributes/stream?device=A&area=Light&name=Level", None);
    site.platform.connected(&device, connection());
    site.durable(site.append(&device, "Light", "Level", None, NOW, "0"));
    report(&device, "Light", "Power", "true");
    report(&other, "Light", "Level", "1");
    report(&device, "Heat", "Level", "2");
    report(&device, "Light", "Level", "2.50");
    let first = all.next();
    let expected = json!({
        "position": first.id, "device": {"id": device.id.to_string(), "serial": "A"}, "resource": "Lamp", "index": "0",
        "area": "Light", "name": "Power", "time": "2026-01-01T00:00:00.000Z", "received": "2026-01-01T00:00:00.000Z",
        "value": true, "flags": [],
    });
    assert_eq!((first.kind.as_str(), first.data), ("attribute", expected));
    assert_eq!([all.next().data["value"].clone(), all.next().data["value"].clone()], [json!(1), json!(2)]);
    assert_eq!(one.next().data["value"], json!(2.5));
    let mut again = Client::of(&site, "/v1/attributes/stream?device=A", first.id);
    assert_eq!([again.next().data["value"].clone(), again.next().data["value"].clone()], [json!(2), json!(2.5)]);
    site.get("/v1/attributes/stream?type=Level").problem(422, "unknown-field");
}
