//! Downgrade (osap-wire 13.4, 13.7.5): nobody on the link leads a device outside of what it may run, and nothing unsealed
//! makes it delete or weaken anything.

use osap::lbs::message::Group;
use osap::modern::client::{self, Advice, Trouble};
use osap::modern::message::{AuthIi, Das, Issued};
use osap::modern::server::{CloseReason, Policy};
use osap::modern::slots::{Has, Way};
use osap::modern::{Slots, TicketId};
use osap::{ResultCode, Suite};
use proptest::prelude::*;

use super::modern_insider::false_lbs;
use super::modern_pair::{
    Deal, Device, Ending, LONG_CODE, Platform, connect, connect_between, connect_through, das, exporter, known,
    new_device,
};
use super::vectors::dev_id;

/// A device with a ticket, whose connection has `bytes` in place of frame `number`.
fn with(platform: &mut Platform, device: &mut Device, suite: Suite, number: usize, bytes: &[u8]) -> Ending {
    let attempt = device.attempt(suite, Way::Newest);
    connect_through(platform, device, attempt, &mut |at, _| {
        if at == number { Deal::Instead(bytes.to_vec()) } else { Deal::Pass }
    })
}

/// What a device may do after something that was not sealed.
fn assert_harmless(ending: &Ending, device: &Device, kept: &Slots) {
    assert_eq!(&device.flash, kept, "nothing is deleted or replaced");
    let Some(Err(failure)) = &ending.device else { return assert!(!ending.is_done()) };
    match failure.advice() {
        Advice::NextWay | Advice::Wait => {}
        Advice::Offer(suite) => {
            assert!(device.identity.suites.contains(&suite) && suite != failure.suite, "{suite}");
        }
        Advice::Enrol => panic!("{failure:?}"),
    }
}

#[test]
fn osap_13_7_5_a_shortened_group_ends_at_the_binder_or_at_mac_s() {
    // With a ticket the binder covers it, so the server sees it first.
    let (mut platform, mut device) = known(Suite::P384, 1);
    platform.policy.suites = vec![Suite::X25519, Suite::P384];
    device.identity.suites = vec![Suite::P384, Suite::X25519];
    let kept = device.flash.clone();
    let attempt = device.attempt(Suite::P384, Way::Newest);
    let ending = connect_through(&mut platform, &mut device, attempt.clone(), &mut |number, frame| {
        if number > 0 {
            return Deal::Pass;
        }
        // `1A | length, two bytes | type | 2 | 08 10 | …` loses its 16.
        let mut bytes = frame.bytes.clone();
        assert_eq!(&bytes[3..7], [8, 2, 8, 16]);
        bytes.remove(6);
        bytes[4] = 1;
        let length = bytes.len() - 3;
        (bytes[1], bytes[2]) = ((length & 0x7F) as u8 | 0x80, (length >> 7) as u8);
        Deal::Instead(bytes)
    });
    assert_eq!(ending.reason(), Some(CloseReason::Ticket { dropped: false }));
    assert_harmless(&ending, &device, &kept);
    // Left alone, the server's choice is the better one.
    let ending = connect(&mut platform, &mut device, attempt);
    assert_eq!(ending.failure().advice(), Advice::Offer(Suite::X25519));

    // Without one it is part of TH1.
    let (mut platform, mut device) = new_device(LONG_CODE, 1);
    device.identity.suites = vec![Suite::Tls, Suite::X25519];
    let attempt = device.attempt(Suite::Tls, Way::Code);
    let ending = connect_through(&mut platform, &mut device, attempt, &mut |number, frame| {
        if number > 0 {
            return Deal::Pass;
        }
        let mut bytes = frame.bytes.clone();
        assert_eq!(&bytes[2..6], [4, 2, 4, 16]);
        bytes.remove(5);
        bytes[3] = 1;
        bytes[1] -= 1;
        Deal::Instead(bytes)
    });
    assert_eq!(ending.failure().trouble, Trouble::Server);
    assert_eq!(ending.first_bytes(), [0x1A, 0x2A], "the device shows nothing of its code");
}

#[test]
fn osap_13_7_5_a_swapped_type_leads_nowhere() {
    for (suite, other) in
        [(Suite::P384, 16), (Suite::X25519, 8), (Suite::X25519, 4), (Suite::Tls, 16), (Suite::P384, 1)]
    {
        let (mut platform, mut device) = known(suite, 2);
        platform.policy.suites = vec![Suite::Tls, Suite::X25519, Suite::P384];
        device.identity.suites = vec![suite];
        let kept = device.flash.clone();
        for swapped in [0, 1] {
            let attempt = device.attempt(suite, Way::Newest);
            let ending = connect_through(&mut platform, &mut device, attempt, &mut |number, frame| {
                if number != swapped {
                    return Deal::Pass;
                }
                let mut bytes = frame.bytes.clone();
                let at = if bytes[1] < 0x80 { 2 } else { 3 };
                bytes[at] = other;
                if swapped == 0 {
                    bytes[at + 2] = other;
                }
                Deal::Instead(bytes)
            });
            assert_harmless(&ending, &device, &kept);
            assert!(!ending.is_done());
            assert_eq!(platform.tickets().rev, 2, "{suite} {other} {swapped}");
        }
    }
}

