//! What ends by the clock. Lower bounds are exact, upper ones are those of the read's deadline.

use std::time::{Duration, Instant};

use vestibule_broker::{EndReason, Profile};

use crate::client::{CONNACK_OK, PINGREQ, PINGRESP, connect_with, publish};
use crate::server::{Server, counted};

#[test]
fn a_connection_that_says_nothing_or_too_little_ends_by_the_connect_timeout() {
    let server = Server::with(1, Profile::Strict, |config| config.connect_timeout = Duration::from_secs(1));
    let begun = Instant::now();
    let (mut silent, mut half) = (server.dial(), server.dial());
    half.send(&connect_with("half", 0, None, None)[..5]);
    silent.expect_end();
    half.expect_end();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(counted("vestibule_connections_ended_total", "reason=connect_timeout") >= 2);
    assert_eq!(server.probe.asked(), []);
}

#[test]
fn mqtt_3_1_2_24_silence_for_one_and_a_half_keep_alives_ends_the_session() {
    let server = Server::start();
    let (mut silent, mut alive, mut free) = (server.dial(), server.dial(), server.login("free"));
    for (client, id) in [(&mut silent, "silent"), (&mut alive, "alive")] {
        client.send(&connect_with(id, 1, None, None));
        client.expect(&CONNACK_OK);
    }
    let begun = Instant::now();
    let (mut ended, mut pings) = (None, 0);
    // The one that pings outlives the silent one by far.
    while pings < 10 {
        silent.stream.set_read_timeout(Some(Duration::from_millis(400))).expect("a timeout can be set");
        let mut byte = [0; 1];
        if ended.is_none() {
            match std::io::Read::read(&mut silent.stream, &mut byte) {
                Ok(0) => ended = Some(begun.elapsed()),
                Ok(_) => panic!("nothing is said to it"),
                Err(_) => {}
            }
        }
        alive.send(&PINGREQ);
        alive.expect(&PINGRESP);
        pings += 1;
    }
    let ended = ended.expect("the silent one was closed within four seconds");
    assert!(ended >= Duration::from_millis(1_500), "closed after {ended:?}");
    assert_eq!(server.probe.wait_ended("silent"), EndReason::KeepAlive);
    alive.expect_silence();
    free.expect_silence();
}

#[test]
fn a_held_publisher_is_spared_its_keep_alive() {
    let server = Server::start();
    let (mut held, mut silent) = (server.dial(), server.dial());
    for (client, id) in [(&mut held, "held"), (&mut silent, "silent")] {
        client.send(&connect_with(id, 1, None, None));
        client.expect(&CONNACK_OK);
    }
    server.probe.set_room(false);
    held.send(&publish("done/it", Some(1), b""));
    // The clock of the other one runs out first.
    silent.expect_end();
    assert_eq!(server.probe.wait_ended("silent"), EndReason::KeepAlive);
    server.open_room();
    held.expect(&[0x40, 2, 0, 1]);
    held.expect_silence();
}
