//! The messages and keys of the older generations, field by field, against the vectors of
//! osap-wire 12.6 and 12.7: G1, calculated and recorded from the real 1.5.2 client, and G0.

use osap::lbs::frame::Frame;
use osap::lbs::message::g0::{self, Create, Created, Keep, Kept};
use osap::lbs::message::{Apply, AuthMode, MessageError, first, g1, refusal};
use osap::suite::g0 as cipher;
use osap::suite::g0::Proof;
use osap::suite::legacy::{ShareKey, Signature, l_cbc_open, share_key};
use osap::{CodeCase, ResultCode};
use proptest::prelude::*;

use crate::vectors::{bytes, code, dev_id, master_key, serial, session_key};

pub fn key(case: CodeCase) -> ShareKey {
    share_key(&code(), &serial(), case)
}

/// A frame of G0 as the vectors have it, with the version bytes of our responses (osap-wire 3.3).
pub fn answer_of_g0(name: &str) -> Vec<u8> {
    let mut frame = bytes(name);
    assert_eq!(frame[2..5], [1, 1, 0]);
    frame[3] = 0;
    frame
}

pub fn opened<const N: usize>(key: &[u8; 16], mut sealed: [u8; N]) -> Vec<u8> {
    l_cbc_open(key, &mut sealed).expect("the field opens").to_vec()
}

#[test]
fn g1_authentication_field_by_field() {
    for (frame, public) in [("g1_12", Some("device_public")), ("g1_real_12", None)] {
        let frame = bytes(frame);
        let auth = g1::AuthI::decode(&Frame::decode(&frame).unwrap()).unwrap();
        assert_eq!((auth.mode, &auth.serial), (AuthMode::Sap, &serial()));
        assert_eq!(auth.encode(), frame);
        let device_key = opened(key(CodeCase::Upper).aes_key_g1(), auth.sealed_key);
        assert_eq!((device_key.len(), device_key[0]), (97, 4));
        if let Some(public) = public {
            assert_eq!(device_key, bytes(public));
        }
    }
    let frame = bytes("g1_22");
    let answer = g1::AuthIi::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert_eq!(answer.encode(), frame);
    let g1::AuthIi::Accepted(sealed) = answer else { panic!("the vector accepts") };
    assert_eq!(opened(key(CodeCase::Upper).aes_key_g1(), sealed), bytes("lbs_public"));
    assert_eq!(key(CodeCase::Upper).aes_key_g1(), b"703E9F9B91ACC2CA");
    assert_eq!(key(CodeCase::Lower).aes_key_g1(), b"F2D2BCCB5FAEB876");
}

#[test]
fn g1_credentials_field_by_field() {
    for (frame, master) in [("g1_82", "master_key"), ("g1_real_82", "g1_real_master_key")] {
        let frame = bytes(frame);
        let message = g1::Credentials::decode(&Frame::decode(&frame).unwrap(), first::APPLIED).unwrap();
        assert_eq!(message.encode(first::APPLIED), frame);
        let g1::Credentials::Issued(issued) = message else { panic!("the vector issues") };
        let master = master_key(master);
        assert_eq!(opened(master.as_bytes(), issued.sealed_dev_id), dev_id().as_bytes());
        assert_eq!(opened(master.as_bytes(), issued.sealed_session_key), session_key().as_bytes());
        assert!(Signature::of(&master, &serial()).matches(&issued.signature));
    }
    let frame = bytes("g1_real_72");
    let apply = Apply::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert!(Signature::of(&master_key("g1_real_master_key"), &serial()).matches(&apply.signature));
}

