//! Whatever message is the last one to arrive, the device gets in again by itself
//! (osap-wire 5.5, 5.12, 13.2.2, 13.2.4).

use std::time::Duration;

use osap::CodeCase;
use osap::das::connack::{ACCEPTED, SESSION_UNKNOWN};
use osap::lbs::client::Stored;
use osap::lbs::{Run, Slot};

use crate::pair::{Link, Pair};

/// A device that is online, by way of the one answer of 11.
fn online(seed: u64) -> Pair {
    let mut pair = Pair::new(seed);
    assert!(pair.come_online(3));
    pair
}

/// The devices a run of each kind begins with.
fn starts() -> Vec<(Run, Pair)> {
    let first = Pair::new(11);
    let plain = online(12);
    let mut refresh = online(13);
    let Stored::Both { dev_id, .. } = refresh.stored else { panic!("stored after success") };
    refresh.stored = Stored::DevId(dev_id);
    vec![(Run::First, first), (Run::PlainRefresh, plain), (Run::EcdhRefresh, refresh)]
}

fn start(run: Run) -> Pair {
    starts().into_iter().find(|(found, _)| *found == run).expect("every run has a start").1
}

fn every_fault() -> impl Iterator<Item = Link> {
    let cuts = (0..6).map(|after| Link::Cut { after });
    cuts.chain((0..6).map(|frame| Link::Lose { frame }))
}

#[test]
fn enrolling_takes_exactly_one_answer_of_11() {
    let mut pair = Pair::new(3);
    assert_eq!(pair.get_in(1), Some(1));
    assert!(pair.record.committed.is_none(), "nothing is committed before it was shown");
    assert_eq!(pair.log_in(), SESSION_UNKNOWN);
    assert!(pair.record.committed.is_some() && pair.record.candidate.is_none());
    let ending = pair.attempt(Link::Whole);
    assert_eq!(ending.frames[0], 0x70);
    assert_eq!(pair.log_in(), ACCEPTED);
}

#[test]
fn after_one_fault_anywhere_the_next_attempt_gets_in() {
    for (run, _) in starts() {
        for fault in every_fault() {
            let mut pair = start(run);
            pair.session = None;
            let faulty = pair.attempt(fault);
            let context = format!("{run:?} {fault:?} {:02x?}", faulty.frames);
            // Losing a frame nobody waits for, or one behind the last, may leave the run whole.
            if !matches!(faulty.device, Some(Ok(_))) {
                assert_eq!(pair.get_in(1), Some(1), "{context}");
            }
            assert!(pair.come_online(3), "{context}");
        }
    }
}

#[test]
fn after_two_faults_anywhere_the_device_comes_online() {
    for (run, _) in starts() {
        for one in every_fault() {
            for other in every_fault() {
                let mut pair = start(run);
                pair.session = None;
                pair.attempt(one);
                pair.attempt(other);
                assert!(pair.come_online(4), "{run:?} {one:?} {other:?}");
            }
        }
    }
}

/// A fault in a run, then one in the refresh that the answer of 11 asks for.
#[test]
fn a_fault_after_the_first_login_does_no_harm() {
    for (run, _) in starts() {
        for fault in every_fault() {
            let mut pair = start(run);
            pair.session = None;
            assert_eq!(pair.get_in(1), Some(1));
            pair.log_in();
            pair.session = None;
            pair.attempt(fault);
            assert!(pair.come_online(3), "{run:?} {fault:?}");
        }
    }
}

/// The device loses its storage write, or its power before the write, after a complete run.
#[test]
fn a_device_that_forgets_a_whole_run_comes_back_with_what_it_had() {
    for (run, _) in starts() {
        let mut pair = start(run);
        let before = pair.stored.clone();
        pair.session = None;
        assert_eq!(pair.get_in(1), Some(1));
        pair.stored = before;
        pair.session = None;
        assert!(pair.come_online(4), "{run:?}");
    }
}

/// Once the candidate was shown the device cannot lose it and enrol again by itself: that is what
/// an enrolment window is for.
#[test]
fn a_reset_device_needs_a_window() {
    let mut pair = online(4);
    pair.stored = Stored::Nothing;
    pair.session = None;
    assert!(!pair.come_online(5));
    pair.record.may_enrol_again = true;
    assert!(pair.come_online(3));
}

/// The master key on record was revoked: result 10, then ECDH refresh with the same DevID.
#[test]
fn another_master_key_on_record_leads_to_an_ecdh_refresh() {
    let mut pair = online(5);
    let Stored::Both { dev_id, .. } = pair.stored.clone() else { panic!("stored after success") };
    let revoked = osap::MasterKey::from_bytes(b"0000000000000000").unwrap();
    pair.record.committed.as_mut().expect("committed by login").master_key = revoked;
    pair.session = None;
    assert!(pair.come_online(4));
    assert_eq!(pair.session.as_ref().map(|session| session.dev_id), Some(dev_id));
}

/// A server that lost the record altogether: result 4, then first authentication.
#[test]
fn a_forgotten_device_enrols_again() {
    let mut pair = online(6);
    pair.record.committed = None;
    pair.session = None;
    assert!(pair.come_online(4));
}

#[test]
fn a_device_that_writes_lower_case_gets_in_at_its_second_attempt_at_most() {
    let mut pair = Pair::new(7);
    pair.case = CodeCase::Lower;
    assert_eq!(pair.get_in(1), Some(1));
    assert_eq!(pair.record.code_case, Some(CodeCase::Lower));
}

#[test]
fn without_a_das_nothing_is_staged() {
    let mut pair = Pair::new(8);
    pair.das_is_up = false;
    pair.attempt(Link::Whole);
    assert!(pair.record.candidate.is_none() && pair.session.is_none());
    pair.das_is_up = true;
    assert!(pair.come_online(3));
}

/// A stranger who knows the code may replace the candidate, never what the device has shown.
#[test]
fn a_new_run_replaces_the_candidate_and_nothing_else() {
    let mut pair = online(9);
    let committed = pair.record.committed.clone();
    let Stored::Both { dev_id, .. } = pair.stored else { panic!("stored after success") };
    let mine = pair.stored.clone();
    for _ in 0..3 {
        pair.stored = Stored::DevId(dev_id);
        assert_eq!(pair.get_in(1), Some(1));
        assert_eq!(pair.record.committed, committed);
        assert!(pair.record.credential(Slot::Candidate).is_some());
    }
    pair.stored = mine;
    pair.session = None;
    assert_eq!(pair.get_in(1), Some(1), "the committed credential still works");
    assert_eq!(pair.log_in(), ACCEPTED);
}

/// Long lives under random faults: the device is online again soon after each, and the virtual
/// clock shows that it waits in between.
#[test]
fn long_lives_under_seeded_faults() {
    for seed in 0..40 {
        let mut pair = Pair::new(seed);
        let mut dice = crate::vectors::Seeded::new(seed + 1_000);
        for _ in 0..12 {
            let number = dice.below(7) as usize;
            let link = match dice.below(4) {
                0 => Link::Whole,
                1 => Link::Lose { frame: number },
                _ => Link::Cut { after: number },
            };
            match dice.below(3) {
                0 => pair.session = None,
                1 => {
                    pair.log_in();
                }
                // The master key is lost, the DevID is not.
                _ => {
                    if let Stored::Both { dev_id, .. } = pair.stored {
                        pair.stored = Stored::DevId(dev_id);
                    }
                }
            }
            pair.attempt(link);
        }
        let before = pair.now;
        assert!(pair.come_online(4), "seed {seed}");
        assert!(pair.now - before <= Duration::from_secs(600));
    }
}
