//! Messages that are not what their topics say, and names that no device could hold.

use serde_json::json;

use super::{BODY, Device, Site};

/// One body on a topic of the liar.
struct Lie {
    what: &'static str,
    topic: String,
    body: Vec<u8>,
}

fn lie(what: &'static str, topic: impl Into<String>, body: impl Into<Vec<u8>>) -> Lie {
    Lie { what, topic: topic.into(), body: body.into() }
}

/// Each is acknowledged as if it were good, dropped, counted and shown. Ten in a minute end a session (13.2.5), so that
/// nine come from one device.
#[track_caller]
fn none_is_taken(site: &mut Site, lies: impl Fn(&Device) -> Vec<Lie>) {
    let mut liar = site.liar();
    let lies = lies(&liar);
    assert!(lies.len() < 10, "the tenth would end the session");
    let before = site.dropped("body");
    for (count, Lie { what, topic, body }) in (1..).zip(lies) {
        liar.say(&topic, body);
        assert_eq!(site.dropped("body") - before, f64::from(count), "{what}");
        site.good_goes_on();
    }
    site.shows(&liar, "not_opened");
    let shown = site.platform.device(&liar.serial);
    assert_eq!(shown["presence"]["peer"], liar.das.local().to_string(), "it is not thrown out for nine");
    let attributes = site.platform.http().get(&format!("/v1/devices/{}/attributes", liar.serial)).ok();
    assert_eq!(attributes["items"], json!([]));
    site.only_the_good_one_is_believed();
}

