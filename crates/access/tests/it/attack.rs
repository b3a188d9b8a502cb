//! Strangers at the LBS: what they learn, what they cost, whom they disturb (osap-wire 13.2).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use osap::{Random, ResultCode};
use vestibule_access::{Agreements, Attempts, FailureLimits, LbsConfig, Origin};
use vestibule_platform::Caller;
use vestibule_store::AuditQuery;

use crate::device::{TestDevice, Wire};
use crate::mqtt::Mqtt;
use crate::site::{CODE, Plan, SERIAL, Site, eventually};

#[test]
fn osap_13_2_3_unknown_wrong_and_disabled_get_the_same_answer_and_none_comes_early() {
    const PACE: Duration = Duration::from_millis(60);
    let limits = LbsConfig { refusal_pace: PACE, ..LbsConfig::default() };
    let site = Site::with(Plan { limits, ..Plan::default() });
    site.add(SERIAL);
    let disabled = site.add("SN0000002");
    site.block_on(site.platform.set_disabled(&disabled, true, &Caller::program())).expect("disabled");
    let strangers = [
        TestDevice { code: "ABCDEG".into(), ..TestDevice::new() },
        TestDevice::of("SN0000002"),
        TestDevice { code: "ABCDEG".into(), ..TestDevice::of("SN0000002") },
        TestDevice::of("SN0000003"),
    ];
    let mut answers = Vec::new();
    for stranger in strangers {
        let mut visit = stranger.visit(&site);
        let begun = Instant::now();
        answers.push(visit.answer());
        assert!(begun.elapsed() >= PACE, "{} had its answer too soon", stranger.serial);
        visit.wire.expect_end();
    }
    assert_eq!(answers[0], [0x2A, 5, 1, 1, 1, 0, ResultCode::CodeRefused.into()]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:02x?}");
}

/// Who has to be read from the store, who is in memory and who does not exist are told the same while it is down, whichever
/// way they come; and nothing of it counts against anybody.
#[test]
fn osap_13_2_3_the_answers_tell_nobody_who_exists_while_the_store_is_down() {
    let site = Site::new();
    let devices = [SERIAL, "SN0000002", "SN0000003"].map(|serial| {
        site.add(serial);
        let mut device = TestDevice::of(serial);
        device.come_in(&site);
        device
    });
    let site = site.restart();
    let [read, unread, disabled] = [SERIAL, "SN0000002", "SN0000003"].map(|it| site.platform.device_by_serial(it));
    let disabled = disabled.expect("registered");
    site.block_on(site.platform.set_disabled(&disabled, true, &Caller::program())).expect("disabled");
    site.block_on(site.platform.secrets(&read.expect("registered"))).expect("readable");
    site.break_store();
    for serial in [SERIAL, "SN0000002", "SN0000003", "SN0000009"] {
        for number in 0..6 {
            assert_eq!(guess(&site, serial, number, anywhere(number)), ResultCode::Unavailable, "{serial}");
        }
        // With the DevID of another device.
        let other = if serial == SERIAL { &devices[1] } else { &devices[0] };
        let lost = TestDevice { stored: other.stored.clone(), ..TestDevice::of(serial) };
        assert_eq!(lost.refused(&site), ResultCode::Unavailable, "{serial}");
        let (code, _) = Mqtt::log_in(&site, serial, None);
        assert_eq!(code, 11, "{serial}");
    }
    let facts = unread.expect("registered").facts();
    assert!(facts.iter().all(|fact| fact.reason != "too_many_attempts"), "{facts:?}");
}

/// A stranger who guesses another code at each attempt; what he is told.
pub fn guess(site: &Site, serial: &str, number: u32, from: [u8; 4]) -> ResultCode {
    let code = format!("G{number:05}");
    let stranger = TestDevice { code, ..TestDevice::of(serial) };
    stranger.visit_from(from.into(), site).finish().expect_err("refused").result().expect("with a result")
}

/// An address for each attempt, so that only the serial counts.
fn anywhere(number: u32) -> [u8; 4] {
    let [_, _, high, low] = number.to_be_bytes();
    [127, 10 + high, low, 1]
}

/// A site that does not take its time with refusals.
pub fn quick() -> Site {
    let limits = LbsConfig { refusal_pace: Duration::ZERO, ..LbsConfig::default() };
    Site::with(Plan { limits, ..Plan::default() })
}

#[test]
fn osap_13_2_3_after_five_failures_in_an_hour_no_code_of_the_serial_is_looked_at() {
    let site = quick();
    site.add(SERIAL);
    // Known and unknown alike, and the table does not tell which is which.
    for serial in [SERIAL, "SN0000009"] {
        for round in 0..2u32 {
            let at = |number| anywhere(100 * round + number);
            for number in 0..5 {
                assert_eq!(guess(&site, serial, number, at(number)), ResultCode::CodeRefused);
            }
            for number in 5..8 {
                assert_eq!(guess(&site, serial, number, at(number)), ResultCode::Unavailable);
            }
            site.clock.advance(Duration::from_secs(3_600 + 400));
        }
    }
    site.expect_fact("too_many_attempts");
}

