//! What the server answers when it does not let a device in (osap-wire 5.10, 5.11, 5.13, 8, 13.2).

use osap::lbs::DasInfo;
use osap::lbs::frame::Frame;
use osap::lbs::message::{
    Apply, AuthI, AuthIi, Confirm, EcdhRefresh, Group, MessageError, Offer, Purpose, RefreshI, RefreshIii,
    ServiceRequest, first, refusal,
};
use osap::lbs::server::{CloseReason, Output, Server, ServerPolicy};
use osap::lbs::{Record, Run, Standing};
use osap::suite::legacy::{l_cbc_seal, l_gcm_seal, share_key};
use osap::{Code, CodeCase, ResultCode};

use crate::vectors::{
    Tape, array, bytes, code, credential, das, master_key, nobody, registered, serial, session_key, unhex,
};

fn server() -> Server {
    Server::new(ServerPolicy::legacy())
}

/// The machine has sent `result` in a frame that begins with `first`, and closes for `reason`.
#[track_caller]
fn refused(server: &mut Server, first: u8, result: ResultCode, reason: CloseReason) {
    let expected = if first == first::AUTH_II {
        AuthIi::Refused { protocol_type: 1, result }.encode()
    } else {
        refusal(first, result)
    };
    assert_eq!(server.poll(), Output::Send(expected));
    assert_eq!(server.poll(), Output::Close(reason));
    assert_eq!(server.poll(), Output::Close(reason));
    assert_eq!(server.refusal(), Some(result));
    assert_eq!(reason.result(), Some(result));
}

/// The machine closes without a word.
#[track_caller]
fn closed(server: &mut Server, reason: CloseReason) {
    assert_eq!(server.poll(), Output::Close(reason));
    assert_eq!((server.refusal(), reason.result()), (None, None));
    server.handle_frame(&bytes("first_1a"));
    assert_eq!(server.poll(), Output::Close(reason));
}

/// A machine that has sent AUTH-II to the device of the vectors.
fn agreed(record: Record) -> Server {
    let mut server = server();
    server.handle_frame(&bytes("first_1a"));
    let mut tape = Tape::of_server();
    server.handle_record(record, &mut tape);
    server.compute(&mut tape);
    assert!(matches!(server.poll(), Output::Send(_)));
    server
}

/// A machine that has sent 0x82.
fn issued() -> Server {
    let mut server = agreed(registered());
    server.handle_frame(&bytes("first_72"));
    assert!(matches!(server.poll(), Output::Send(_)));
    server
}

fn enrolled() -> Record {
    Record { committed: Some(credential(1, master_key("master_key"))), ..registered() }
}

/// A machine that has sent 0x80.
fn refreshing() -> Server {
    let mut server = server();
    server.handle_frame(&bytes("refresh_70"));
    server.handle_record(enrolled(), &mut Tape::new(&[&bytes("refreshed_session_key"), &[0x22]]));
    assert!(matches!(server.poll(), Output::Send(_)));
    server
}

#[test]
fn osap_13_2_3_a_refusal_that_is_not_sent_yet_may_be_taken_back() {
    for (frame, record, answer) in
        [("first_1a", nobody(), first::AUTH_II), ("refresh_70", nobody(), Purpose::Das.firsts()[1])]
    {
        let mut server = server();
        server.handle_frame(&bytes(frame));
        server.handle_record(record, &mut Tape::new(&[]));
        server.withhold_refusal();
        refused(&mut server, answer, ResultCode::Unavailable, CloseReason::StoreUnavailable);
        server.withhold_refusal();
        assert_eq!(server.poll(), Output::Close(CloseReason::StoreUnavailable), "it is sent once");
    }
    // There is none to take back.
    let mut server = refreshing();
    server.withhold_refusal();
    assert_eq!((server.poll(), server.refusal()), (Output::Read, None));
}