/// A body whose value is nested so deep.
fn nested(depth: usize) -> String {
    format!(r#"{{"data":{{"Value":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn osap_13_2_5_bodies_that_are_no_json_of_their_channel_are_dropped() {
    none_is_taken(&mut Site::start(), |liar| {
        let event = liar.topic("model/event/report/Alarm/Smoke");
        let attribute = liar.topic("model/attribute/report/Light/Power");
        vec![
            lie("invalid UTF-8 in an event", &event, *b"{\"level\":\"\xff\xfe\"}"),
            lie("half a surrogate in UTF-8", &event, *b"{\"level\":\"\xed\xa0\x80\"}"),
            lie("invalid UTF-8 in a name", &event, *b"{\"\xc0\xaf\":1}"),
            lie("invalid UTF-8 in a value", &attribute, *b"{\"data\":{\"Value\":\"\x80\"}}"),
            lie("an event 1,000 deep", &event, format!(r#"{{"a":{}{}}}"#, "[".repeat(1_000), "]".repeat(1_000))),
            lie("a value 1,000 deep", &attribute, nested(1_000)),
            lie("a value without an end", &attribute, format!(r#"{{"data":{{"Value":{}"#, "[".repeat(1_000))),
            lie("two values", &attribute, r#"{"data":{"Value":1}}{"data":{"Value":2}}"#),
            lie("a list for an object", &event, "[{}]"),
        ]
    });
}

#[test]
fn messages_that_pass_through_need_a_media_type_that_is_one() {
    none_is_taken(&mut Site::start(), |liar| {
        let topic = liar.topic("pass/Meter/Serial/report");
        vec![
            lie("nothing", &topic, *b""),
            lie("a length beyond the end", &topic, *b"\x20text/plain"),
            lie("the longest length beyond the end", &topic, *b"\xff"),
            lie("an empty media type", &topic, *b"\0abc"),
            lie("no subtype", &topic, *b"\x04textabc"),
            lie("a line break", &topic, *b"\x0ctext/plain\r\nabc"),
            lie("invalid UTF-8", &topic, *b"\x03t/\xffabc"),
            lie("a parameter without a value", &topic, *b"\x0dtext/plain;a=abc"),
        ]
    });
}

#[test]
fn osap_10_4_xml_of_a_base_command_is_little_and_has_no_entities_of_its_own() {
    none_is_taken(&mut Site::start(), |_| {
        let bomb = "<!DOCTYPE Request [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]>\
                    <Request><DevSerial>&b;</DevSerial></Request>";
        let outside = "<!DOCTYPE Request SYSTEM \"file:///etc/passwd\"><Request><DevSerial>x</DevSerial></Request>";
        let unknown = "<Request><DevSerial>&b;</DevSerial></Request>";
        let deep = format!("<Request>{}{}</Request>", "<a>".repeat(1_000), "</a>".repeat(1_000));
        let wide = format!("<Request>{}</Request>", "<a/>".repeat(1_000));
        let long = format!("<Request><DevSerial>{}</DevSerial></Request>", "x".repeat(8_192));
        vec![
            lie("entities of its own", "/1100/13381", bomb),
            lie("an entity of a file", "/1100/13381", outside),
            lie("an entity nobody knows", "/1100/13381", unknown),
            lie("1,000 elements deep", "/1100/13381", deep),
            lie("1,000 elements wide", "/1100/13381", wide),
            lie("8 KiB", "/1100/13381", long),
            lie("no end", "/1100/10247", "<Request><DevSerial>x"),
            lie("invalid UTF-8", "/1100/10247", *b"<Request><DevSerial>\xff</DevSerial></Request>"),
        ]
    });
}

#[test]
fn a_topic_that_is_not_utf_8_ends_the_connection_alone() {
    let mut site = Site::start();
    let mut liar = site.liar();
    let mut packet = vec![0x32, 0, 0, 8];
    packet.extend_from_slice(b"/iot/\xff\xfe/\0\x01sealed");
    packet[1] = u8::try_from(packet.len() - 2).expect("short");
    liar.das.send(&packet);
    assert_eq!(liar.das.drained(), [] as [Vec<u8>; 0], "no PUBACK (MQTT 1.5.3)");
    site.platform.until_presence(&liar.serial, "offline", "protocol_error");
    site.shows(&liar, "protocol_error");
    let ended = [("listener", "das_legacy"), ("reason", "malformed_packet")];
    assert_eq!(site.platform.metric("vestibule_connections_ended_total", &ended), 1.0);
    site.only_the_good_one_is_believed();
}

#[test]
fn osap_9_7_names_of_31_bytes_go_both_ways_and_longer_ones_neither() {
    let mut site = Site::start();
    let mut liar = site.liar();
    let long = |len: usize| "n".repeat(len);
    let fits = liar.topic(&format!("model/event/report/{}/{}", long(31), long(31)));
    liar.say(&fits, BODY);
    let [stored] = &site.platform.events(Some(&liar.serial))[..] else { panic!("not one event") };
    assert_eq!((&stored["area"], &stored["name"]), (&json!(long(31)), &json!(long(31))));
    for (count, len) in (1..).zip([32, 64, 300, 700]) {
        for (area, name) in [(long(len), long(1)), (long(1), long(len))] {
            liar.say(&liar.topic(&format!("model/event/report/{area}/{name}")), BODY);
        }
        assert_eq!(site.dropped("bad_topic"), f64::from(2 * count), "{len} bytes");
    }
    site.shows(&liar, "bad_topic");
    let report = |name: String| {
        json!({"method": "report", "state": {"reported": {"domain": "A", "identifier": name, "value": 1}}}).to_string()
    };
    let shadow = liar.topic("basic/shadow/report");
    liar.say(&shadow, report(long(31)));
    liar.say(&shadow, report(long(32)));
    assert_eq!(site.dropped("body"), 1.0, "in a body, too");
    assert_eq!(site.platform.events(Some(&liar.serial)).len(), 1);

    // Down: what would damage the memory of a legacy device never leaves.
    let http = site.platform.http();
    let at = |kind: &str, len: usize| format!("/v1/devices/{}/{kind}/Lamp/0/Light/{}", liar.serial, long(len));
    let operation = http.post(&at("operations", 32), &json!({}));
    assert_eq!(operation.status, 422, "{}", operation.body);
    let passed = http.post_as(&at("pass", 32), "text/plain", b"x");
    assert_eq!(passed.status, 422, "{}", passed.body);
    let set = http.put(&at("attributes", 32), &json!({"value": 1})).ok();
    assert_eq!((&set["desired"]["outcome"], &set["desired"]["code"]), (&json!("refused"), &json!(-1)));
    let passed = std::thread::scope(|scope| {
        let passed = scope.spawn(|| http.post_as(&at("pass", 31), "text/plain", b"x").ok());
        let heard = liar.das.heard();
        assert!(heard.topic.ends_with(&format!("/pass/Light/{}/deliver", long(31))), "{heard:?}");
        passed.join().expect("no panic")
    });
    assert_eq!(passed["outcome"], "delivered", "the first and only thing it has heard");
    site.good_is_unharmed();
}
