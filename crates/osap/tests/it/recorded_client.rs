//! The client machine against the frames of osap-wire 12.2 and 12.3.

use osap::lbs::client::{Client, Identity, Output, Reaction, Stored, Success, Trouble};
use osap::lbs::message::{AuthIi, Group, first, refusal};
use osap::lbs::{Run, backoff};
use osap::{CodeCase, ResultCode};

use crate::vectors::{Tape, bytes, code, das, dev_id, master_key, serial, session_key};

fn identity() -> Identity {
    Identity::new(serial(), code())
}

fn both() -> Stored {
    Stored::Both { dev_id: dev_id(), master_key: master_key("master_key") }
}

#[track_caller]
fn sends(client: &mut Client, frame: &str) {
    assert_eq!(client.poll(), Output::Send(bytes(frame)), "{frame}");
}

#[track_caller]
fn reads(client: &mut Client, frame: &str) {
    assert_eq!(client.poll(), Output::Read);
    client.handle_frame(&bytes(frame));
}

#[track_caller]
fn computes(client: &mut Client, parts: &[&[u8]]) {
    assert_eq!(client.poll(), Output::Compute);
    let mut tape = Tape::new(parts);
    client.compute(&mut tape);
    assert!(tape.is_used_up());
}

/// A client that has sent AUTH-I.
fn greeted(stored: Stored, case: CodeCase) -> Client {
    let mut client = Client::new(identity(), stored, case);
    computes(&mut client, &[&bytes("device_private")]);
    let Output::Send(hello) = client.poll() else { panic!("AUTH-I comes first") };
    assert_eq!(hello[0], first::AUTH_I);
    client
}

fn success(run: Run) -> Success {
    Success {
        dev_id: dev_id(),
        master_key: master_key("master_key"),
        session_key: session_key(),
        das: das(),
        run,
        case: CodeCase::Upper,
    }
}

#[test]
fn first_authentication() {
    let mut client = Client::new(identity(), Stored::Nothing, CodeCase::Upper);
    computes(&mut client, &[&bytes("device_private")]);
    sends(&mut client, "first_1a");
    reads(&mut client, "first_2a");
    computes(&mut client, &[]);
    sends(&mut client, "first_72");
    reads(&mut client, "first_82");
    sends(&mut client, "first_a0");
    reads(&mut client, "first_b0");
    assert_eq!(client.poll(), Output::Done(success(Run::First)));
}

#[test]
fn ecdh_refresh() {
    let mut client = Client::new(identity(), Stored::DevId(dev_id()), CodeCase::Upper);
    computes(&mut client, &[&bytes("device_private")]);
    sends(&mut client, "first_1a");
    reads(&mut client, "first_2a");
    computes(&mut client, &[]);
    sends(&mut client, "refresh_42");
    reads(&mut client, "refresh_62");
    sends(&mut client, "first_a0");
    reads(&mut client, "first_b0");
    assert_eq!(client.poll(), Output::Done(success(Run::EcdhRefresh)));
}

/// 0x90 and 0xA0 go out without waiting.
#[test]
fn plain_refresh() {
    let mut client = Client::new(identity(), both(), CodeCase::Upper);
    computes(&mut client, &[&[0x11]]);
    sends(&mut client, "refresh_70");
    reads(&mut client, "refresh_80");
    sends(&mut client, "refresh_90");
    let Output::Send(request) = client.poll() else { panic!("0xA0 follows 0x90") };
    assert_eq!(request[0], first::SERVICE);
    assert_eq!(client.poll(), Output::Read);
}

#[track_caller]
fn fails(mut client: Client, answer: &[u8], trouble: &Trouble, reaction: Reaction) {
    assert_eq!(client.poll(), Output::Read);
    client.handle_frame(answer);
    let Output::Failed(failure) = client.poll() else { panic!("{trouble}: accepted") };
    assert_eq!((&failure.trouble, failure.reaction), (trouble, reaction));
    // Whatever comes afterwards changes nothing.
    client.handle_frame(&bytes("first_2a"));
    assert_eq!(client.poll(), Output::Failed(failure));
}

