//! The server machine and devices of the older generations: the vectors of osap-wire 12.6 and 12.7,
//! and what it answers when it does not let one in.

use osap::lbs::message::g0::{self, Create, Keep};
use osap::lbs::message::{Apply, AuthMode, EcdhRefresh, first, g1, refusal};
use osap::lbs::server::{CloseReason, Output, Server, ServerPolicy};
use osap::lbs::{Credential, Record, Run, Slot, Stage};
use osap::suite::Generation;
use osap::suite::g0::Proof;
use osap::suite::legacy::l_cbc_seal;
use osap::{Code, CodeCase, ResultCode, Suite};

use crate::older_messages::{answer_of_g0, key, opened};
use crate::vectors::{
    Tape, array, bytes, credential, das, dev_id, master_key, nobody, registered, serial, session_key,
};

/// A machine that serves all generations.
fn server() -> Server {
    let mut policy = ServerPolicy::legacy();
    policy.g0 = true;
    Server::new(policy)
}

/// What the server draws for a device of G0: n2, n4, session key, DevID.
fn tape_of_g0() -> Tape {
    let dev_id_bits = crate::vectors::unhex(dev_id().as_str());
    Tape::new(&[&[0x22, 0x44], &bytes("session_key"), &dev_id_bits])
}

/// Hands the machine a frame it waits for.
#[track_caller]
fn read(server: &mut Server, frame: &[u8]) {
    assert_eq!(server.poll(), Output::Read);
    server.handle_frame(frame);
}

#[track_caller]
fn sends(server: &mut Server, frame: Vec<u8>) {
    assert_eq!(server.poll(), Output::Send(frame));
}

/// The machine has sent `result` in a frame that begins with `first`, and closes for `reason`.
#[track_caller]
fn refused(server: &mut Server, first: u8, result: ResultCode, reason: CloseReason) {
    sends(server, refusal(first, result));
    assert_eq!(server.poll(), Output::Close(reason));
    assert_eq!((server.refusal(), reason.result()), (Some(result), Some(result)));
}

/// From 0xA0 to the end; gives what was staged.
#[track_caller]
fn serve(server: &mut Server) -> Stage {
    read(server, &bytes("first_a0"));
    assert_eq!(server.poll(), Output::Assign);
    server.handle_das(Some(das()));
    let Output::Stage(stage) = server.poll() else { panic!("0xB0 before anything was staged") };
    server.handle_staged();
    sends(server, bytes("first_b0"));
    assert_eq!(server.poll(), Output::Done);
    stage
}

/// From 0x12 to 0x22.
#[track_caller]
fn g1_agreed(hello: &[u8], record: Record) -> Server {
    let mut server = server();
    read(&mut server, hello);
    assert_eq!(server.poll(), Output::Lookup(serial()));
    assert_eq!((server.serial(), server.generation()), (Some(&serial()), Some(Generation::G1)));
    let mut tape = Tape::of_server();
    server.handle_record(record, &mut tape);
    assert_eq!(server.poll(), Output::Compute);
    server.compute(&mut tape);
    assert!(tape.is_used_up());
    server
}

/// From 0x10 to 0x20.
#[track_caller]
fn g0_greeted(hello: &[u8], record: Record) -> Server {
    let mut server = server();
    read(&mut server, hello);
    assert_eq!(server.poll(), Output::Lookup(serial()));
    assert_eq!((server.serial(), server.generation()), (Some(&serial()), Some(Generation::G0)));
    let mut tape = tape_of_g0();
    server.handle_record(record, &mut tape);
    assert!(tape.is_used_up(), "there is nothing to compute");
    server
}

fn issued(epoch: u64, master: &str) -> Credential {
    let session_key = Some(session_key());
    Credential { suite: Suite::Legacy, epoch, dev_id: dev_id(), master_key: master_key(master), session_key }
}

fn candidate(run: Run, epoch: u64, master: &str) -> Stage {
    Stage::Candidate { run, credential: issued(epoch, master), code_case: CodeCase::Upper }
}

fn enrolled() -> Record {
    Record { committed: Some(credential(1, master_key("real_master_key"))), ..registered() }
}

#[test]
fn g1_first_authentication() {
    for (prefix, apply, master) in [("g1", "first_72", "master_key"), ("g1_real", "g1_real_72", "g1_real_master_key")] {
        let mut server = g1_agreed(&bytes(&format!("{prefix}_12")), registered());
        sends(&mut server, bytes("g1_22"));
        read(&mut server, &bytes(apply));
        assert_eq!(server.run(), Some(Run::First));
        sends(&mut server, bytes(&format!("{prefix}_82")));
        assert_eq!(serve(&mut server), candidate(Run::First, 1, master));
    }
}

