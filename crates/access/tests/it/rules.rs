//! The way in: candidates (osap-wire 5.5), results (5.11), enrolment (13.2.4), the one CONNACK 11 (13.2.2).

use std::time::Duration;

use osap::ResultCode;
use osap::das::login::LoginRecord;
use osap::lbs::client::{Reaction, Stored};
use osap::{DevId, Serial};
use vestibule_access::{Assignment, LbsConfig};
use vestibule_platform::{Caller, LONGEST_WINDOW, PresenceState};

use crate::device::{TestDevice, Wire, wrong_key};
use crate::mqtt::Mqtt;
use crate::site::{CODE, Plan, SERIAL, Site, eventually};

fn site_and_device() -> (Site, TestDevice) {
    let site = Site::new();
    site.add(SERIAL);
    (site, TestDevice::new())
}

fn open_window(site: &Site) {
    site.block_on(site.platform.open_enrolment(&site.device(), Duration::from_secs(600), false, &Caller::program()))
        .expect("opened");
}

fn enrolment_is_open(site: &Site) -> bool {
    site.device().enrol_until() != 0
}

#[test]
fn osap_13_2_2_each_key_agreement_costs_exactly_one_connack_11() {
    let (site, mut device) = site_and_device();
    let (mqtt, session) = device.come_in(&site);
    drop(mqtt);
    // A reconnect is none, and a plain refresh is none.
    assert_eq!(device.log_in(&site, &session).0, 0);
    let refreshed = device.authenticate(&site);
    assert_ne!(refreshed.session_key, session.session_key, "13.2.8");
    assert_eq!(device.log_in(&site, &refreshed).0, 0);
    assert_eq!(device.log_in(&site, &session).0, 11, "the old key is gone");

    device.forget_master_key();
    let (_mqtt, again) = device.come_in(&site);
    assert_eq!(again.dev_id, session.dev_id, "an ECDH refresh leaves the DevID");
    assert_ne!(again.master_key, session.master_key);
}

#[test]
fn osap_13_2_2_the_first_session_key_is_forgotten_for_good() {
    let (site, mut device) = site_and_device();
    let first = device.authenticate(&site);
    assert_eq!(device.log_in(&site, &first).0, 11);
    assert_eq!(device.log_in(&site, &first).0, 11, "not even a second time");
    let session = device.authenticate(&site);
    assert_eq!(device.log_in(&site, &first).0, 11);
    assert_eq!(device.log_in(&site, &session).0, 0);
}

#[test]
fn osap_5_5_after_a_lost_0xb0_the_old_credential_still_works() {
    let (site, mut device) = site_and_device();
    let (_mqtt, session) = device.come_in(&site);
    let mut forgetful = device.clone();
    forgetful.forget_master_key();
    forgetful.lose_answer(&site);
    let credentials = site.credentials();
    let (committed, candidate) = (credentials.committed.expect("kept"), credentials.candidate.expect("staged"));
    assert_ne!(committed.master_key, candidate.master_key);
    assert!(candidate.epoch > committed.epoch);

    assert_eq!(device.log_in(&site, &session).0, 0, "under the session key it has");
    let refreshed = device.authenticate(&site);
    assert_eq!(device.log_in(&site, &refreshed).0, 0, "and under the master key it has");
    assert!(site.credentials().candidate.is_some(), "the candidate was not shown and is still none");
    // The device that lost the answer repeats the same kind of run.
    let (_mqtt, _) = forgetful.come_in(&site);
    assert!(site.credentials().candidate.is_none());
    assert_eq!(device.refused(&site), ResultCode::MasterKeyInvalid, "the old master key is over now");
}

#[test]
fn osap_5_5_a_lost_0xb0_locks_no_new_device_out() {
    let (site, mut device) = site_and_device();
    device.lose_answer(&site);
    device.lose_answer(&site);
    assert!(site.credentials().committed.is_none());
    device.come_in(&site);
}

