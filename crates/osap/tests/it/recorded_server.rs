//! The server machine against frames it did not make: the vectors, and what the real 2.0.x client
//! sent (osap-wire 12.2, 12.3, 12.5).

use osap::lbs::server::{Output, Server, ServerPolicy};
use osap::lbs::{Credential, DasInfo, Record, Run, Slot, Stage};
use osap::{CodeCase, Suite};

use crate::vectors::{Tape, bytes, code, credential, das, dev_id, master_key, registered, serial, session_key};

/// Hands the machine a frame it waits for.
#[track_caller]
fn read(server: &mut Server, frame: &str) {
    assert_eq!(server.poll(), Output::Read);
    server.handle_frame(&bytes(frame));
}

#[track_caller]
fn sends(server: &mut Server, frame: &str) {
    assert_eq!(server.poll(), Output::Send(bytes(frame)), "{frame}");
}

/// From AUTH-I to AUTH-II.
#[track_caller]
fn agree(server: &mut Server, prefix: &str, record: Record) {
    read(server, &format!("{prefix}_1a"));
    assert_eq!(server.poll(), Output::Lookup(serial()));
    assert_eq!((server.serial(), server.run()), (Some(&serial()), None));
    let mut tape = Tape::of_server();
    server.handle_record(record, &mut tape);
    assert_eq!(server.poll(), Output::Compute);
    server.compute(&mut tape);
    assert!(tape.is_used_up());
    sends(server, &format!("{prefix}_2a"));
}

/// From 0xA0 to the end; gives what was staged.
#[track_caller]
fn serve(server: &mut Server, prefix: &str, das: DasInfo) -> Stage {
    read(server, &format!("{prefix}_a0"));
    assert_eq!(server.poll(), Output::Assign);
    server.handle_das(Some(das));
    let Output::Stage(stage) = server.poll() else { panic!("0xB0 before anything was staged") };
    assert_eq!(server.poll(), Output::Stage(stage.clone()));
    server.handle_staged();
    sends(server, &format!("{prefix}_b0"));
    assert_eq!((server.poll(), server.poll(), server.refusal()), (Output::Done, Output::Done, None));
    stage
}

fn real_das() -> DasInfo {
    DasInfo { port: 19901, udp_port: 19902, ..das() }
}

fn issued(epoch: u64, master: &str) -> Credential {
    Credential {
        suite: Suite::Legacy,
        epoch,
        dev_id: dev_id(),
        master_key: master_key(master),
        session_key: Some(session_key()),
    }
}

#[test]
fn first_authentication() {
    for (prefix, master, das) in [("first", "master_key", das()), ("real", "real_master_key", real_das())] {
        let mut server = Server::new(ServerPolicy::legacy());
        agree(&mut server, prefix, registered());
        read(&mut server, &format!("{prefix}_72"));
        sends(&mut server, &format!("{prefix}_82"));
        assert_eq!(server.run(), Some(Run::First));
        let stage = serve(&mut server, prefix, das);
        let expected = Stage::Candidate { run: Run::First, credential: issued(1, master), code_case: CodeCase::Upper };
        assert_eq!(stage, expected);
    }
}

#[test]
fn ecdh_refresh_under_either_credential() {
    let held = credential(6, master_key("real_master_key"));
    for (committed, candidate) in [(Some(held.clone()), None), (None, Some(held))] {
        let record = Record { committed, candidate, ..registered() };
        let mut server = Server::new(ServerPolicy::legacy());
        agree(&mut server, "first", record);
        read(&mut server, "refresh_42");
        sends(&mut server, "refresh_62");
        assert_eq!(server.run(), Some(Run::EcdhRefresh));
        let stage = serve(&mut server, "first", das());
        let expected =
            Stage::Candidate { run: Run::EcdhRefresh, credential: issued(7, "master_key"), code_case: CodeCase::Upper };
        assert_eq!(stage, expected);
    }
}

