//! The envelope of a modern session (osap-wire 13.3 "Envelope", 13.7.7): nothing is lost, repeated, moved or renamed
//! without being noticed.

use osap::Suite;
use osap::modern::envelope::{Broken, OVERHEAD, Opened, Opener, Sealer};
use osap::modern::receipt::Receipt;
use osap::modern::seal::Direction;
use osap::modern::{Node, login};
use proptest::prelude::*;

const TOPIC: &str = "/iot/SN0000001/global/0-Lamp/model/event/report/Alarm/Smoke";
const OTHER_TOPIC: &str = "/iot/SN0000001/global/0-Lamp/model/event/report/Alarm/Smok";

/// The ends of one direction of the login with this nonce of the DAS.
fn ends(suite: Suite, direction: Direction, login_number: u8) -> (Sealer, Opener) {
    let node = Node::from_bytes(&[5; 48]).unwrap();
    let hello = login::hello_hash(&[1; 48], &[login_number; 32]);
    let key = login::record_key(&node, &hello, direction);
    (Sealer::new(suite, direction, key.clone()), Opener::new(suite, direction, key))
}

fn sealed(sealer: &mut Sealer, topic: &str, text: &[u8]) -> Vec<u8> {
    // What stands before it in the connection's buffer stays as it is.
    let mut out = b"header".to_vec();
    out.extend(text);
    sealer.seal_tail(topic, &mut out, 6).unwrap();
    assert_eq!(&out[..6], b"header");
    assert_eq!(out.len(), 6 + text.len() + OVERHEAD);
    out.split_off(6)
}

fn open(opener: &mut Opener, topic: &str, payload: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
    opener.open(topic, &mut payload.to_vec()).map(|opened| match opened {
        Opened::Next(text) => Some(text.to_vec()),
        Opened::Repeated => None,
    })
}

#[test]
fn osap_13_7_7_messages_open_in_their_order() {
    let (mut sealer, mut opener) = ends(Suite::Tls, Direction::Up, 1);
    for number in 1..=300_u64 {
        let text = number.to_string().into_bytes();
        let payload = sealed(&mut sealer, TOPIC, &text);
        assert_eq!((payload[0], &payload[1..9]), (4, &number.to_be_bytes()[..]));
        assert_eq!(open(&mut opener, TOPIC, &payload), Ok(Some(text)));
        assert_eq!((sealer.seq(), opener.seq()), (number, number));
    }
}

#[test]
fn osap_13_7_7_a_gap_ends_the_connection() {
    let (mut sealer, mut opener) = ends(Suite::X25519, Direction::Up, 1);
    let [first, second, third] = [b"1", b"2", b"3"].map(|text| sealed(&mut sealer, TOPIC, text));
    assert_eq!(open(&mut opener, TOPIC, &second), Err(Broken::Gap { expected: 1, found: 2 }));
    assert_eq!(open(&mut opener, TOPIC, &first), Ok(Some(b"1".to_vec())));
    assert_eq!(open(&mut opener, TOPIC, &third), Err(Broken::Gap { expected: 2, found: 3 }));
    assert_eq!(opener.seq(), 1, "what was not in its place was not taken");
}

#[test]
fn osap_13_7_7_a_repetition_is_dropped_with_and_without_dup() {
    // DUP is no part of the envelope: a library repeats a packet with it, somebody on the path without.
    let (mut sealer, mut opener) = ends(Suite::X25519, Direction::Down, 1);
    let payloads = [b"1", b"2", b"3"].map(|text| sealed(&mut sealer, TOPIC, text));
    for payload in &payloads {
        assert!(open(&mut opener, TOPIC, payload).unwrap().is_some());
        assert_eq!(open(&mut opener, TOPIC, payload), Ok(None));
    }
    for payload in payloads.iter().rev() {
        assert_eq!(open(&mut opener, TOPIC, payload), Ok(None));
    }
    assert_eq!(opener.seq(), 3);
    // An altered one is none: the tag is looked at first.
    let mut altered = payloads[0].clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(open(&mut opener, TOPIC, &altered), Err(Broken::Tag));
    let fourth = sealed(&mut sealer, TOPIC, b"4");
    assert_eq!(open(&mut opener, TOPIC, &fourth), Ok(Some(b"4".to_vec())));
}

#[test]
fn osap_13_7_7_topics_and_directions_cannot_be_exchanged() {
    for suite in Suite::MODERN {
        let (mut sealer, mut opener) = ends(suite, Direction::Up, 1);
        let payload = sealed(&mut sealer, TOPIC, b"text");
        for topic in [OTHER_TOPIC, "", &format!("{TOPIC}/"), &TOPIC.to_lowercase()] {
            assert_eq!(open(&mut opener, topic, &payload), Err(Broken::Tag), "{topic}");
        }
        // A byte cannot wander from the topic into the payload.
        let wandered = [&TOPIC.as_bytes()[TOPIC.len() - 1..], &payload].concat();
        assert!(open(&mut opener, &TOPIC[..TOPIC.len() - 1], &wandered).is_err());

        let (_, mut down) = ends(suite, Direction::Down, 1);
        assert_eq!(open(&mut down, TOPIC, &payload), Err(Broken::Tag), "each direction has its key");
        // The direction counts also where the key is the same.
        let node = Node::from_bytes(&[5; 48]).unwrap();
        let up_key = login::record_key(&node, &login::hello_hash(&[1; 48], &[1; 32]), Direction::Up);
        let mut reflected = Opener::new(suite, Direction::Down, up_key);
        assert_eq!(open(&mut reflected, TOPIC, &payload), Err(Broken::Tag));
        assert_eq!(open(&mut opener, TOPIC, &payload), Ok(Some(b"text".to_vec())));
    }
}

