//! Somebody on the way to the LBS, over plain TCP (osap-wire 13.3, 13.4, 13.7.1, 13.7.5).

use std::io::ErrorKind;

use osap::modern::message::VERSION;
use serde_json::json;
use tokio::task::JoinSet;
use vestibule_device::{Reason, ResultCode, Slots};

use super::line::{From, Habit, Hands, honest, session_unknown};
use super::subject::{Subject, audited, done, eventually, platform, runtime, stored};
use crate::support::Platform;

/// First bytes of the frames of a run, in their order.
const RUN: [u8; 7] = [0x1a, 0x2a, 0x42, 0x62, 0x92, 0xa2, 0xb2];

/// What somebody does with the frames of each run, and what comes of it.
struct Mode {
    name: &'static str,
    habit: fn() -> Habit,
    /// What the device says.
    told: Reason,
    /// What the platform tells of the device; nothing where it met nobody, or nobody who has shown who he is.
    fact: Option<&'static str>,
}

/// Changes each frame of this first byte.
fn changing(first: u8, mut change: impl FnMut(&mut Vec<u8>) + Send + 'static) -> Habit {
    Box::new(move |from, packet, hands| {
        let mut packet = packet.to_vec();
        if packet[0] == first {
            change(&mut packet);
        }
        hands.pass(from, &packet);
    })
}

/// A frame whose last byte is another one.
fn flipped<const FIRST: u8>() -> Habit {
    changing(FIRST, |packet| *packet.last_mut().expect("a byte") ^= 1)
}

/// Answers an AUTH-I himself, and lets nobody else.
fn answering(answer: Vec<u8>) -> Habit {
    Box::new(move |from, packet: &[u8], hands: &mut Hands| {
        if packet[0] == 0x1a {
            hands.answer(from, &answer);
            hands.cut();
        }
    })
}

/// A clear answer in place of AUTH-II: a type, with what may be run, and a result.
fn auth_ii(head: &[u8], result: u8) -> Vec<u8> {
    let body = [head, &VERSION, &[result]].concat();
    [&[0x2a, u8::try_from(body.len()).expect("short")][..], &body].concat()
}

/// An AUTH-I of less than 16 KiB: where its fields begin.
fn fields(packet: &[u8]) -> usize {
    if packet[1] & 0x80 == 0 { 2 } else { 3 }
}

/// AUTH-I with a group of one type: the only one, or the one that is left.
fn stripped(packet: &mut Vec<u8>, left: u8) {
    let at = fields(packet);
    let (kind, rest) = (packet[at], packet[at + 2 + usize::from(packet[at + 1])..].to_vec());
    let body = [&[kind, 1, left][..], &rest].concat();
    let len = u16::try_from(body.len()).expect("short");
    *packet = [&[0x1a, (len & 0x7f) as u8 | 0x80, (len >> 7) as u8][..], &body].concat();
}

const MODES: [Mode; 13] = [
    Mode {
        name: "the group is stripped to the type that is offered",
        habit: || changing(0x1a, |packet| stripped(packet, 16)),
        told: Reason::Refused(ResultCode::MasterKeyInvalid),
        fact: Some("ticket"),
    },
    Mode {
        name: "the group is stripped to another type",
        habit: || changing(0x1a, |packet| stripped(packet, 8)),
        told: Reason::LbsUnreachable(ErrorKind::UnexpectedEof),
        fact: None,
    },
    Mode {
        name: "the type is swapped",
        habit: || {
            changing(0x1a, |packet| {
                let at = fields(packet);
                packet[at] = 8;
            })
        },
        told: Reason::LbsAnswer,
        fact: None,
    },
    Mode {
        name: "a forged mismatch wants the legacy suite",
        habit: || answering(auth_ii(&[1, 1, 1], 3)),
        told: Reason::NothingInCommon,
        fact: None,
    },
    Mode {
        name: "a forged mismatch wants what only TLS has",
        habit: || answering(auth_ii(&[4, 1, 4], 3)),
        told: Reason::NothingInCommon,
        fact: None,
    },
    Mode {
        name: "a forged result says that the DevID is another device's",
        habit: || answering(auth_ii(&[16], 4)),
        told: Reason::Refused(ResultCode::DevIdMismatch),
        fact: None,
    },
    Mode {
        name: "a forged result says that the ticket is unknown",
        habit: || answering(auth_ii(&[16], 10)),
        told: Reason::Refused(ResultCode::MasterKeyInvalid),
        fact: None,
    },
    Mode {
        name: "AUTH-I is changed",
        habit: flipped::<0x1a>,
        told: Reason::Refused(ResultCode::MasterKeyInvalid),
        fact: Some("ticket"),
    },
    Mode { name: "AUTH-II is changed", habit: flipped::<0x2a>, told: Reason::LbsAnswer, fact: Some("connection_lost") },
    Mode {
        name: "0x42 is changed",
        habit: flipped::<0x42>,
        told: Reason::LbsUnreachable(ErrorKind::UnexpectedEof),
        fact: Some("message"),
    },
    Mode { name: "0x62 is changed", habit: flipped::<0x62>, told: Reason::LbsAnswer, fact: Some("connection_lost") },
    Mode {
        name: "0x92 is changed",
        habit: flipped::<0x92>,
        told: Reason::LbsUnreachable(ErrorKind::UnexpectedEof),
        fact: Some("message"),
    },
    // Where TlsPort would stand, had it one: nothing of it can be taken away.
    Mode { name: "0xB2 is changed", habit: flipped::<0xb2>, told: Reason::LbsAnswer, fact: None },
];