#[test]
fn osap_13_2_3_who_holds_a_master_key_is_never_locked_out() {
    let site = quick();
    site.add(SERIAL);
    let mut device = TestDevice::new();
    let (_mqtt, _) = device.come_in(&site);
    for number in 0..8 {
        guess(&site, SERIAL, number, [127, 0, 0, 1]);
    }
    // From the very address of the attacker.
    for number in 0..40 {
        guess(&site, &format!("X{number}"), number, [127, 0, 0, 1]);
    }
    let session = device.authenticate(&site);
    assert_eq!(device.log_in(&site, &session).0, 0);
    let mut forgetful = device.clone();
    forgetful.forget_master_key();
    assert_eq!(forgetful.refused(&site), ResultCode::Unavailable, "a refresh that begins with the code is an AUTH-I");
}

#[test]
fn osap_13_2_3_a_locked_serial_is_told_in_why_and_audit_and_an_operator_lets_it_try_at_once() {
    let site = quick();
    let device = site.add(SERIAL);
    let lock = |from: u32| {
        for number in 0..6 {
            guess(&site, SERIAL, number, anywhere(from + number));
        }
        assert_eq!(TestDevice::new().refused(&site), ResultCode::Unavailable, "also with the right code");
    };
    lock(0);
    let last = device.last_failure().expect("a failure");
    assert_eq!(last.reason, "too_many_attempts");
    assert!(last.text.starts_with("Too many failed attempts"), "{}", last.text);
    eventually("a row of the audit", || {
        let query = AuditQuery { limit: 10, ..AuditQuery::default() };
        let rows = site.block_on(site.platform.audits(&query, &Caller::program())).expect("readable");
        rows.iter().filter(|row| row.action == "device.guessed" && row.serial.as_deref() == Some(SERIAL)).count() == 1
    });

    let by = Caller::program();
    site.block_on(site.platform.open_enrolment(&device, Duration::from_secs(600), false, &by)).expect("opened");
    assert_eq!(guess(&site, SERIAL, 6, anywhere(6)), ResultCode::CodeRefused, "five more");
    TestDevice::new().come_in(&site);
    lock(100);
    site.block_on(site.platform.set_disabled(&device, true, &by)).expect("disabled");
    assert_eq!(guess(&site, SERIAL, 7, anywhere(7)), ResultCode::Unavailable, "disabling is no pardon");
    site.block_on(site.platform.set_disabled(&device, false, &by)).expect("enabled");
    assert_eq!(guess(&site, SERIAL, 8, anywhere(8)), ResultCode::CodeRefused);
}

/// A device that was switched on before somebody registered it.
#[test]
fn osap_13_2_3_what_failed_before_a_device_was_registered_is_not_held_against_it() {
    let site = quick();
    for number in 0..6 {
        guess(&site, SERIAL, number, anywhere(number));
    }
    site.add(SERIAL);
    TestDevice::new().come_in(&site);
}

#[test]
fn osap_13_2_3_twenty_failures_of_an_address_and_two_hundred_of_a_network_in_a_minute() {
    let site = quick();
    site.add(SERIAL);
    let spray = |from: [u8; 4], attempts: u32| {
        let told = (0..attempts).map(|number| guess(&site, &format!("S{}{number}", from[3]), number, from));
        told.filter(|told| *told == ResultCode::CodeRefused).count()
    };
    assert_eq!(spray([127, 1, 1, 1], 30), 20);
    let mut good = TestDevice::new();
    let refused = good.visit_from([127, 1, 1, 1].into(), &site).finish().expect_err("refused");
    assert_eq!(refused.result(), Some(ResultCode::Unavailable), "nobody from there is looked at");
    let of_network: usize = (2..13).map(|host| spray([127, 1, 1, host], 20)).sum();
    assert_eq!(of_network, 180, "twenty were the first address's");
    // The neighbours of the attacker wait, others do not notice.
    assert_eq!(spray([127, 1, 1, 200], 1), 0);
    site.expect_fact("too_many_attempts");
    good.come_in(&site);
    site.clock.advance(Duration::from_secs(67));
    assert_eq!(spray([127, 1, 1, 1], 30), 20);
}

