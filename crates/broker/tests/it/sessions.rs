//! Identity, take-over, ends and wills.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vestibule_broker::codec::{QoS, Will};
use vestibule_broker::{EndReason, Profile};

use crate::client::{CONNACK_OK, Client, DISCONNECT, connect, connect_with, puback, publish};
use crate::probe::{Asked, PATIENCE};
use crate::server::{Server, counted};

#[test]
fn a_login_with_the_same_identity_closes_the_old_connection_and_its_late_end_changes_nothing() {
    let server = Server::with(2, Profile::Strict, |_| {});
    let mut living = server.login("device");
    // Each must find its predecessor in the table, although the end of the one before came after its login.
    for _ in 0..20 {
        let next = server.login("device");
        living.expect_end();
        living = next;
    }
    living.subscribe("a", QoS::AtMostOnce);
    server.broker.router().send("a", QoS::AtMostOnce, b"alive");
    assert_eq!(living.message().payload, b"alive");
    server.probe.wait("twenty ends", |asked| (replaced(asked) == 20).then_some(()));
}

#[test]
fn osap_13_3_a_guest_takes_nobodys_place_until_it_settles_and_is_not_one_for_long() {
    let server = Server::with(2, Profile::OsapModern, |_| {});
    let mut living = server.login("device");
    let guest = || {
        let mut guest = server.dial();
        guest.send(&connect_with("device", 30, Some("guest"), None));
        guest.expect(&CONNACK_OK);
        guest
    };
    let mut late = guest();
    late.send(&publish("done", Some(1), b"a sign of life changes nothing"));
    late.expect(&puback(1));
    late.expect_end();
    assert_eq!(server.probe.count(|asked| matches!(asked, Asked::Opened { .. })), 1, "the guest is not the live one");
    living.send(&publish("done", Some(1), b"still here"));
    living.expect(&puback(1));
    let mut settled = guest();
    settled.send(&publish("settle", Some(7), b""));
    settled.expect(&puback(7));
    living.expect_end();
    settled.send(&publish("settle", Some(8), b"again"));
    settled.expect(&puback(8));
    server.probe.wait("the guest opened", |asked| {
        (asked.iter().filter(|asked| matches!(asked, Asked::Opened { .. })).count() == 2).then_some(())
    });
}

fn replaced(asked: &[Asked]) -> usize {
    asked.iter().filter(|a| matches!(a, Asked::Ended { reason: EndReason::Closed("replaced"), .. })).count()
}

#[test]
fn osap_13_3_a_guest_is_heard_while_the_journal_takes_nothing() {
    let server = Server::start();
    server.probe.set_room(false);
    let mut guest = server.dial();
    guest.send(&connect_with("device", 30, Some("guest"), None));
    guest.expect(&CONNACK_OK);
    // It would stay a guest for ever otherwise, and come again and again.
    guest.send(&publish("settle", Some(1), b""));
    guest.expect(&[0x40, 2, 0, 1]);
    // From then on it waits as everybody does.
    guest.send(&publish("done/1", Some(2), b"kept"));
    let taken = || server.probe.count(|asked| matches!(asked, Asked::Published { topic, .. } if topic == "done/1"));
    assert_eq!(taken(), 0);
    server.open_room();
    guest.expect(&[0x40, 2, 0, 2]);
    assert_eq!(taken(), 1);
}

#[test]
fn of_many_logins_at_once_the_one_that_opened_last_lives() {
    const LOGINS: usize = 8;
    for _ in 0..20 {
        let server = Server::with(2, Profile::Strict, |_| {});
        let clients: Vec<Client> = std::thread::scope(|scope| {
            let logins: Vec<_> = (0..LOGINS)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = server.dial();
                        client.send(&connect("device"));
                        client
                    })
                })
                .collect();
            logins.into_iter().map(|login| login.join().expect("connected")).collect()
        });
        server.probe.wait("the ends of all but one", |asked| (replaced(asked) == LOGINS - 1).then_some(()));
        let asked = server.probe.asked();
        let last = asked.iter().rev().find_map(|a| match a {
            Asked::Opened { number, .. } => Some(*number),
            _ => None,
        });
        let ended = |number| asked.iter().any(|a| matches!(a, Asked::Ended { number: n, .. } if *n == number));
        assert!(!ended(last.expect("all have opened")));
        drop(clients);
    }
}

