//! The order of work on AUTH-I (osap-wire 13.3, 13.7.3): a flood costs two HMACs a frame, and tells nothing.

use osap::lbs::Standing;
use osap::modern::client::{self, Client};
use osap::modern::server::{self, CloseReason, Server};
use osap::modern::slots::Way;
use osap::modern::{Psk, TicketId};
use osap::{ResultCode, Serial, Suite};

use super::modern_pair::{Device, Platform, connect, exporter, known};

const PLAIN: [Suite; 2] = [Suite::P384, Suite::X25519];

/// The AUTH-I of a device.
fn hello(device: &mut Device, suite: Suite, way: Way) -> Vec<u8> {
    let mut client = Client::new(device.identity.clone(), device.flash.clone(), device.attempt(suite, way));
    client.compute(&mut device.random);
    match client.poll() {
        client::Output::Send(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

/// What somebody sees who sends one frame: what came back, and how many steps lay between.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    sent: Vec<Vec<u8>>,
    steps: usize,
}

/// Sends one frame to the LBS; gives what is seen from outside, and what only the LBS sees.
fn see(platform: &mut Platform, frame: &[u8]) -> (Seen, server::Output, bool) {
    let exporter = exporter(&mut platform.random);
    let mut server = Server::new(platform.policy.clone(), platform.certificate.clone());
    let mut seen = Seen { sent: Vec::new(), steps: 0 };
    let mut frame = Some(frame);
    loop {
        seen.steps += 1;
        match platform.answer(&mut server, &exporter) {
            None => {}
            Some(server::Output::Send(bytes)) => seen.sent.push(bytes),
            Some(server::Output::Read) if frame.is_some() => {
                server.handle_frame(frame.take().unwrap_or_default(), &mut platform.random);
            }
            Some(end) => return (seen, end, server.is_proven()),
        }
    }
}

#[test]
fn osap_13_7_3_what_cannot_be_right_never_reaches_an_agreement_and_looks_alike() {
    for suite in Suite::MODERN {
        let (mut platform, mut device) = known(suite, 3);
        let before = platform.tickets().clone();
        let mut all = Vec::new();
        let mut refused = |what: &str, platform: &mut Platform, frame: &[u8]| {
            let (seen, end, proven) = see(platform, frame);
            assert_eq!(end, server::Output::Close(CloseReason::Ticket { dropped: false }), "{suite}: {what}");
            assert!(!proven, "{suite}: {what}");
            all.push((what.to_owned(), seen));
        };

        // A ticket nobody has issued; that of another serial; a serial nobody has registered.
        let own = device.flash.newest.clone();
        device.flash.newest.as_mut().unwrap().ticket = TicketId::new([0xEE; 16]);
        refused("unknown ticket", &mut platform, &hello(&mut device, suite, Way::Newest));
        device.flash.newest = own;
        let mut other = platform.record().clone();
        other.tickets.next.as_mut().unwrap().id = TicketId::new([0xDD; 16]);
        platform.records.insert("SN0000002".into(), other);
        device.identity.serial = Serial::new("SN0000002").unwrap();
        refused("foreign serial", &mut platform, &hello(&mut device, suite, Way::Newest));
        device.identity.serial = Serial::new("SN0000003").unwrap();
        refused("unknown serial", &mut platform, &hello(&mut device, suite, Way::Newest));
        device.identity.serial = super::vectors::serial();

        // One whose end has come, to the millisecond.
        platform.record().tickets.next.as_mut().unwrap().expires = Some(platform.now);
        refused("expired", &mut platform, &hello(&mut device, suite, Way::Newest));
        platform.record().tickets.next.as_mut().unwrap().expires = None;

        // Somebody who has seen the ticket, and does not hold its secret.
        let psk = std::mem::replace(&mut device.flash.newest.as_mut().unwrap().psk, Psk::from_bytes(&[7; 48]).unwrap());
        refused("bad binder", &mut platform, &hello(&mut device, suite, Way::Newest));
        device.flash.newest.as_mut().unwrap().psk = psk;

        let (_, first) = &all[0];
        assert_eq!(first.sent.len(), 1);
        assert_eq!(first.sent[0], [0x2A, 5, suite.protocol_type(), 1, 0x10, 0, 10]);
        for (what, seen) in &all {
            assert_eq!(seen, first, "{suite}: {what}");
        }
        assert_eq!((platform.agreements, platform.tickets()), (0, &before), "{suite}");
    }
}

#[test]
fn osap_13_7_3_a_repeated_nonce_is_closed_at_once_and_without_an_answer() {
    for suite in Suite::MODERN {
        let (mut platform, mut device) = known(suite, 4);
        let frame = hello(&mut device, suite, Way::Newest);
        let (seen, end, proven) = see(&mut platform, &frame);
        assert_eq!((seen.sent.len(), end, proven), (1, server::Output::Read, true), "{suite}");
        let agreements = platform.agreements;
        let (seen, end, proven) = see(&mut platform, &frame);
        assert_eq!(end, server::Output::Close(CloseReason::Repeated));
        assert!(seen.sent.is_empty() && !proven, "whoever repeats a frame has proven nothing");
        // It is remembered for the ticket that was shown, and for as long as the last 64.
        for _ in 0..63 {
            let another = hello(&mut device, suite, Way::Newest);
            assert_eq!(see(&mut platform, &another).1, server::Output::Read);
        }
        assert_eq!(see(&mut platform, &frame).1, server::Output::Close(CloseReason::Repeated));
        assert_eq!(platform.agreements - agreements, if suite == Suite::Tls { 0 } else { 63 });
        assert_eq!(platform.tickets().rev, 2);
    }
}

#[test]
fn osap_13_7_3_a_share_that_is_no_public_key_is_closed_without_an_answer() {
    for suite in PLAIN {
        let (mut platform, mut device) = known(suite, 5);
        let slot = device.flash.newest.clone().unwrap();
        let good = hello(&mut device, suite, Way::Newest);
        let mut auth = osap::modern::message::AuthI::decode(&good).unwrap();
        // No point of the curve; a point of order 1 or 2 of X25519, which agrees on zero.
        auth.share = vec![if suite == Suite::P384 { 4 } else { 0 }; auth.share.len()];
        let (seen, end, _) = see(&mut platform, &auth.encode_bound(slot.ticket, &slot.psk));
        assert_eq!((seen.sent.len(), end), (0, server::Output::Close(CloseReason::Share)), "{suite}");
    }
}

#[test]
fn osap_13_3_no_limit_of_strangers_applies_once_a_ticket_or_a_certificate_has_proven_the_device() {
    for suite in Suite::MODERN {
        let (mut platform, mut device) = known(suite, 6);
        let frame = hello(&mut device, suite, Way::Newest);
        let exporter = exporter(&mut platform.random);
        let mut server = Server::new(platform.policy.clone(), None);
        server.handle_frame(&frame, &mut platform.random);
        assert!(!server.is_proven());
        while !matches!(server.poll(), server::Output::Compute | server::Output::Export(_)) {
            assert!(!server.is_proven(), "nothing is proven before the nonce was found to be new");
            assert_eq!(platform.answer(&mut server, &exporter), None);
        }
        assert!(server.is_proven(), "{suite}: the agreement of a device with a ticket waits behind no stranger's");
        assert_eq!(platform.answer(&mut server, &exporter), None);
        assert!(matches!(server.poll(), server::Output::Send(_)) && server.is_proven(), "{suite}");

        // It stays so, also when the run is refused in the end.
        platform.das = None;
        let attempt = device.attempt(suite, Way::Newest);
        let ending = connect(&mut platform, &mut device, attempt);
        assert_eq!((ending.reason(), ending.proven), (Some(CloseReason::NoDas), true), "{suite}");
    }
    let (mut platform, mut device) = known(Suite::Tls, 7);
    let attempt = device.attempt(Suite::Tls, Way::Certificate);
    let ending = connect(&mut platform, &mut device, attempt.clone());
    assert_eq!((ending.reason(), ending.proven), (Some(CloseReason::NoProof), false));
    platform.certificate = Some("SN0000001".into());
    let ending = connect(&mut platform, &mut device, attempt);
    assert!(ending.is_done() && ending.proven);
}

#[test]
fn osap_13_3_the_certificate_of_another_serial_is_refused_whatever_the_registry_says() {
    for standing in [Standing::Known, Standing::Disabled, Standing::Unknown] {
        let (mut platform, mut device) = known(Suite::Tls, 8);
        platform.record().standing = standing;
        platform.certificate = Some("SN0000002".into());
        for way in [Way::Newest, Way::Certificate] {
            let frame = hello(&mut device, Suite::Tls, way);
            let (seen, end, _) = see(&mut platform, &frame);
            assert_eq!(seen.sent, [[0x2A, 5, 4, 1, 0x10, 0, u8::from(ResultCode::CodeRefused)]]);
            assert_eq!(end, server::Output::Close(CloseReason::CertificateSerial));
        }
    }
}

#[test]
fn an_auth_i_that_offers_what_its_group_does_not_name_is_closed_without_an_answer() {
    // A mismatch answer cannot name the type that was offered: the device would read it as an acceptance.
    for (suites, offered) in [(vec![Suite::Tls], 4_u8), (vec![Suite::X25519, Suite::P384], 16), (vec![Suite::Tls], 8)] {
        let (mut platform, mut device) = known(suites[0], 9);
        platform.policy.suites = suites;
        let suite = platform.policy.suites[0];
        let mut frame = hello(&mut device, suite, Way::Newest);
        // `length`, of one byte or two, stands before type, count and group.
        let at = if frame[1] < 0x80 { 2 } else { 3 };
        frame[at] = offered;
        frame[at + 2] = if offered == 8 { 32 } else { 8 };
        let (seen, end, _) = see(&mut platform, &frame);
        assert!(seen.sent.is_empty(), "{:02x?}", seen.sent);
        assert!(matches!(end, server::Output::Close(CloseReason::Message(_))), "{end:?}");
    }
}

#[test]
fn osap_13_3_a_store_that_is_down_is_a_result_of_the_right_kind_at_each_step() {
    let (mut platform, mut device) = known(Suite::Tls, 10);
    platform.store_is_up = false;
    let attempt = device.attempt(Suite::Tls, Way::Newest);
    let ending = connect(&mut platform, &mut device, attempt);
    assert_eq!(ending.failure().trouble, client::Trouble::Hint(ResultCode::Unavailable));
    assert_eq!(ending.failure().advice(), client::Advice::Wait);
}