#[test]
fn osap_5_5_a_connect_under_the_candidate_commits_it() {
    let (site, mut device) = site_and_device();
    let first = device.authenticate(&site);
    assert!(site.credentials().committed.is_none());
    assert_eq!(device.log_in(&site, &first).0, 11);
    let credentials = site.credentials();
    assert!(credentials.candidate.is_none());
    let committed = credentials.committed.expect("committed");
    assert_eq!(committed.master_key.expose(), first.master_key.as_bytes());
    assert!(committed.session_key.is_none());
    assert_eq!(site.reasons(), ["authenticated", "sent_for_new_key"]);
    assert!(site.device().last_failure().is_none(), "the one 11 is no failure");
}

#[test]
fn osap_5_5_a_refresh_under_the_candidate_commits_it() {
    let (site, mut device) = site_and_device();
    let first = device.authenticate(&site);
    let session = device.authenticate(&site);
    let credentials = site.credentials();
    assert!(credentials.candidate.is_none());
    let committed = credentials.committed.expect("committed");
    assert_eq!(committed.master_key.expose(), first.master_key.as_bytes());
    assert_eq!(committed.session_key.expect("a new one").expose(), session.session_key.as_bytes());
    assert_eq!(device.log_in(&site, &session).0, 0);
}

#[test]
fn osap_13_2_2_a_strangers_connect_burns_the_candidates_session_key_only() {
    for record in [Some(wrong_key()), None] {
        let (site, mut device) = site_and_device();
        let (_mqtt, session) = device.come_in(&site);
        let mut forgetful = device.clone();
        forgetful.forget_master_key();
        let first = forgetful.authenticate(&site);
        let serial = Serial::new(SERIAL).expect("a serial");
        let will = record.map(|key| LoginRecord::short(&serial, &session.dev_id).seal(&key));
        assert_eq!(Mqtt::log_in(&site, SERIAL, will.as_deref()).0, 11);
        let credentials = site.credentials();
        let candidate = credentials.candidate.expect("it stays");
        assert_eq!(candidate.master_key.expose(), first.master_key.as_bytes());
        assert!(candidate.session_key.is_none(), "its session key does not");
        assert!(credentials.committed.expect("it stays").session_key.is_some(), "with its session key");
        assert_eq!(device.log_in(&site, &session).0, 0);
        // Its own CONNECT finds no key; the 0x70 that follows commits.
        assert_eq!(forgetful.log_in(&site, &first).0, 11);
        let refreshed = forgetful.authenticate(&site);
        assert!(site.credentials().candidate.is_none());
        assert_eq!(forgetful.log_in(&site, &refreshed).0, 0);
    }
}

#[test]
fn osap_9_2_a_login_record_of_somebody_else_is_refused() {
    let (site, mut device) = site_and_device();
    site.add("SN0000002");
    let (_mqtt, session) = device.come_in(&site);
    let serial = |text| Serial::new(text).expect("a serial");
    let key = &session.session_key;
    // Another serial inside the record, and the record of one device under the name of another.
    let other = LoginRecord::short(&serial("SN0000002"), &session.dev_id).seal(key);
    assert_eq!(Mqtt::log_in(&site, SERIAL, Some(&other)).0, 11);
    let mine = LoginRecord::short(&serial(SERIAL), &session.dev_id).seal(key);
    assert_eq!(Mqtt::log_in(&site, "SN0000002", Some(&mine)).0, 11);
    let dev_id = DevId::parse(&[b'f'; 32]).expect("printable");
    let foreign = LoginRecord::short(&serial(SERIAL), &dev_id).seal(key);
    assert_eq!(Mqtt::log_in(&site, SERIAL, Some(&foreign)).0, 11);
    assert_eq!(Mqtt::log_in(&site, "SN0000003", Some(&mine)).0, 11, "a serial that nobody registered");
    site.expect_fact("login_record_mismatch");
    assert_eq!(device.log_in(&site, &session).0, 0);
}

