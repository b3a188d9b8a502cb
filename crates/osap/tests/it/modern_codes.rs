//! Codes (osap-wire 13.3, 13.7.8): who may enrol with which code and when, and what a stranger learns.

use osap::lbs::Standing;
use osap::modern::client::{Advice, Trouble};
use osap::modern::server::{self, Attempt, CloseReason};
use osap::modern::slots::Way;
use osap::modern::ticket::{Stage, Used};
use osap::{Code, ResultCode, Suite};

use super::modern_pair::{Device, Ending, LONG_CODE, Platform, come_in, connect, known, new_device};

const SHORT_CODE: &str = "ABCDEF";

fn enrol(platform: &mut Platform, device: &mut Device) -> Ending {
    let attempt = device.attempt(Suite::Tls, Way::Code);
    connect(platform, device, attempt)
}

/// A refusal a device can rely on: sealed, and nothing has changed.
#[track_caller]
fn assert_refused(ending: &Ending, platform: &Platform, reason: CloseReason) {
    assert_eq!(ending.reason(), Some(reason));
    assert_eq!(ending.failure().trouble, Trouble::Refused(reason.result().unwrap()));
    assert_eq!(ending.first_bytes(), [0x1A, 0x2A, 0x72, 0x82]);
    assert!(platform.stages.is_empty(), "nothing was made durable");
}

#[test]
fn osap_13_7_8_a_short_code_works_inside_a_window_alone() {
    let (mut platform, mut device) = new_device(SHORT_CODE, 1);
    let ending = enrol(&mut platform, &mut device);
    assert_refused(&ending, &platform, CloseReason::EnrolmentClosed);
    assert_eq!(ending.failure().trouble, Trouble::Refused(ResultCode::CodeRefused));
    platform.record().window = true;
    assert!(enrol(&mut platform, &mut device).is_done());
    assert!(platform.tickets().confirmed);
    // Policy alone opens nothing for a short code; a window does, also for a device that is enrolled.
    platform.record().window = false;
    platform.record().may_enrol_again = true;
    platform.stages.clear();
    let ending = enrol(&mut platform, &mut device);
    assert_refused(&ending, &platform, CloseReason::EnrolmentClosed);
    platform.record().window = true;
    assert!(enrol(&mut platform, &mut device).is_done());
}

#[test]
fn osap_13_7_8_a_long_code_needs_no_window_until_the_enrolment_is_confirmed() {
    let (mut platform, mut device) = new_device(LONG_CODE, 2);
    let first = enrol(&mut platform, &mut device);
    assert!(first.is_done());
    let dev_id = platform.tickets().dev_id;
    assert!(matches!(platform.stages[1], Stage::Confirm { used: Used::Code, .. }), "so that a one-time code is spent");
    platform.stages.clear();
    let ending = enrol(&mut platform, &mut device);
    assert_refused(&ending, &platform, CloseReason::EnrolmentClosed);
    // Policy allows it; the device keeps its DevID.
    platform.record().may_enrol_again = true;
    assert!(enrol(&mut platform, &mut device).is_done());
    assert_eq!(platform.tickets().dev_id, dev_id);
    assert_eq!(device.flash.dev_id, dev_id);
}

#[test]
fn osap_13_7_8_an_enrolment_that_was_not_confirmed_may_be_repeated() {
    let (mut platform, mut device) = new_device(LONG_CODE, 3);
    device.flash_works = false;
    assert_eq!(enrol(&mut platform, &mut device).failure().trouble, Trouble::Storage);
    assert!(!platform.tickets().confirmed && platform.tickets().next.is_some());
    device.flash_works = true;
    assert_eq!(come_in(&mut platform, &mut device), Some(Way::Code));
    assert!(platform.tickets().confirmed);
}

#[test]
fn osap_13_7_8_unknown_serial_wrong_code_and_closed_window_look_alike() {
    let mut seen = Vec::new();
    let mut see = |reason: CloseReason, change: &dyn Fn(&mut Platform, &mut Device)| {
        let (mut platform, mut device) = new_device(SHORT_CODE, 4);
        change(&mut platform, &mut device);
        let ending = enrol(&mut platform, &mut device);
        assert_refused(&ending, &platform, reason);
        assert!(!ending.proven);
        // What is sealed is 16 bytes of tag, different in each run; everything before it is what is told.
        let told: Vec<_> = ending
            .sent
            .iter()
            .filter(|frame| !frame.up)
            .map(|frame| (frame.bytes.len(), frame.bytes[..6].to_vec()))
            .collect();
        seen.push((told[1].clone(), told[0].0, ending.sent.len()));
    };
    see(CloseReason::EnrolmentClosed, &|_, _| {});
    see(CloseReason::WrongCode, &|platform, device| {
        platform.record().window = true;
        device.identity.code = Some(Code::new("ABCDEG").unwrap());
    });
    see(CloseReason::UnknownSerial, &|_, device| device.identity.serial = osap::Serial::new("SN0000009").unwrap());
    see(CloseReason::UnknownSerial, &|platform, _| {
        // The right code of a serial that is made up lets nobody in.
        platform.record().window = true;
        platform.record().standing = Standing::Unknown;
    });
    see(CloseReason::WrongCode, &|platform, _| {
        // Spent, or never there.
        platform.record().window = true;
        platform.record().code = None;
    });
    see(CloseReason::WrongCode, &|platform, _| {
        platform.record().window = true;
        platform.record().code = Some(Code::new(LONG_CODE).unwrap());
    });
    // Its last proof was used up, or its quarter of an hour was over, after the record had been read.
    see(CloseReason::EnrolmentClosed, &|platform, _| {
        platform.record().window = true;
        platform.attempt = Attempt::Closed;
    });
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:02x?}");
    assert_eq!(seen[0].0, (2 + 4 + 16, vec![0x82, 20, 1, 0x10, 0, 1]));
}