/// Successes count nowhere: a whole site behind one address comes in at once.
#[test]
fn osap_13_2_3_successes_count_nowhere() {
    let one = FailureLimits { per_serial: 1, per_address: 1, per_network: 1 };
    let limits = LbsConfig { attempts: Arc::new(Attempts::new(one)), ..LbsConfig::default() };
    let site = Site::with(Plan { limits, ..Plan::default() });
    for number in 0..30 {
        let serial = format!("SN{number:07}");
        site.add(&serial);
        TestDevice::of(&serial).come_in(&site);
    }
    assert_eq!(guess(&site, SERIAL, 0, [127, 0, 0, 1]), ResultCode::CodeRefused);
    assert_eq!(guess(&site, SERIAL, 0, [127, 0, 0, 1]), ResultCode::Unavailable);
}

/// As many attempts at the same moment are looked at as may fail.
#[test]
fn osap_13_2_3_many_guesses_at_once_are_no_more_guesses() {
    let site = quick();
    site.add(SERIAL);
    let told: Vec<ResultCode> = std::thread::scope(|scope| {
        let site = &site;
        let guesses: Vec<_> =
            (0..40).map(|number| scope.spawn(move || guess(site, SERIAL, number, anywhere(number)))).collect();
        guesses.into_iter().map(|guess| guess.join().expect("told")).collect()
    });
    assert_eq!(told.iter().filter(|told| **told == ResultCode::CodeRefused).count(), 5);
}

/// A proof that is wrong after an AUTH-I that was replayed counts as well.
#[test]
fn osap_13_2_3_a_wrong_proof_behind_a_replayed_auth_i_is_a_failure() {
    let site = quick();
    site.add(SERIAL);
    let recorded = TestDevice::new().visit(&site).auth_i();
    for number in 0..7 {
        let mut wire = Wire::dial_from(anywhere(number).into(), site.lbs);
        wire.send(&recorded);
        let answer = wire.lbs_frame().expect("AUTH-II");
        let looked_at = answer.len() > 100;
        assert_eq!(looked_at, number < 5, "{answer:02x?}");
        if looked_at {
            wire.send(&[&[0x72, 51, 1, 1, 0][..], &[0; 48]].concat());
            assert_eq!(wire.lbs_frame().expect("refused").last(), Some(&ResultCode::CodeRefused.into()));
            assert!(wire.lbs_frame().is_none(), "it is counted when the connection is over");
        }
    }
}

/// Neither a stranger nor a device with a key waits for the turn of a key agreement, and what waits is one turn of each network.
#[test]
fn osap_13_2_3_only_who_has_shown_his_code_waits_for_a_key_agreement() {
    let limits = LbsConfig { refusal_pace: Duration::ZERO, ..LbsConfig::default() };
    let site = Site::with(Plan { limits, lbs_threads: (1, 1), ..Plan::default() });
    let [_, disabled, third] = [SERIAL, "SN0000002", "SN0000003"].map(|serial| site.add(serial));
    site.block_on(site.platform.set_disabled(&disabled, true, &Caller::program())).expect("disabled");
    let mut known = TestDevice::new();
    let (_mqtt, session) = known.come_in(&site);

    let [agreements] = site.lbs_threads.agreements() else { panic!("one thread") };
    let somebody = Origin::from(IpAddr::from([127, 0, 0, 1]));
    let turns = [(); Agreements::AT_ONCE].map(|()| site.block_on(agreements.turn(somebody)).expect("nobody has it"));
    for (serial, code) in [(SERIAL, "ABCDEG"), ("SN0000002", CODE), ("SN0000009", CODE)] {
        let stranger = TestDevice { code: code.into(), ..TestDevice::of(serial) };
        assert_eq!(stranger.refused(&site), ResultCode::CodeRefused, "{serial}");
    }
    let refreshed = known.authenticate(&site);
    assert_ne!(refreshed.session_key, session.session_key);
    assert_eq!(known.log_in(&site, &refreshed).0, 0);

    let device = TestDevice::of("SN0000003");
    let mut waits = device.visit(&site);
    waits.hold_before(0x1A);
    waits.release();
    eventually("it waits", || agreements.waiting() == 1);
    assert_eq!(device.refused(&site), ResultCode::Unavailable, "one waits already, and none of them needs it more");
    eventually("it is told", || third.facts().iter().any(|fact| fact.reason == "overloaded"));
    drop(turns);
    waits.finish().expect("it was only late");
}

#[test]
fn osap_13_1_w4_a_key_pair_that_was_used_before_shows() {
    let site = quick();
    let device = site.add(SERIAL);
    let told = || device.facts().iter().filter(|fact| fact.text.contains("used before")).count();
    for (runs, expected) in [(1, 0), (2, 1)] {
        // As the vendor's clients draw their keys. Nothing is committed, so that it may begin anew.
        TestDevice::new().visit(&site).with_random(Repeating).finish().expect("let in");
        eventually("the fact of each run", || device.facts().iter().map(|fact| fact.count).sum::<u32>() == runs);
        assert_eq!(told(), expected);
    }
}

