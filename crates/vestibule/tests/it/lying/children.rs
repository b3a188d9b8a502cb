//! Hubs that speak for devices they have no business with, or for more than they may have.

use osap::das::hub::{ChildProof, MAX_CHILDREN};
use osap::{Code, Serial};
use serde_json::{Value, json};

use super::{BODY, CODE, Device, Site};
use crate::support::{QoS, minted};

const EVENT: &str = "model/event/report/Alarm/Smoke";

/// A registered child of this device.
fn child_of(site: &Site, hub: &str) -> String {
    let serial = minted("SUB");
    let parent = site.platform.device(hub)["id"].clone();
    let body = json!({ "serial": serial, "code": CODE, "parent": parent });
    assert_eq!(site.platform.http().post("/v1/devices", &body).status, 201);
    serial
}

impl Device {
    /// Shows the proof of a child, and hears what becomes of it.
    #[track_caller]
    fn proves(&mut self, serial: &str) -> bool {
        let proof = ChildProof::new(&Code::new(CODE).expect("a code"), &Serial::new(serial).expect("a serial"));
        let body = format!(r#"{{"childserial":"{serial}","childverifycode":"{}","devAccessMode":0}}"#, proof.as_str());
        self.seq += 1;
        self.das.publish("/7002/16", self.seq, QoS::AtMostOnce, body);
        let verdict = self.das.heard();
        assert_eq!((verdict.topic, verdict.seq), (format!("/{}/7002/17", self.serial), self.seq));
        let verdict: Value = serde_json::from_slice(&verdict.body).expect("JSON");
        assert_eq!(verdict["childserial"], serial);
        verdict["result"] == 0
    }
}

#[test]
fn osap_13_2_7_a_hub_that_speaks_for_no_child_of_its_own_is_dropped_counted_shown_and_audited() {
    let mut site = Site::start();
    let mut liar = site.liar();
    let others = child_of(&site, &site.good.serial);
    let free = minted("SUB");
    site.platform.add(&free, CODE);
    let nobody = minted("NO");
    for (count, child) in (1..).zip([&others, &free, &nobody]) {
        let topic = liar.topic_of(child, EVENT);
        liar.say(&topic, BODY);
        assert_eq!(site.dropped("unknown_child"), f64::from(count));
        site.good_goes_on();
    }
    // The good hub is itself no child, and neither is the liar.
    let topics = [liar.topic_of(&site.good.serial, EVENT), liar.topic_of(&liar.serial, EVENT)];
    for topic in &topics {
        liar.say(topic, BODY);
    }
    assert_eq!(site.dropped("unknown_child"), 5.0);
    site.shows(&liar, "unknown_child");
    assert_eq!(site.misdeed(&liar, "hub.unknown_child"), json!({ "child": others }));
    assert_eq!(site.misdeeds("hub.unknown_child"), 5.0);
    assert!(!liar.proves(&others), "it knows the code, and the device is behind another hub");
    assert_eq!(site.misdeed(&liar, "hub.child_refused"), json!({"child": others, "reason": "child_elsewhere"}));
    site.shows(&liar, "child_elsewhere");
    for child in [&others, &free] {
        assert_eq!(site.platform.device(child)["presence"]["state"], "never_seen");
    }
    site.only_the_good_one_is_believed();
}

#[test]
fn osap_10_6_a_hub_that_lists_others_children_brings_none_of_them() {
    let mut site = Site::start();
    let mut liar = site.liar();
    let others = child_of(&site, &site.good.serial);
    let entry = format!(r#"{{"connected":1,"childdevid":"{others}"}}"#);
    for command in ["/7002/1", "/7002/3"] {
        liar.seq += 1;
        liar.das.publish(command, liar.seq, QoS::AtMostOnce, format!("[{entry}]"));
        // Answered as always.
        assert_eq!(liar.das.heard().seq, liar.seq);
    }
    assert_eq!((site.dropped("unproven_child"), site.dropped("unknown_child")), (1.0, 1.0));
    site.shows(&liar, "unproven_child");
    assert_eq!(site.platform.device(&others)["presence"]["state"], "never_seen");
    // Bodies that are no such list at all.
    for body in
        ["[{}]", r#"[{"connected":2,"childdevid":"X"}]"#, r#"[{"connected":1,"childdevid":"global"}]"#, "[1]", "7"]
    {
        liar.say("/7002/1", body);
    }
    assert_eq!(site.dropped("body"), 5.0);
    site.only_the_good_one_is_believed();
}

#[test]
fn osap_10_6_a_hub_that_brings_65_children_is_held_to_64() {
    let mut site = Site::start();
    let mut liar = site.liar();
    let children: Vec<String> = (0..=MAX_CHILDREN).map(|_| child_of(&site, &liar.serial)).collect();
    let entries: Vec<String> =
        children.iter().map(|serial| format!(r#"{{"connected":1,"childdevid":"{serial}"}}"#)).collect();
    // A list of so many is none.
    liar.say("/7002/1", format!("[{}]", entries.join(",")));
    assert_eq!(site.dropped("body"), 1.0);
    let address = format!("/v1/devices/{}/children?limit=100", liar.serial);
    let online = || {
        let listed = site.platform.http().get(&address).ok();
        let listed = listed["items"].as_array().expect("a list").clone();
        assert_eq!(listed.len(), MAX_CHILDREN + 1, "registered by an operator, who may");
        listed.iter().filter(|child| child["presence"]["state"] == "online").count()
    };
    assert_eq!(online(), 0);
    for child in &children {
        let topic = liar.topic_of(child, EVENT);
        liar.say(&topic, BODY);
    }
    assert_eq!((online(), site.dropped("too_many_children")), (MAX_CHILDREN, 1.0));
    site.shows(&liar, "too_many_children");
    assert_eq!(site.platform.events(Some(&children[0])).len(), 1);
    assert_eq!(site.platform.events(Some(&children[MAX_CHILDREN])).len(), 0);
    // The last one has its place once another leaves.
    liar.seq += 1;
    liar.das.publish(
        "/7002/3",
        liar.seq,
        QoS::AtMostOnce,
        format!(r#"[{{"connected":0,"childdevid":"{}"}}]"#, children[0]),
    );
    liar.das.heard();
    let topic = liar.topic_of(&children[MAX_CHILDREN], EVENT);
    liar.say(&topic, BODY);
    assert_eq!(site.platform.events(Some(&children[MAX_CHILDREN])).len(), 1);
    site.good_is_unharmed();
}