/// The same serial and code: a device of G2 that comes as G1 is the device it was.
#[test]
fn g1_refresh_of_a_device_that_enrolled_as_g2() {
    let mut server = g1_agreed(&bytes("g1_12"), enrolled());
    sends(&mut server, bytes("g1_22"));
    read(&mut server, &bytes("refresh_42"));
    assert_eq!(server.run(), Some(Run::EcdhRefresh));
    // The layout of 0x82 under another type.
    let mut expected = bytes("g1_82");
    expected[0] = first::ECDH_REFRESHED;
    sends(&mut server, expected);
    assert_eq!(serve(&mut server), candidate(Run::EcdhRefresh, 2, "master_key"));
}

#[test]
fn g0_create_and_keep() {
    let mut server = g0_greeted(&bytes("g0_10"), registered());
    sends(&mut server, answer_of_g0("g0_20"));
    read(&mut server, &bytes("g0_40"));
    assert_eq!(server.run(), Some(Run::First));
    sends(&mut server, answer_of_g0("g0_60"));
    assert_eq!(serve(&mut server), candidate(Run::First, 1, "g0_master_key"));

    let held = credential(6, master_key("real_master_key"));
    for (committed, candidate_held) in [(Some(held.clone()), None), (None, Some(held))] {
        let record = Record { committed, candidate: candidate_held, ..registered() };
        let mut server = g0_greeted(&bytes("g0_10"), record);
        sends(&mut server, answer_of_g0("g0_20"));
        read(&mut server, &bytes("g0_30"));
        assert_eq!(server.run(), Some(Run::EcdhRefresh));
        sends(&mut server, answer_of_g0("g0_50"));
        assert_eq!(serve(&mut server), candidate(Run::EcdhRefresh, 7, "g0_master_key"));
    }
}

/// 0x70 under the master key that a generation gave.
#[test]
fn every_generation_refreshes_alike() {
    for master in ["master_key", "g1_real_master_key", "g0_master_key"] {
        let record = Record { candidate: Some(credential(1, master_key(master))), ..registered() };
        let challenge = |byte: u8| l_cbc_seal(master_key(master).as_bytes(), &[byte]);
        let mut server = server();
        let head = &bytes("refresh_70")[..48];
        read(&mut server, &[head, &challenge(0x11)].concat());
        server.handle_record(record, &mut Tape::new(&[&bytes("session_key"), &[0x22]]));
        assert_eq!(server.generation(), None);
        let Output::Send(answer) = server.poll() else { panic!("no answer to 0x70") };
        let plaintext = opened::<32>(master_key(master).as_bytes(), answer[6..].try_into().unwrap());
        assert_eq!(plaintext, [&[0x11, 0x22][..], &bytes("session_key")].concat());
        read(&mut server, &[&[0x90, 0x13, 1, 1, 0][..], &challenge(0x22)].concat());
        let (from, session_key) = (Slot::Candidate, session_key());
        assert_eq!(serve(&mut server), Stage::Refreshed { from, master_key: master_key(master), session_key });
    }
}

fn lower_case_g1() -> Vec<u8> {
    let sealed_key = l_cbc_seal(key(CodeCase::Lower).aes_key_g1(), &bytes("device_public"));
    let sealed_key = sealed_key.try_into().unwrap();
    g1::AuthI { mode: AuthMode::Sap, serial: serial(), sealed_key }.encode()
}

fn lower_case_g0() -> [Vec<u8>; 2] {
    let proof = |randoms: &[u8]| *Proof::of(&key(CodeCase::Lower), &serial(), randoms).as_bytes();
    let hello = g0::AuthI { mode: g0::Mode::Mobile, serial: serial(), n1: 0x11, proof: proof(&[0x11]) };
    [hello.encode(), Create { n3: 0x33, proof: proof(&[0x22, 0x33]) }.encode()]
}

#[test]
fn the_lower_case_variant_is_found_and_remembered() {
    for known in [None, Some(CodeCase::Upper), Some(CodeCase::Lower)] {
        let record = || Record { code_case: known, ..registered() };
        let [hello, create] = lower_case_g0();
        for mut server in [g1_agreed(&lower_case_g1(), record()), g0_greeted(&hello, record())] {
            assert!(matches!(server.poll(), Output::Send(_)));
            let apply = if server.generation() == Some(Generation::G1) { &bytes("first_72") } else { &create };
            read(&mut server, apply);
            assert!(matches!(server.poll(), Output::Send(_)));
            let Stage::Candidate { code_case, .. } = serve(&mut server) else { panic!("nothing staged") };
            assert_eq!(code_case, CodeCase::Lower);
        }
    }
}

