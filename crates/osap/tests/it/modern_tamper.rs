//! Every frame of a run altered, cut, made longer, sent back, sent twice and moved (osap-wire 13.7.1): refused, nothing
//! changes at either end, and nobody answers where no answer is due.

use osap::modern::client::{Advice, Trouble};
use osap::modern::server::CloseReason;
use osap::modern::slots::Way;
use osap::{Code, ResultCode, Suite};

use super::modern_pair::{
    Deal, Device, Ending, Frame, LONG_CODE, Platform, come_in, connect, connect_through, known, new_device,
};

/// The kinds of runs: by ticket under each suite, and by code.
const RUNS: [(Suite, Way); 4] =
    [(Suite::Tls, Way::Newest), (Suite::P384, Way::Newest), (Suite::X25519, Way::Newest), (Suite::Tls, Way::Code)];
/// AUTH-I, AUTH-II, 0x42 or 0x72, 0x62 or 0x82, 0x92, 0xA2, 0xB2.
const FRAMES: usize = 7;

fn start(suite: Suite, way: Way, seed: u64) -> (Platform, Device) {
    if way == Way::Code { new_device(LONG_CODE, seed) } else { known(suite, seed) }
}

fn run(suite: Suite, way: Way, seed: u64, deal: &mut dyn FnMut(usize, &Frame) -> Deal) -> (Platform, Device, Ending) {
    let (mut platform, mut device) = start(suite, way, seed);
    let attempt = device.attempt(suite, way);
    let ending = connect_through(&mut platform, &mut device, attempt, deal);
    (platform, device, ending)
}

/// What travels in a run on which nobody lays a hand.
fn recorded(suite: Suite, way: Way, seed: u64) -> Vec<Frame> {
    let (_, _, ending) = run(suite, way, seed, &mut |_, _| Deal::Pass);
    assert!(ending.is_done() && ending.sent.len() == FRAMES);
    ending.sent
}

/// One run with `bytes` in the place of frame `number`.
fn altered(suite: Suite, way: Way, seed: u64, number: usize, what: &str, bytes: &[u8]) {
    let ran = run(suite, way, seed, &mut |at, _| if at == number { Deal::Instead(bytes.to_vec()) } else { Deal::Pass });
    assert_nothing_came_of_it(ran, number, &format!("{suite} {way:?}: frame {number} {what}"));
}

/// The frame did not do what it was for, nothing has changed since, and nobody has said more than is due.
fn assert_nothing_came_of_it(
    (mut platform, mut device, ending): (Platform, Device, Ending),
    number: usize,
    what: &str,
) {
    let touched = ending.touched.as_ref().unwrap_or_else(|| panic!("{what}: never came so far"));
    assert!(!ending.is_done(), "{what}: the device is in");
    assert_eq!(platform.tickets(), &touched.tickets, "{what}: the store has changed");
    assert_eq!(device.flash, touched.flash, "{what}: the flash has changed");
    let after = &ending.sent[touched.sent..];
    match number {
        // The first message may be answered: by a refusal, or by an AUTH-II that the device does not take.
        0 => assert!(after.iter().all(|frame| frame.bytes[0] == 0x2A) && after.len() <= 1, "{what}: {after:02x?}"),
        _ => assert!(after.is_empty(), "{what}: {after:02x?}"),
    }
    // And no harm is done: the next clean attempt gets in. The ways are the same under each suite, and P-384 is dear.
    if number > 0 && device.identity.suites != [Suite::P384] {
        assert!(come_in(&mut platform, &mut device).is_some(), "{what}: the device is locked out");
    }
}

#[test]
fn osap_13_7_1_every_bit_of_every_frame_counts() {
    for (suite, way) in RUNS {
        let frames = recorded(suite, way, 1);
        for (number, frame) in frames.iter().enumerate() {
            for bit in 0..frame.bytes.len() * 8 {
                // An agreement on P-384 is dear: there one bit of each byte, and each bit of what stands before the share.
                if suite == Suite::P384 && bit >= 56 * 8 && bit % 8 != (bit / 8) % 8 {
                    continue;
                }
                let mut bytes = frame.bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                altered(suite, way, 1, number, &format!("with bit {bit} flipped"), &bytes);
            }
        }
    }
}