#[test]
fn osap_13_2_4_a_device_enrols_again_only_inside_a_window_that_closes_with_the_commit() {
    let (site, mut device) = site_and_device();
    device.come_in(&site);
    let mut replaced = TestDevice::new();
    assert_eq!(replaced.refused(&site), ResultCode::Refused);
    site.expect_fact("enrolment_closed");

    open_window(&site);
    let first = replaced.authenticate(&site);
    assert!(enrolment_is_open(&site), "a candidate does not close it");
    assert_eq!(replaced.log_in(&site, &first).0, 11);
    assert!(!enrolment_is_open(&site), "the commit by CONNECT does");
    assert_eq!(TestDevice::new().refused(&site), ResultCode::Refused);

    open_window(&site);
    replaced.stored = Stored::Nothing;
    replaced.authenticate(&site);
    assert!(enrolment_is_open(&site));
    replaced.authenticate(&site);
    assert!(!enrolment_is_open(&site), "and so does the commit by 0x70");

    open_window(&site);
    site.clock.advance(Duration::from_secs(601));
    assert_eq!(TestDevice::new().refused(&site), ResultCode::Refused, "a window ends by itself");
    let site = site.restart();
    assert_eq!(TestDevice::new().refused(&site), ResultCode::Refused, "and stays so");
}

/// Before a restart the window lasts as long as was said; behind it, what the wall clock says is left of it, and never
/// longer than a window can be.
#[test]
fn osap_13_2_4_who_sets_the_clock_neither_closes_a_window_nor_keeps_it_open() {
    const YEAR: i64 = 365 * 24 * 60 * 60 * 1_000;
    let lost = |site: &Site| TestDevice::new().visit(site).finish().map(drop).map_err(|failure| failure.result());
    let (site, mut device) = site_and_device();
    device.come_in(&site);
    assert_eq!(lost(&site), Err(Some(ResultCode::Refused)));
    for set in [YEAR, -2 * YEAR] {
        open_window(&site);
        site.clock.set(set);
        assert_eq!(lost(&site), Ok(()), "open still");
        site.clock.advance(Duration::from_secs(600));
        assert_eq!(lost(&site), Err(Some(ResultCode::Refused)), "closed in time");
    }
    open_window(&site);
    // Its end is a year and more away, by the clock that the next process begins with.
    site.clock.set(-YEAR);
    let site = site.restart();
    assert_eq!(lost(&site), Ok(()));
    site.clock.advance(LONGEST_WINDOW);
    assert_eq!(lost(&site), Err(Some(ResultCode::Refused)));
}

#[test]
fn osap_13_2_4_a_run_that_is_overtaken_by_an_enrolment_is_not_kept() {
    let (site, mut device) = site_and_device();
    let mut slow = TestDevice::new().visit(&site);
    slow.hold_before(0xA0);
    let (_mqtt, session) = device.come_in(&site);
    let refused = slow.finish().expect_err("the lookup does not hold any more");
    assert_eq!(refused.result(), Some(ResultCode::Unavailable));
    let credentials = site.credentials();
    assert!(credentials.candidate.is_none());
    assert_eq!(device.log_in(&site, &session).0, 0);
}

#[test]
fn osap_5_11_unknown_serial_and_wrong_code_get_the_same_result() {
    let (site, device) = site_and_device();
    let unknown = TestDevice { serial: "SN0000009".into(), ..device.clone() };
    let wrong = TestDevice { code: "ABCDEG".into(), ..device.clone() };
    for stranger in [unknown, wrong] {
        let failure = stranger.visit(&site).finish().expect_err("refused");
        assert_eq!(failure.result(), Some(ResultCode::CodeRefused));
        assert_eq!(failure.reaction, Reaction::RetryLowerCase);
    }
    site.expect_fact("wrong_code");
}

