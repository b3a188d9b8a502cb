//! What the real clients sent against LBS and DAS, byte for byte, in the writes they make: 2.0.x (osap-wire 12.5) and
//! 1.5.2 (12.6). Of G0 there are the vectors of 12.7 only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use osap::lbs::DasInfo;
use osap::lbs::client::Stored;
use osap::{DevId, MasterKey, Random};
use vestibule_access::{Assignment, LbsConfig, RandomSource};
use vestibule_broker::codec::encode;
use vestibule_platform::{Flags, PresenceState};

use crate::device::{TestDevice, Wire};
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

/// The same for an answer of G0, which has other version bytes than the vector (3.3).
#[track_caller]
fn exchange_g0(wire: &mut Wire, request: &str, answer: &str) {
    send(wire, request);
    let mut expected = vector(answer);
    expected[2..5].copy_from_slice(&[1, 0, 0]);
    assert_eq!(wire.lbs_frame(), Some(expected), "{answer}");
}

/// The CONNECT that the 2.0.x client sent; the code of the CONNACK.
#[track_caller]
fn connect(site: &Site) -> (u8, Mqtt) {
    connect_as(site, "real_connect")
}

/// A recorded CONNECT.
#[track_caller]
fn connect_as(site: &Site, name: &str) -> (u8, Mqtt) {
    let mut mqtt = Mqtt { wire: Wire::dial(site.das) };
    let packet = vector(name);
    mqtt.wire.send_in_parts(&[&packet[..3], &packet[3..13], &packet[13..]]);
    (mqtt.connack(), mqtt)
}

fn recorded_site() -> Site {
    site_that_draws(vector("lbs_private"))
}

/// A site whose first run draws these bytes and then what all generations do; its second is a refresh.
fn site_that_draws(first: Vec<u8>) -> Site {
    // In the order of osap's draws: what the generation needs, session key, the 16 bytes that show as 32 digits.
    let dev_id = unhex(std::str::from_utf8(&vector("dev_id")).expect("ASCII"));
    let first = [first, vector("session_key"), dev_id].concat();
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
        limits: LbsConfig { g0: true, ..LbsConfig::default() },
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

/// The event of the 2.0.x client, which is sealed with the same session key, is stored.
#[track_caller]
fn expect_recorded_event(site: &Site, mqtt: &mut Mqtt) {
    mqtt.wire.send(&vector("real_event"));
    mqtt.expect_puback(4);
    let events = site.events();
    let [event] = &events[..] else { panic!("one event, not {}", events.len()) };
    assert_eq!((&*event.serial, event.id.as_deref()), (SERIAL, Some("5fb66b24e52c11f1800094306f635ec7")));
}

/// The refresh that follows a CONNACK 11. It is not among the recorded frames; the tape decides its session key.
#[track_caller]
fn refresh(site: &Site, master_key: &str) -> osap::lbs::client::Success {
    let master_key = MasterKey::from_bytes(&vector(master_key)).expect("a master key");
    let stored = Stored::Both { dev_id: DevId::parse(&vector("dev_id")).expect("a DevID"), master_key };
    TestDevice { stored, ..TestDevice::new() }.authenticate(site)
}

#[test]
fn osap_6_the_real_client_of_sdk_1_5_2_comes_in() {
    let site = recorded_site();
    let device = site.add(SERIAL);
    let mut lbs = Wire::dial(site.lbs);
    exchange(&mut lbs, "g1_real_12", "g1_22");
    exchange(&mut lbs, "g1_real_72", "g1_real_82");
    exchange(&mut lbs, "real_a0", "real_b0");
    let candidate = site.credentials().candidate.expect("staged before 0xB0 left");
    assert_eq!(candidate.master_key.expose(), vector("g1_real_master_key"));
    assert_eq!((candidate.dev_id.as_bytes(), &*candidate.suite), (&*vector("dev_id"), "legacy"));
    drop(lbs);

    assert_eq!(connect_as(&site, "g1_real_connect").0, 11, "once, as for every key agreement");
    assert_eq!(site.credentials().committed.expect("committed").dev_id.as_bytes(), vector("dev_id"));
    refresh(&site, "g1_real_master_key");
    let (code, mut mqtt) = connect_as(&site, "g1_real_connect");
    assert_eq!(code, 0, "its record has members that 2.0.x does not send");
    let presence = device.presence();
    assert_eq!((presence.state, presence.suite.as_deref()), (PresenceState::Online, Some("legacy")));
    assert!(!presence.confidential);
    expect_recorded_event(&site, &mut mqtt);
    let facts = site.device().facts();
    assert!(facts[0].reason == "authenticated" && facts[0].text.contains("generation G1"), "{}", facts[0].text);
}

#[test]
fn osap_7_a_device_of_g0_comes_in_with_and_without_a_dev_id() {
    let site = site_that_draws(vec![0x22, 0x44]);
    site.add(SERIAL);
    let mut lbs = Wire::dial(site.lbs);
    exchange_g0(&mut lbs, "g0_10", "g0_20");
    exchange_g0(&mut lbs, "g0_40", "g0_60");
    exchange(&mut lbs, "real_a0", "real_b0");
    drop(lbs);
    assert_eq!(connect(&site).0, 11);
    let committed = site.credentials().committed.expect("committed");
    assert_eq!(committed.master_key.expose(), vector("g0_master_key"));
    assert_eq!((committed.dev_id.as_bytes(), &*committed.suite), (&*vector("dev_id"), "legacy"));
    refresh(&site, "g0_master_key");
    let (code, mut mqtt) = connect(&site);
    assert_eq!(code, 0);
    expect_recorded_event(&site, &mut mqtt);
    let facts = site.device().facts();
    assert!(facts[0].reason == "authenticated" && facts[0].text.contains("generation G0"), "{}", facts[0].text);

    // 0x30 names the DevID on record; the DevID that is drawn for a first authentication is not used.
    let site = site_that_draws(vec![0x22, 0x44]);
    site.add(SERIAL);
    let dev_id = String::from_utf8(vector("dev_id")).expect("ASCII");
    enrol_with(&site, &dev_id);
    let mut lbs = Wire::dial(site.lbs);
    exchange_g0(&mut lbs, "g0_10", "g0_20");
    exchange_g0(&mut lbs, "g0_30", "g0_50");
    exchange(&mut lbs, "real_a0", "real_b0");
    let credentials = site.credentials();
    let (committed, candidate) = (credentials.committed.expect("kept"), credentials.candidate.expect("staged"));
    assert_eq!((&candidate.dev_id, candidate.master_key.expose()), (&committed.dev_id, &*vector("g0_master_key")));
}

/// Gives the device a committed credential, as an earlier run would have.
fn enrol_with(site: &Site, dev_id: &str) {
    let credential = vestibule_platform::Credential {
        suite: "legacy".to_owned(),
        epoch: 1,
        dev_id: dev_id.to_owned(),
        master_key: vestibule_platform::Secret::new(vector("real_master_key")),
        session_key: None,
        created: 0,
        code_case_lower: false,
    };
    let credentials = vestibule_platform::Credentials { committed: Some(credential), ..Default::default() };
    let device = site.device();
    site.block_on(site.platform.update_credentials(&device, |_| Ok::<_, &str>(credentials))).expect("stored");
}