#[test]
fn osap_13_7_8_too_many_wrong_codes_of_an_address_are_not_looked_at() {
    let (mut platform, mut device) = new_device(LONG_CODE, 5);
    platform.attempt = Attempt::Spent;
    let ending = enrol(&mut platform, &mut device);
    assert_refused(&ending, &platform, CloseReason::Spent);
    assert_eq!(ending.failure().advice(), Advice::Wait);
    // It is no budget of the serial: whoever has a ticket does not meet it.
    let (mut platform, mut device) = known(Suite::Tls, 5);
    platform.attempt = Attempt::Spent;
    assert_eq!(come_in(&mut platform, &mut device), Some(Way::Newest));
}

#[test]
fn osap_13_7_8_the_server_says_which_codes_can_be_guessed() {
    for (code, short) in [(SHORT_CODE, true), (LONG_CODE, false)] {
        let (mut platform, mut device) = new_device(code, 6);
        let mut asked = None;
        let exporter = super::modern_pair::exporter(&mut platform.random);
        let attempt = device.attempt(Suite::Tls, Way::Code);
        let mut client = osap::modern::Client::new(device.identity.clone(), device.flash.clone(), attempt);
        let mut server = osap::modern::Server::new(platform.policy.clone(), None);
        for _ in 0..20 {
            match client.poll() {
                osap::modern::client::Output::Compute => client.compute(&mut device.random),
                osap::modern::client::Output::Export => client.handle_exporter(&exporter),
                osap::modern::client::Output::Send(bytes) => server.handle_frame(&bytes, &mut platform.random),
                _ => match server.poll() {
                    server::Output::Attempt { short } => {
                        asked = Some(short);
                        break;
                    }
                    server::Output::Send(bytes) => client.handle_frame(&bytes),
                    _ => assert_eq!(platform.answer(&mut server, &exporter), None),
                },
            }
        }
        assert_eq!(asked, Some(short), "{code}");
    }
}

#[test]
fn osap_13_4_3_a_code_is_for_tls_alone() {
    // Somebody who holds a ticket and knows the code offers the code on plain TCP.
    for suite in [Suite::P384, Suite::X25519] {
        let (mut platform, mut device) = known(suite, 7);
        let code = Code::new(LONG_CODE).unwrap();
        platform.record().code = Some(code.clone());
        platform.record().window = true;
        device.identity.code = Some(code);
        let attempt = device.attempt(suite, Way::Code);
        let ending = connect(&mut platform, &mut device, attempt);
        assert_eq!(ending.failure().trouble, Trouble::Unusable, "the device does not even try");
        assert!(ending.sent.is_empty());

        // So the frame is one the device would not send.
        let sent = super::modern_insider::enters_with(&mut platform, &device, suite, false);
        assert_eq!(sent.answer, None, "{suite}");
        assert!(matches!(sent.end, server::Output::Close(CloseReason::Message(_))), "{suite}: {:?}", sent.end);
        assert!(platform.stages.is_empty());
    }
}

#[test]
fn osap_13_3_an_operator_may_demand_the_certificate() {
    let (mut platform, mut device) = known(Suite::Tls, 8);
    platform.record().certificate_required = true;
    let attempt = device.attempt(Suite::Tls, Way::Newest);
    let ending = connect(&mut platform, &mut device, attempt.clone());
    assert_refused_return(&ending, &platform, CloseReason::CertificateRequired);
    assert_eq!(ending.failure().advice(), Advice::NextWay);
    platform.certificate = Some("SN0000001".into());
    assert!(connect(&mut platform, &mut device, attempt).is_done());

    // Who enrols has none yet: it has to ask for one.
    let (mut platform, mut device) = new_device(LONG_CODE, 9);
    platform.record().certificate_required = true;
    let ending = enrol(&mut platform, &mut device);
    assert_refused(&ending, &platform, CloseReason::CertificateRequired);
    device.csr = Some(b"request".to_vec());
    let ending = enrol(&mut platform, &mut device);
    let Some(Ok(success)) = ending.device else { panic!("{:?}", ending.device) };
    assert_eq!(success.certificate, [b"request"]);
}