#[test]
fn an_unknown_serial_looks_like_a_wrong_code() {
    let mut unknown = server();
    unknown.handle_frame(&bytes("first_1a"));
    unknown.handle_record(nobody(), &mut Tape::new(&[]));
    refused(&mut unknown, first::AUTH_II, ResultCode::CodeRefused, CloseReason::UnknownSerial);

    let mut wrong = server();
    wrong.handle_frame(&bytes("first_1a"));
    let record = Record { code: Some(Code::new("ABCDEG").unwrap()), ..Record::default() };
    wrong.handle_record(record, &mut Tape::new(&[]));
    refused(&mut wrong, first::AUTH_II, ResultCode::CodeRefused, CloseReason::WrongCode);
}

/// A device that is shut out is told what a stranger is told, also with its code; but one that names its DevID is told to
/// come again, so that it forgets nothing.
#[test]
fn osap_13_2_3_a_device_that_is_shut_out_looks_like_an_unknown_serial() {
    for guess in ["ABCDEF", "ABCDEG"] {
        let mut server = server();
        server.handle_frame(&bytes("first_1a"));
        let code = Some(Code::new(guess).unwrap());
        let record = Record { code, standing: Standing::Disabled, ..enrolled() };
        server.handle_record(record, &mut Tape::new(&[]));
        refused(&mut server, first::AUTH_II, ResultCode::CodeRefused, CloseReason::Disabled);
    }
    let shut_out = || Record { standing: Standing::Disabled, ..enrolled() };
    let mine = RefreshI::decode(&Frame::decode(&bytes("refresh_70")).unwrap(), Purpose::Das).unwrap();
    let guessed = RefreshI { dev_id: [0; 32], ..mine.clone() };
    for (request, result, reason) in [
        (mine, ResultCode::Unavailable, CloseReason::ShutOut),
        (guessed, ResultCode::DevIdMismatch, CloseReason::DevIdUnknown),
    ] {
        let mut server = server();
        server.handle_frame(&request.encode(Purpose::Das));
        server.handle_record(shut_out(), &mut Tape::new(&[]));
        refused(&mut server, first::REFRESH_II, result, reason);
    }
}

/// Not even the code of its record lets a stranger in.
#[test]
fn no_code_opens_an_unknown_serial() {
    for code_case in [CodeCase::Upper, CodeCase::Lower] {
        let mut server = server();
        server.handle_frame(&bytes("first_1a"));
        server.handle_record(Record { code_case: Some(code_case), ..nobody() }, &mut Tape::new(&[]));
        refused(&mut server, first::AUTH_II, ResultCode::CodeRefused, CloseReason::UnknownSerial);
    }
}

#[test]
fn a_key_agreement_that_nobody_has_time_for_is_result_6() {
    let mut server = server();
    server.handle_frame(&bytes("first_1a"));
    server.handle_record(registered(), &mut Tape::new(&[]));
    assert_eq!(server.poll(), Output::Compute);
    assert_eq!(server.device_key(), Some(&array("device_public")));
    server.handle_unavailable();
    refused(&mut server, first::AUTH_II, ResultCode::Unavailable, CloseReason::StoreUnavailable);
}

#[test]
fn a_code_that_cannot_be_read_is_result_5() {
    let mut server = server();
    server.handle_frame(&bytes("first_1a"));
    server.handle_record(Record::default(), &mut Tape::new(&[]));
    refused(&mut server, first::AUTH_II, ResultCode::Refused, CloseReason::CodeUnavailable);
}

#[test]
fn a_store_that_is_down_is_result_6() {
    let six = ResultCode::Unavailable;
    let mut looking = server();
    looking.handle_frame(&bytes("first_1a"));
    looking.handle_unavailable();
    refused(&mut looking, first::AUTH_II, six, CloseReason::StoreUnavailable);

    let mut looking = server();
    looking.handle_frame(&bytes("refresh_70"));
    looking.handle_unavailable();
    refused(&mut looking, first::REFRESH_II, six, CloseReason::StoreUnavailable);

    let mut staging = issued();
    staging.handle_frame(&bytes("first_a0"));
    staging.handle_das(Some(das()));
    assert!(matches!(staging.poll(), Output::Stage(_)));
    staging.handle_unavailable();
    refused(&mut staging, first::SERVICE_ANSWER, six, CloseReason::StoreUnavailable);
}

