//! Keys and frames of the vectors field by field, and round trips of every message.

use osap::lbs::frame::Frame;
use osap::lbs::message::{
    Apply, AuthI, AuthIi, AuthMode, Confirm, Credentials, EcdhRefresh, Group, Issued, MAX_GROUP, MessageError, Offer,
    Purpose, RefreshI, RefreshIi, RefreshIii, ServiceRequest, ServiceResponse, first, refusal,
};
use osap::suite::legacy::{self, AgreementKey, BadPoint, Signature, Undecryptable};
use osap::{Code, CodeCase, ResultCode, Serial};
use proptest::prelude::*;

use crate::vectors::{Tape, array, bytes, code, dev_id, master_key, serial, session_key};

#[test]
fn share_keys_in_both_cases() {
    for (case, s1, s2) in [(CodeCase::Upper, "s1_upper", "s2_upper"), (CodeCase::Lower, "s1_lower", "s2_lower")] {
        let key = legacy::share_key(&code(), &serial(), case);
        assert_eq!(key.s1(), &array::<32>(s1));
        assert_eq!(key.s2(), &array::<32>(s2));
        assert_eq!(key.aes_key(), &array::<32>(s2)[..16]);
    }
}

#[test]
fn the_proof_of_a_hub_child_is_s1() {
    let code = Code::new("ZXCVBN").unwrap();
    let serial = Serial::new("SUB000001").unwrap();
    assert_eq!(legacy::share_key(&code, &serial, CodeCase::Upper).s1(), &array::<32>("hub_child_s1"));
}

#[test]
fn both_sides_agree_on_the_master_key_and_sign_alike() {
    let device = AgreementKey::draw(&mut Tape::new(&[&bytes("device_private")]));
    let server = AgreementKey::draw(&mut Tape::new(&[&bytes("lbs_private")]));
    assert_eq!(device.public(), &array::<97>("device_public"));
    assert_eq!(server.public(), &array::<97>("lbs_public"));
    assert_eq!(device.agree(server.public()), Ok(master_key("master_key")));
    assert_eq!(server.agree(device.public()), Ok(master_key("master_key")));
    assert_eq!(server.agree(&array("real_device_public")), Ok(master_key("real_master_key")));
    assert_eq!(legacy::master_key(&bytes("z")), master_key("master_key"));
    assert_eq!(legacy::master_key(&bytes("real_z")), master_key("real_master_key"));
    let signature = Signature::of(&master_key("master_key"), &serial());
    assert_eq!(signature.as_bytes(), &array::<48>("signature"));
    assert!(signature.matches(&array("signature")));
    let mut other = array("signature");
    other[47] ^= 1;
    assert!(!signature.matches(&other));
}

#[test]
fn a_private_key_out_of_range_is_drawn_again() {
    let mut tape = Tape::new(&[&[0; 48], &[0xFF; 48], &bytes("lbs_private")]);
    assert_eq!(AgreementKey::draw(&mut tape).public(), &array::<97>("lbs_public"));
    assert!(tape.is_used_up());
}

#[test]
fn only_an_uncompressed_point_of_the_curve_is_a_public_key() {
    let key = AgreementKey::draw(&mut Tape::new(&[&bytes("lbs_private")]));
    let good = array::<97>("device_public");
    let mut compressed = good;
    compressed[0] = 2;
    let mut off_the_curve = good;
    off_the_curve[96] ^= 1;
    for bad in [compressed, off_the_curve, [0; 97], [4; 97]] {
        assert_eq!(key.agree(&bad), Err(BadPoint));
    }
}

/// Opens an L-GCM field of a vector.
fn opened<const N: usize>(key: &[u8; 16], tag: &[u8; 16], mut sealed: [u8; N]) -> [u8; N] {
    legacy::l_gcm_open(key, tag, &mut sealed).expect("the field opens");
    sealed
}

fn upper_key() -> [u8; 16] {
    *legacy::share_key(&code(), &serial(), CodeCase::Upper).aes_key()
}