#[test]
fn osap_5_11_a_devid_that_is_not_on_record_is_result_4() {
    let (site, mut device) = site_and_device();
    device.come_in(&site);
    let Stored::Both { master_key, .. } = device.stored.clone() else { panic!("it came in") };
    let dev_id = DevId::parse(&[b'f'; 32]).expect("printable");
    device.stored = Stored::Both { dev_id, master_key };
    assert_eq!(device.refused(&site), ResultCode::DevIdMismatch);
    device.stored = Stored::DevId(dev_id);
    assert_eq!(device.refused(&site), ResultCode::DevIdMismatch);
}

#[test]
fn osap_5_11_without_a_das_the_result_is_9_and_nothing_is_staged() {
    let (site, device) = site_and_device();
    site.assignment.drain();
    assert_eq!(device.refused(&site), ResultCode::NoDas);
    assert!(site.credentials().candidate.is_none());
    site.expect_fact("no_das");

    let site = Site::with(Plan { assignment: Some(Assignment::none()), ..Plan::default() });
    site.add(SERIAL);
    assert_eq!(device.refused(&site), ResultCode::NoDas);
}

#[test]
fn osap_5_11_a_store_that_is_down_is_result_6() {
    let (site, device) = site_and_device();
    let mut waiting = device.visit(&site);
    waiting.hold_before(0xA0);
    site.add("SN0000002");
    site.block_on(site.platform.close());
    let refused = waiting.finish().expect_err("nothing can be staged");
    assert_eq!(refused.result(), Some(ResultCode::Unavailable));
    // The secrets of this one were never read.
    let unread = TestDevice { serial: "SN0000002".into(), ..device };
    assert_eq!(unread.refused(&site), ResultCode::Unavailable);
}

#[test]
fn a_device_that_is_removed_in_the_middle_of_a_run_gets_no_credentials() {
    let (site, device) = site_and_device();
    let mut visit = device.visit(&site);
    visit.hold_before(0xA0);
    site.block_on(site.platform.remove_device(&site.device(), &Caller::program())).expect("removed");
    let refused = visit.finish().expect_err("nobody is there to be given anything");
    assert_eq!(refused.result(), Some(ResultCode::Unavailable));
    assert_eq!(device.refused(&site), ResultCode::CodeRefused);
    // Registered anew it is a new device: nothing of the old one is left.
    site.add(SERIAL);
    assert!(site.credentials().committed.is_none() && site.credentials().candidate.is_none());
    TestDevice::new().come_in(&site);
}

#[test]
fn osap_9_9_the_newest_login_replaces_the_older_connection() {
    let (site, mut device) = site_and_device();
    let (mut older, session) = device.come_in(&site);
    let (code, mut newer) = device.log_in(&site, &session);
    assert_eq!(code, 0);
    older.wire.expect_end();
    site.expect_fact("replaced");
    assert!(newer.is_alive());
    assert_eq!(site.device().presence().state, PresenceState::Online);
}

#[test]
fn osap_9_9_of_two_logins_at_the_same_moment_one_stays() {
    let (site, mut device) = site_and_device();
    let (_mqtt, session) = device.come_in(&site);
    for _ in 0..50 {
        let (device, session, site) = (&device, &session, &site);
        let mut connections: Vec<Mqtt> = std::thread::scope(|scope| {
            let logins: Vec<_> = (0..2).map(|_| scope.spawn(move || device.log_in(site, session))).collect();
            logins.into_iter().map(|login| login.join().expect("logged in").1).collect()
        });
        let alive = connections.iter_mut().map(Mqtt::is_alive).filter(|alive| *alive).count();
        assert_eq!(alive, 1);
        assert_eq!(site.device().presence().state, PresenceState::Online);
    }
}

#[test]
fn a_removed_device_is_cut_off_and_does_not_come_back() {
    let (site, mut device) = site_and_device();
    let (mut mqtt, session) = device.come_in(&site);
    let registered = site.device();
    site.block_on(site.platform.remove_device(&registered, &Caller::program())).expect("removed");
    mqtt.wire.expect_end();
    assert_eq!(device.log_in(&site, &session).0, 11);
    assert_eq!(device.refused(&site), ResultCode::DevIdMismatch, "its 0x70 names what nobody knows");
    eventually("offline", || registered.presence().state == PresenceState::Offline);
}