#[test]
fn a_key_off_the_curve_is_result_3() {
    let mut vector = AuthI::decode(&Frame::decode(&bytes("first_1a")).unwrap()).unwrap();
    for bad in [[4; 97], [0; 97]] {
        vector.sealed_key = bad;
        let key = share_key(&code(), &serial(), CodeCase::Upper);
        vector.tag = l_gcm_seal(key.aes_key(), &mut vector.sealed_key);
        let mut server = server();
        server.handle_frame(&vector.encode());
        server.handle_record(registered(), &mut Tape::new(&[]));
        assert_eq!(server.poll(), Output::Compute);
        server.compute(&mut Tape::new(&[&bytes("lbs_private")]));
        refused(&mut server, first::AUTH_II, ResultCode::InvalidData, CloseReason::Point);
    }
}

#[test]
fn a_wrong_signature_is_result_1() {
    let mut server = agreed(registered());
    server.handle_frame(&Apply { signature: [7; 48] }.encode());
    assert_eq!(server.run(), Some(Run::First));
    refused(&mut server, first::APPLIED, ResultCode::CodeRefused, CloseReason::Signature);

    let mut server = agreed(enrolled());
    let dev_id = *crate::vectors::dev_id().as_bytes();
    server.handle_frame(&EcdhRefresh { dev_id, signature: [7; 48] }.encode());
    assert_eq!(server.run(), Some(Run::EcdhRefresh));
    refused(&mut server, first::ECDH_REFRESHED, ResultCode::CodeRefused, CloseReason::Signature);

    let mut server = issued();
    server.handle_frame(&Confirm { signature: [7; 48] }.encode());
    assert_eq!(server.poll(), Output::Close(CloseReason::Confirmation));
}

/// osap-wire 13.2.4: only what the device has shown counts as having a DevID.
#[test]
fn a_second_first_authentication_needs_an_open_window() {
    let mut server = agreed(enrolled());
    server.handle_frame(&bytes("first_72"));
    refused(&mut server, first::APPLIED, ResultCode::Refused, CloseReason::EnrolmentClosed);

    let held = credential(1, master_key("master_key"));
    for record in [Record { may_enrol_again: true, ..enrolled() }, Record { candidate: Some(held), ..registered() }] {
        let mut server = agreed(record);
        server.handle_frame(&bytes("first_72"));
        assert_eq!(server.poll(), Output::Send(bytes("first_82")));
    }
}

#[test]
fn a_dev_id_of_nobody_is_result_4() {
    let signature = array("signature");
    for record in [registered(), enrolled()] {
        let mut server = agreed(record);
        server.handle_frame(&EcdhRefresh { dev_id: [b'f'; 32], signature }.encode());
        refused(&mut server, first::ECDH_REFRESHED, ResultCode::DevIdMismatch, CloseReason::DevIdUnknown);
    }
    let vector = RefreshI::decode(&Frame::decode(&bytes("refresh_70")).unwrap(), Purpose::Das).unwrap();
    let other = RefreshI { dev_id: [0; 32], ..vector.clone() };
    for (request, record) in [(&vector, nobody()), (&vector, registered()), (&other, enrolled())] {
        let mut server = server();
        server.handle_frame(&request.encode(Purpose::Das));
        server.handle_record(record, &mut Tape::new(&[]));
        refused(&mut server, first::REFRESH_II, ResultCode::DevIdMismatch, CloseReason::DevIdUnknown);
    }
}

#[test]
fn another_master_key_is_result_10() {
    let other = credential(1, master_key("real_master_key"));
    for record in
        [Record { committed: Some(other.clone()), ..registered() }, Record { candidate: Some(other), ..registered() }]
    {
        let mut server = server();
        server.handle_frame(&bytes("refresh_70"));
        server.handle_record(record, &mut Tape::new(&[]));
        refused(&mut server, first::REFRESH_II, ResultCode::MasterKeyInvalid, CloseReason::MasterKey);
    }
}

