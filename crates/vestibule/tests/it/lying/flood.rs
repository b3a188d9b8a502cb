//! Devices that say more than the platform keeps.

use std::fmt::Write as _;

use serde_json::json;

use super::{Device, Site};

/// The most attributes of a device.
const ATTRIBUTES: usize = 4_096;
/// How many different ones a liar reports.
const REPORTED: usize = 1_000_000;
/// By then it has all it can have, and so has what is built up on the way.
const WARM: usize = 50_000;
/// What the process may grow by for the rest, of which it keeps nothing: less than a few words of each would be.
const GROWTH_KIB: u64 = 16 * 1024;
/// What is sent at once.
const BATCH: usize = 64 * 1024;

fn value_body(value: impl serde::Serialize) -> String {
    json!({"data": {"Value": value}}).to_string()
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Device {
    /// Reports all these attributes, half of them named in the topic and half in the body, and waits for the
    /// acknowledgement of what comes last alone: it comes after all of them have been looked at.
    #[track_caller]
    fn flood(&mut self, numbers: std::ops::Range<usize>) {
        let model = self.topic("model/attribute/report/Junk");
        let shadow = self.topic("basic/shadow/report");
        let (mut batch, mut topic, mut body) = (Vec::with_capacity(2 * BATCH), String::new(), String::new());
        for n in numbers {
            self.seq += 1;
            body.clear();
            topic.clear();
            // By hand: so many values take their time.
            let written = match n % 2 {
                0 => write!(topic, "{model}/n{n}").and_then(|()| write!(body, r#"{{"data":{{"Value":{n}}}}}"#)),
                _ => write!(topic, "{shadow}").and_then(|()| {
                    let about = format_args!(r#"{{"domain":"Junk","identifier":"n{n}","value":{n}}}"#);
                    write!(body, r#"{{"method":"report","state":{{"reported":{about}}}}}"#)
                }),
            };
            written.expect("it is text");
            self.das.append(&topic, self.seq, &body, &mut batch);
            if batch.len() >= BATCH {
                self.das.send(&batch);
                batch.clear();
            }
        }
        self.das.send(&batch);
        self.say(&self.topic("model/attribute/report/Light/Power"), value_body(0));
    }
}

#[test]
fn a_million_attributes_of_a_device_are_held_to_4096_and_its_good_ones_stay() {
    let mut site = Site::start();
    let mut liar = site.liar();
    let good = ["Power", "Level", "Colour"];
    for (value, name) in good.iter().enumerate() {
        liar.say(&liar.topic(&format!("model/attribute/report/Light/{name}")), value_body(value));
    }
    site.good_goes_on();
    liar.flood(0..WARM);
    site.good_goes_on();
    let before = site.platform.resident_kib();
    liar.flood(WARM..REPORTED);
    site.good_goes_on();
    assert_eq!(site.dropped("report_too_many_attributes"), (good.len() + REPORTED - ATTRIBUTES) as f64);
    site.shows(&liar, "report_too_many_attributes");
    let grown = site.platform.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB more for what is refused");

    let base = format!("/v1/devices/{}/attributes", liar.serial);
    let (mut shown, mut cursor) = (0, String::new());
    loop {
        let page = site.platform.http().get(&format!("{base}?limit=1000{cursor}")).ok();
        shown += page["items"].as_array().expect("a list").len();
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", percent_encoded(next)),
            None => break,
        }
    }
    assert_eq!(shown, ATTRIBUTES);
    // The attributes it has go on; there is no room for another, and what is wished for one is refused.
    liar.say(&liar.topic("model/attribute/report/Light/Power"), value_body(json!({"on": true})));
    let power = site.platform.http().get(&format!("{base}/Lamp/0/Light/Power")).ok();
    assert_eq!(power["reported"]["value"], json!({"on": true}));
    for (value, name) in good.iter().enumerate().skip(1) {
        let kept = site.platform.http().get(&format!("{base}/Lamp/0/Light/{name}")).ok();
        assert_eq!(kept["reported"]["value"], value);
    }
    assert_eq!(site.platform.http().get(&format!("{base}/Lamp/0/Junk/n9999")).status, 404);
    let wish = site.platform.http().put(&format!("{base}/Lamp/0/Light/Another"), &json!({"value": 1}));
    assert!((400..500).contains(&wish.status), "{}: {}", wish.status, wish.body);
    site.good_is_unharmed();
}

#[test]
fn bodies_of_64_kib_are_taken_and_a_byte_more_is_not() {
    let mut site = Site::start();
    let mut liar = site.liar();
    let topic = liar.topic("model/attribute/report/Light/Power");
    let shell = r#"{"data":{"Value":""}}"#.len();
    let of_body = |len: usize| value_body("x".repeat(len - shell));
    liar.say(&topic, of_body(64 * 1024));
    let address = format!("/v1/devices/{}/attributes/Lamp/0/Light/Power", liar.serial);
    let kept = |site: &Site| site.platform.http().get(&address).ok()["reported"]["value"].as_str().map(str::len);
    assert_eq!(kept(&site), Some(64 * 1024 - shell));
    liar.say(&topic, of_body(64 * 1024 + 1));
    assert_eq!(site.dropped("body"), 1.0);
    site.shows(&liar, "not_opened");
    liar.say(&liar.topic("model/event/report/Alarm/Smoke"), json!({"a": "x".repeat(64 * 1024)}).to_string());
    let shadow = json!({"domain": "Light", "identifier": "Power", "value": "x".repeat(64 * 1024)});
    let shadow = json!({"method": "report", "state": {"reported": shadow}}).to_string();
    liar.say(&liar.topic("basic/shadow/report"), shadow);
    liar.say(&liar.topic("pass/Meter/Serial/report"), [&b"\x03a/b"[..], &vec![0; 64 * 1024]].concat());
    assert_eq!(site.dropped("body"), 4.0);
    assert_eq!(kept(&site), Some(64 * 1024 - shell), "what it had stays");
    // What is wished has its limit, too, and so has what passes through.
    let wish = site.platform.http().put(&address, &json!({"value": "x".repeat(64 * 1024 - 1)}));
    assert_eq!(wish.status, 422, "{}", wish.body);
    let passed = format!("/v1/devices/{}/pass/Lamp/0/Meter/Serial", liar.serial);
    let passed = site.platform.http().post_as(&passed, "a/b", &vec![0; 64 * 1024 + 1]);
    assert_eq!(passed.status, 413, "{}", passed.body);
    site.only_the_good_one_is_believed();
}

#[test]
fn a_packet_beyond_the_limit_of_the_listener_ends_the_connection_alone() {
    let mut site = Site::start();
    let mut liar = site.liar();
    // Known from the fixed header: nothing of it is waited for.
    liar.das.send(&[0x32, 0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(liar.das.drained(), [] as [Vec<u8>; 0]);
    site.platform.until_presence(&liar.serial, "offline", "protocol_error");
    site.shows(&liar, "protocol_error");
    let labels = [("listener", "das_legacy"), ("reason", "malformed_packet")];
    assert_eq!(site.platform.metric("vestibule_connections_ended_total", &labels), 1.0);
    site.only_the_good_one_is_believed();
}
