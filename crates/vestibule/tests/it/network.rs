//! Devices made with the SDK on a network that fails.

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::{FaultProxy, Faults, Listener, Load, Platform};

const DEVICES: usize = 3;
const EVENTS: usize = 200;

#[test]
fn events_arrive_exactly_once_through_a_network_that_fails() {
    // A login is some 600 bytes and an event with its acknowledgement some 400: each connection carries a few of them. A
    // run at the LBS is some 700 bytes, so that many of them are cut as well.
    let to_das = Faults {
        delay: Duration::from_millis(1),
        pieces: 96,
        bandwidth: 200_000,
        breaks_after: Some(200..16_000),
        half_open: 5,
    };
    let to_lbs = Faults { breaks_after: Some(100..1_500), pieces: 24, half_open: 0, ..to_das.clone() };
    let (das, lbs) = (FaultProxy::start(7, to_das), FaultProxy::start(8, to_lbs));
    let platform = Platform::with_environment(&[("VESTIBULE_DAS__ADVERTISE", &das.address().to_string())]);
    das.lead_to(platform.address(Listener::Das));
    lbs.lead_to(platform.address(Listener::Lbs));

    let load = Load::through(&platform, DEVICES, lbs.address());
    load.acknowledges(EVENTS);
    // Until everything has happened that is to be got over.
    while das.counts().1 < DEVICES || das.counts().2 == 0 || lbs.counts().1 == 0 {
        load.acknowledges(10);
    }
    let (at_das, at_lbs) = (das.counts(), lbs.counts());
    das.heal();
    lbs.heal();
    let sent = load.finish();
    println!("{} events; connections, cut, half-open: DAS {at_das:?}, LBS {at_lbs:?}", sent.len());
    let stored: Vec<String> =
        platform.events(None).iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(stored.len(), sent.len(), "none is missing or there twice");
    assert_eq!(stored.into_iter().collect::<HashSet<_>>(), sent);
    platform.assert_no_panic();
}

/// Somebody who answers a hundred bytes with the same.
fn echo() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let accepting = listener.try_clone().expect("a socket");
    std::thread::spawn(move || {
        for mut stream in accepting.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut heard = [0; 100];
                // Who breaks off has what he came for.
                let _ = stream.read_exact(&mut heard).and_then(|()| stream.write_all(&heard));
                let _ = stream.read(&mut heard);
            });
        }
    });
    listener
}

/// What comes back of a hundred bytes, and how it ends.
fn echoed(faults: Faults) -> (Vec<u8>, Option<ErrorKind>) {
    let echo = echo();
    let proxy = FaultProxy::start(1, faults);
    proxy.lead_to(echo.local_addr().expect("a port"));
    let mut stream = TcpStream::connect(proxy.address()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    stream.write_all(&(0..100).collect::<Vec<u8>>()).expect("it reads");
    let mut back = Vec::new();
    while back.len() < 100 {
        let mut chunk = [0; 512];
        match stream.read(&mut chunk) {
            Ok(0) => return (back, None),
            Ok(count) => back.extend_from_slice(&chunk[..count]),
            Err(error) => return (back, Some(error.kind())),
        }
    }
    (back, None)
}

#[test]
fn the_bad_network_of_the_tests_is_as_bad_as_it_says() {
    let whole = (0..100).collect::<Vec<u8>>();
    let slow = Faults { pieces: 3, bandwidth: 5_000, delay: Duration::from_millis(1), ..Faults::default() };
    assert_eq!(echoed(slow), (whole.clone(), None), "late and in pieces, and all of it");
    // A hundred bytes there and forty back.
    let cut = Faults { breaks_after: Some(140..141), pieces: 7, ..Faults::default() };
    assert!(matches!(echoed(cut), (back, None | Some(ErrorKind::ConnectionReset)) if back == whole[..40]));
    let half_open = Faults { breaks_after: Some(140..141), half_open: 1, ..Faults::default() };
    assert_eq!(echoed(half_open), (whole[..40].to_vec(), Some(ErrorKind::WouldBlock)), "silence and no end");
}