#[test]
fn results_lead_to_the_reactions_of_the_table() {
    let auth_ii = |result| AuthIi::Refused { protocol_type: 1, result }.encode();
    let refused = Trouble::Refused;
    let code = ResultCode::CodeRefused;
    fails(greeted(Stored::Nothing, CodeCase::Upper), &auth_ii(code), &refused(code), Reaction::RetryLowerCase);
    fails(greeted(Stored::Nothing, CodeCase::Lower), &auth_ii(code), &refused(code), Reaction::BackOff);
    let six = ResultCode::Unavailable;
    fails(greeted(Stored::Nothing, CodeCase::Upper), &auth_ii(six), &refused(six), Reaction::BackOff);

    let asked = |stored| {
        let mut client = greeted(stored, CodeCase::Upper);
        client.handle_frame(&bytes("first_2a"));
        client.compute(&mut Tape::new(&[]));
        assert!(matches!(client.poll(), Output::Send(_)));
        client
    };
    let four = ResultCode::DevIdMismatch;
    let answer = refusal(first::ECDH_REFRESHED, four);
    fails(asked(Stored::DevId(dev_id())), &answer, &refused(four), Reaction::ForgetDevId);
    let five = ResultCode::Refused;
    fails(asked(Stored::Nothing), &refusal(first::APPLIED, five), &refused(five), Reaction::BackOff);

    let refreshing = || {
        let mut client = Client::new(identity(), both(), CodeCase::Upper);
        client.compute(&mut Tape::new(&[&[0x11]]));
        assert!(matches!(client.poll(), Output::Send(_)));
        client
    };
    fails(refreshing(), &refusal(first::REFRESH_II, four), &refused(four), Reaction::ForgetDevId);
    let ten = ResultCode::MasterKeyInvalid;
    fails(refreshing(), &refusal(first::REFRESH_II, ten), &refused(ten), Reaction::ForgetMasterKey);
    // r1 of another run.
    fails(refreshing(), &bytes("real_80"), &Trouble::Undecryptable, Reaction::BackOff);
}

#[test]
fn a_challenge_of_another_run_is_refused() {
    let mut client = Client::new(identity(), both(), CodeCase::Upper);
    client.compute(&mut Tape::new(&[&[0x12]]));
    assert!(matches!(client.poll(), Output::Send(_)));
    fails(client, &bytes("refresh_80"), &Trouble::Challenge, Reaction::BackOff);
}

#[test]
fn an_answer_with_any_bit_changed_is_refused() {
    let to_auth = |_: ()| greeted(Stored::Nothing, CodeCase::Upper);
    let to_credentials = |(): ()| {
        let mut client = to_auth(());
        client.handle_frame(&bytes("first_2a"));
        client.compute(&mut Tape::new(&[]));
        assert!(matches!(client.poll(), Output::Send(_)));
        client
    };
    // AUTH-II from its result on; 0x82 likewise. The version bytes are ignored by design.
    let good = bytes("first_2a");
    for index in 6..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1;
        let mut client = to_auth(());
        client.handle_frame(&bad);
        assert!(matches!(client.poll(), Output::Failed(_)), "0x2A, byte {index}");
    }
    let good = bytes("first_82");
    for index in 6..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1;
        let mut client = to_credentials(());
        client.handle_frame(&bad);
        assert!(matches!(client.poll(), Output::Failed(_)), "0x82, byte {index}");
    }
}

#[test]
fn a_mismatch_names_what_to_offer_next() {
    let group = Group::new(&[4, 16]).unwrap();
    let answer = AuthIi::Mismatch { protocol_type: 4, group: Some(group) }.encode();
    let trouble = Trouble::Mismatch { protocol_type: 4, group: Some(group) };
    fails(greeted(Stored::Nothing, CodeCase::Upper), &answer, &trouble, Reaction::BackOff);

    let able = Identity { group: Group::new(&[1, 4]).unwrap(), ..identity() };
    let mut client = Client::new(able, Stored::Nothing, CodeCase::Upper);
    client.compute(&mut Tape::new(&[&bytes("device_private")]));
    assert!(matches!(client.poll(), Output::Send(_)));
    client.handle_frame(&answer);
    let Output::Failed(failure) = client.poll() else { panic!("a mismatch is a failure") };
    assert_eq!(failure.reaction, Reaction::Rematch(4));
    assert_eq!(failure.delay_kind(), backoff::Trouble::Unreached);
}
