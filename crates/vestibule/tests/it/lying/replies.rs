//! Answers to what was never asked, and names of others.

use serde_json::{Value, json};

use super::{BODY, Device, Site};
use crate::support::until;

/// Asks a device, has it hear the question, and gives what became of it.
#[track_caller]
fn asked(site: &Site, serial: &str, deadline_ms: u64, answer: impl FnOnce()) -> Value {
    let address = format!("/v1/devices/{serial}/operations/Lamp/0/Light/Blink");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| site.platform.http().post(&address, &json!({"deadline_ms": deadline_ms})).ok());
        answer();
        asked.join().expect("no panic")
    })
}

#[test]
fn osap_13_2_7_what_is_said_in_the_name_of_another_device_is_dropped_counted_shown_and_audited() {
    let mut site = Site::start();
    let mut liar = site.liar();
    let foreign = site.good.topic("model/event/report/Alarm/Smoke");
    let shadow = site.good.topic("basic/shadow/report");
    for topic in [&foreign, &shadow, &foreign] {
        liar.say(topic, BODY);
        site.good_goes_on();
    }
    // A downlink's form, and one of another family.
    for topic in [format!("/{}/1100/13381", site.good.serial), "/oneM2M/req/a/b/json".to_owned()] {
        liar.say(&topic, BODY);
    }
    assert_eq!((site.dropped("foreign_serial"), site.dropped("bad_topic")), (3.0, 2.0));
    site.shows(&liar, "foreign_serial");
    site.shows(&liar, "bad_topic");
    assert_eq!(site.misdeed(&liar, "device.foreign_serial"), json!({ "topic": foreign }));
    assert_eq!(site.misdeeds("device.foreign_serial"), 3.0, "counted each time, written down once");
    site.only_the_good_one_is_believed();
}

#[test]
fn osap_9_8_a_reply_under_another_number_for_another_path_or_of_another_device_answers_nothing() {
    let mut site = Site::start();
    let mut liar = site.liar();
    let serial = liar.serial.clone();
    let end = asked(&site, &serial, 20_000, || {
        let sent = liar.das.heard();
        let reply = liar.topic("model/service/operate_reply/Light/Blink");
        let lie = r#"{"code":0,"data":"a lie"}"#;
        liar.reply(&reply, sent.seq + 1, lie);
        liar.reply(&reply, u64::MAX, lie);
        // The number alone is not enough.
        for rest in [
            "model/service/operate_reply/Light/Other",
            "model/attribute/set_reply/Light/Blink",
            "basic/shadow/set_reply",
        ] {
            let body = if rest.starts_with("basic") { r#"{"payload":{"code":0}}"# } else { lie };
            liar.reply(&liar.topic(rest), sent.seq, body);
        }
        liar.reply(&reply, sent.seq, r#"{"code":0,"data":"the truth"}"#);
        liar.reply(&reply, sent.seq, lie);
    });
    assert_eq!((&end["outcome"], &end["output"]), (&json!("done"), &json!("the truth")));
    assert_eq!(site.dropped("reply_to_nothing"), 6.0);
    site.shows(&liar, "reply_to_nothing");
    let log = site.platform.http().get(&format!("/v1/operations?device={serial}")).ok();
    let [entry] = &log["items"].as_array().expect("a list")[..] else { panic!("{log}") };
    assert_eq!(entry["outcome"], "done");
    site.good_is_unharmed();
}

#[test]
fn osap_9_8_nobody_answers_for_another_device() {
    let mut site = Site::start();
    let mut liar = site.liar();
    let good = site.good.serial.clone();
    let Site { platform, good: device, .. } = &mut site;
    let address = format!("/v1/devices/{good}/operations/Lamp/0/Light/Blink");
    let end = std::thread::scope(|scope| {
        let asked = scope.spawn(|| platform.http().post(&address, &json!({"deadline_ms": 20_000})).ok());
        let sent = device.das.heard();
        let rest = "model/service/operate_reply/Light/Blink";
        for topic in [device.topic(rest), liar.topic(rest)] {
            liar.reply(&topic, sent.seq, r#"{"code":0,"data":"a lie"}"#);
        }
        device.reply(&device.topic(rest), sent.seq, r#"{"code":0,"data":"the truth"}"#);
        asked.join().expect("no panic")
    });
    assert_eq!(end["output"], "the truth");
    assert_eq!((site.dropped("foreign_serial"), site.dropped("reply_to_nothing")), (1.0, 1.0));
    site.good_is_unharmed();
}

#[test]
fn a_reply_that_comes_after_its_deadline_is_late_and_changes_nothing() {
    let mut site = Site::start();
    let mut liar: Device = site.liar();
    let serial = liar.serial.clone();
    let mut seq = 0;
    let end = asked(&site, &serial, 100, || seq = liar.das.heard().seq);
    assert_eq!(end["outcome"], "timed_out");
    liar.reply(&liar.topic("model/service/operate_reply/Light/Blink"), seq, r#"{"code":0}"#);
    // That it came is a record of its own, by the device; the first word stays as it is.
    let log = until("the late answer in the operation log", || {
        let log = site.platform.http().get(&format!("/v1/operations?device={serial}")).ok();
        let items = log["items"].as_array().expect("a list").clone();
        (items.len() > 1).then_some(items)
    });
    let [late, timed_out] = &log[..] else { panic!("{log:?}") };
    assert_eq!((&late["outcome"], &late["by"], &late["code"]), (&json!("late"), &json!("device"), &json!(0)));
    assert_eq!((&timed_out["outcome"], &timed_out["operation_id"]), (&json!("timed_out"), &end["operation_id"]));
    assert_ne!(late["operation_id"], timed_out["operation_id"]);
    assert_eq!(late["name"], timed_out["name"]);
    assert_eq!(site.platform.metric("vestibule_operations_late_total", &[]), 1.0);
    assert_eq!(site.dropped("reply_to_nothing"), 0.0);
    let why = site.platform.why(&serial);
    let facts = why["facts"].as_array().expect("facts");
    let [.., timed_out, late] = &facts[..] else { panic!("{why}") };
    let of = |fact: &Value| (fact["step"].clone(), fact["reason"].clone(), fact["ok"].clone());
    assert_eq!(of(timed_out), (json!("operation"), json!("timed_out"), json!(false)));
    assert_eq!(of(late), (json!("operation"), json!("late_answer"), json!(true)));
    site.good_is_unharmed();
}