#[test]
fn osap_13_7_5_a_forged_mismatch_never_leads_outside_of_what_the_device_may_run() {
    for allowed in [vec![Suite::X25519], vec![Suite::X25519, Suite::P384], vec![Suite::X25519, Suite::Tls]] {
        for named in 0..=u8::MAX {
            let (mut platform, mut device) = known(Suite::X25519, 3);
            device.identity.suites = allowed.clone();
            let kept = device.flash.clone();
            for group in [&[][..], &[0, 1, named], &[4, 8, 16]] {
                let group = Group::new(group).unwrap();
                let forged = AuthIi::Mismatch { protocol_type: named, group }.encode(Suite::X25519);
                let ending = with(&mut platform, &mut device, Suite::X25519, 1, &forged);
                assert_harmless(&ending, &device, &kept);
                // Without the group it is the form that an older server sends.
                let bare = [0x2A, 5, named, 1, 0x10, 0, 3];
                let ending = with(&mut platform, &mut device, Suite::X25519, 1, &bare);
                assert_harmless(&ending, &device, &kept);
                if named != 16 && allowed.len() == 1 {
                    assert_eq!(ending.failure().trouble, Trouble::Mismatch { instead: None });
                    assert_eq!(ending.failure().advice(), Advice::Wait);
                }
            }
        }
    }
}

#[test]
fn osap_13_7_5_a_forged_result_before_there_is_a_key_is_a_hint() {
    for suite in Suite::MODERN {
        for result in 1..=u8::MAX {
            let (mut platform, mut device) = known(suite, 4);
            let kept = device.flash.clone();
            let forged = AuthIi::Refused(ResultCode::from(result)).encode(suite);
            let ending = with(&mut platform, &mut device, suite, 1, &forged);
            assert_eq!(ending.failure().trouble, Trouble::Hint(ResultCode::from(result)));
            assert_harmless(&ending, &device, &kept);
        }
    }
}

#[test]
fn osap_13_7_5_a_result_without_the_key_of_the_run_is_nothing() {
    for suite in Suite::MODERN {
        for (number, first) in [(3, 0x62), (6, 0xB2)] {
            for result in [1, 4, 5, 10] {
                let (mut platform, mut device) = known(suite, 5);
                let mut before = None;
                let mut forged = vec![first, 20, 1, 0x10, 0, result];
                forged.extend([0x5A; 16]);
                let attempt = device.attempt(suite, Way::Newest);
                let ending = connect_through(&mut platform, &mut device, attempt, &mut |at, _| {
                    if at == number { Deal::Instead(forged.clone()) } else { Deal::Pass }
                });
                if let Some(touched) = &ending.touched {
                    before = Some(touched.flash.clone());
                }
                assert!(matches!(ending.failure().trouble, Trouble::Message(_)));
                assert_harmless(&ending, &device, &before.expect("the frame was on its way"));
                assert_eq!(ending.failure().advice(), Advice::Wait);
            }
        }
    }
}

#[test]
fn osap_13_7_5_a_removed_port_of_tls_does_not_open() {
    let (mut platform, mut device) = known(Suite::X25519, 6);
    platform.das = Some(Das { tls_port: Some(8_667), bind: true, ..das() });
    let attempt = device.attempt(Suite::X25519, Way::Newest);
    let ending = connect(&mut platform, &mut device, attempt);
    let Some(Ok(success)) = ending.device else { panic!("{:?}", ending.device) };
    assert_eq!((success.das.tls_port, success.das.bind), (Some(8_667), true));
    // `,"TlsPort":8667,"Bind":true` are 27 bytes of some ciphertext; wherever they are cut out, nothing opens.
    for at in (7..ending.sent[6].bytes.len() - 16 - 27).step_by(5) {
        let attempt = device.attempt(Suite::X25519, Way::Newest);
        let ending = connect_through(&mut platform, &mut device, attempt, &mut |number, frame| {
            if number != 6 {
                return Deal::Pass;
            }
            let mut bytes = frame.bytes.clone();
            bytes.drain(at..at + 27);
            let length = bytes.len() - 3;
            (bytes[1], bytes[2]) = ((length & 0x7F) as u8 | 0x80, (length >> 7) as u8);
            Deal::Instead(bytes)
        });
        assert!(matches!(ending.failure().trouble, Trouble::Message(_)), "{at}");
    }
}