#[test]
fn g0_keys_and_messages_field_by_field() {
    let key = key(CodeCase::Upper);
    let proof = |randoms: &[u8]| *Proof::of(&key, &serial(), randoms).as_bytes();
    assert_eq!(cipher::master_key(&key, [0x11, 0x22, 0x33, 0x44]), master_key("g0_master_key"));

    let frame = bytes("g0_10");
    let auth = g0::AuthI::decode(&Frame::decode(&frame).unwrap()).unwrap();
    let mode = g0::Mode::Device(AuthMode::Sap);
    assert_eq!(auth, g0::AuthI { mode, serial: serial(), n1: 0x11, proof: proof(&[0x11]) });
    assert_eq!(auth.encode(), frame);

    let frame = bytes("g0_20");
    let answer = g0::AuthIi::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert_eq!(answer, g0::AuthIi::Accepted { n2: 0x22, proof: proof(&[0x11, 0x22]) });
    assert_eq!(answer.encode(), answer_of_g0("g0_20"));

    let frame = bytes("g0_40");
    let create = Create::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert_eq!(create, Create { n3: 0x33, proof: proof(&[0x22, 0x33]) });
    assert_eq!(create.encode(), frame);

    let frame = bytes("g0_60");
    let created = Created::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert_eq!(created.encode(), answer_of_g0("g0_60"));
    let Created::Issued { n4, sealed_dev_id, sealed_session_key, proof: theirs } = created else {
        panic!("the vector issues")
    };
    let master = master_key("g0_master_key");
    assert_eq!((n4, theirs), (0x44, proof(&[0x33, 0x44])));
    assert_eq!(opened(master.as_bytes(), sealed_dev_id), dev_id().as_bytes());
    assert_eq!(opened(master.as_bytes(), sealed_session_key), session_key().as_bytes());

    let frame = bytes("g0_30");
    let keep = Keep::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert_eq!(keep, Keep { n3: 0x33, dev_id: *dev_id().as_bytes(), proof: proof(&[0x22, 0x33]) });
    assert_eq!(keep.encode(), frame);

    let frame = bytes("g0_50");
    let kept = Kept::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert_eq!(kept.encode(), answer_of_g0("g0_50"));
    assert_eq!(kept, Kept::Issued { n4: 0x44, sealed_session_key, proof: proof(&[0x33, 0x44]) });

    let other = Proof::of(&key, &serial(), &[0x33, 0x45]);
    assert!(!other.matches(&theirs) && other.matches(other.as_bytes()));
}

#[test]
fn a_message_of_a_wrong_length_is_refused() {
    macro_rules! lengths {
        ($($name:literal => $message:ty $(, $argument:expr)?;)*) => {$({
            let whole = bytes($name);
            let body = Frame::decode(&whole).unwrap().body;
            for len in 0..body.len() {
                let frame = Frame { first: whole[0], body: &body[..len] };
                assert!(<$message>::decode(&frame $(, $argument)?).is_err(), "{} cut to {len}", $name);
            }
            let longer = [body, &[0]].concat();
            let frame = Frame { first: whole[0], body: &longer };
            assert!(<$message>::decode(&frame $(, $argument)?).is_err(), "{} extended", $name);
            let frame = Frame { first: 0xF0, body };
            assert_eq!(<$message>::decode(&frame $(, $argument)?).unwrap_err(), MessageError::OtherType(0xF0));
        })*};
    }
    lengths! {
        "g1_12" => g1::AuthI;
        "g1_22" => g1::AuthIi;
        "g1_82" => g1::Credentials, first::APPLIED;
        "g0_10" => g0::AuthI;
        "g0_20" => g0::AuthIi;
        "g0_40" => Create;
        "g0_60" => Created;
        "g0_30" => Keep;
        "g0_50" => Kept;
    }
    // A mobile client exists in G0 alone.
    let mut frame = bytes("g0_10");
    frame[5] = 2;
    let auth = g0::AuthI::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert_eq!((auth.mode, auth.encode()), (g0::Mode::Mobile, frame.clone()));
    frame[5] = 3;
    assert_eq!(g0::AuthI::decode(&Frame::decode(&frame).unwrap()), Err(MessageError::Mode(3)));
    let mut frame = bytes("g1_12");
    frame[5] = 2;
    assert_eq!(g1::AuthI::decode(&Frame::decode(&frame).unwrap()), Err(MessageError::Mode(2)));
}

proptest! {
    #[test]
    fn refusals_of_older_generations_round_trip(number in 1_u8..) {
        let result = ResultCode::from(number);
        let frame = |first| refusal(first, result);
        prop_assert_eq!(g1::AuthIi::Refused(result).encode(), frame(first::AUTH_II_G1));
        prop_assert_eq!(g0::AuthIi::Refused(result).encode(), frame(first::AUTH_II_G0));
        prop_assert_eq!(g0::AuthIi::Refused(result).encode()[2..5].to_vec(), vec![1, 0, 0]);
        let read = frame(first::CREATED);
        prop_assert_eq!(Created::decode(&Frame::decode(&read).unwrap()), Ok(Created::Refused(result)));
        let read = frame(first::KEPT);
        prop_assert_eq!(Kept::decode(&Frame::decode(&read).unwrap()), Ok(Kept::Refused(result)));
    }
}
