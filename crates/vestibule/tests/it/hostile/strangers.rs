//! A flood of strangers at the LBS while good devices come back.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use osap::ResultCode;
use osap::lbs::client::{Client, Failure, Identity, Output, Stored, Success};
use osap::lbs::message::first;
use osap::{Code, CodeCase, Random as _, Serial, SystemRandom};
use socket2::{Domain, Socket, Type};

use crate::support::{self, Listener, Platform, minted, until};

const CODE: &str = "ABCDEF";
/// Devices that hold their keys, and new ones.
const KNOWN: usize = 20;
const NEW: usize = 10;
/// How often a device may have to try.
const ATTEMPTS: usize = 2;
/// Addresses of who replays a recorded AUTH-I, and of who tries codes.
const REPLAYING: usize = 60;
const GUESSING: usize = 20;
/// What the process may grow by: the tables of the budgets, and what a burst leaves in the heap.
const GROWTH_KIB: u64 = 32 * 1024;

/// What has been done to the platform.
#[derive(Default)]
struct Flood {
    over: AtomicBool,
    replayed: AtomicUsize,
    guessed: AtomicUsize,
    looked_at: AtomicUsize,
}

fn dial(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // A reset at the end: otherwise the ports of the attackers would run out, which is not what is tested.
    socket.set_linger(Some(Duration::ZERO)).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of this machine");
    socket.connect(&to.into()).expect("the LBS listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    stream
}

/// The source of this attempt: it moves on through so many addresses, twenty of which are a network.
fn source(attacker: u8, attempt: usize, addresses: usize) -> Ipv4Addr {
    let address = attempt % addresses;
    Ipv4Addr::new(127, attacker, (address / 20) as u8, 1 + (address % 20) as u8)
}

/// What a device with this code sends first.
fn auth_i(serial: &str, code: &str) -> Vec<u8> {
    let identity = Identity::new(Serial::new(serial).expect("a serial"), Code::new(code).expect("a code"));
    let mut client = Client::new(identity, Stored::Nothing, CodeCase::Upper);
    loop {
        match client.poll() {
            Output::Compute => client.compute(&mut SystemRandom),
            Output::Send(frame) => return frame,
            other => panic!("{other:?} before AUTH-I"),
        }
    }
}

/// Sends one frame and reads what comes, which may be the end.
fn knock(from: Ipv4Addr, to: SocketAddr, frame: &[u8]) -> Vec<u8> {
    let mut stream = dial(from, to);
    let mut answer = vec![0; 256];
    // A connection that is refused may end before the frame is sent.
    let count = stream.write_all(frame).and_then(|()| stream.read(&mut answer)).unwrap_or(0);
    answer.truncate(count);
    answer
}

/// Ends the flood, also when the test fails.
struct End<'a>(&'a Flood);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

impl Flood {
    /// Sends a recorded AUTH-I again and again; each that is looked at costs the platform a key agreement.
    fn replay(&self, lbs: SocketAddr, frame: &[u8]) {
        while !self.over.load(Ordering::Acquire) {
            let number = self.replayed.fetch_add(1, Ordering::Relaxed);
            knock(source(201, number, REPLAYING), lbs, frame);
        }
    }