#[test]
fn what_a_device_was_given_survives_a_restart() {
    let (site, mut device) = site_and_device();
    let (_mqtt, session) = device.come_in(&site);
    let site = site.restart();
    assert_eq!(site.device().presence().state, PresenceState::Offline);
    assert_eq!(device.log_in(&site, &session).0, 0);
    device.authenticate(&site);
}

#[test]
fn osap_5_13_what_is_no_frame_closes_the_connection_without_an_answer() {
    let (site, _) = site_and_device();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x1A, 0xFF, 0xFF, 0xFF, 0x7F], &[0xA0, 0], &[0x1A, 0x81, 0x09]] {
        let mut wire = Wire::dial(site.lbs);
        wire.send(bytes);
        wire.expect_end();
    }
}

#[test]
fn osap_3_4_a_peer_that_says_nothing_is_sent_away() {
    let limits = LbsConfig { frame_timeout: Duration::from_millis(50), ..LbsConfig::default() };
    let site = Site::with(Plan { limits, ..Plan::default() });
    site.add(SERIAL);
    Wire::dial(site.lbs).expect_end();
    let mut visit = TestDevice::new().visit(&site);
    visit.hold_before(0xA0);
    visit.wire.expect_end();
    site.expect_fact("timeout");
}

#[test]
fn osap_4_3_a_device_that_hashes_in_lower_case_is_known_at_once() {
    let (site, device) = site_and_device();
    assert_eq!(device.code, CODE);
    let mut visit = device.visit_in_lower_case(&site);
    visit.hold_before(0xA0);
    visit.finish().expect("let in at the first attempt");
    assert!(site.credentials().candidate.expect("staged").code_case_lower);
}

#[test]
fn a_disabled_device_is_refused_everywhere_until_it_is_enabled() {
    let site = Site::new();
    let device = site.add(SERIAL);
    let mut known = TestDevice::new();
    let (mut mqtt, session) = known.come_in(&site);
    let caller = site.platform.authorize(&site.token()).expect("the administrator");
    site.block_on(site.platform.set_disabled(&device, true, &caller)).expect("stored");
    while mqtt.frame().is_some() {}
    site.expect_fact("disabled");
    assert_eq!(known.refused(&site), ResultCode::Unavailable);
    assert_eq!(TestDevice::new().refused(&site), ResultCode::CodeRefused, "as if nobody knew the serial (13.2.3)");
    assert_eq!(known.log_in(&site, &session).0, 11);
    let site = site.restart();
    assert_eq!(known.refused(&site), ResultCode::Unavailable, "also after a restart");
    let caller = site.platform.authorize(&site.token()).expect("the administrator");
    site.block_on(site.platform.set_disabled(&site.device(), false, &caller)).expect("stored");
    let session = known.authenticate(&site);
    assert_eq!(known.log_in(&site, &session).0, 0, "with the keys it had");
}

#[test]
fn a_rotated_device_comes_in_with_its_new_code_and_nothing_of_the_old() {
    let site = Site::new();
    let device = site.add(SERIAL);
    let mut known = TestDevice::new();
    let (mut mqtt, session) = known.come_in(&site);
    let caller = site.platform.authorize(&site.token()).expect("the administrator");
    let code = vestibule_platform::Secret::new(*b"GHIJKL");
    site.block_on(site.platform.rotate_device(&device, code, false, &caller)).expect("stored");
    while mqtt.frame().is_some() {}
    site.expect_fact("rotated");
    assert_eq!(known.log_in(&site, &session).0, 11);
    assert_eq!(known.refused(&site), ResultCode::DevIdMismatch);
    assert_eq!(TestDevice::new().refused(&site), ResultCode::CodeRefused);
    let mut renewed = TestDevice { code: "GHIJKL".into(), ..TestDevice::new() };
    renewed.come_in(&site);
}