/// The frame with another length: `body` behind its first byte, and a header that says so.
fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    if body.len() > 0x7F {
        frame.extend([(body.len() & 0x7F) as u8 | 0x80, (body.len() >> 7) as u8]);
    } else {
        frame.push(body.len() as u8);
    }
    frame.extend(body);
    frame
}

fn body(frame: &[u8]) -> &[u8] {
    &frame[if frame[1] < 0x80 { 2 } else { 3 }..]
}

#[test]
fn osap_13_7_1_a_frame_that_is_cut_or_made_longer_is_refused() {
    for (suite, way) in RUNS {
        for (number, frame) in recorded(suite, way, 2).iter().enumerate() {
            let (first, body) = (frame.bytes[0], body(&frame.bytes));
            for len in (0..body.len()).step_by(if suite == Suite::P384 { 7 } else { 2 }) {
                altered(suite, way, 2, number, &format!("cut to {len}"), &framed(first, &body[..len]));
                altered(
                    suite,
                    way,
                    2,
                    number,
                    &format!("without its first {}", body.len() - len),
                    &framed(first, &body[body.len() - len..]),
                );
            }
            for more in [&[0][..], &[0; 16], &frame.bytes] {
                altered(suite, way, 2, number, "made longer", &framed(first, &[body, more].concat()));
            }
            // The length in more bytes than it needs.
            let long = [&[first, (body.len() & 0x7F) as u8 | 0x80, (body.len() >> 7) as u8 | 0x80, 0], body].concat();
            altered(suite, way, 2, number, "with a length in a longer form", &long);
        }
    }
}

#[test]
fn osap_13_7_1_a_frame_that_does_not_come_whole_is_waited_for() {
    for (suite, way) in RUNS {
        for (number, frame) in recorded(suite, way, 3).iter().enumerate() {
            for len in [0, 1, 2, frame.bytes.len() / 2, frame.bytes.len() - 1] {
                // Nothing follows: the rest of what was on its way is lost as well.
                let ran = run(suite, way, 3, &mut |at, frame| match at {
                    _ if at == number => Deal::Instead(frame.bytes[..len].to_vec()),
                    _ if at > number => Deal::Lose,
                    _ => Deal::Pass,
                });
                assert_nothing_came_of_it(ran, number, &format!("{suite} {way:?}: {len} bytes of frame {number}"));
            }
        }
    }
}

#[test]
fn osap_13_7_1_a_frame_that_comes_back_to_its_sender_is_refused() {
    for (suite, way) in RUNS {
        for number in 0..FRAMES {
            let ran = run(suite, way, 4, &mut |at, _| if at == number { Deal::Reflect } else { Deal::Pass });
            // Of 0x92 and 0xA2, which are one write, the other one still arrives: a DAS before 0x92 is refused under seal.
            if number == 4 {
                let (platform, _, ending) = ran;
                assert!(!ending.is_done() && platform.tickets().confirmed == (way != Way::Code));
                continue;
            }
            assert_nothing_came_of_it(ran, number, &format!("{suite} {way:?}: frame {number} sent back"));
        }
    }
}

/// A frame with its first byte changed to that of each frame of the other direction.
#[test]
fn osap_13_7_1_a_frame_that_is_moved_to_the_other_direction_is_refused() {
    for (suite, way) in RUNS {
        let frames = recorded(suite, way, 5);
        for (number, due) in frames.iter().enumerate() {
            for other in frames.iter().filter(|other| other.up != due.up) {
                altered(suite, way, 5, number, "replaced by one of the other end", &other.bytes);
                altered(suite, way, 5, number, "replaced and renamed", &framed(due.bytes[0], body(&other.bytes)));
            }
        }
    }
}

#[test]
fn osap_13_7_1_a_frame_of_another_place_is_refused() {
    for (suite, way) in RUNS {
        let frames = recorded(suite, way, 6);
        for (number, due) in frames.iter().enumerate() {
            for other in frames.iter().filter(|other| *other != due) {
                // 0xA2 without 0x92 is the one mistake that has an answer.
                if number == 4 && other.bytes[0] == 0xA2 {
                    continue;
                }
                altered(suite, way, 6, number, "replaced by another of the run", &other.bytes);
            }
        }
    }
}

