//! What the platform says to applications over MQTT, and what they ask of it, with clients none of us wrote.

use std::collections::HashSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::mqtt::client;
use crate::support::{Listener, Load, Platform, Program, SecondDevice, minted, until};

const CODE: &str = "ABCDEF";

/// A subscriber that tells topics.
fn listener(platform: &Platform, password: &str, filters: &[&str]) -> Program {
    let filters: Vec<&str> = filters.iter().flat_map(|filter| ["-t", filter]).collect();
    client("mosquitto_sub", platform, password, &[&["-d", "-v", "-q", "1"], &filters[..]].concat())
}

/// The same once its subscriptions are in force. What the case is at first may have been said by then (MQTT 3.1.1, 3.8.4).
fn subscriber(platform: &Platform, password: &str, filters: &[&str]) -> Program {
    let mut program = listener(platform, password, filters);
    program.line_with("Subscribed (mid:");
    program
}

/// The next message on a topic that begins like this: the rest of its topic, and what it says.
fn hears(subscriber: &mut Program, begin: &str) -> (String, Value) {
    loop {
        // What the client says of itself names topics, too.
        let line = subscriber.line_with(begin);
        if let Some((topic, said)) = line.strip_prefix(begin).and_then(|line| line.split_once(' ')) {
            return (topic.to_owned(), serde_json::from_str(said).expect("JSON"));
        }
    }
}

fn token(platform: &Platform, arguments: &[&str]) -> String {
    let made = platform.cli(&[&["token", "add", "--json"], arguments].concat()).expect(0).json();
    made["token"].as_str().expect("a secret").to_owned()
}