/// r1 has to be one byte, not merely something that opens.
#[test]
fn a_challenge_of_another_length_is_result_10() {
    let mut request = RefreshI::decode(&Frame::decode(&bytes("refresh_70")).unwrap(), Purpose::Das).unwrap();
    for length in [0, 2, 15] {
        let sealed = l_cbc_seal(master_key("master_key").as_bytes(), &vec![9; length]);
        request.challenge = sealed.try_into().unwrap();
        let mut server = server();
        server.handle_frame(&request.encode(Purpose::Das));
        server.handle_record(enrolled(), &mut Tape::new(&[]));
        refused(&mut server, first::REFRESH_II, ResultCode::MasterKeyInvalid, CloseReason::MasterKey);
    }
}

#[test]
fn a_wrong_r2_closes() {
    let mut server = refreshing();
    let challenge = l_cbc_seal(master_key("master_key").as_bytes(), &[0x23]).try_into().unwrap();
    server.handle_frame(&RefreshIii { challenge }.encode(Purpose::Das));
    closed(&mut server, CloseReason::Challenge);
    let mut server = refreshing();
    server.handle_frame(&RefreshIii { challenge: [0; 16] }.encode(Purpose::Das));
    closed(&mut server, CloseReason::Challenge);
}

#[test]
fn no_das_is_result_9_and_stages_nothing() {
    let too_long = DasInfo { domain: "d".repeat(64), ..das() };
    for (das, reason) in
        [(None, CloseReason::NoDas), (Some(too_long.clone()), CloseReason::DasUnusable(too_long.check().unwrap_err()))]
    {
        let mut server = issued();
        server.handle_frame(&bytes("first_a0"));
        server.handle_das(das);
        refused(&mut server, first::SERVICE_ANSWER, ResultCode::NoDas, reason);
    }
}

