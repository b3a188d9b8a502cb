//! More peers than a listener with TLS has places for.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use vestibule_broker::{Profile, TlsListener};
use vestibule_tls::rustls::ClientConfig;

use crate::probe::PATIENCE;
use crate::server::{Server, counted};
use crate::tls_client::{House, TlsClient};

fn serve(house: &House, name: &'static str, change: impl FnOnce(&mut TlsListener)) -> Server {
    let mut tls = TlsListener::new(house.tls.mqtt());
    change(&mut tls);
    // One shard: who is accepted first has the first place.
    Server::with(1, Profile::Strict, |listener| {
        listener.name = name;
        listener.tls = Some(tls);
    })
}

/// A connection from an address of the loopback network.
fn dial_from(from: &str, to: SocketAddr) -> TcpStream {
    let from: IpAddr = from.parse().expect("an address");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("a loopback address");
    socket.connect(&to.into()).expect("the listener accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn handshakes(name: &str, result: &str) -> u64 {
    counted("vestibule_tls_handshakes_total", &format!("listener={name};result={result};"))
}

fn ended(name: &str, reason: &str) -> u64 {
    counted("vestibule_connections_ended_total", &format!("listener={name};reason={reason};"))
}

#[track_caller]
fn wait_for(what: &str, mut look: impl FnMut() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < late, "{what} did not come");
        std::thread::yield_now();
    }
}

/// Says hello and waits for the answer: its place is taken, and it has got a step further.
fn says_hello(stream: TcpStream, config: &Arc<ClientConfig>) -> Option<TlsClient> {
    let mut client = TlsClient::over(stream, config);
    let hello = client.unsent();
    client.stream.write_all(&hello).ok()?;
    matches!(client.stream.peek(&mut [0; 1]), Ok(1)).then_some(client)
}

/// Whether the peer has closed.
fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_))
}

#[test]
fn handshakes_in_progress_are_bounded_and_sessions_are_not_counted_among_them() {
    let house = House::new();
    let server = serve(&house, "crowd_bound", |tls| {
        tls.max_of_network = 3;
        tls.standstill = PATIENCE;
    });
    let config = house.client().mqtt();
    let _sessions: Vec<TlsClient> =
        (0..5).map(|n| TlsClient::dial(server.address, &config).log_in(&format!("s{n}"))).collect();
    // Neighbours of theirs who say hello and no more: nobody of them has stood still for long.
    let from = |n: usize| dial_from(&format!("127.0.0.{}", n + 2), server.address);
    let mut begun: Vec<TlsClient> = (0..3).map(|n| says_hello(from(n), &config).expect("answered")).collect();
    assert!(is_closed(&mut from(3)));
    assert_eq!(handshakes("crowd_bound", "tls_handshakes_of_network"), 1);
    // Who has logged in from its address before is not kept out by them.
    TlsClient::dial(server.address, &config).log_in("a neighbour");
    let device = begun.pop().expect("one of three");
    device.finish().log_in("one of them");
    says_hello(from(4), &config).expect("a place that was given back");
    assert_eq!(ended("crowd_bound", "made_room"), 0);
}

#[test]
fn who_stands_still_makes_room_at_each_step_of_the_way() {
    let house = House::new();
    let server = serve(&house, "crowd_still", |tls| {
        tls.max_of_network = 1;
        tls.standstill = Duration::from_millis(300);
    });
    let config = house.client().mqtt();
    // One has not said hello, one has, one has not sent its CONNECT; each is in the way of the next.
    let mut silent = dial_from("127.0.0.2", server.address);
    let patient = || {
        let late = Instant::now() + PATIENCE;
        loop {
            if let Some(client) = says_hello(dial_from("127.0.0.3", server.address), &config) {
                return client;
            }
            assert!(Instant::now() < late, "nobody makes room");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let mut halfway = patient();
    assert!(is_closed(&mut silent));
    let mut secured = patient().finish();
    let mut rest = Vec::new();
    let _ = halfway.stream.read_to_end(&mut rest);
    let device = patient();
    secured.expect_end();
    device.finish().log_in("well");
    assert_eq!(ended("crowd_still", "made_room"), 3);
    assert_eq!(handshakes("crowd_still", "made_room"), 2, "the third had its handshake behind it");
}

#[test]
fn strangers_of_many_networks_keep_no_device_out() {
    let house = House::new();
    let server = serve(&house, "crowd_many", |tls| {
        tls.max_handshakes = 48;
        tls.standstill = PATIENCE;
    });
    let config = house.client().mqtt();
    let begun = |from: String| says_hello(dial_from(&from, server.address), &config).expect("answered");
    // One network holds what there is.
    let crowd: Vec<TlsClient> = (1..=12).map(|n| begun(format!("127.0.1.{n}"))).collect();
    begun("127.0.2.1".to_owned()).finish().log_in("first");
    wait_for("room", || ended("crowd_many", "made_room") == 1);
    drop(crowd);
    wait_for("their end", || server.broker.shards().connections() == 0);
    // Twelve networks with one each: who was here before finds a place, who was not is refused.
    let _crowd: Vec<TlsClient> = (1..=12).map(|n| begun(format!("127.0.{n}0.1"))).collect();
    assert!(says_hello(dial_from("127.0.3.1", server.address), &config).is_none());
    assert_eq!(handshakes("crowd_many", "tls_handshakes"), 1);
    says_hello(dial_from("127.0.2.1", server.address), &config).expect("answered").finish().log_in("again");
}

#[test]
fn a_storm_from_behind_one_address_gets_in_and_no_handshake_is_cut_off() {
    let house = House::new();
    let server = serve(&house, "crowd_storm", |tls| {
        tls.max_handshakes = 96;
        tls.max_of_network = 8;
        tls.standstill = PATIENCE;
    });
    let config = house.client().mqtt();
    let inside: Vec<TlsClient> = std::thread::scope(|scope| {
        let devices: Vec<_> = (0..80)
            .map(|n| {
                let (config, address) = (&config, server.address);
                scope.spawn(move || {
                    let late = Instant::now() + PATIENCE;
                    loop {
                        if let Some(client) = says_hello(dial_from("127.0.0.1", address), config) {
                            return client.finish().log_in(&format!("s{n}"));
                        }
                        assert!(Instant::now() < late, "device {n} did not get in");
                        std::thread::sleep(Duration::from_millis(10 + n));
                    }
                })
            })
            .collect();
        devices.into_iter().map(|device| device.join().expect("inside")).collect()
    });
    assert_eq!(inside.len(), 80);
    assert_eq!((ended("crowd_storm", "made_room"), handshakes("crowd_storm", "ok")), (0, 80));
}