#[test]
fn auth_i_field_by_field() {
    for (frame, public) in [("first_1a", "device_public"), ("real_1a", "real_device_public")] {
        let frame = bytes(frame);
        let frame = Frame::decode(&frame).unwrap();
        let auth = AuthI::decode(&frame).unwrap();
        assert_eq!(auth.offer, Offer { protocol_type: 1, group: Group::new(&[1]).unwrap() });
        assert_eq!(Offer::decode(&frame), Ok(auth.offer));
        assert_eq!(auth.mode, AuthMode::Sap);
        assert_eq!(auth.serial, serial());
        assert_eq!(opened(&upper_key(), &auth.tag, auth.sealed_key), array::<97>(public));
    }
}

#[test]
fn auth_ii_field_by_field() {
    for frame in ["first_2a", "real_2a"] {
        let frame = bytes(frame);
        let AuthIi::Accepted { protocol_type, tag, sealed_key } =
            AuthIi::decode(&Frame::decode(&frame).unwrap(), 1).unwrap()
        else {
            panic!("the vector accepts");
        };
        assert_eq!(protocol_type, 1);
        assert_eq!(opened(&upper_key(), &tag, sealed_key), array::<97>("lbs_public"));
    }
}

#[test]
fn requests_for_credentials_field_by_field() {
    let frame = bytes("first_72");
    let apply = Apply::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert_eq!(apply.signature, array::<48>("signature"));
    let frame = bytes("real_72");
    let apply = Apply::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert!(Signature::of(&master_key("real_master_key"), &serial()).matches(&apply.signature));
    let frame = bytes("refresh_42");
    let refresh = EcdhRefresh::decode(&Frame::decode(&frame).unwrap()).unwrap();
    assert_eq!(&refresh.dev_id, dev_id().as_bytes());
    assert_eq!(refresh.signature, array::<48>("signature"));
}

#[test]
fn credentials_field_by_field() {
    for (frame, first, key) in [
        ("first_82", first::APPLIED, "master_key"),
        ("refresh_62", first::ECDH_REFRESHED, "master_key"),
        ("real_82", first::APPLIED, "real_master_key"),
    ] {
        let frame = bytes(frame);
        let Credentials::Issued(Issued { dev_id_tag, sealed_dev_id, session_key_tag, sealed_session_key, signature }) =
            Credentials::decode(&Frame::decode(&frame).unwrap(), first).unwrap()
        else {
            panic!("the vector issues");
        };
        let key = master_key(key);
        assert_eq!(&opened(key.as_bytes(), &dev_id_tag, sealed_dev_id), dev_id().as_bytes());
        assert_eq!(&opened(key.as_bytes(), &session_key_tag, sealed_session_key), session_key().as_bytes());
        assert!(Signature::of(&key, &serial()).matches(&signature));
    }
}

#[test]
fn plain_refresh_field_by_field() {
    for (prefix, key, r1, r2, session) in [
        ("refresh", "master_key", 0x11, 0x22, "refreshed_session_key"),
        ("real", "real_master_key", 0xC5, 0x9F, "session_key"),
    ] {
        let key = master_key(key);
        let frame = bytes(&format!("{prefix}_70"));
        let mut refresh = RefreshI::decode(&Frame::decode(&frame).unwrap(), Purpose::Das).unwrap();
        assert_eq!(refresh.serial, serial());
        assert_eq!(&refresh.dev_id, dev_id().as_bytes());
        assert_eq!(legacy::l_cbc_open(key.as_bytes(), &mut refresh.challenge).unwrap(), [r1]);
        let frame = bytes(&format!("{prefix}_80"));
        let RefreshIi::Issued(mut sealed) = RefreshIi::decode(&Frame::decode(&frame).unwrap(), Purpose::Das).unwrap()
        else {
            panic!("the vector issues");
        };
        let plaintext = legacy::l_cbc_open(key.as_bytes(), &mut sealed).unwrap();
        assert_eq!(plaintext, [&[r1, r2][..], &bytes(session)].concat());
        let frame = bytes(&format!("{prefix}_90"));
        let mut answer = RefreshIii::decode(&Frame::decode(&frame).unwrap(), Purpose::Das).unwrap();
        assert_eq!(legacy::l_cbc_open(key.as_bytes(), &mut answer.challenge).unwrap(), [r2]);
    }
}

