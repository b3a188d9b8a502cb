//! Somebody on the way to the DAS, over plain TCP (osap-wire 13.3, "Receipts" and "Envelope"; 13.7.6, 13.7.7).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use vestibule_device::{LinkFault, Reason, State};
use vestibule_mqtt_codec::{Packet, Rules, decode, encode};

use super::line::{From, Habit, Hands, refusing};
use super::subject::{KEEP_ALIVE, Subject, audited, done, eventually, platform, runtime, stored};
use crate::support::Platform;

const BEFORE: usize = 3;
const UNDER_ATTACK: usize = 5;

/// What somebody does on each connection, and what comes of it.
struct Mode {
    name: &'static str,
    habit: fn(usize) -> Habit,
    /// A device whose platform has closed does not see that.
    holds: bool,
    /// Why the device leaves the connection; none when it stays on it.
    told: Option<fn(LinkFault) -> bool>,
    /// What the platform tells of the device.
    fact: Option<&'static str>,
    /// What is in the audit.
    audited: Option<&'static str>,
}

/// Where a message goes, and the id of one at QoS 1.
fn publish(packet: &[u8]) -> Option<(String, Option<u16>)> {
    match decode(packet, &Rules::OSAP_LEGACY) {
        Ok(Packet::Publish(publish)) => Some((publish.head.topic.to_owned(), publish.head.packet_id)),
        _ => None,
    }
}

fn is_event(packet: &[u8]) -> bool {
    publish(packet).is_some_and(|(topic, _)| topic.contains("/model/event/"))
}

fn is_receipt(packet: &[u8]) -> bool {
    publish(packet).is_some_and(|(topic, _)| topic.ends_with("/login/receipt"))
}

/// Acknowledges and answers what a device sends, as the platform would.
fn pretend(packet: &[u8], hands: &mut Hands) {
    let mut answer = Vec::new();
    match decode(packet, &Rules::OSAP_LEGACY) {
        Ok(Packet::Publish(publish)) => {
            if let Some(id) = publish.head.packet_id {
                encode::puback(id, &mut answer);
            }
        }
        Ok(Packet::PingReq) => encode::pingresp(&mut answer),
        _ => {}
    }
    hands.answer(From::Device, &answer);
}

/// Changes some packets, and lets the others pass.
fn changing(which: fn(From, &[u8]) -> bool, change: fn(&mut Vec<u8>)) -> Habit {
    Box::new(move |from, packet, hands| {
        let mut packet = packet.to_vec();
        if which(from, &packet) {
            change(&mut packet);
        }
        hands.pass(from, &packet);
    })
}

fn flip(packet: &mut [u8]) {
    *packet.last_mut().expect("a byte") ^= 1;
}

fn double(packet: &mut Vec<u8>) {
    packet.extend_from_within(..);
}

fn up(from: From, packet: &[u8]) -> bool {
    from == From::Device && is_event(packet)
}

fn down(from: From, packet: &[u8]) -> bool {
    from == From::Platform && is_receipt(packet)
}

fn was_closed(fault: LinkFault) -> bool {
    matches!(fault, LinkFault::Closed | LinkFault::Io(_))
}

const CHANGED: Mode = Mode {
    name: "",
    habit: |_| changing(up, |packet| flip(packet)),
    holds: false,
    told: Some(was_closed),
    fact: Some("tampered"),
    audited: Some("device.tampered"),
};