/// The client's second run, from the record its first one led to.
#[test]
fn plain_refresh_of_the_real_client() {
    let mut record = registered();
    let mut server = Server::new(ServerPolicy::legacy());
    agree(&mut server, "real", record.clone());
    read(&mut server, "real_72");
    sends(&mut server, "real_82");
    assert!(record.apply(serve(&mut server, "real", real_das())));
    assert!(record.committed.is_none());

    let mut server = Server::new(ServerPolicy::legacy());
    read(&mut server, "real_70");
    assert_eq!(server.poll(), Output::Lookup(serial()));
    assert_eq!(server.run(), Some(Run::PlainRefresh));
    let mut tape = Tape::new(&[&bytes("session_key"), &[0x9F]]);
    server.handle_record(record.clone(), &mut tape);
    sends(&mut server, "real_80");
    read(&mut server, "real_90");
    let stage = serve(&mut server, "real", real_das());
    let expected = Stage::Refreshed {
        from: Slot::Candidate,
        master_key: master_key("real_master_key"),
        session_key: session_key(),
    };
    assert_eq!(stage, expected);
    assert!(record.apply(stage));
    assert_eq!((record.committed, record.candidate), (Some(issued(1, "real_master_key")), None));
}

#[test]
fn plain_refresh_of_the_vectors() {
    let record = Record { committed: Some(credential(1, master_key("master_key"))), ..registered() };
    let mut server = Server::new(ServerPolicy::legacy());
    read(&mut server, "refresh_70");
    server.handle_record(record, &mut Tape::new(&[&bytes("refreshed_session_key"), &[0x22]]));
    sends(&mut server, "refresh_80");
    read(&mut server, "refresh_90");
    assert_eq!(server.poll(), Output::Read);
}

/// A device whose firmware writes D1 in lower case, and one that is known to.
#[test]
fn the_lower_case_variant_is_found_and_remembered() {
    use osap::lbs::frame::Frame;
    use osap::lbs::message::AuthI;
    use osap::suite::legacy::{l_gcm_seal, share_key};

    let mut auth = AuthI::decode(&Frame::decode(&bytes("first_1a")).unwrap()).unwrap();
    auth.sealed_key = bytes("device_public").try_into().unwrap();
    auth.tag = l_gcm_seal(share_key(&code(), &serial(), CodeCase::Lower).aes_key(), &mut auth.sealed_key);
    for known in [None, Some(CodeCase::Upper), Some(CodeCase::Lower)] {
        let mut server = Server::new(ServerPolicy::legacy());
        server.handle_frame(&auth.encode());
        let mut tape = Tape::of_server();
        server.handle_record(Record { code_case: known, ..registered() }, &mut tape);
        assert_eq!(server.poll(), Output::Compute);
        server.compute(&mut tape);
        assert!(matches!(server.poll(), Output::Send(_)));
        read(&mut server, "first_72");
        sends(&mut server, "first_82");
        read(&mut server, "first_a0");
        server.handle_das(Some(das()));
        let Output::Stage(Stage::Candidate { code_case, .. }) = server.poll() else { panic!("nothing staged") };
        assert_eq!(code_case, CodeCase::Lower);
    }
}

/// 0x92 from a device that has stored what 0x82 brought: staged at once as committed, and not
/// again at 0xA0.
#[test]
fn a_confirmation_commits() {
    let confirm = osap::lbs::message::Confirm { signature: crate::vectors::array("signature") }.encode();
    let expected =
        Stage::Confirmed { run: Run::First, credential: issued(1, "master_key"), code_case: CodeCase::Upper };
    for store_is_up in [true, false] {
        let mut server = Server::new(ServerPolicy::legacy());
        agree(&mut server, "first", registered());
        read(&mut server, "first_72");
        sends(&mut server, "first_82");
        assert_eq!(server.poll(), Output::Read);
        server.handle_frame(&confirm);
        assert_eq!(server.poll(), Output::Stage(expected.clone()));
        if store_is_up {
            server.handle_staged();
            read(&mut server, "first_a0");
            server.handle_das(Some(das()));
            sends(&mut server, "first_b0");
            assert_eq!(server.poll(), Output::Done);
        } else {
            server.handle_unavailable();
            assert_eq!(serve(&mut server, "first", das()), expected);
        }
    }
}

/// The machine moves between threads while it computes.
#[test]
fn the_machine_is_send() {
    fn send<T: Send + 'static>() {}
    send::<Server>();
}