#[test]
fn service_field_by_field() {
    for (prefix, port, udp_port) in [("first", 8883, 8884), ("real", 19901, 19902)] {
        let frame = bytes(&format!("{prefix}_a0"));
        let mut request = ServiceRequest::decode(&Frame::decode(&frame).unwrap()).unwrap();
        let text = legacy::l_cbc_open(session_key().as_bytes(), &mut request.sealed).unwrap();
        assert_eq!(text, br#"{"DevSerial":"SN0000001","Type":"DAS","Mode":0}"#);
        let frame = bytes(&format!("{prefix}_b0"));
        let ServiceResponse::Assigned(mut sealed) = ServiceResponse::decode(&Frame::decode(&frame).unwrap()).unwrap()
        else {
            panic!("the vector assigns");
        };
        let text = legacy::l_cbc_open(session_key().as_bytes(), &mut sealed).unwrap();
        let das = osap::lbs::DasInfo::decode(text).unwrap();
        assert_eq!(das, osap::lbs::DasInfo { port, udp_port, ..crate::vectors::das() });
    }
}

/// Every frame of the vectors, re-encoded from its fields, is the same frame.
#[test]
fn every_vector_is_written_as_it_was_read() {
    macro_rules! same {
        ($($name:literal => $message:ident $(($argument:expr))? $([$form:expr])?;)*) => {$({
            let bytes = bytes($name);
            let frame = Frame::decode(&bytes).unwrap();
            let message = $message::decode(&frame $(, $argument)? $(, $form)?).unwrap();
            assert_eq!(message.encode($($form)?), bytes, $name);
        })*};
    }
    same! {
        "first_1a" => AuthI; "real_1a" => AuthI;
        "first_2a" => AuthIi(1); "real_2a" => AuthIi(1);
        "first_72" => Apply; "real_72" => Apply;
        "refresh_42" => EcdhRefresh;
        "first_82" => Credentials[first::APPLIED]; "real_82" => Credentials[first::APPLIED];
        "refresh_62" => Credentials[first::ECDH_REFRESHED];
        "refresh_70" => RefreshI[Purpose::Das]; "real_70" => RefreshI[Purpose::Das];
        "refresh_80" => RefreshIi[Purpose::Das]; "real_80" => RefreshIi[Purpose::Das];
        "refresh_90" => RefreshIii[Purpose::Das]; "real_90" => RefreshIii[Purpose::Das];
        "first_a0" => ServiceRequest; "real_a0" => ServiceRequest;
        "first_b0" => ServiceResponse; "real_b0" => ServiceResponse;
    }
}

#[test]
fn a_group_is_read_only_in_a_mismatch_of_the_right_length() {
    let group = |types: &[u8]| Some(Group::new(types).unwrap());
    for (hex, offered, expected) in [
        ("2a0501010100 03", 4, AuthIi::Mismatch { protocol_type: 1, group: None }),
        ("2a070101010101 0003", 4, AuthIi::Mismatch { protocol_type: 1, group: group(&[1]) }),
        ("2a0804020110 01010003", 1, AuthIi::Mismatch { protocol_type: 4, group: group(&[1, 16]) }),
        ("2a0804030110 01010003", 1, AuthIi::Mismatch { protocol_type: 4, group: None }),
        ("2a0501010100 05", 1, AuthIi::Refused { protocol_type: 1, result: ResultCode::Refused }),
    ] {
        let bytes = crate::vectors::unhex(&hex.replace(' ', ""));
        assert_eq!(AuthIi::decode(&Frame::decode(&bytes).unwrap(), offered), Ok(expected.clone()), "{hex}");
        if !matches!(expected, AuthIi::Mismatch { group: None, .. }) {
            assert_eq!(expected.encode(), bytes, "{hex}");
        }
    }
}

#[test]
fn a_message_of_a_wrong_length_is_refused() {
    macro_rules! lengths {
        ($($name:literal => $message:ident $(($argument:expr))?;)*) => {$({
            let whole = bytes($name);
            let body = Frame::decode(&whole).unwrap().body;
            for len in 0..body.len() {
                let frame = Frame { first: whole[0], body: &body[..len] };
                assert!($message::decode(&frame $(, $argument)?).is_err(), "{} cut to {len}", $name);
            }
            let longer = [body, &[0]].concat();
            let frame = Frame { first: whole[0], body: &longer };
            assert!($message::decode(&frame $(, $argument)?).is_err(), "{} extended", $name);
            let frame = Frame { first: 0xF0, body };
            assert_eq!(
                $message::decode(&frame $(, $argument)?).unwrap_err(),
                MessageError::OtherType(0xF0)
            );
        })*};
    }
    lengths! {
        "first_1a" => AuthI;
        "first_2a" => AuthIi(1);
        "first_72" => Apply;
        "refresh_42" => EcdhRefresh;
        "first_82" => Credentials(first::APPLIED);
        "refresh_70" => RefreshI(Purpose::Das);
        "refresh_80" => RefreshIi(Purpose::Das);
        "refresh_90" => RefreshIii(Purpose::Das);
    }
}

#[test]
fn l_cbc_tells_no_errors_apart() {
    let key = session_key();
    let whole = legacy::l_cbc_seal(key.as_bytes(), &[7; 33]);
    assert_eq!(whole.len(), 48);
    for len in (0..48).filter(|len| len % 16 != 0).chain([0]) {
        assert_eq!(legacy::l_cbc_open(key.as_bytes(), &mut whole[..len].to_vec()), Err(Undecryptable));
    }
    // Every last block whose padding is wrong: none at all, too long, not all the same.
    for padding in
        [[0_u8; 16], [17; 16], [0xFF; 16], *b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x04"]
    {
        let mut sealed = legacy::l_cbc_seal(key.as_bytes(), &padding);
        sealed.truncate(16);
        assert_eq!(legacy::l_cbc_open(key.as_bytes(), &mut sealed), Err(Undecryptable), "{padding:?}");
    }
    // A whole block of padding leaves nothing.
    assert_eq!(legacy::l_cbc_open(key.as_bytes(), &mut legacy::l_cbc_seal(key.as_bytes(), &[])), Ok(&mut [][..]));
}

fn any_serial() -> impl Strategy<Value = Serial> {
    "[!-~]{1,71}".prop_filter_map("no topic separators", |text| Serial::new(&text).ok())
}

fn any_bytes<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    proptest::collection::vec(any::<u8>(), N).prop_map(|bytes| bytes.try_into().expect("N were asked for"))
}

fn any_result() -> impl Strategy<Value = ResultCode> {
    (1..=255_u8).prop_map(ResultCode::from)
}

fn any_group() -> impl Strategy<Value = Group> {
    proptest::collection::vec(any::<u8>(), 0..=MAX_GROUP).prop_map(|types| Group::new(&types).unwrap())
}

macro_rules! round_trip {
    ($message:expr, $kind:ident $(, $argument:expr)? $(; $form:expr)?) => {{
        let message = $message;
        let bytes = message.encode($($form)?);
        let read = $kind::decode(&Frame::decode(&bytes).unwrap() $(, $argument)? $(, $form)?);
        prop_assert_eq!(read, Ok(message));
    }};
}

proptest! {
    #[test]
    fn authentication_round_trips(
        protocol_type in 1_u8..,
        group in any_group(),
        licence in any::<bool>(),
        serial in any_serial(),
        tag in any_bytes::<16>(),
        sealed_key in any_bytes::<97>(),
        result in any_result(),
    ) {
        let mode = if licence { AuthMode::Licence } else { AuthMode::Sap };
        round_trip!(AuthI { offer: Offer { protocol_type, group }, mode, serial, tag, sealed_key }, AuthI);
        round_trip!(AuthIi::Accepted { protocol_type, tag, sealed_key }, AuthIi, protocol_type);
        round_trip!(AuthIi::Refused { protocol_type, result }, AuthIi, protocol_type);
        round_trip!(AuthIi::Mismatch { protocol_type, group: Some(group) }, AuthIi, protocol_type - 1);
        round_trip!(AuthIi::Mismatch { protocol_type, group: None }, AuthIi, protocol_type - 1);
    }

    #[test]
    fn credentials_round_trip(
        dev_id in any_bytes::<32>(),
        dev_id_tag in any_bytes::<16>(),
        sealed_session_key in any_bytes::<16>(),
        session_key_tag in any_bytes::<16>(),
        signature in any_bytes::<48>(),
        result in any_result(),
    ) {
        round_trip!(Apply { signature }, Apply);
        round_trip!(Confirm { signature }, Confirm);
        round_trip!(EcdhRefresh { dev_id, signature }, EcdhRefresh);
        let issued =
            Issued { dev_id_tag, sealed_dev_id: dev_id, session_key_tag, sealed_session_key, signature };
        for first in [first::APPLIED, first::ECDH_REFRESHED] {
            round_trip!(Credentials::Issued(issued), Credentials; first);
            round_trip!(Credentials::Refused(result), Credentials; first);
        }
    }

    #[test]
    fn refresh_and_service_round_trip(
        serial in any_serial(),
        dev_id in any_bytes::<32>(),
        challenge in any_bytes::<16>(),
        sealed in any_bytes::<32>(),
        blocks in 1_usize..60,
        result in any_result(),
    ) {
        for purpose in [Purpose::Das, Purpose::Stun] {
            round_trip!(RefreshI { serial: serial.clone(), dev_id, challenge }, RefreshI; purpose);
            round_trip!(RefreshIi::Issued(sealed), RefreshIi; purpose);
            round_trip!(RefreshIi::Refused(result), RefreshIi; purpose);
            round_trip!(RefreshIii { challenge }, RefreshIii; purpose);
        }
        let sealed = sealed[..16].repeat(blocks);
        round_trip!(ServiceRequest { sealed: sealed.clone() }, ServiceRequest);
        round_trip!(ServiceResponse::Assigned(sealed), ServiceResponse);
        round_trip!(ServiceResponse::Refused(result), ServiceResponse);
        prop_assert_eq!(refusal(first::REFRESH_II, result), RefreshIi::Refused(result).encode(Purpose::Das));
    }

    #[test]
    fn l_gcm_opens_what_it_sealed_and_nothing_else(
        plaintext in proptest::collection::vec(any::<u8>(), 1..200),
        key in any_bytes::<16>(),
        flip in any::<proptest::sample::Index>(),
    ) {
        let mut sealed = plaintext.clone();
        let tag = legacy::l_gcm_seal(&key, &mut sealed);
        let mut altered = sealed.clone();
        altered[flip.index(sealed.len())] ^= 1;
        prop_assert_eq!(legacy::l_gcm_open(&key, &tag, &mut altered), Err(Undecryptable));
        let mut altered_tag = tag;
        altered_tag[flip.index(16)] ^= 0x80;
        prop_assert_eq!(legacy::l_gcm_open(&key, &altered_tag, &mut sealed.clone()), Err(Undecryptable));
        prop_assert_eq!(legacy::l_gcm_open(&key, &tag, &mut sealed), Ok(()));
        prop_assert_eq!(sealed, plaintext);
    }
}
