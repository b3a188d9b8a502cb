//! What the real 2.0.x client sent (osap-wire 12.5) against LBS and DAS: byte for byte, in the writes it makes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use osap::Random;
use osap::lbs::DasInfo;
use vestibule_access::{Assignment, RandomSource};
use vestibule_broker::codec::encode;
use vestibule_platform::{Flags, PresenceState};

use crate::device::Wire;
use crate::mqtt::Mqtt;
use crate::site::{Plan, SERIAL, Site};

/// The bytes of a named vector.
fn vector(name: &str) -> Vec<u8> {
    let hex = include_str!("../../../osap/tests/vectors/legacy.txt")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(found, hex)| (found == name).then_some(hex))
        .unwrap_or_else(|| panic!("there is no vector {name}"));
    unhex(hex.trim())
}

fn unhex(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal"))
        .collect()
}

/// Hands out what was recorded, and nothing more.
struct Tape(Vec<u8>);

impl Random for Tape {
    fn fill(&mut self, out: &mut [u8]) {
        assert!(out.len() <= self.0.len(), "more was drawn than the record decides");
        out.copy_from_slice(&self.0[..out.len()]);
        self.0.drain(..out.len());
    }
}

/// One tape for each connection, in the order of the connections.
fn tapes(tapes: Vec<Vec<u8>>) -> RandomSource {
    let next = AtomicUsize::new(0);
    Arc::new(move || {
        let tape = tapes.get(next.fetch_add(1, Ordering::SeqCst)).cloned();
        Box::new(Tape(tape.expect("one tape for each connection"))) as Box<dyn Random + Send>
    })
}

/// Sends a frame as the real client does: fixed header, variable header and payload in separate writes (3.4).
#[track_caller]
fn send(wire: &mut Wire, name: &str) {
    let frame = vector(name);
    let header = if frame[1] & 0x80 == 0 { 2 } else { 3 };
    // AUTH-I alone has a variable header: type, count, group (3.2).
    let variable = if frame[0] & 0x08 == 0 { 0 } else { 2 + usize::from(frame[header + 1]) };
    wire.send_in_parts(&[&frame[..header], &frame[header..header + variable], &frame[header + variable..]]);
}

#[track_caller]
fn exchange(wire: &mut Wire, request: &str, answer: &str) {
    send(wire, request);
    assert_eq!(wire.lbs_frame(), Some(vector(answer)), "{answer}");
}

/// The recorded CONNECT; the code of the CONNACK.
#[track_caller]
fn connect(site: &Site) -> (u8, Mqtt) {
    let mut mqtt = Mqtt { wire: Wire::dial(site.das) };
    let packet = vector("real_connect");
    mqtt.wire.send_in_parts(&[&packet[..3], &packet[3..13], &packet[13..]]);
    (mqtt.connack(), mqtt)
}

fn recorded_site() -> Site {
    // In the order of osap's draws: private key, session key, the 16 bytes that show as 32 digits; then a refresh.
    let dev_id = unhex(std::str::from_utf8(&vector("dev_id")).expect("ASCII"));
    let first = [vector("lbs_private"), vector("session_key"), dev_id].concat();
    let refresh = [vector("session_key"), vec![0x9F]].concat();
    let das = DasInfo {
        address: "127.0.0.1".into(),
        port: 19901,
        udp_port: 19902,
        domain: "das.local".into(),
        server_id: "das1".into(),
    };
    Site::with(Plan {
        random: tapes(vec![first, refresh]),
        assignment: Some(Assignment::exactly(das)),
        ..Plan::default()
    })
}

