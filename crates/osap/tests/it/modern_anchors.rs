//! A new CA of the platform comes to devices in the sealed grant of a ticket, and by nothing else.

use osap::modern::message::{Grant, Info, MAX_EXTRA};
use osap::modern::slots::Way;
use osap::{Code, Suite};

use super::modern_pair::{Deal, Device, LONG_CODE, Platform, connect, connect_through, known, new_device};

const KNOWN: [u8; 32] = [7; 32];

fn root() -> Vec<u8> {
    (0..430_u32).map(|n| n as u8).collect()
}

fn start(way: Way) -> (Platform, Device) {
    let (mut platform, mut device) = if way == Way::Code { new_device(LONG_CODE, 3) } else { known(Suite::Tls, 3) };
    platform.anchors = vec![root()];
    device.known_by = Some(vec![KNOWN]);
    (platform, device)
}

#[test]
fn a_device_that_says_what_it_knows_is_told_what_it_lacks() {
    for way in [Way::Code, Way::Newest, Way::Older] {
        let (mut platform, mut device) = start(way);
        let attempt = device.attempt(Suite::Tls, way);
        assert!(connect(&mut platform, &mut device, attempt).is_done());
        assert_eq!(platform.known_by, Some(vec![KNOWN]), "{way:?}");
        assert_eq!(device.told, [root()], "{way:?}");
    }
}

#[test]
fn a_device_that_says_nothing_is_told_nothing_and_sends_what_it_always_did() {
    let (mut platform, mut device) = start(Way::Newest);
    device.known_by = None;
    let attempt = device.attempt(Suite::Tls, Way::Newest);
    let silent = connect(&mut platform, &mut device, attempt);
    assert!(silent.is_done() && platform.known_by.is_none() && device.told.is_empty());
    platform.anchors.clear();
    let (mut before, mut former) = known(Suite::Tls, 3);
    let attempt = former.attempt(Suite::Tls, Way::Newest);
    assert_eq!(connect(&mut before, &mut former, attempt).sent, silent.sent, "to the byte");
}

#[test]
fn an_lbs_that_has_proven_itself_by_tls_alone_changes_nothing() {
    let (mut platform, mut device) = start(Way::Newest);
    platform.certificate = Some(device.identity.serial.as_str().to_owned());
    let attempt = device.attempt(Suite::Tls, Way::Certificate);
    assert!(connect(&mut platform, &mut device, attempt).is_done());
    assert_eq!(device.told, [] as [Vec<u8>; 0], "it is told in a run by ticket");
    let attempt = device.attempt(Suite::Tls, Way::Newest);
    assert!(connect(&mut platform, &mut device, attempt).is_done());
    assert_eq!(device.told, [root()]);
}

#[test]
fn no_bit_of_any_frame_can_be_changed_for_another_root() {
    for way in [Way::Code, Way::Newest] {
        let (mut platform, mut device) = start(way);
        let attempt = device.attempt(Suite::Tls, way);
        let frames = connect(&mut platform, &mut device, attempt).sent;
        for (number, frame) in frames.iter().enumerate().filter(|(_, frame)| !frame.up) {
            for at in 0..frame.bytes.len() {
                let mut bytes = frame.bytes.clone();
                bytes[at] ^= 1 << (at % 8);
                let (mut platform, mut device) = start(way);
                let attempt = device.attempt(Suite::Tls, way);
                let deal = &mut |n, _: &_| if n == number { Deal::Instead(bytes.clone()) } else { Deal::Pass };
                connect_through(&mut platform, &mut device, attempt, deal);
                // What comes after it was stored cannot take it back.
                let told: &[Vec<u8>] = if number > 3 { &[root()] } else { &[] };
                assert_eq!(device.told, told, "{way:?}: byte {at} of frame {number}");
            }
        }
    }
}

#[test]
fn a_false_lbs_that_does_not_know_the_code_tells_a_device_nothing() {
    let (mut platform, mut device) = start(Way::Code);
    let attempt = device.attempt(Suite::Tls, Way::Code);
    platform.record().code = Some(Code::new("ZZZZZZZZZZZZZ").unwrap());
    assert!(!connect(&mut platform, &mut device, attempt).is_done());
    assert_eq!(device.told, [] as [Vec<u8>; 0]);
}

#[test]
fn a_certificate_goes_first_where_there_is_no_room_for_both() {
    let grant = |certificate: usize| Grant { certificate: vec![vec![1; certificate]; 2], anchors: vec![root()] };
    let fits = grant(400);
    assert_eq!(fits.clone().within(MAX_EXTRA), fits);
    let large = grant(700);
    assert_eq!(large.clone().within(MAX_EXTRA), Grant { anchors: Vec::new(), ..large });
}

#[test]
fn members_of_this_name_that_are_somebody_elses_are_ignored() {
    for text in [r#"{"anchors":7}"#, r#"{"anchors":["no base64"]}"#, r#"{"anchors":{"a":1},"x":2}"#] {
        assert_eq!(Grant::decode(text.as_bytes()), Ok(Grant::default()), "{text}");
        assert_eq!(Info::decode(text.as_bytes()), Ok(Info::default()), "{text}");
    }
    let said = Info { csr: None, anchors: Some(vec![KNOWN; 9]) };
    let read = Info::decode(&said.encode(false)).unwrap();
    assert_eq!(read.anchors.map(|known| known.len()), Some(4), "there is a limit");
    let nothing = Info { csr: None, anchors: Some(Vec::new()) };
    assert_eq!(nothing.encode(false), br#"{"anchors":[]}"#);
}