#[test]
fn a_login_is_bound_to_tls_where_there_is_tls() {
    let text =
        br#"{"Type":"DAS","DasInfo":{"Address":"a","Port":1,"UdpPort":1,"Domain":"d","ServerID":"s","Bind":true}}"#;
    let das = Das::decode(text).unwrap();
    assert_eq!((das.tls_port, das.bind), (None, false), "there is nothing it could be bound to");
}

#[test]
fn osap_13_7_5_a_device_that_is_for_tls_alone_is_sent_there() {
    let (mut platform, mut device) = known(Suite::X25519, 7);
    platform.policy.suites = vec![Suite::X25519, Suite::P384];
    platform.record().tls_only = true;
    let kept = device.flash.clone();
    let attempt = device.attempt(Suite::X25519, Way::Newest);
    let ending = connect(&mut platform, &mut device, attempt.clone());
    assert_eq!(ending.reason(), Some(CloseReason::Mismatch { offered: 16 }));
    assert_eq!(ending.sent[1].bytes, [0x2A, 6, 4, 0, 1, 0x10, 0, 3]);
    assert_eq!(ending.failure().advice(), Advice::Wait, "it may not run TLS");
    device.identity.suites.push(Suite::Tls);
    let ending = connect(&mut platform, &mut device, attempt.clone());
    assert_eq!(ending.failure().advice(), Advice::Offer(Suite::Tls));
    assert_harmless(&ending, &device, &kept);
    assert_eq!(platform.agreements, 0);
    // Who does not hold its ticket does not learn that there is such a device.
    device.flash.newest.as_mut().unwrap().ticket = TicketId::new([1; 16]);
    let ending = connect(&mut platform, &mut device, attempt);
    assert_eq!(ending.reason(), Some(CloseReason::Ticket { dropped: false }));
}