#[test]
fn osap_13_7_7_what_was_sealed_in_another_login_or_under_another_suite_does_not_open() {
    let (mut sealer, _) = ends(Suite::P384, Direction::Up, 1);
    let old = sealed(&mut sealer, TOPIC, b"text");
    let (_, mut next_login) = ends(Suite::P384, Direction::Up, 2);
    assert_eq!(open(&mut next_login, TOPIC, &old), Err(Broken::Tag));
    for other in [Suite::Tls, Suite::X25519] {
        let (_, mut opener) = ends(other, Direction::Up, 1);
        assert_eq!(open(&mut opener, TOPIC, &old), Err(Broken::Malformed));
        let mut renamed = old.clone();
        renamed[0] = other.protocol_type();
        assert_eq!(open(&mut opener, TOPIC, &renamed), Err(Broken::Tag));
    }
    // Sealed for each server of a session of its own: another DAS has another secret.
    let das = osap::modern::secret::DasSecret::from_bytes(&[6; 48]).unwrap();
    assert_ne!(das.node("das1"), das.node("das2"));
}

#[test]
fn osap_13_7_7_every_bit_of_a_payload_counts_and_every_length() {
    let (mut sealer, mut opener) = ends(Suite::Tls, Direction::Up, 1);
    let payload = sealed(&mut sealer, TOPIC, b"a body of some length");
    for bit in 0..payload.len() * 8 {
        let mut altered = payload.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let refused = open(&mut opener, TOPIC, &altered);
        assert_eq!(refused, Err(if bit < 8 { Broken::Malformed } else { Broken::Tag }), "{bit}");
    }
    for len in 0..payload.len() {
        let expected = if len < OVERHEAD { Broken::Malformed } else { Broken::Tag };
        assert_eq!(open(&mut opener, TOPIC, &payload[..len]), Err(expected));
        assert!(open(&mut opener, TOPIC, &payload[len + 1..]).is_err());
    }
    assert_eq!(open(&mut opener, TOPIC, &[&payload[..], &[0]].concat()), Err(Broken::Tag));
    assert_eq!(open(&mut opener, TOPIC, &payload).map(|text| text.is_some()), Ok(true));
}

#[test]
fn osap_13_3_a_message_that_is_sent_again_is_sealed_again() {
    let (mut sealer, mut opener) = ends(Suite::X25519, Direction::Up, 1);
    let [first, again] = [(); 2].map(|()| sealed(&mut sealer, TOPIC, b"alarm"));
    assert_ne!(first[9..], again[9..]);
    assert!(open(&mut opener, TOPIC, &first).unwrap().is_some());
    assert!(
        open(&mut opener, TOPIC, &again).unwrap().is_some(),
        "what a message is, its body says: UUID, or BootID and Seq"
    );
}

#[test]
fn osap_13_3_the_login_proves_both_ends_and_binds_the_connection() {
    let node = Node::from_bytes(&[5; 48]).unwrap();
    let other = Node::from_bytes(&[6; 48]).unwrap();
    let dev_id = super::vectors::dev_id();
    let exporter = osap::modern::Exporter::from_bytes(&[7; 48]).unwrap();
    let bound = login::login_hash(Some(&exporter), &dev_id, &[1; 32]);
    let unbound = login::login_hash(None, &dev_id, &[1; 32]);
    let password = login::password(&node, &bound, [1; 32]);
    assert!(login::proves_device(&node, &bound, &password));
    assert!(!login::proves_device(&node, &unbound, &password), "on another connection");
    assert!(!login::proves_device(&other, &bound, &password), "at another DAS");
    assert!(!login::proves_device(&node, &login::login_hash(Some(&exporter), &dev_id, &[2; 32]), &password));
    let hello = login::hello(&node, &login::hello_hash(&bound, &[3; 32]), [3; 32]);
    assert!(login::proves_das(&node, &bound, &hello));
    assert!(!login::proves_das(&node, &unbound, &hello) && !login::proves_das(&other, &bound, &hello));
    // The password, reflected as a hello.
    assert!(!login::proves_das(&node, &bound, &password));
    let bytes = hello.encode();
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes;
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(!login::proves_das(&node, &bound, &login::Proof::decode(&altered).unwrap()));
    }
    assert!(login::Proof::decode(&bytes[1..]).is_none() && login::Proof::decode(&[0; 81]).is_none());
}

proptest! {
    #[test]
    fn osap_13_7_7_only_the_next_message_is_ever_taken(
        order in proptest::collection::vec((0_usize..12, any::<bool>()), 1..40),
    ) {
        let (mut sealer, mut opener) = ends(Suite::Tls, Direction::Down, 1);
        let payloads: Vec<_> = (0..12_u8).map(|n| sealed(&mut sealer, TOPIC, &[n])).collect();
        let mut due = 0;
        for (at, right_topic) in order {
            let found = open(&mut opener, if right_topic { TOPIC } else { OTHER_TOPIC }, &payloads[at]);
            let expected = match at {
                _ if !right_topic => Err(Broken::Tag),
                _ if at < due => Ok(None),
                _ if at == due => Ok(Some(vec![at as u8])),
                _ => Err(Broken::Gap { expected: due as u64 + 1, found: at as u64 + 1 }),
            };
            if expected == Ok(Some(vec![at as u8])) {
                due += 1;
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_receipt_is_two_numbers_and_nothing_else(text in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Some(receipt) = Receipt::decode(&text) {
            prop_assert_eq!(Receipt::decode(&receipt.encode()), Some(receipt));
        }
    }
}