#[test]
fn a_panic_costs_its_connection_and_the_service_is_told_once() {
    let server = Server::start();
    let (mut unlucky, mut other) = (server.login("unlucky"), server.login("other"));
    unlucky.subscribe("a", QoS::AtMostOnce);
    let before = counted("vestibule_panics_total", "");
    unlucky.send(&publish("panic/now", Some(1), b""));
    unlucky.expect_end();
    assert_eq!(server.probe.wait_ended("unlucky"), EndReason::Panic);

    let mut stranger = server.dial();
    stranger.send(&connect_with("stranger", 0, Some("panic"), None));
    stranger.expect_end();

    let mut last = server.dial();
    last.send(&connect_with("last", 0, Some("panic-at-end"), None));
    last.expect(&CONNACK_OK);
    // Two panics in one task: the second comes while the first unwinds.
    last.send(&publish("panic/now", Some(1), b""));
    last.expect_end();
    assert_eq!(server.probe.wait_ended("panic-at-end"), EndReason::Panic);

    other.send(&publish("a", Some(2), b""));
    other.expect(&puback(2));
    let again = server.login("unlucky");
    assert!(counted("vestibule_panics_total", "") >= before + 4);
    assert_eq!(server.probe.count(|asked| matches!(asked, Asked::Ended { .. })), 2);
    drop(again);
}

fn with_will<'a>(topic: &'a str, payload: &'a [u8]) -> Option<Will<'a>> {
    Some(Will { topic, payload, qos: QoS::AtLeastOnce, retain: true })
}

#[test]
fn mqtt_3_1_2_8_a_will_is_published_on_loss_and_not_after_disconnect() {
    let server = Server::start();
    let mut watcher = server.login("watcher");
    watcher.subscribe("wills/#", QoS::AtMostOnce);
    let log_in = |id: &str| {
        let mut client = server.dial();
        client.send(&connect_with(id, 0, None, with_will(&format!("wills/{id}"), b"gone")));
        client.expect(&CONNACK_OK);
        client
    };
    let mut orderly = log_in("orderly");
    orderly.send(&DISCONNECT);
    orderly.expect_end();
    assert_eq!(server.probe.wait_ended("orderly"), EndReason::Disconnect);

    log_in("lost").hang_up();
    let will = watcher.message();
    assert_eq!((will.topic.as_str(), &will.payload[..], will.retain), ("wills/lost", &b"gone"[..], false));

    let mut rude = log_in("rude");
    rude.send(&[0xf0, 0]);
    assert_eq!(watcher.message().topic, "wills/rude");

    let _first = log_in("twice");
    let _second = log_in("twice");
    assert_eq!(watcher.message().topic, "wills/twice");
    watcher.expect_silence();
}

#[test]
fn a_will_needs_the_permission_of_a_message() {
    let server = Server::start();
    let mut watcher = server.login("watcher");
    watcher.subscribe("#", QoS::AtMostOnce);
    let mut client = server.dial();
    client.send(&connect_with("climber", 0, None, with_will("deny/all", b"")));
    client.expect(&CONNACK_OK);
    client.hang_up();
    assert_eq!(server.probe.wait_ended("climber"), EndReason::Lost);
    watcher.expect_silence();
    assert!(counted("vestibule_publishes_denied_total", "test_denied") > 0);
}

#[test]
fn shutdown_acknowledges_what_is_owed_and_then_closes() {
    let server = Arc::new(Server::with(2, Profile::Strict, |_| {}));
    let (mut publisher, mut idle, mut silent) = (server.login("publisher"), server.login("idle"), server.dial());
    publisher.send(&[publish("durable/a", Some(1), b""), publish("durable/b", Some(2), b"")].concat());
    server.probe.wait_published(2);
    let down = Arc::clone(&server).shut_down(PATIENCE);
    // Those who are owed nothing go at once, also one that has not even logged in.
    idle.expect_end();
    silent.expect_end();
    assert_eq!(server.probe.wait_ended("idle"), EndReason::Shutdown);
    assert_eq!(
        server.probe.count(|asked| matches!(asked, Asked::Ended { principal, .. } if principal == "publisher")),
        0
    );
    server.advance(1);
    publisher.expect(&puback(1));
    server.advance(2);
    publisher.expect(&puback(2));
    publisher.expect_end();
    down.join().expect("the shutdown ends");
    assert_eq!(server.probe.wait_ended("publisher"), EndReason::Shutdown);
    assert_eq!(server.broker.shards().connections(), 0);
    assert!(
        std::net::TcpStream::connect(server.address).is_err() || {
            // The kernel may have had one in its queue when the listener closed.
            server.dial().expect_end();
            true
        }
    );
}

#[test]
fn shutdown_does_not_wait_longer_than_its_patience_and_what_is_left_is_cut() {
    let server = Arc::new(Server::start());
    let mut publisher = server.login("publisher");
    publisher.send(&publish("durable/a", Some(1), b""));
    server.probe.wait_published(1);
    let begun = Instant::now();
    Arc::clone(&server).shut_down(Duration::from_millis(100)).join().expect("the shutdown ends");
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(server.broker.shards().connections(), 1);
    server.broker.shards().stop();
    publisher.expect_end();
    assert_eq!(server.probe.wait_ended("publisher"), EndReason::Shutdown);
    assert_eq!(server.broker.shards().connections(), 0);
}