#[test]
fn osap_13_4_2_a_device_runs_what_it_may_and_nothing_else() {
    for (suite, way, usable) in [
        (Suite::Legacy, Way::Newest, false),
        (Suite::P384, Way::Newest, false),
        (Suite::Tls, Way::Newest, true),
        (Suite::X25519, Way::Newest, true),
        (Suite::X25519, Way::Code, false),
        (Suite::X25519, Way::Certificate, false),
        (Suite::Tls, Way::Base, false),
        (Suite::Tls, Way::Code, true),
    ] {
        let (_, mut device) = known(Suite::Tls, 8);
        device.identity.suites = vec![Suite::Tls, Suite::X25519, Suite::Legacy];
        device.identity.code = Some(osap::Code::new(LONG_CODE).unwrap());
        let mut client = client::Client::new(device.identity.clone(), device.flash.clone(), device.attempt(suite, way));
        client.compute(&mut device.random);
        match client.poll() {
            client::Output::Send(frame) => {
                assert!(usable, "{suite} {way:?}");
                let (_, group) = osap::modern::message::AuthI::offer(&frame).unwrap();
                assert_eq!(group.as_slice(), [4, 16], "the legacy type is no part of a modern offer");
            }
            client::Output::Failed(failure) => {
                assert!(!usable, "{suite} {way:?}");
                assert_eq!((failure.trouble.clone(), failure.advice()), (Trouble::Unusable, Advice::NextWay));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn osap_13_3_a_plain_listener_serves_what_is_for_plain_tcp() {
    let policy = Policy::plain(vec![Suite::Tls, Suite::X25519, Suite::Legacy, Suite::P384]);
    assert_eq!(policy.suites, [Suite::X25519, Suite::P384]);
    assert_eq!(Policy::tls().suites, [Suite::Tls]);
}

#[test]
fn osap_13_7_4_whoever_ends_tls_in_between_fails() {
    for way in [Way::Code, Way::Newest] {
        let (mut platform, mut device) = match way {
            Way::Code => new_device(LONG_CODE, 9),
            _ => known(Suite::Tls, 9),
        };
        let (kept, store) = (device.flash.clone(), platform.tickets().clone());
        let (ours, theirs) = (exporter(&mut platform.random), exporter(&mut platform.random));
        let attempt = device.attempt(Suite::Tls, way);
        let ending = connect_between(&mut platform, &mut device, attempt, (&ours, &theirs), &mut |_, _| Deal::Pass);
        assert_eq!(ending.failure().trouble, Trouble::Server);
        assert_eq!(ending.first_bytes(), [0x1A, 0x2A]);
        assert_eq!((&device.flash, platform.tickets()), (&kept, &store));
    }
}

#[test]
fn osap_13_3_an_lbs_with_a_trusted_certificate_that_does_not_know_the_code_is_refused() {
    let issued =
        |proof| Issued { dev_id: dev_id(), lifetime_s: 1, ticket: TicketId::new([3; 16]), proof, grant: Vec::new() };
    let wrong = osap::Code::new("ABCDEFGHJKMNQ").unwrap();
    type Issue<'a> = &'a dyn Fn(&osap::modern::schedule::Schedule) -> Vec<u8>;
    let cases: [Issue<'_>; 3] = [
        &|_| issued(None).encode().to_vec(),
        &|schedule| issued(Some(schedule.proof_s(&wrong))).encode().to_vec(),
        // The device's own proof, reflected: it knows that one.
        &|schedule| issued(Some(schedule.proof_d(&osap::Code::new(LONG_CODE).unwrap()))).encode().to_vec(),
    ];
    for issue in cases {
        let (_, mut device) = new_device(LONG_CODE, 10);
        let (output, _) = false_lbs(&mut device, Way::Code, None, issue);
        let client::Output::Failed(failure) = output else { panic!("{output:?}") };
        assert_eq!((failure.trouble.clone(), failure.advice()), (Trouble::Server, Advice::Wait));
    }
    // Whoever knows the code is the LBS.
    let (_, mut device) = new_device(LONG_CODE, 10);
    let right = device.identity.code.clone().unwrap();
    let (output, _) =
        false_lbs(&mut device, Way::Code, None, &|schedule| issued(Some(schedule.proof_s(&right))).encode().to_vec());
    assert!(matches!(output, client::Output::Store(_)), "{output:?}");
    // After a ticket there is no proof, and one that comes all the same is no message of this protocol.
    let (_, mut device) = known(Suite::Tls, 10);
    let psk = device.flash.newest.clone().unwrap().psk;
    let (output, _) = false_lbs(&mut device, Way::Newest, Some(&psk), &|_| issued(Some([1; 48])).encode().to_vec());
    assert!(matches!(output, client::Output::Failed(_)), "{output:?}");
}

#[test]
fn a_certificate_request_that_fits_no_frame_is_not_sent() {
    let (mut platform, mut device) = known(Suite::Tls, 11);
    device.csr = Some(vec![7; 1_500]);
    let attempt = device.attempt(Suite::Tls, Way::Newest);
    assert!(connect(&mut platform, &mut device, attempt).is_done());
    for len in [1_600, 70_000] {
        device.csr = Some(vec![7; len]);
        let attempt = device.attempt(Suite::Tls, Way::Newest);
        let ending = connect(&mut platform, &mut device, attempt);
        assert_eq!(ending.failure().trouble, Trouble::Unusable);
        assert!(ending.sent.is_empty());
    }
}

#[test]
fn osap_13_3_rule_8_what_a_device_was_provisioned_with_stays_closed_after_a_revocation() {
    let (mut platform, mut device) = known(Suite::X25519, 12);
    let base = device.flash.older.clone().unwrap();
    device.flash = Slots { dev_id: Some(dev_id()), base: Some(base.clone()), ..Slots::default() };
    device.has = Has::default();
    let ticket = osap::modern::Ticket { id: base.ticket, psk: base.psk, expires: None };
    platform.record().tickets =
        osap::modern::Tickets { dev_id: Some(dev_id()), base: Some(ticket), ..osap::modern::Tickets::default() };
    let attempt = device.attempt(Suite::X25519, Way::Base);
    assert!(connect(&mut platform, &mut device, attempt.clone()).is_done());
    platform.record().tickets.revoke();
    let ending = connect(&mut platform, &mut device, attempt.clone());
    assert_eq!(ending.reason(), Some(CloseReason::Provisioned));
    assert_eq!(
        ending.sent[1].bytes,
        [0x2A, 5, 16, 1, 0x10, 0, 10],
        "told as for any other ticket that is not accepted"
    );
    platform.record().window = true;
    assert!(connect(&mut platform, &mut device, attempt).is_done());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn osap_13_4_6_no_bytes_without_a_key_make_a_device_give_anything_up(
        number in prop_oneof![Just(1_usize), Just(3), Just(6)],
        first in prop_oneof![Just(0x2A_u8), Just(0x62), Just(0x82), Just(0xB2), any::<u8>()],
        body in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let (mut platform, mut device) = known(Suite::X25519, 13);
        device.identity.suites = vec![Suite::X25519, Suite::P384];
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(&body);
        let ending = with(&mut platform, &mut device, Suite::X25519, number, &bytes);
        if let Some(touched) = &ending.touched {
            assert_harmless(&ending, &device, &touched.flash);
        }
    }
}
