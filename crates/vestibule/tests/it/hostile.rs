//! Peers that mean harm, or are broken: they end soon, cost little and disturb nobody.

mod das;
mod strangers;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use osap::{Random as _, SystemRandom};

use crate::support::{self, Listener, Platform, QoS, minted, until};

/// From accept to the end of a connection that comes to nothing.
const LIMIT: Duration = Duration::from_secs(30);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(5);
/// The pace of a peer that sends byte by byte.
const DRIBBLE: Duration = Duration::from_millis(200);

/// How a peer behaves.
#[derive(Debug, Clone)]
struct Attack {
    name: &'static str,
    on: Listener,
    /// Sent at once.
    first: Vec<u8>,
    /// Sent byte by byte after it, for as long as the platform takes them.
    then: Vec<u8>,
}

/// Every kind of attack on every listener.
fn attacks(token: &str) -> Vec<Attack> {
    let mut attacks = Vec::new();
    let mut attack = |name, on, first: &[u8], then: &[u8]| {
        attacks.push(Attack { name, on, first: first.to_vec(), then: then.to_vec() });
    };
    for on in Listener::ALL {
        attack("half-open", on, b"", b"");
        attack("random bytes", on, &random(4096), b"");
        attack("zero bytes", on, &[0; 4096], b"");
        attack("another protocol", on, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"");
    }
    // A remaining length of 256 MiB, in the coding LBS frames and MQTT packets share.
    attack("huge length", Listener::Lbs, b"\x1a\xff\xff\xff\x7f\x01\x01\x01", &[1; 300]);
    attack("partial frame", Listener::Lbs, b"\x1a\x80\x01\x01\x01\x01\x02\x00\x00\x00\x09SN", b"");
    attack("dribble", Listener::Lbs, b"\x1a", &[&b"\xf0\x06\x01\x01\x01"[..], &[0; 880]].concat());
    for on in [Listener::Das, Listener::Mqtt] {
        attack("huge length", on, b"\x10\xff\xff\xff\x7f\x00\x04MQTT\x04\xc2", &[1; 300]);
        attack("endless length", on, b"\x10\xff\xff\xff\xff\xff\xff\xff\xff", b"");
        attack("partial frame", on, b"\x10\x40\x00\x04MQTT\x04\xee\x00\x1e", b"");
        attack("dribble", on, b"\x10", &[&b"\x80\x10\x00\x04MQTT\x04\xc2\x00\x00\x00\x00"[..], &[b'x'; 2000]].concat());
        attack("no CONNECT", on, b"\x30\x05\x00\x01ax", b"");
    }
    let body = |length: &str| {
        format!(
            "POST /v1/devices HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{{\"serial\": \""
        )
    };
    let on = Listener::Http;
    attack("huge length", on, body("18446744073709551615").as_bytes(), b"");
    attack("long body", on, body("1000000000").as_bytes(), &[b'x'; 300]);
    attack("partial head", on, b"GET /v1/devices HTTP/1.1\r\nhost: ", b"");
    attack("dribbled head", on, b"GET / HTTP/1.1\r\nx: ", &[b'x'; 300]);
    attack("dribbled lines", on, b"\r\n", &b"\r\n".repeat(150));
    attack("partial body", on, body("1000").as_bytes(), b"");
    attack("dribbled body", on, body("1000").as_bytes(), &[b'x'; 300]);
    attack("endless head", on, &[&b"GET / HTTP/1.1\r\nx: "[..], &[b'x'; 100_000]].concat(), b"");
    attacks
}

fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SystemRandom.fill(&mut bytes);
    bytes
}

