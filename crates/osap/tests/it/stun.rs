//! The refresh for a STUN server, 0xC0, 0xD0, 0xE0 (osap-wire 3.5, 5.8): byte for byte that of 0x70,
//! and then there is no STUN server.

use osap::ResultCode;
use osap::lbs::message::{ServiceRequest, first, refusal};
use osap::lbs::server::{CloseReason, Output, Server, ServerPolicy};
use osap::lbs::{Record, Run};
use osap::suite::legacy::l_cbc_seal;

use crate::vectors::{Tape, bytes, credential, master_key, nobody, registered};

/// The frame of a plain refresh under the type it has here.
fn stun(name: &str) -> Vec<u8> {
    let mut frame = bytes(name);
    frame[0] += 0x50;
    frame
}

/// A machine that has been asked by 0xC0, for a device with a credential.
fn asked() -> Server {
    let mut server = Server::new(ServerPolicy::legacy());
    server.handle_frame(&stun("refresh_70"));
    assert_eq!(server.run(), Some(Run::PlainRefresh));
    server
}

fn enrolled() -> Record {
    Record { committed: Some(credential(1, master_key("master_key"))), ..registered() }
}

/// A machine whose device has shown r2.
fn refreshed() -> Server {
    let mut server = asked();
    server.handle_record(enrolled(), &mut Tape::new(&[&bytes("refreshed_session_key"), &[0x22]]));
    assert_eq!(server.poll(), Output::Send(stun("refresh_80")));
    assert_eq!(server.poll(), Output::Read);
    server.handle_frame(&stun("refresh_90"));
    assert_eq!(server.poll(), Output::Read);
    server
}

fn request(text: &str) -> Vec<u8> {
    let key = bytes("refreshed_session_key").try_into().unwrap();
    ServiceRequest { sealed: l_cbc_seal(&key, text.as_bytes()) }.encode()
}

#[test]
fn osap_5_8_there_is_no_stun_server_and_nothing_is_staged() {
    for (text, result, reason) in [
        (r#"{"DevSerial":"SN0000001","Type":"STUN"}"#, ResultCode::NoDas, CloseReason::Stun),
        (r#"{"DevSerial":"SN0000001","Type":"DAS","Mode":0}"#, ResultCode::InvalidData, CloseReason::WrongService),
        (r#"{"DevSerial":"SN0000001","Type":"?"}"#, ResultCode::InvalidData, CloseReason::UnknownService),
    ] {
        let mut server = refreshed();
        server.handle_frame(&request(text));
        assert_eq!(server.poll(), Output::Send(refusal(first::SERVICE_ANSWER, result)));
        assert_eq!(server.poll(), Output::Close(reason));
        assert_eq!((server.refusal(), reason.result()), (Some(result), Some(result)));
    }
}

#[test]
fn refusals_come_under_the_type_of_the_answer() {
    let other = Record { committed: Some(credential(1, master_key("real_master_key"))), ..registered() };
    for (record, result) in [(nobody(), ResultCode::DevIdMismatch), (other, ResultCode::MasterKeyInvalid)] {
        let mut server = asked();
        server.handle_record(record, &mut Tape::new(&[]));
        assert_eq!(server.poll(), Output::Send(refusal(first::STUN_REFRESH_II, result)));
    }
    let mut server = asked();
    server.handle_unavailable();
    assert_eq!(server.poll(), Output::Send(refusal(first::STUN_REFRESH_II, ResultCode::Unavailable)));
}

#[test]
fn the_two_refreshes_do_not_mix() {
    for (begin, goes_on) in [(stun("refresh_70"), bytes("refresh_90")), (bytes("refresh_70"), stun("refresh_90"))] {
        let mut server = Server::new(ServerPolicy::legacy());
        server.handle_frame(&begin);
        server.handle_record(enrolled(), &mut Tape::new(&[&bytes("refreshed_session_key"), &[0x22]]));
        assert!(matches!(server.poll(), Output::Send(_)));
        server.handle_frame(&goes_on);
        assert_eq!(server.poll(), Output::Close(CloseReason::OutOfOrder(goes_on[0])));
    }
}