#[test]
fn osap_13_3_a_demanded_certificate_is_granted_until_one_was_shown_and_inside_a_window() {
    // One that came in before it was demanded asks with its ticket.
    for (certified, window, is_in) in [(false, false, true), (true, false, false), (true, true, true)] {
        let (mut platform, mut device) = known(Suite::Tls, 8);
        *platform.record() =
            server::Record { certificate_required: true, certified, window, ..platform.record().clone() };
        device.csr = Some(b"request".to_vec());
        let attempt = device.attempt(Suite::Tls, Way::Newest);
        let ending = connect(&mut platform, &mut device, attempt.clone());
        assert_eq!(ending.is_done(), is_in, "{certified} {window}");
        if !is_in {
            assert_refused_return(&ending, &platform, CloseReason::CertificateRequired);
        }
        // Who asks and is granted none stays out, and nothing is written.
        platform.certifies = false;
        let stages = platform.stages.len();
        let attempt = device.attempt(Suite::Tls, Way::Newest);
        let ending = connect(&mut platform, &mut device, attempt);
        assert_eq!(ending.reason(), Some(CloseReason::CertificateRequired));
        assert_eq!(platform.stages.len(), stages);
        // Of whom none is demanded goes without.
        platform.record().certificate_required = false;
        let attempt = device.attempt(Suite::Tls, Way::Newest);
        assert!(connect(&mut platform, &mut device, attempt).is_done());
    }
    // Over plain TCP there is none to be shown.
    let (mut platform, mut device) = known(Suite::X25519, 9);
    *platform.record() = server::Record { certificate_required: true, window: true, ..platform.record().clone() };
    device.csr = Some(b"request".to_vec());
    let attempt = device.attempt(Suite::X25519, Way::Newest);
    let ending = connect(&mut platform, &mut device, attempt);
    assert_eq!(ending.reason(), Some(CloseReason::CertificateRequired));
}

#[test]
fn osap_13_3_a_device_with_a_certificate_outlives_any_loss_of_the_server() {
    let (mut platform, mut device) = known(Suite::Tls, 10);
    device.has.certificate = true;
    platform.certificate = Some("SN0000001".into());
    // The tickets are gone, the DevID is not.
    platform.record().tickets.revoke();
    assert_eq!(come_in(&mut platform, &mut device), Some(Way::Certificate));
    // The whole record is new: the DevID the device names is nobody's, which only a sealed result says.
    platform.record().tickets = osap::modern::Tickets::default();
    let kept = device.flash.clone();
    let attempt = device.attempt(Suite::Tls, Way::Certificate);
    let ending = connect(&mut platform, &mut device, attempt.clone());
    assert_refused_return(&ending, &platform, CloseReason::DevId);
    assert_eq!(ending.failure().advice(), Advice::Enrol);
    assert_eq!(device.flash, kept, "nothing is deleted before something new is there");
    // It enrols anew; what it holds is overwritten only now, and its slots not both.
    let nameless = kept.without_identity();
    device.flash = nameless.clone();
    assert!(connect(&mut platform, &mut device, attempt).is_done());
    assert_eq!(device.flash.older, kept.newest);
    assert_eq!(device.flash.dev_id, platform.tickets().dev_id);
    assert!(device.flash.dev_id.is_some());
}

#[test]
fn osap_13_3_a_device_that_is_shut_out_is_told_under_seal_and_keeps_what_it_has() {
    for suite in Suite::MODERN {
        let (mut platform, mut device) = known(suite, 11);
        platform.record().standing = Standing::Disabled;
        let kept = device.flash.clone();
        let attempt = device.attempt(suite, Way::Newest);
        let ending = connect(&mut platform, &mut device, attempt);
        assert_refused_return(&ending, &platform, CloseReason::Disabled);
        assert_eq!(device.flash, kept);
        platform.record().standing = Standing::Known;
        assert_eq!(come_in(&mut platform, &mut device), Some(Way::Newest));
    }
}

#[track_caller]
fn assert_refused_return(ending: &Ending, platform: &Platform, reason: CloseReason) {
    assert_eq!(ending.reason(), Some(reason));
    assert_eq!(ending.failure().trouble, Trouble::Refused(reason.result().unwrap()));
    assert_eq!(ending.first_bytes(), [0x1A, 0x2A, 0x42, 0x62]);
    assert!(platform.stages.iter().all(|stage| !matches!(stage, Stage::Issue { rev: 0, .. })));
}