/// A random source as the vendor's clients have it.
struct Repeating;

impl Random for Repeating {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0x21);
    }
}

/// Idle connections of one network leave places for others.
#[test]
fn osap_13_2_connections_of_one_network_leave_room_for_others() {
    let limits = LbsConfig { max_per_address: 3, max_per_network: 5, ..LbsConfig::default() };
    let site = Site::with(Plan { limits, ..Plan::default() });
    site.add(SERIAL);
    // Each has proven who it is and says nothing more.
    let hold = |host| {
        let mut visit = TestDevice::new().visit_from([127, 1, 1, host].into(), &site);
        visit.hold_before(0xA0);
        visit
    };
    let held = [1, 1, 1, 2, 2].map(hold);
    for host in [1, 2, 3] {
        let mut refused = Wire::dial_from([127, 1, 1, host].into(), site.lbs);
        refused.try_send(&[0x1A]);
        refused.expect_end();
    }
    TestDevice::new().come_in(&site);
    drop(held);
}

/// Holds connections from some networks, as many as it gets, and says nothing.
struct Holder {
    dialled: u32,
    held: VecDeque<Wire>,
}

impl Holder {
    fn hold(&mut self, site: &Site, more: u32) {
        for _ in 0..more {
            let [_, _, _, number] = self.dialled.to_be_bytes();
            self.held.push_back(Wire::dial_from([127, 40 + number % 3, 1, 1 + number / 3].into(), site.lbs));
            self.dialled += 1;
        }
    }
}

/// Somebody with three networks holds every connection he can get and opens new ones all the time. Good devices come in all
/// the same, also one that takes its time.
#[test]
fn osap_13_2_who_holds_connections_and_says_nothing_holds_no_good_device_out() {
    let limits = LbsConfig {
        max_connections: 60,
        max_per_address: 15,
        max_per_network: 30,
        refusal_pace: Duration::ZERO,
        ..LbsConfig::default()
    };
    let site = Site::with(Plan { limits, ..Plan::default() });
    let mut attacker = Holder { dialled: 0, held: VecDeque::new() };
    attacker.hold(&site, 59);
    let [slow, quiet] = [1, 2].map(|number| {
        let serial = format!("SLOW{number}");
        site.add(&serial);
        TestDevice::of(&serial)
    });
    // One has connected and says nothing yet, one waits in the middle.
    let slow = slow.visit_from([127, 50, 1, 1].into(), &site);
    let mut quiet = quiet.visit_from([127, 51, 1, 1].into(), &site);
    quiet.hold_before(0x72);
    for number in 0..30 {
        attacker.hold(&site, 10);
        let serial = format!("SN{number:07}");
        site.add(&serial);
        let from = [127, 60 + number, 1, 1].into();
        TestDevice::of(&serial).visit_from(from, &site).finish().expect("let in");
    }
    // The oldest went first.
    attacker.held.iter_mut().take(200).for_each(Wire::expect_end);
    slow.finish().expect("its network has nobody else");
    quiet.finish().expect("nor has this one's");
}

/// Also a good device that shares an address with somebody who holds all it may have.
#[test]
fn osap_13_2_somebody_silent_of_an_address_makes_room_for_the_newest() {
    let limits = LbsConfig { max_per_address: 3, max_per_network: 5, ..LbsConfig::default() };
    let site = Site::with(Plan { limits, ..Plan::default() });
    site.add(SERIAL);
    // That one of four has made room shows that three are here.
    let held: Vec<Wire> = (0..4).map(|_| Wire::dial_from([127, 1, 1, 1].into(), site.lbs)).collect();
    eventually("three are here", || held.iter().filter(|wire| wire.has_ended()).count() == 1);
    let mut device = TestDevice::new();
    device.visit_from([127, 1, 1, 1].into(), &site).finish().expect("let in");
    device.come_in(&site);
}

/// Nor does a first message keep anybody out, which is no proof: it may be one that was recorded.
#[test]
fn osap_13_2_who_sends_a_first_message_only_makes_room_as_who_sends_nothing() {
    let limits = LbsConfig { max_per_address: 3, max_per_network: 5, ..LbsConfig::default() };
    let site = Site::with(Plan { limits, ..Plan::default() });
    site.add(SERIAL);
    let hold = |_| {
        let mut visit = TestDevice::new().visit_from([127, 1, 1, 1].into(), &site);
        visit.hold_before(0x72);
        visit
    };
    let _held: Vec<_> = (0..3).map(hold).collect();
    let mut device = TestDevice::new();
    device.visit_from([127, 1, 1, 1].into(), &site).finish().expect("let in");
    device.come_in(&site);
}