    /// Tries codes: of the good devices and of serials that nobody has.
    fn guess(&self, lbs: SocketAddr, serials: &[String]) {
        let mut template = auth_i("SERIALOFNOBODY000", CODE);
        let name = template.len() - 113 - 17;
        while !self.over.load(Ordering::Acquire) {
            let number = self.guessed.fetch_add(1, Ordering::Relaxed);
            let serial = match serials.get(number % (2 * serials.len())) {
                Some(serial) => serial.clone(),
                None => format!("NOBODY-{number:010}"),
            };
            template[name..name + 17].copy_from_slice(serial.as_bytes());
            SystemRandom.fill(&mut template[name + 17..]);
            // One of them is busier than the others: it spends its own budget before that of the network.
            let from = if number.is_multiple_of(2) { 0 } else { number };
            let answer = knock(source(202, from, GUESSING), lbs, &template);
            let told = answer.last().copied().map(ResultCode::from);
            assert!(matches!(told, None | Some(ResultCode::CodeRefused | ResultCode::Unavailable)), "{answer:02x?}");
            if told == Some(ResultCode::CodeRefused) {
                self.looked_at.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Comes in, and counts how often it had to try.
fn attempts(mut once: impl FnMut() -> Result<Success, Failure>) -> (usize, Success) {
    for attempt in 1..=ATTEMPTS {
        if let Ok(success) = once() {
            return (attempt, success);
        }
    }
    panic!("a good device is kept out")
}

#[test]
fn osap_13_2_3_a_flood_of_strangers_keeps_no_good_device_out() {
    let platform = Platform::start();
    let lbs = platform.address(Listener::Lbs);
    // Serials of the same length, so that the attacker can write over one.
    let serials: Vec<String> = (0..KNOWN).map(|_| minted("KNOW")).collect();
    let new: Vec<String> = (0..NEW).map(|_| minted("NEWS")).collect();
    let leaked = minted("LEAK");
    serials.iter().chain(&new).chain([&leaked]).for_each(|serial| platform.add(serial, CODE));
    let keys: Vec<Stored> = serials
        .iter()
        .map(|serial| {
            let (access, _) = support::enrol(&platform, serial, CODE);
            Stored::Both { dev_id: access.dev_id, master_key: access.master_key }
        })
        .collect();
    let recorded = auth_i(&leaked, CODE);
    assert_eq!(recorded[0], first::AUTH_I);
    let before = platform.resident_kib();

    let flood = Flood::default();
    let (known, fresh) = std::thread::scope(|scope| {
        let replay = || scope.spawn(|| flood.replay(lbs, &recorded));
        let guess = || scope.spawn(|| flood.guess(lbs, &serials));
        let attackers = [replay(), replay(), guess(), guess(), guess(), guess()];
        let end = End(&flood);
        let told = |reason| platform.metric("vestibule_lbs_refused_total", &[("reason", reason)]);
        until("the budgets are spent", || {
            let spent = ["serial_budget", "address_budget"].into_iter().all(|reason| told(reason) > 0.0);
            (spent && told("network_budget") > 0.0).then_some(())
        });
        let mut known = Vec::new();
        let mut fresh = Vec::new();
        for _ in 0..3 {
            for (serial, stored) in serials.iter().zip(&keys) {
                let (attempts, access) = attempts(|| support::authenticate(&platform, serial, CODE, stored.clone()));
                let (answer, das) = support::connect(serial, &access);
                assert_eq!(answer, 0, "{serial}");
                drop(das);
                known.push(attempts);
            }
        }
        for serial in &new {
            let (attempts, first) = attempts(|| support::authenticate(&platform, serial, CODE, Stored::Nothing));
            assert_eq!(support::connect(serial, &first).0, 11);
            fresh.push(attempts);
        }
        drop(end);
        for attacker in attackers {
            attacker.join().expect("the attacker ends");
        }
        (known, fresh)
    });
    // Who has a key does not even notice.
    assert!(known.iter().all(|attempts| *attempts == 1), "{known:?}");
    let grown = platform.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    let told = |reason| platform.metric("vestibule_lbs_refused_total", &[("reason", reason)]);
    println!(
        "{} replays, {} guesses of which {} were looked at; refused by serial {}, address {}, network {}; {grown} KiB more; \
         attempts of {NEW} new devices {fresh:?}",
        flood.replayed.load(Ordering::Relaxed),
        flood.guessed.load(Ordering::Relaxed),
        flood.looked_at.load(Ordering::Relaxed),
        told("serial_budget"),
        told("address_budget"),
        told("network_budget"),
    );
    // All from one network, and a minute is not over.
    assert!((1..=200).contains(&flood.looked_at.load(Ordering::Relaxed)), "the budgets held");
    assert!(platform.reasons(&serials[0]).iter().any(|reason| reason == "too_many_attempts"));
    let audit = platform.http().get("/v1/audit?limit=1000").ok();
    let rows = audit["items"].as_array().expect("rows").iter().filter(|row| row["action"] == "device.guessed");
    let mut guessed: Vec<&str> = rows.map(|row| row["device"]["serial"].as_str().expect("a serial")).collect();
    guessed.sort_unstable();
    assert!(!guessed.is_empty() && guessed.windows(2).all(|two| two[0] != two[1]), "once for each: {guessed:?}");
    assert_eq!(platform.http().get("/readyz").ok()["ready"], true);
    platform.assert_no_panic();
}
