//! What depends on the generation of the protocol, and what has no generation: results of osap-wire 5.8, 5.9, 5.11, 8.

use osap::ResultCode;
use osap::lbs::client::{Stored, Success};
use osap::lbs::message::{
    AuthMode, Purpose, RefreshI, RefreshIi, RefreshIii, ServiceRequest, ServiceResponse, first, g0, g1, refusal,
};
use osap::suite::g0::Proof;
use osap::suite::legacy::{l_cbc_open, l_cbc_seal, share_key};
use osap::{Code, CodeCase, Serial};
use vestibule_access::LbsConfig;

use crate::device::{TestDevice, Wire};
use crate::site::{CODE, Plan, SERIAL, Site};

fn serial() -> Serial {
    Serial::new(SERIAL).expect("a serial")
}

/// 0x10 of a device with this code.
fn hello_of_g0(serial: &Serial, code: &str) -> Vec<u8> {
    let key = share_key(&Code::new(code).expect("a code"), serial, CodeCase::Upper);
    let proof = *Proof::of(&key, serial, &[1]).as_bytes();
    g0::AuthI { mode: g0::Mode::Mobile, serial: serial.clone(), n1: 1, proof }.encode()
}

/// 0x12 of a device that seals something with this code.
fn hello_of_g1(serial: &Serial, code: &str) -> Vec<u8> {
    let key = share_key(&Code::new(code).expect("a code"), serial, CodeCase::Upper);
    let sealed_key = l_cbc_seal(key.aes_key_g1(), &[4; 97]).try_into().expect("seven blocks");
    g1::AuthI { mode: AuthMode::Sap, serial: serial.clone(), sealed_key }.encode()
}

fn site_with_g0() -> Site {
    let limits = LbsConfig { g0: true, ..LbsConfig::default() };
    let site = Site::with(Plan { limits, ..Plan::default() });
    site.add(SERIAL);
    site
}

#[test]
fn osap_7_g0_is_off_unless_the_operator_turns_it_on() {
    let site = Site::new();
    site.add(SERIAL);
    let mut wire = Wire::dial(site.lbs);
    wire.send(&hello_of_g0(&serial(), CODE));
    wire.expect_end();
    site.expect_fact("generation_g0");
    let failure = site.device().last_failure().expect("a fact its owner can act on");
    assert!(failure.text.contains("lbs.g0 = true"), "{}", failure.text);

    let site = site_with_g0();
    let mut wire = Wire::dial(site.lbs);
    wire.send(&hello_of_g0(&serial(), CODE));
    assert_eq!(wire.lbs_frame().expect("0x20")[..6], [0x20, 37, 1, 0, 0, 0]);
}

#[test]
fn osap_13_2_3_unknown_serial_and_wrong_code_are_alike_in_every_generation() {
    let site = site_with_g0();
    let nobody = Serial::new("SN0000009").expect("a serial");
    for (answer, wrong, unknown) in [
        (first::AUTH_II_G0, hello_of_g0(&serial(), "ABCDEG"), hello_of_g0(&nobody, CODE)),
        (first::AUTH_II_G1, hello_of_g1(&serial(), "ABCDEG"), hello_of_g1(&nobody, CODE)),
    ] {
        for hello in [wrong, unknown] {
            let mut wire = Wire::dial(site.lbs);
            wire.send(&hello);
            assert_eq!(wire.lbs_frame(), Some(refusal(answer, ResultCode::CodeRefused)));
            wire.expect_end();
        }
    }
    site.expect_fact("wrong_code");
}

#[test]
fn osap_13_2_4_the_window_rules_hold_in_every_generation() {
    let site = site_with_g0();
    let mut device = TestDevice::new();
    device.come_in(&site);
    let mut wire = Wire::dial(site.lbs);
    wire.send(&hello_of_g0(&serial(), CODE));
    let answer = wire.lbs_frame().expect("0x20");
    let key = share_key(&Code::new(CODE).expect("a code"), &serial(), CodeCase::Upper);
    let proof = *Proof::of(&key, &serial(), &[answer[6], 3]).as_bytes();
    wire.send(&g0::Create { n3: 3, proof }.encode());
    assert_eq!(wire.lbs_frame(), Some(refusal(first::CREATED, ResultCode::Refused)));
    site.expect_fact("enrolment_closed");
    assert!(site.credentials().candidate.is_none());
}

/// Refreshes for STUN and asks for this kind of server; what came back.
fn ask_after_stun_refresh(site: &Site, device: &TestDevice, kind: &str) -> Option<Vec<u8>> {
    let Stored::Both { dev_id, master_key } = &device.stored else { panic!("it has a master key") };
    let key = master_key.as_bytes();
    let block = |byte: u8| l_cbc_seal(key, &[byte]).try_into().expect("one block");
    let mut wire = Wire::dial(site.lbs);
    let request = RefreshI { serial: serial(), dev_id: *dev_id.as_bytes(), challenge: block(7) };
    wire.send(&request.encode(Purpose::Stun));
    let answer = wire.lbs_frame().expect("0xD0");
    let frame = osap::lbs::frame::Frame::decode(&answer).expect("a frame");
    let Ok(RefreshIi::Issued(mut sealed)) = RefreshIi::decode(&frame, Purpose::Stun) else { panic!("refused") };
    let plaintext = l_cbc_open(key, &mut sealed).expect("under the master key");
    let [7, r2, session_key @ ..] = &*plaintext else { panic!("r1 does not come back") };
    wire.send(&RefreshIii { challenge: block(*r2) }.encode(Purpose::Stun));
    let text = format!(r#"{{"DevSerial":"{SERIAL}","Type":"{kind}"}}"#);
    let sealed = l_cbc_seal(session_key.try_into().expect("sixteen bytes"), text.as_bytes());
    wire.send(&ServiceRequest { sealed }.encode());
    let answer = wire.lbs_frame();
    wire.expect_end();
    answer
}

#[test]
fn osap_5_8_a_device_that_asks_for_stun_is_told_9_and_keeps_its_session() {
    let site = Site::new();
    site.add(SERIAL);
    let mut device = TestDevice::new();
    let (_mqtt, session): (_, Success) = device.come_in(&site);
    let refused = |result| Some(ServiceResponse::Refused(result).encode());
    assert_eq!(ask_after_stun_refresh(&site, &device, "STUN"), refused(ResultCode::NoDas));
    site.expect_fact("stun");
    assert_eq!(ask_after_stun_refresh(&site, &device, "DAS"), refused(ResultCode::InvalidData));
    site.expect_fact("wrong_service");
    assert_eq!(device.log_in(&site, &session).0, 0, "under the session key it had");
}

#[test]
fn osap_5_9_a_request_for_a_secret_key_is_result_5() {
    let site = Site::new();
    let mut wire = Wire::dial(site.lbs);
    // AES128+RSA1024, one block, one RSA block.
    let body = [&[1, 1, 0, 1, 0, 16][..], &[0; 16], &[0, 128], &[0; 128]].concat();
    wire.send(&[&[0xF0, 0x98, 0x01][..], &body].concat());
    assert_eq!(wire.lbs_frame(), Some(refusal(first::SECRET_KEY, ResultCode::Refused)));
    wire.expect_end();
}

#[test]
fn osap_5_11_a_public_key_that_is_none_is_result_3() {
    let site = Site::new();
    site.add(SERIAL);
    let mut wire = Wire::dial(site.lbs);
    wire.send(&hello_of_g1(&serial(), CODE));
    assert_eq!(wire.lbs_frame(), Some(refusal(first::AUTH_II_G1, ResultCode::InvalidData)));
    site.expect_fact("bad_point");
}