#[test]
fn osap_13_3_rule_4_a_das_before_the_ticket_was_stored_is_sealed_result_2() {
    for (suite, way) in RUNS {
        let (platform, device, ending) = run(suite, way, 6, &mut |at, _| if at == 4 { Deal::Lose } else { Deal::Pass });
        assert_eq!(ending.reason(), Some(CloseReason::NotStored));
        assert_eq!(ending.failure().trouble, Trouble::Refused(ResultCode::OutOfOrder));
        assert_eq!(ending.failure().advice(), Advice::Wait);
        assert_eq!(platform.tickets().confirmed, way != Way::Code);
        assert_eq!(device.flash.newest.map(|slot| slot.ticket), platform.tickets().next.as_ref().map(|next| next.id));
    }
}

#[test]
fn osap_13_7_1_a_frame_of_another_run_is_refused() {
    for (suite, way) in RUNS {
        // Two runs of the same device: the same ticket, other nonces.
        let (mut platform, mut device) = start(suite, way, 7);
        let attempt = device.attempt(suite, way);
        platform.record().may_enrol_again = true;
        let old = connect(&mut platform, &mut device, attempt).sent;
        for (number, frame) in old.iter().enumerate() {
            let kept = device.flash.clone();
            let attempt = device.attempt(suite, way);
            let ending = connect_through(&mut platform, &mut device, attempt, &mut |at, _| {
                if at == number { Deal::Instead(frame.bytes.clone()) } else { Deal::Pass }
            });
            assert!(!ending.is_done(), "{suite} {way:?}: frame {number}");
            let touched = ending.touched.as_ref().expect("it came so far");
            assert_eq!(platform.tickets(), &touched.tickets, "{suite} {way:?}: frame {number}");
            assert_eq!(device.flash, touched.flash, "{suite} {way:?}: frame {number}");
            assert!(touched.flash == kept || number > 3);
            assert!(ending.sent.len() - touched.sent <= usize::from(number == 0), "{suite} {way:?}: frame {number}");
        }
        assert!(come_in(&mut platform, &mut device).is_some());
    }
}

#[test]
fn osap_13_7_1_a_frame_that_comes_twice_ends_the_connection_and_changes_nothing() {
    for (suite, way) in RUNS {
        for number in 0..FRAMES {
            let (mut platform, mut device, ending) = run(suite, way, 8, &mut |at, frame| {
                if at == number { Deal::Instead(frame.bytes.repeat(2)) } else { Deal::Pass }
            });
            // What came first is good; the repetition leads to nothing more than it. An AUTH-II that comes twice ends the run
            // at the device, whose 0x42 is on its way by then.
            let issued = platform.tickets().rev - if way == Way::Code { 0 } else { 2 };
            assert_eq!(issued, u64::from(number > 0), "{suite} {way:?}: frame {number}");
            // 0xA2 and 0xB2 are the last of their direction: nobody reads on.
            assert_eq!(ending.is_done(), number >= 5, "{suite} {way:?}: frame {number}");
            assert!(come_in(&mut platform, &mut device).is_some(), "{suite} {way:?}: frame {number}");
        }
    }
}

#[test]
fn osap_13_7_1_somebody_elses_frames_are_refused() {
    // The same code, the same ticket, another serial, or another secret.
    let (_, mut device) = new_device(LONG_CODE, 9);
    let (mut platform, _) = new_device("ABCDEFGHJKMNQ", 9);
    let attempt = device.attempt(Suite::Tls, Way::Code);
    let ending = connect(&mut platform, &mut device, attempt);
    assert!(!ending.is_done() && platform.stages.is_empty());
    device.identity.code = Some(Code::new("ABCDEFGHJKMNQ").unwrap());
    let attempt = device.attempt(Suite::Tls, Way::Code);
    assert!(connect(&mut platform, &mut device, attempt).is_done());
}
