//! How long a session key lets a device in, and what is done before one is sent back (osap-wire 9.3, 13.2.8).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use osap::key::SessionKey;
use osap::lbs::client::Success;
use vestibule_platform::Secret;

use crate::attack::quick;
use crate::device::{TestDevice, wrong_key};
use crate::site::SERIAL;

#[test]
fn osap_13_2_8_every_round_at_the_lbs_gives_a_new_session_key() {
    let site = quick();
    site.add(SERIAL);
    let mut device = TestDevice::new();
    let (_mqtt, session) = device.come_in(&site);
    let mut keys = HashSet::from([*session.session_key.as_bytes()]);
    for round in 0..20 {
        if round % 5 == 4 {
            device.forget_master_key();
        }
        assert!(keys.insert(*device.authenticate(&site).session_key.as_bytes()), "round {round}");
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn osap_13_2_8_a_session_key_of_a_day_is_answered_11_at_the_next_login_and_a_new_one_follows() {
    let site = quick();
    site.add(SERIAL);
    let mut device = TestDevice::new();
    let (mut mqtt, session) = device.come_in(&site);
    site.clock.advance(DAY - Duration::from_millis(1));
    let (code, again) = device.log_in(&site, &session);
    assert_eq!(code, 0);
    drop(again);
    mqtt.wire.expect_end();
    let site = site.restart();
    site.clock.advance(Duration::from_millis(1));
    assert_eq!(device.log_in(&site, &session).0, 11);
    assert_eq!(site.reasons().last().map(String::as_str), Some("session_key_too_old"));
    let fresh = device.authenticate(&site);
    assert_ne!(fresh.session_key, session.session_key);
    assert_eq!(device.log_in(&site, &fresh).0, 0);
    assert_eq!(device.log_in(&site, &session).0, 11, "the old one is gone for good");
}

/// What is stored beside a session key does not make it younger.
#[test]
fn osap_13_2_8_a_session_key_keeps_its_age_when_something_else_changes() {
    let site = quick();
    site.add(SERIAL);
    let mut device = TestDevice::new();
    let (_mqtt, session) = device.come_in(&site);
    site.clock.advance(DAY / 2);
    let mut forgetful = device.clone();
    forgetful.forget_master_key();
    forgetful.authenticate(&site);
    assert!(site.credentials().candidate.is_some(), "stored beside it");
    site.clock.advance(DAY / 2);
    assert_eq!(device.log_in(&site, &session).0, 11);
}

/// A live connection is not ended by the age of its key.
#[test]
fn osap_13_2_8_who_is_connected_stays() {
    let site = quick();
    site.add(SERIAL);
    let (mut mqtt, _) = TestDevice::new().come_in(&site);
    site.clock.advance(2 * DAY);
    assert!(mqtt.is_alive());
}

/// The DAS does not send a device away because of what it has in memory only.
#[test]
fn osap_9_3_the_store_is_asked_before_a_device_is_sent_back() {
    let site = quick();
    let registered = site.add(SERIAL);
    let mut device = TestDevice::new();
    let (_mqtt, session) = device.come_in(&site);
    let stored = site.credentials();
    // Another LBS on the same store has given the device a new key.
    let other = SessionKey::from_bytes(&[7; 16]).expect("sixteen bytes");
    let mut newer = stored.clone();
    newer.committed.as_mut().expect("committed").session_key = Some(Secret::new(other.as_bytes().as_slice()));
    site.store_behind(&registered, &newer);
    assert_eq!(site.credentials(), stored, "in memory");
    let renewed = Success { session_key: other, ..session.clone() };
    assert_eq!(device.log_in(&site, &renewed).0, 0);
    assert_eq!(site.credentials(), newer);
}

/// A device that comes back and back is slowed down, and then forgotten.
#[test]
fn osap_9_3_the_third_11_in_a_row_is_held_back_five_seconds() {
    let site = quick();
    site.add(SERIAL);
    let mut device = TestDevice::new();
    let (_mqtt, session) = device.come_in(&site);
    let wrong = Success { session_key: wrong_key(), ..session.clone() };
    let mut took = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(device.log_in(&site, &wrong).0, 11);
        took.push(begun.elapsed());
    }
    assert!(took[2] >= Duration::from_secs(5) && took[2] < Duration::from_secs(6), "CONNACK is due in six: {took:?}");
    // Its own login is not held back, and ends the row.
    assert_eq!(device.log_in(&site, &session).0, 0);
    let begun = Instant::now();
    assert_eq!(device.log_in(&site, &wrong).0, 11);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Or strangers would learn which serials exist.
#[test]
fn osap_13_2_3_a_serial_that_nobody_has_registered_is_held_back_like_another() {
    let site = quick();
    site.add(SERIAL);
    let (_mqtt, session) = TestDevice::new().come_in(&site);
    let stranger = TestDevice::of("SN0000009");
    let took: Vec<Duration> = (0..3)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(stranger.log_in(&site, &session).0, 11);
            begun.elapsed()
        })
        .collect();
    assert!(took[1] < Duration::from_secs(5) && took[2] >= Duration::from_secs(5), "{took:?}");
}