#[test]
fn requests_for_another_service() {
    let ask = |text: &str| {
        let mut server = issued();
        let sealed = l_cbc_seal(session_key().as_bytes(), text.as_bytes());
        server.handle_frame(&ServiceRequest { sealed }.encode());
        server
    };
    let mut stun = ask(r#"{"DevSerial":"SN0000001","Type":"STUN"}"#);
    refused(&mut stun, first::SERVICE_ANSWER, ResultCode::NoDas, CloseReason::Stun);
    let mut other = ask(r#"{"DevSerial":"SN0000001","Type":"CLOUD"}"#);
    refused(&mut other, first::SERVICE_ANSWER, ResultCode::InvalidData, CloseReason::UnknownService);
    closed(&mut ask(r#"{"DevSerial":"SN0000002","Type":"DAS"}"#), CloseReason::ServiceRequest);
    closed(&mut ask("{}"), CloseReason::ServiceRequest);
    let mut garbled = issued();
    garbled.handle_frame(&ServiceRequest { sealed: vec![0; 16] }.encode());
    closed(&mut garbled, CloseReason::ServiceRequest);
}

#[test]
fn a_mismatch_names_the_types_that_are_served() {
    let vector = AuthI::decode(&Frame::decode(&bytes("first_1a")).unwrap()).unwrap();
    for (offered, group) in [(4, &[4, 1][..]), (4, &[4]), (0, &[]), (16, &[8, 16])] {
        let offer = Offer { protocol_type: offered, group: Group::new(group).unwrap() };
        let mut server = server();
        server.handle_frame(&AuthI { offer, ..vector.clone() }.encode());
        assert_eq!(server.poll(), Output::Send(unhex("2a07010101010 1000 3".replace(' ', "").as_str())));
        assert_eq!(server.poll(), Output::Close(CloseReason::Mismatch { offered }));
        assert_eq!(server.refusal(), Some(ResultCode::InvalidData));
    }
    // The offered type is what counts, whatever else the device could run.
    let offer = Offer { protocol_type: 1, group: Group::new(&[4, 1]).unwrap() };
    let mut server = server();
    server.handle_frame(&AuthI { offer, ..vector }.encode());
    assert_eq!(server.poll(), Output::Lookup(serial()));
}

#[test]
fn the_first_byte_decides() {
    for (bytes, reason, serial_known) in [
        (bytes("g0_10"), CloseReason::G0NotServed, true),
        (unhex("1000"), CloseReason::G0NotServed, false),
        (unhex("1200"), CloseReason::Message(MessageError::Length), false),
        (unhex("c000"), CloseReason::Message(MessageError::Length), false),
        (unhex("2a00"), CloseReason::OutOfOrder(0x2A), false),
        (unhex("7200"), CloseReason::OutOfOrder(0x72), false),
        (unhex("a000"), CloseReason::OutOfOrder(0xA0), false),
        (unhex("1a00"), CloseReason::Message(MessageError::Length), false),
        (unhex("1a020f0f"), CloseReason::Message(MessageError::Group), false),
        (unhex("7000"), CloseReason::Message(MessageError::Length), false),
    ] {
        let mut server = server();
        server.handle_frame(&bytes);
        closed(&mut server, reason);
        assert_eq!(server.serial(), serial_known.then(serial).as_ref());
    }
    let mut server = server();
    server.handle_frame(&unhex("f000"));
    refused(&mut server, first::SECRET_KEY, ResultCode::Refused, CloseReason::SecretKey);
}

/// In every state, every message that does not belong there.
#[test]
fn a_message_out_of_order_closes_without_an_answer() {
    let messages =
        ["first_1a", "first_72", "refresh_42", "refresh_70", "refresh_90", "first_a0", "first_2a", "first_b0"];
    type State = fn() -> Server;
    let states: [(State, &[&str]); 3] =
        [(|| agreed(enrolled()), &["first_72", "refresh_42"]), (issued, &["first_a0"]), (refreshing, &["refresh_90"])];
    for (state, due) in states {
        for message in messages.iter().filter(|message| !due.contains(message)) {
            let mut server = state();
            assert_eq!(server.poll(), Output::Read);
            let frame = bytes(message);
            server.handle_frame(&frame);
            closed(&mut server, CloseReason::OutOfOrder(frame[0]));
        }
    }
    // A refresh has nothing to confirm.
    let mut server = refreshing();
    server.handle_frame(&bytes("refresh_90"));
    server.handle_frame(&Confirm { signature: array("signature") }.encode());
    closed(&mut server, CloseReason::OutOfOrder(0x92));
}

/// One bit changed anywhere behind the version bytes of a request leads to a refusal or a close,
/// never further.
#[test]
fn a_request_with_any_bit_changed_does_not_get_through() {
    let good = bytes("first_1a");
    // From the serial on, so that what is asked for still is an authentication.
    for index in 12..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 2;
        let mut server = server();
        server.handle_frame(&bad);
        if let Output::Lookup(_) = server.poll() {
            server.handle_record(registered(), &mut Tape::new(&[]));
            assert!(matches!(server.poll(), Output::Send(_)), "byte {index}");
        }
        assert!(matches!(server.poll(), Output::Close(_)), "byte {index}");
    }
    let good = bytes("first_72");
    for index in 5..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 2;
        let mut server = agreed(registered());
        server.handle_frame(&bad);
        assert_eq!(server.poll(), Output::Send(refusal(first::APPLIED, ResultCode::CodeRefused)));
    }
}

#[test]
fn a_frame_longer_than_1_kib_closes() {
    let mut long = vec![0xA0, 0xFE, 0x07];
    long.resize(3 + 1022, 0);
    let mut server = server();
    server.handle_frame(&long);
    assert!(matches!(server.poll(), Output::Close(CloseReason::Frame(_))));
}

/// Calls that answer nothing are ignored.
#[test]
fn calls_out_of_turn_change_nothing() {
    let mut server = server();
    server.handle_staged();
    server.handle_das(Some(das()));
    server.handle_record(registered(), &mut Tape::new(&[]));
    server.handle_unavailable();
    server.compute(&mut Tape::new(&[]));
    assert_eq!(server.poll(), Output::Read);
    server.handle_frame(&bytes("first_1a"));
    server.handle_frame(&bytes("first_72"));
    assert_eq!(server.poll(), Output::Lookup(serial()));
}

#[test]
fn reasons_have_short_names_and_sentences() {
    for reason in [
        CloseReason::UnknownSerial,
        CloseReason::G0NotServed,
        CloseReason::Mismatch { offered: 4 },
        CloseReason::Message(MessageError::Length),
    ] {
        assert!(reason.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        assert!(reason.to_string().contains(' '));
    }
}