impl Attack {
    /// Carries it out and answers how long the platform kept the connection.
    fn run(&self, platform: &Platform) -> Duration {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(platform.address(self.on)).expect("it listens");
        // An error of writing is seen again by reading.
        let _ = stream.write_all(&self.first);
        let mut then = self.then.iter();
        loop {
            let next = then.next();
            let patience = if next.is_some() { DRIBBLE } else { (LIMIT + SLACK).saturating_sub(begun.elapsed()) };
            assert!(begun.elapsed() < LIMIT + SLACK && !patience.is_zero(), "{self:?} is still connected");
            stream.set_read_timeout(Some(patience)).expect("a socket");
            match stream.read(&mut [0; 4096]) {
                Ok(0) => break,
                Ok(_) => {}
                // The pace of the dribble is over.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
            if let Some(byte) = next {
                let _ = stream.write_all(&[*byte]);
            }
        }
        begun.elapsed()
    }
}

#[test]
fn hostile_connections_end_within_30_s_and_a_good_device_never_notices() {
    let platform = Platform::start();
    let serial = minted("GOOD");
    platform.add(&serial, "ABCDEF");
    let (_, mut good) = support::enrol(&platform, &serial, "ABCDEF");
    let topic = format!("/iot/{serial}/global/0-Lamp/model/event/report/Alarm/Smoke");
    let sockets = platform.sockets();
    let attacks = attacks(&platform.token());
    let under_way = AtomicUsize::new(attacks.len());

    let (took, reported) = std::thread::scope(|scope| {
        let running: Vec<_> = attacks
            .iter()
            .map(|attack| {
                scope.spawn(|| {
                    let done = Countdown(&under_way);
                    let took = attack.run(&platform);
                    drop(done);
                    took
                })
            })
            .collect();
        let mut reported = 0;
        while under_way.load(Ordering::Acquire) > 0 {
            reported += 1;
            let id = good.publish(&topic, reported, QoS::AtLeastOnce, format!(r#"{{"level":{reported}}}"#));
            good.acknowledged(id);
            // The pace of a device that has not much to say.
            std::thread::sleep(Duration::from_millis(50));
        }
        let took: Vec<Duration> = running.into_iter().map(|attack| attack.join().expect("the attack ends")).collect();
        (took, reported)
    });
    for (attack, took) in attacks.iter().zip(took) {
        assert!(took < LIMIT + SLACK / 5, "{} on {:?} took {took:?}", attack.name, attack.on);
    }

    let device = platform.device(&serial);
    assert_eq!(device["presence"]["state"], "online");
    assert_eq!(device["presence"]["peer"], good.local().to_string(), "it is the same connection");
    let levels: Vec<u64> = platform
        .events(Some(&serial))
        .iter()
        .rev()
        .map(|event| event["data"]["level"].as_u64().expect("a level"))
        .collect();
    assert_eq!(levels, (1..=reported).collect::<Vec<_>>(), "every event is there, in order");

    until("the end of every connection in the platform", || {
        // A connection of our own HTTP client may be one of those counted.
        (platform.sockets() <= sockets + 1).then_some(())
    });
    let on = |name: &str, labels: &[(&str, &str)], least: usize| {
        let counted = platform.metric(name, labels);
        assert!(counted >= least as f64, "{name} {labels:?} counted {counted} of {least}");
    };
    for (listener, name) in [(Listener::Das, "das_legacy"), (Listener::Mqtt, "mqtt")] {
        let count = attacks.iter().filter(|attack| attack.on == listener).count();
        on("vestibule_connections_ended_total", &[("listener", name), ("phase", "connect")], count);
        for reason in ["connect_timeout", "not_connect", "malformed_connect"] {
            on("vestibule_connections_ended_total", &[("listener", name), ("reason", reason)], 1);
        }
    }
    let runs = attacks.iter().filter(|attack| attack.on == Listener::Lbs).count();
    on("vestibule_lbs_runs_total", &[("run", "unknown")], runs);
    on("vestibule_lbs_runs_total", &[("run", "unknown"), ("result", "timeout")], 3);
    on("vestibule_http_timeouts_total", &[], 2);
    assert_eq!(platform.http().get("/readyz").ok()["ready"], true);
    platform.assert_no_panic();
}

/// Counts down at its end, also at the end of a thread that fails.
struct Countdown<'a>(&'a AtomicUsize);

impl Drop for Countdown<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[test]
fn two_thousand_hostile_connections_leave_the_process_as_large_as_it_was() {
    const WARM_UP: usize = 400;
    const CONNECTIONS: usize = 2_000;
    const BOUND_KIB: u64 = 20 * 1024;
    let platform = Platform::start();
    assault(&platform, WARM_UP);
    let before = platform.resident_kib();
    assault(&platform, CONNECTIONS);
    let grown = platform.resident_kib().saturating_sub(before);
    assert!(grown < BOUND_KIB, "{grown} KiB more after {CONNECTIONS} connections");
    let share = (CONNECTIONS / Listener::ALL.len()) as f64;
    for listener in ["das_legacy", "mqtt", "mqtts"] {
        let ended = platform.metric("vestibule_connections_ended_total", &[("listener", listener)]);
        assert!(ended >= share, "{listener}: {ended}");
    }
    assert!(platform.metric("vestibule_lbs_runs_total", &[]) >= share);
    assert_eq!(platform.http().get("/readyz").ok()["ready"], true);
    platform.assert_no_panic();
}

/// So many connections of random bytes, spread over the listeners, each to its end.
fn assault(platform: &Platform, connections: usize) {
    std::thread::scope(|scope| {
        for listener in Listener::ALL {
            scope.spawn(move || {
                for number in 0..connections / Listener::ALL.len() {
                    let mut stream = TcpStream::connect(platform.address(listener)).expect("it listens");
                    stream.set_read_timeout(Some(LIMIT + SLACK)).expect("a socket");
                    // Refused early, the rest meets a closed connection.
                    let _ = stream.write_all(&random(1 + number * 37 % 2048));
                    let _ = stream.shutdown(Shutdown::Write);
                    let mut answer = Vec::new();
                    if let Err(error) = stream.read_to_end(&mut answer) {
                        let late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                        assert!(!late, "{listener:?} keeps a connection that came to nothing");
                    }
                }
            });
        }
    });
}