/// A request and its reply, on a connection of its own.
fn asks(platform: &Platform, password: &str, path: &str, body: &Value) -> Value {
    let (topic, body) = (format!("/v1/requests/r-1/devices/{path}"), body.to_string());
    let arguments = ["-q", "1", "-t", &topic, "-e", "/v1/replies/r-1", "-m", &body, "-W", "20"];
    let done = client("mosquitto_rr", platform, password, &arguments).finish().expect(0);
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[test]
fn events_attributes_and_presence_reach_who_listens() {
    let platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let topics = format!("/v1/devices/{serial}/");
    let mut heard = listener(&platform, &platform.token(), &[&format!("{topics}#")]);
    let (topic, device) = hears(&mut heard, &topics);
    assert_eq!(
        (&*topic, &device["presence"]["state"]),
        ("presence", &json!("never_seen")),
        "what is the case at first"
    );

    let event = json!({"level": 3}).to_string();
    let flags = ["--event", &event, "--path", "Lamp/0/Alarm/Smoke", "--attribute", "Lamp/0/Light/Power=false"];
    SecondDevice::run(&platform, &serial, CODE, &flags).happened();
    let (mut event, mut attribute, mut states) = (Value::Null, Value::Null, Vec::new());
    while states.last() != Some(&json!("offline")) {
        let (topic, said) = hears(&mut heard, &topics);
        match &*topic {
            "presence" => states.push(said["presence"]["state"].clone()),
            "events/Lamp/0/Alarm/Smoke" => event = said,
            "attributes/Lamp/0/Light/Power" => attribute = said,
            other => panic!("{other}: {said}"),
        }
    }
    assert!(states.contains(&json!("online")), "{states:?}");
    assert_eq!(event, platform.events(Some(&serial))[0], "as over HTTP");
    assert_eq!((&attribute["value"], &attribute["device"]["serial"]), (&json!(false), &json!(serial)));

    platform.cli(&["device", "remove", &serial]).expect(0);
    let (topic, gone) = hears(&mut heard, &topics);
    assert_eq!((&*topic, &gone["serial"]), ("removed", &json!(serial)));
    heard.kill();
}

#[test]
fn an_application_asks_as_over_http_and_hears_its_own_replies_only() {
    let platform = Platform::start();
    let (serial, token) = (minted("SN"), platform.token());
    platform.add(&serial, CODE);
    let flags = ["--answer", "echo", "--attribute", "Lamp/0/Light/Power=false", "--hold", "60"];
    let mut device = SecondDevice::start(&platform, &serial, CODE, &flags);
    device.until("ping");
    let mut other = subscriber(&platform, &token, &["/v1/replies/#", "/v1/devices/+/attributes/#"]);

    let ask = |path: &str, body: Value| asks(&platform, &token, &format!("{serial}/{path}"), &body);
    let done = ask("operations/Lamp/0/Light/Blink", json!({"input": {"count": 3}}));
    assert_eq!((&done["status"], &done["body"]["outcome"]), (&json!(200), &json!("done")), "{done}");
    assert_eq!(done["body"]["output"], json!({"count": 3}));
    let set = ask("attributes/Lamp/0/Light/Power", json!({"value": true}));
    assert_eq!((&set["status"], &set["body"]["desired"]["outcome"]), (&json!(200), &json!("applied")), "{set}");
    for (path, body, status, kind) in [
        ("operations/Lamp/0/Light/Blink", json!({"inputs": 1}), 422, "/problems/unknown-field"),
        ("attributes/Lamp/0/Light/Power", json!({}), 422, "/problems/missing-field"),
        ("attributes/Lamp/0/Light/Power", json!("x"), 422, "/problems/wrong-type"),
    ] {
        let refused = ask(path, body);
        assert_eq!(refused["body"]["type"], kind, "{refused}");
        assert_eq!(refused["status"], status, "{refused}");
    }
    let nobody = asks(&platform, &token, "SN-NOBODY/operations/Lamp/0/Light/Blink", &json!({}));
    assert_eq!((&nobody["status"], &nobody["body"]["type"]), (&json!(404), &json!("/problems/unknown-device")));
    let log = platform.http().get(&format!("/v1/operations?device={serial}")).ok();
    assert_eq!(log["items"][0]["by"], "administrator");
    // The first thing the other one hears is what the device reported, and none of the replies before it.
    let (first, said) = hears(&mut other, "/v1/");
    assert_eq!(first, format!("devices/{serial}/attributes/Lamp/0/Light/Power"), "{said}");
    other.kill();
    device.kill();
}

#[test]
fn who_is_bound_to_a_part_hears_and_asks_no_more_than_over_http() {
    let platform = Platform::start();
    let add = |serial: &str, org: &str| {
        let device = json!({"serial": serial, "code": CODE, "org": org});
        platform.http().post("/v1/devices", &device).ok();
    };
    let (near, far) = (minted("NEAR"), minted("FAR"));
    add(&near, "/hall");
    add(&far, "/attic");
    let viewer = token(&platform, &["v", "--role", "viewer", "--subtree", "/hall"]);
    let mut heard = subscriber(&platform, &viewer, &["#"]);
    let event = json!({"level": 3}).to_string();
    let flags = ["--event", &event, "--path", "Lamp/0/Alarm/Smoke"];
    SecondDevice::run(&platform, &far, CODE, &flags).happened();
    SecondDevice::run(&platform, &near, CODE, &flags).happened();
    let mut topics = Vec::new();
    while !topics.last().is_some_and(|topic: &String| topic.contains("/events/")) {
        topics.push(hears(&mut heard, "/v1/").0);
    }
    assert!(topics.iter().all(|topic| topic.starts_with(&format!("devices/{near}/"))), "{topics:?}");
    let body = json!({"input": null});
    for (serial, status) in [(&near, 403), (&far, 403)] {
        let refused = asks(&platform, &viewer, &format!("{serial}/operations/Lamp/0/Light/Blink"), &body);
        assert_eq!(refused["status"], status, "{refused}");
    }
    let operator = token(&platform, &["o", "--role", "operator", "--subtree", "/hall"]);
    for (serial, status) in [(&near, 200), (&far, 404)] {
        let answer = asks(&platform, &operator, &format!("{serial}/operations/Lamp/0/Light/Blink"), &body);
        assert_eq!(answer["status"], status, "{answer}");
    }
    // Moved out of sight, it is gone.
    let moved = json!({"org": "/attic"}).to_string();
    let patch = ["-sS", "-f", "-X", "PATCH", "-H", "Content-Type: application/merge-patch+json", "-d", &moved];
    let (bearer, url) = (format!("Authorization: Bearer {}", platform.token()), platform.url());
    let url = format!("{url}/v1/devices/{near}");
    let mut curl = Command::new("curl");
    curl.args(patch).args(["-H", &bearer, &url]);
    Program::of(curl).finish().expect(0);
    let (_, gone) = hears(&mut heard, &format!("/v1/devices/{near}/removed"));
    assert_eq!(gone["serial"], json!(near));
    platform.cli(&["token", "remove", "v"]).expect(0);
    let ended = [("listener", "mqtt"), ("reason", "rights_ended")];
    until("its connection ends", || {
        (platform.metric("vestibule_connections_ended_total", &ended) == 1.0).then_some(())
    });
    heard.kill();
}

#[test]
fn a_user_comes_in_with_name_and_password_for_as_long_as_the_connection_lasts() {
    let platform = Platform::start();
    let user = json!({"name": "anna", "password": "correct horse", "role": "operator"});
    platform.http().post("/v1/users", &user).ok();
    let connect = |name: &str, password: &str, more: &[&str]| {
        let address = platform.address(Listener::Mqtt);
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub", "-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.args(["-V", "311", "-u", name, "-P", password, "-t", "/v1/devices/+/presence"]).args(more);
        Program::of(command)
    };
    for (name, password) in [("anna", "wrong horse"), ("nobody", "correct horse")] {
        let done = connect(name, password, &["-W", "20"]).finish();
        assert_eq!(done.code, Some(5), "not authorised: {done:?}");
    }
    let sessions = || {
        let audit = platform.http().get("/v1/audit?limit=100").ok();
        let items = audit["items"].as_array().expect("a list").clone();
        let count = |action: &str| items.iter().filter(|item| item["action"] == action).count();
        (count("session.add"), count("session.remove"), count("session.refused"))
    };
    let mut heard = connect("anna", "correct horse", &["-d"]);
    heard.line_with("Subscribed (mid:");
    assert_eq!(sessions().0, 1);
    heard.kill();
    until("she is logged out", || (sessions() == (1, 1, 1)).then_some(()));
    let mut heard = connect("anna", "correct horse", &["-d"]);
    heard.line_with("Subscribed (mid:");
    platform.cli(&["user", "remove", "anna"]).expect(0);
    let ended = [("listener", "mqtt"), ("reason", "rights_ended")];
    until("her connection ends", || {
        (platform.metric("vestibule_connections_ended_total", &ended) == 1.0).then_some(())
    });
    heard.kill();
}

#[test]
fn an_application_that_stands_still_for_a_while_misses_nothing() {
    const EVENTS: usize = 6_000;
    // Two messages wait for it at most: everything else has to come from the journal.
    let limits = [("VESTIBULE_MQTT__MAX_FRAME_BYTES", "1KiB"), ("VESTIBULE_MQTT__MAX_QUEUE_BYTES", "1KiB")];
    let platform = Platform::with_environment(&limits);
    let token = platform.token();
    let mut heard = client("mosquitto_sub", &platform, &token, &["-d", "-q", "1", "-t", "/v1/devices/+/events/#"]);
    heard.line_with("Subscribed (mid:");
    heard.stop();
    let load = Load::start(&platform, 4);
    load.acknowledges(EVENTS);
    heard.resume();
    let sent = load.finish();
    let (mut positions, mut ids) = (Vec::new(), HashSet::new());
    while ids.len() < sent.len() {
        let line = heard.line_with("{");
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        positions.push(event["position"].as_i64().expect("a position"));
        ids.insert(event["id"].as_str().expect("an id").to_owned());
    }
    assert!(positions.is_sorted_by(|before, after| before < after), "in order, and none twice");
    assert_eq!(ids, sent);
    heard.kill();
}