const MODES: [Mode; 10] = [
    Mode { name: "an event is changed", ..CHANGED },
    Mode {
        name: "an event is moved to another topic",
        habit: |_| {
            changing(up, |packet| {
                let at = packet.windows(5).position(|word| word == b"Alarm").expect("it is in the topic");
                packet[at..at + 5].copy_from_slice(b"Alert");
            })
        },
        ..CHANGED
    },
    Mode {
        name: "events come in another order",
        habit: |_| {
            let mut first = None;
            Box::new(move |from, packet, hands| {
                if !up(from, packet) {
                    return hands.pass(from, packet);
                }
                match first.take() {
                    None => first = Some(packet.to_vec()),
                    Some(first) => {
                        hands.pass(from, packet);
                        hands.pass(from, &first);
                    }
                }
            })
        },
        ..CHANGED
    },
    Mode {
        name: "events of the connection before come again",
        habit: |connection| {
            static EARLIER: parking_lot::Mutex<Vec<u8>> = parking_lot::Mutex::new(Vec::new());
            Box::new(move |from, packet, hands| {
                if !up(from, packet) {
                    return hands.pass(from, packet);
                }
                if connection == 0 {
                    EARLIER.lock().extend_from_slice(packet);
                    hands.cut();
                } else {
                    hands.pass(from, &EARLIER.lock());
                }
            })
        },
        ..CHANGED
    },
    Mode {
        name: "events are swallowed and acknowledged",
        habit: |_| {
            Box::new(|from, packet, hands| match up(from, packet) {
                true => pretend(packet, hands),
                false => hands.pass(from, packet),
            })
        },
        ..CHANGED
    },
    Mode {
        name: "everything is swallowed and acknowledged",
        habit: |_| {
            let mut begun = false;
            Box::new(move |from, packet, hands| {
                begun |= up(from, packet);
                match (begun, from) {
                    (false, _) => hands.pass(from, packet),
                    (true, From::Device) => pretend(packet, hands),
                    (true, From::Platform) => {}
                }
            })
        },
        holds: true,
        told: Some(|fault| fault == LinkFault::NoReceipt),
        // It misses the signs of life first.
        fact: Some("keep_alive_timeout"),
        audited: None,
    },
    Mode {
        name: "receipts of the platform are swallowed",
        habit: |_| {
            Box::new(|from, packet, hands| {
                if !down(from, packet) {
                    hands.pass(from, packet);
                }
            })
        },
        holds: false,
        told: Some(|fault| fault == LinkFault::NoReceipt),
        fact: None,
        audited: None,
    },
    Mode {
        name: "receipts of the platform are changed",
        habit: |_| changing(down, |packet| flip(packet)),
        holds: false,
        told: Some(|fault| fault == LinkFault::Broken),
        fact: None,
        audited: None,
    },
    Mode {
        name: "receipts of the device are swallowed",
        habit: |_| {
            Box::new(|from, packet, hands| {
                if from == From::Platform || !is_receipt(packet) {
                    hands.pass(from, packet);
                }
            })
        },
        holds: false,
        told: Some(was_closed),
        fact: Some("no_receipt"),
        audited: None,
    },
    Mode {
        name: "everything sealed comes twice",
        habit: |_| changing(|from, packet| up(from, packet) || down(from, packet), double),
        holds: false,
        told: None,
        fact: None,
        audited: None,
    },
];

#[test]
fn osap_13_7_7_whatever_is_swallowed_changed_or_repeated_at_the_das_is_noticed_and_nothing_is_lost() {
    let platform = Arc::new(platform());
    runtime().block_on(async {
        let mut modes = JoinSet::new();
        for mode in MODES {
            let platform = Arc::clone(&platform);
            modes.spawn(async move { suffer(&platform, mode).await });
        }
        while let Some(mode) = modes.join_next().await {
            mode.expect("as it says");
        }
    });
    assert!(platform.metric("vestibule_das_receipts_missing_total", &[]) >= 1.0);
    assert!(platform.metric("vestibule_das_messages_dropped_total", &[("reason", "repeated")]) >= 1.0);
    platform.assert_no_panic();
}