#[test]
fn osap_13_7_5_whoever_changes_or_forges_frames_of_the_lbs_costs_a_device_time_and_nothing_else() {
    let platform = std::sync::Arc::new(platform());
    runtime().block_on(async {
        let mut modes = JoinSet::new();
        for mode in MODES {
            let platform = std::sync::Arc::clone(&platform);
            modes.spawn(async move { suffer(&platform, mode).await });
        }
        while let Some(mode) = modes.join_next().await {
            mode.expect("as it says");
        }
    });
    // What is no business of any device is counted.
    for result in ["mismatch", "message", "ticket"] {
        let runs = platform.metric("vestibule_lbs_modern_runs_total", &[("result", result)]);
        assert!(runs >= 1.0, "{result}");
    }
    platform.assert_no_panic();
}

async fn suffer(platform: &Platform, mode: Mode) {
    let Mode { name, habit, told, fact } = mode;
    let subject = Subject::plain(platform).await;
    subject.online().await;
    let before = subject.kept().slots;
    assert!(before.newest.is_some(), "{name}: it has a ticket of its own");
    subject.lbs.attack(move |_| habit());
    subject.das.attack(|_| session_unknown());
    let logins = subject.logins();
    assert_eq!(subject.waits().await, told, "{name}");
    assert_eq!(subject.logins(), logins, "{name}: it was let in");
    // Whatever came, what the device had it has.
    let Slots { dev_id, newest, older, base } = subject.kept().slots;
    assert_eq!((dev_id, &base), (before.dev_id, &before.base), "{name}");
    assert!(newest == before.newest || older == before.newest, "{name}: its ticket is gone");
    let offered = subject.lbs.seen().into_iter().filter(|(from, frame)| *from == From::Device && frame[0] == 0x1a);
    let offered: Vec<u8> = offered.map(|(_, frame)| frame[fields(&frame)]).collect();
    assert!(offered.iter().all(|kind| [8, 16].contains(kind)), "{name}: it offers {offered:?}");
    if let Some(fact) = fact {
        let reasons = || platform.reasons(&subject.serial);
        eventually(name, || reasons().iter().any(|reason| reason == fact).then_some(()));
    }
    assert!(!audited(platform, &subject.serial).contains(&"device.old_ticket".to_owned()), "{name}");

    subject.lbs.leave();
    subject.das.leave();
    subject.online().await;
    done(subject.report(2)).await;
    assert_eq!(stored(platform, &subject.serial), Vec::from_iter(subject.reported()), "{name}");
    assert_eq!(platform.device(&subject.serial)["suite"], "x25519", "{name}");
}

#[test]
fn osap_13_7_who_only_listens_hears_no_secret_and_everything_works() {
    let platform = platform();
    runtime().block_on(async {
        let subject = Subject::plain(&platform).await;
        subject.online().await;
        subject.lbs.attack(|_| honest());
        subject.das.attack(|connection| if connection == 0 { session_unknown() } else { honest() });
        done(subject.report(5)).await;
        assert_eq!(stored(&platform, &subject.serial), Vec::from_iter(subject.reported()));
        let path = format!("/v1/devices/{}/operations/Lamp/0/Light/Blink", subject.serial);
        let answer = platform.http().post(&path, &json!({"input": {"count": 3}})).ok();
        assert_eq!(answer["outcome"], "done", "{answer}");
        let run: Vec<u8> = subject.lbs.seen().iter().map(|(_, frame)| frame[0]).collect();
        assert_eq!(run, RUN);
        let slots = subject.kept().slots;
        let secrets = [&slots.newest, &slots.older, &slots.base].map(|slot| slot.clone().expect("three").psk);
        let heard: Vec<u8> =
            subject.lbs.seen().into_iter().chain(subject.das.seen()).flat_map(|(_, packet)| packet).collect();
        for secret in secrets.iter().map(|psk| psk.as_bytes().to_vec()).chain([b"DasInfo".to_vec(), b"level".to_vec()])
        {
            assert!(!heard.windows(secret.len()).any(|window| window == secret), "it went in the clear");
        }
    });
    platform.assert_no_panic();
}