/// osap-wire 5.11 in the frames of G1 and G0: AUTH-II refuses for the same reasons, in any case
/// of the code.
#[test]
fn results_of_auth_ii() {
    let wrong = || Record { code: Some(Code::new("ABCDEG").unwrap()), ..Record::default() };
    for (hello, answer) in [
        (bytes("g1_12"), first::AUTH_II_G1),
        (lower_case_g1(), first::AUTH_II_G1),
        (bytes("g0_10"), first::AUTH_II_G0),
        (lower_case_g0()[0].clone(), first::AUTH_II_G0),
    ] {
        for (record, result, reason) in [
            (nobody(), ResultCode::CodeRefused, CloseReason::UnknownSerial),
            (wrong(), ResultCode::CodeRefused, CloseReason::WrongCode),
            (Record::default(), ResultCode::Refused, CloseReason::CodeUnavailable),
        ] {
            let mut server = server();
            server.handle_frame(&hello);
            server.handle_record(record, &mut Tape::new(&[]));
            refused(&mut server, answer, result, reason);
        }
        let mut server = server();
        server.handle_frame(&hello);
        server.handle_unavailable();
        refused(&mut server, answer, ResultCode::Unavailable, CloseReason::StoreUnavailable);
    }
}

#[test]
fn g1_a_key_off_the_curve_is_result_3() {
    for bad in [[4; 97], [0; 97]] {
        let sealed_key = l_cbc_seal(key(CodeCase::Upper).aes_key_g1(), &bad).try_into().unwrap();
        let mut server = server();
        server.handle_frame(&g1::AuthI { mode: AuthMode::Licence, serial: serial(), sealed_key }.encode());
        server.handle_record(registered(), &mut Tape::new(&[]));
        assert_eq!(server.poll(), Output::Compute);
        server.compute(&mut Tape::new(&[&bytes("lbs_private")]));
        refused(&mut server, first::AUTH_II_G1, ResultCode::InvalidData, CloseReason::Point);
    }
}

/// A plaintext that opens and is no public key is a wrong code, as one that does not open.
#[test]
fn g1_what_opens_to_another_length_is_a_wrong_code() {
    let sealed_key = l_cbc_seal(key(CodeCase::Upper).aes_key_g1(), &[4; 96]).try_into().unwrap();
    let mut server = server();
    server.handle_frame(&g1::AuthI { mode: AuthMode::Sap, serial: serial(), sealed_key }.encode());
    server.handle_record(registered(), &mut Tape::new(&[]));
    refused(&mut server, first::AUTH_II_G1, ResultCode::CodeRefused, CloseReason::WrongCode);
}

/// What follows AUTH-II, in each generation: a wrong proof, a DevID of nobody, a closed window.
#[test]
fn results_of_requests_for_credentials() {
    let g1 = |record: Record, request: &[u8]| {
        let mut server = g1_agreed(&bytes("g1_12"), record);
        sends(&mut server, bytes("g1_22"));
        read(&mut server, request);
        server
    };
    let g0 = |record: Record, request: &[u8]| {
        let mut server = g0_greeted(&bytes("g0_10"), record);
        sends(&mut server, answer_of_g0("g0_20"));
        read(&mut server, request);
        server
    };
    let mine = *dev_id().as_bytes();
    let (one, closed) = (ResultCode::CodeRefused, CloseReason::EnrolmentClosed);
    let forged = [7; 32];

    let request = Apply { signature: [7; 48] }.encode();
    refused(&mut g1(registered(), &request), first::APPLIED, one, CloseReason::Signature);
    let request = EcdhRefresh { dev_id: mine, signature: [7; 48] }.encode();
    refused(&mut g1(enrolled(), &request), first::ECDH_REFRESHED, one, CloseReason::Signature);
    let request = Create { n3: 0x33, proof: forged }.encode();
    refused(&mut g0(registered(), &request), first::CREATED, one, CloseReason::Signature);
    let request = Keep { n3: 0x33, dev_id: mine, proof: forged }.encode();
    refused(&mut g0(enrolled(), &request), first::KEPT, one, CloseReason::Signature);

    let four = ResultCode::DevIdMismatch;
    let request = EcdhRefresh { dev_id: [b'f'; 32], signature: array("signature") }.encode();
    refused(&mut g1(enrolled(), &request), first::ECDH_REFRESHED, four, CloseReason::DevIdUnknown);
    let proof = *Proof::of(&key(CodeCase::Upper), &serial(), &[0x22, 0x33]).as_bytes();
    let request = Keep { n3: 0x33, dev_id: [b'f'; 32], proof }.encode();
    refused(&mut g0(enrolled(), &request), first::KEPT, four, CloseReason::DevIdUnknown);
    refused(&mut g0(registered(), &bytes("g0_30")), first::KEPT, four, CloseReason::DevIdUnknown);

    // osap-wire 13.2.4
    refused(&mut g1(enrolled(), &bytes("first_72")), first::APPLIED, ResultCode::Refused, closed);
    refused(&mut g0(enrolled(), &bytes("g0_40")), first::CREATED, ResultCode::Refused, closed);
    let window = || Record { may_enrol_again: true, ..enrolled() };
    sends(&mut g1(window(), &bytes("first_72")), bytes("g1_82"));
    sends(&mut g0(window(), &bytes("g0_40")), answer_of_g0("g0_60"));
}