async fn suffer(platform: &Platform, mode: Mode) {
    let Mode { name, habit, holds, told, fact, audited: deed } = mode;
    let subject = Subject::plain(platform).await;
    subject.online().await;
    done(subject.report(BEFORE)).await;
    if holds {
        subject.das.hold();
    }
    subject.das.attack(habit);
    let begun = Instant::now();
    let reports = subject.report(UNDER_ATTACK);
    let Some(told) = told else {
        done(reports).await;
        assert_eq!(subject.das.connections(), 1, "{name}: it stays where it is");
        assert_eq!(stored(platform, &subject.serial), Vec::from_iter(subject.reported()), "{name}");
        return;
    };
    match subject.waits().await {
        Reason::LinkLost(fault) => assert!(told(fault), "{name}: {fault}"),
        other => panic!("{name}: {other}"),
    }
    // Two intervals, and as much again for a machine that has much to do.
    let in_time = Duration::from_secs(4 * u64::from(KEEP_ALIVE));
    assert!(begun.elapsed() < in_time, "{name}: noticed after {:?}", begun.elapsed());
    assert!(!matches!(subject.device.state(), State::Stopped(_)), "{name}");
    if let Some(fact) = fact {
        let reasons = || platform.reasons(&subject.serial);
        eventually(name, || reasons().iter().any(|reason| reason == fact).then_some(()));
    }
    if let Some(deed) = deed {
        eventually(name, || audited(platform, &subject.serial).contains(&deed.to_owned()).then_some(()));
    }

    subject.das.leave();
    done(reports).await;
    subject.online().await;
    // Each that the device was told of is stored, once; none beside them.
    assert_eq!(subject.reported().len(), BEFORE + UNDER_ATTACK, "{name}");
    assert_eq!(stored(platform, &subject.serial), Vec::from_iter(subject.reported()), "{name}");
}

#[test]
fn osap_13_4_6_a_forged_connack_10_only_slows_a_device_down() {
    let platform = platform();
    runtime().block_on(async {
        let subject = Subject::plain(&platform).await;
        subject.online().await;
        let before = subject.kept();
        let logins = subject.logins();
        subject.das.attack(|_| refusing(10));
        assert_eq!(subject.waits().await, Reason::LoginRefused(10));
        assert_eq!(subject.logins(), logins);
        assert_eq!(subject.kept(), before);
        subject.das.leave();
        subject.online().await;
        done(subject.report(1)).await;
    });
    platform.assert_no_panic();
}

#[test]
fn osap_13_3_a_passed_message_counts_as_delivered_when_the_device_says_so_and_not_by_a_puback() {
    let platform = platform();
    runtime().block_on(async {
        let (came, mut comes) = tokio::sync::mpsc::unbounded_channel();
        // Nobody listens only when the test is over.
        let subject =
            Subject::plain_with(&platform, |builder| builder.on_pass(move |pass| drop(came.send(pass.bytes.to_vec()))));
        let subject = subject.await;
        subject.online().await;
        let pass = |text: &str| {
            let part = "Meter/0/Raw/Frame";
            let arguments = ["device", "pass", &subject.serial, part, "--type", "text/plain", "--data", text, "--json"];
            platform.cli(&arguments).json()
        };
        assert_eq!(tokio::task::block_in_place(|| pass("1"))["outcome"], "delivered");
        assert_eq!(comes.recv().await.as_deref(), Some(&b"1"[..]));

        let logins = subject.logins();
        subject.das.attack(|_| {
            Box::new(|from, packet, hands| match publish(packet) {
                Some((topic, Some(id))) if from == From::Platform && topic.contains("/Raw/") => {
                    let mut answer = Vec::new();
                    encode::puback(id, &mut answer);
                    hands.answer(from, &answer);
                }
                _ => hands.pass(from, packet),
            })
        });
        let subject = &subject;
        let there =
            |logins| move || (subject.logins() > logins && subject.device.state() == State::Online).then_some(());
        eventually("it is there over him", there(logins));
        let outcome = tokio::task::block_in_place(|| pass("2"))["outcome"].clone();
        assert!(outcome == "unknown" || outcome == "timed_out", "{outcome}");
        assert!(comes.try_recv().is_err());
        let logins = subject.logins();
        subject.das.leave();
        eventually("it is there without him", there(logins));
        assert_eq!(tokio::task::block_in_place(|| pass("3"))["outcome"], "delivered");
        assert_eq!(comes.recv().await.as_deref(), Some(&b"3"[..]), "what was swallowed is not sent late");
    });
    platform.assert_no_panic();
}
