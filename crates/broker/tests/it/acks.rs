//! What is acknowledged when, and what happens while it may not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vestibule_broker::Profile;
use vestibule_broker::codec::QoS;

use crate::client::{PINGREQ, puback, publish, subscribe};
use crate::server::Server;

fn durable(id: u16) -> Vec<u8> {
    publish("durable/x", Some(id), b"")
}

#[test]
fn an_acknowledgement_waits_for_the_mark_and_keeps_the_order_of_receipt() {
    let server = Server::start();
    let mut client = server.login("order");
    // The third needs no mark, but it came behind the second.
    client.send(&[durable(11), durable(12), publish("done/x", Some(13), b""), durable(14)].concat());
    server.probe.wait_published(4);
    client.expect_silence();
    server.advance(1);
    client.expect(&puback(11));
    client.expect_silence();
    server.advance(2);
    client.expect(&[puback(12), puback(13)].concat());
    client.expect_silence();
    server.advance(3);
    client.expect(&puback(14));
}

#[test]
fn a_mark_that_moves_at_any_moment_is_never_missed() {
    const CLIENTS: usize = 4;
    const MESSAGES: u16 = 3_000;
    let server = Server::with(2, Profile::Strict, |_| {});
    let over = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        // A store that commits as fast as it can, in step with nobody.
        scope.spawn(|| {
            let mut mark = 0;
            while !over.load(Ordering::Acquire) {
                let last = server.probe.last_ticket();
                if last == mark {
                    std::thread::yield_now();
                } else {
                    mark = last;
                    server.advance(mark);
                }
            }
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut client = server.login(&format!("racer-{number}"));
                scope.spawn(move || {
                    for id in 1..=MESSAGES {
                        client.send(&durable(id));
                        client.expect(&puback(id));
                    }
                })
            })
            .collect();
        let failed = clients.into_iter().map(|client| client.join()).filter(Result::is_err).count();
        over.store(true, Ordering::Release);
        assert_eq!(failed, 0);
    });
}

#[test]
fn room_that_comes_and_goes_at_any_moment_is_never_missed() {
    const BURSTS: usize = 300;
    let server = Server::start();
    let mut client = server.login("flood");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                server.probe.set_room(false);
                std::thread::yield_now();
                server.open_room();
            }
        });
        // QoS 0: nothing is owed that would have the connection looked at again.
        let burst = publish("done/it", None, &[b'q'; 2_000]).repeat(40);
        for _ in 0..BURSTS {
            client.send(&burst);
            client.expect_silence();
        }
        over.store(true, Ordering::Release);
    });
    assert_eq!(server.probe.published().len(), BURSTS * 40);
}

#[test]
fn without_room_a_publisher_is_not_read_and_nothing_is_lost() {
    let server = Server::start();
    let mut client = server.login("pressed");
    server.probe.set_room(false);
    // More than the sockets' buffers can take.
    let payload = vec![b'p'; 200_000];
    let message = publish("done/it", Some(7), &payload);
    let all = message.repeat(60);
    let mut sent = client.stuff(&[&PINGREQ, &all[..]].concat(), Duration::from_millis(300)) - PINGREQ.len();
    assert!(sent < all.len(), "the server goes on reading");
    // What is no message is answered all the same.
    client.expect(&crate::client::PINGRESP);
    assert_eq!(server.probe.published(), []);

    server.open_room();
    while sent < all.len() {
        sent += client.stuff(&all[sent..], Duration::from_secs(5));
    }
    let published = server.probe.wait_published(60);
    assert!(published.iter().all(|(_, body)| *body == payload));
    client.expect(&puback(7).repeat(60));
}

#[test]
fn past_the_window_a_publisher_is_not_read_until_acknowledgements_leave() {
    let server = Server::with(1, Profile::Strict, |config| config.max_unacknowledged = 4);
    let mut client = server.login("window");
    let mut other = server.login("other");
    client.send(&(1..=10).flat_map(durable).collect::<Vec<_>>());
    server.probe.wait_published(4);
    // They share a thread, so the turn that took four is over when another client is answered.
    other.expect_silence();
    assert_eq!(server.probe.published().len(), 4);
    server.advance(3);
    client.expect(&(1..=3).flat_map(puback).collect::<Vec<_>>());
    server.probe.wait_published(7);
    other.expect_silence();
    assert_eq!(server.probe.published().len(), 7);
    server.advance(i64::MAX);
    client.expect(&(4..=10).flat_map(puback).collect::<Vec<_>>());
}

#[test]
fn a_held_publisher_still_gets_its_messages() {
    let server = Server::start();
    let mut client = server.login("both");
    client.subscribe("news", QoS::AtMostOnce);
    server.probe.set_room(false);
    client.send(&[publish("done/it", Some(1), b""), PINGREQ.to_vec()].concat());
    server.broker.router().send("news", QoS::AtMostOnce, b"now");
    assert_eq!(client.message().payload, b"now");
    server.open_room();
    // The acknowledgement leaves with the turn, behind what is answered at once.
    client.expect(&[crate::client::PINGRESP.to_vec(), puback(1)].concat());
}

#[test]
fn all_answers_of_a_turn_leave_in_one_write() {
    let server = Server::start();
    let mut client = server.login("turns");
    let turn = [
        subscribe(1, &[("echo/+", QoS::AtLeastOnce)]),
        publish("echo/a", None, b"a"),
        publish("done/b", Some(2), b""),
        publish("deny/c", Some(3), b""),
        publish("done/d", Some(4), b""),
        PINGREQ.to_vec(),
    ]
    .concat();
    let answers = 5 + publish("echo/a", None, b"a").len() + 3 * 4 + 2;
    // Two writes would now and then be two reads.
    for _ in 0..200 {
        client.send(&turn);
        assert_eq!(client.read_once().len(), answers);
    }
}