/// Each generation keeps to its own messages (osap-wire 5.13).
#[test]
fn a_message_of_another_generation_closes_without_an_answer() {
    let all = ["first_1a", "g1_12", "g0_10", "first_72", "refresh_42", "g0_40", "g0_30", "refresh_90", "first_a0"];
    type State = fn() -> Server;
    let states: [(State, &[&str]); 2] = [
        (|| g1_agreed(&bytes("g1_12"), enrolled()), &["first_72", "refresh_42"]),
        (|| g0_greeted(&bytes("g0_10"), enrolled()), &["g0_40", "g0_30"]),
    ];
    for (state, due) in states {
        for message in all.iter().filter(|message| !due.contains(message)) {
            let mut server = state();
            assert!(matches!(server.poll(), Output::Send(_)));
            let frame = bytes(message);
            read(&mut server, &frame);
            assert_eq!(server.poll(), Output::Close(CloseReason::OutOfOrder(frame[0])));
            assert_eq!(server.refusal(), None);
        }
    }
    // G0 has no SIG to confirm with.
    let mut server = g0_greeted(&bytes("g0_10"), registered());
    sends(&mut server, answer_of_g0("g0_20"));
    read(&mut server, &bytes("g0_40"));
    sends(&mut server, answer_of_g0("g0_60"));
    read(&mut server, &osap::lbs::message::Confirm { signature: array("signature") }.encode());
    assert_eq!(server.poll(), Output::Close(CloseReason::OutOfOrder(first::CONFIRM)));
}

/// One bit changed anywhere behind the version bytes and the serial leads to a refusal, never
/// further; but n1 and n3 are covered by their proofs alone.
#[test]
fn a_request_with_any_bit_changed_does_not_get_through() {
    for (name, answer) in [("g1_12", first::AUTH_II_G1), ("g0_10", first::AUTH_II_G0)] {
        let good = bytes(name);
        for index in 16..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 2;
            let mut server = server();
            read(&mut server, &bad);
            server.handle_record(registered(), &mut Tape::of_server());
            if server.poll() == Output::Compute {
                // L-CBC authenticates nothing but its padding: what opens is no point then.
                server.compute(&mut Tape::of_server());
                refused(&mut server, answer, ResultCode::InvalidData, CloseReason::Point);
            } else {
                assert_eq!(server.refusal(), Some(ResultCode::CodeRefused), "{name} byte {index}");
            }
        }
    }
    let good = bytes("g0_40");
    for index in 5..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 2;
        let mut server = g0_greeted(&bytes("g0_10"), registered());
        sends(&mut server, answer_of_g0("g0_20"));
        read(&mut server, &bad);
        refused(&mut server, first::CREATED, ResultCode::CodeRefused, CloseReason::Signature);
    }
}

/// osap-wire 7 and 13.4.5: G0 needs a policy of its own, G1 and G0 a listener of the legacy suite.
#[test]
fn generations_that_are_not_served_are_closed_without_an_answer() {
    let mut modern = ServerPolicy::legacy();
    modern.g0 = true;
    modern.suites.clear();
    for (policy, hello, reason) in [
        (ServerPolicy::legacy(), "g0_10", CloseReason::G0NotServed),
        (modern.clone(), "g0_10", CloseReason::G0NotServed),
        (modern, "g1_12", CloseReason::G1NotServed),
    ] {
        let mut server = Server::new(policy);
        read(&mut server, &bytes(hello));
        assert_eq!(server.poll(), Output::Close(reason));
        assert_eq!((server.serial(), server.refusal()), (Some(&serial()), None), "whose owner is told");
    }
}