#[test]
fn the_real_client_comes_in_and_its_event_is_stored() {
    let site = recorded_site();
    let device = site.add(SERIAL);

    let mut lbs = Wire::dial(site.lbs);
    exchange(&mut lbs, "real_1a", "real_2a");
    exchange(&mut lbs, "real_72", "real_82");
    assert!(site.credentials().candidate.is_none(), "nothing is staged before 0xA0");
    exchange(&mut lbs, "real_a0", "real_b0");
    let staged = site.credentials();
    assert!(staged.committed.is_none());
    let candidate = staged.candidate.expect("staged before 0xB0 left");
    assert_eq!(candidate.master_key.expose(), vector("real_master_key"));
    assert_eq!(candidate.dev_id.as_bytes(), vector("dev_id"));
    assert_eq!(candidate.session_key.expect("usable at the DAS").expose(), vector("session_key"));
    drop(lbs);

    let (code, mut refused) = connect(&site);
    assert_eq!(code, 11);
    refused.wire.expect_end();
    let committed = site.credentials();
    assert!(committed.candidate.is_none());
    assert!(committed.committed.expect("the CONNECT has committed it").session_key.is_none());

    let mut lbs = Wire::dial(site.lbs);
    exchange(&mut lbs, "real_70", "real_80");
    send(&mut lbs, "real_90");
    exchange(&mut lbs, "real_a0", "real_b0");
    drop(lbs);

    let (code, mut mqtt) = connect(&site);
    assert_eq!(code, 0);
    assert_eq!(mqtt.subscribe("/iot/SN0000001/#"), 1);
    assert_eq!(mqtt.subscribe("/SN0000001/#"), 1);
    let presence = device.presence();
    assert_eq!((presence.state, presence.suite.as_deref()), (PresenceState::Online, Some("legacy")));
    assert!(!presence.confidential, "13.2.9: a legacy session is labelled so");

    let packet = vector("real_event");
    mqtt.wire.send_in_parts(&[&packet[..3], &packet[3..66], &packet[66..]]);
    mqtt.expect_puback(4);
    let events = site.events();
    let [event] = &events[..] else { panic!("one event, not {}", events.len()) };
    assert_eq!((event.device, &*event.serial), (device.id, SERIAL));
    let path = &event.path;
    assert_eq!([&*path.resource, &*path.index, &*path.area, &*path.name], ["Lamp", "0", "Alarm", "Smoke"]);
    assert_eq!(event.id.as_deref(), Some("5fb66b24e52c11f1800094306f635ec7"));
    assert_eq!(event.time, 1_795_211_417_230, "2026-11-20T21:50:17.230Z");
    assert_eq!(event.flags, Flags::NONE);
    assert_eq!(
        &*event.data,
        r#"{"level":3,"basic":{"dateTime":"2026-11-20T21:50:17.230+00:00","UUID":"5fb66b24e52c11f1800094306f635ec7"}}"#
    );
    assert_eq!(
        site.reasons(),
        ["authenticated", "sent_for_new_key", "refreshed", "accepted", "reporting"],
        "what `device why` tells"
    );
}

#[test]
fn the_recorded_state_is_the_twins_and_replies_to_nothing_are_dropped() {
    let site = recorded_site();
    site.add(SERIAL);
    let mut lbs = Wire::dial(site.lbs);
    exchange(&mut lbs, "real_1a", "real_2a");
    exchange(&mut lbs, "real_72", "real_82");
    exchange(&mut lbs, "real_a0", "real_b0");
    assert_eq!(connect(&site).0, 11);
    let mut lbs = Wire::dial(site.lbs);
    exchange(&mut lbs, "real_70", "real_80");
    send(&mut lbs, "real_90");
    exchange(&mut lbs, "real_a0", "real_b0");
    let (code, mut mqtt) = connect(&site);
    assert_eq!(code, 0);
    for (name, id) in [("real_shadow_report", 5), ("real_operate_reply", 8), ("real_set_reply", 9)] {
        mqtt.wire.send(&vector(name));
        mqtt.expect_puback(id);
    }
    let mut goodbye = Vec::new();
    encode::disconnect(&mut goodbye);
    mqtt.wire.send(&goodbye);
    site.expect_fact("disconnect");
    assert!(site.events().is_empty());
    let leaves = site.platform.attributes(&site.device());
    let [leaf] = &leaves[..] else { panic!("one attribute, not {}", leaves.len()) };
    assert_eq!((&*leaf.path.resource, &*leaf.path.index), ("Lamp", "0"));
    assert!(leaf.reported.is_some(), "as the device says");
    let facts = site.device().facts();
    let strays: u32 = facts.iter().filter(|fact| fact.reason == "reply_to_nothing").map(|fact| fact.count).sum();
    assert_eq!(strays, 2, "nobody had asked for either");
    assert_eq!(site.device().presence().reason, "disconnect");
}

#[test]
fn osap_5_7_a_wrong_r2_ends_the_run_without_an_answer() {
    let site = recorded_site();
    site.add(SERIAL);
    let mut lbs = Wire::dial(site.lbs);
    exchange(&mut lbs, "real_1a", "real_2a");
    exchange(&mut lbs, "real_72", "real_82");
    exchange(&mut lbs, "real_a0", "real_b0");
    assert_eq!(connect(&site).0, 11);
    let mut lbs = Wire::dial(site.lbs);
    exchange(&mut lbs, "real_70", "real_80");
    let mut wrong = vector("real_90");
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    lbs.send(&wrong);
    lbs.expect_end();
    assert!(site.credentials().committed.expect("committed").session_key.is_none(), "nothing was handed out");
}
