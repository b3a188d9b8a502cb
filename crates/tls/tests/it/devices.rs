//! Devices with certificates (osap-wire 13.3, TLS profile 6).

use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use rustls::{CertificateError, Error};
use vestibule_tls::{Anchor, CsrError, Identity, IssueError, MAX_CSR, Purpose, device_serial, device_uri};

use crate::pair::{DAY, Device, Failed, House, NOW, Pair, authority, connect, renew};

fn come(house: &House, identity: &Identity) -> Result<Pair, Failed> {
    let client = house.client([house.ca()]).with_identity(identity).expect("a pair");
    connect(&client.osap_lbs(), &house.tls.osap_lbs(&house.verifier), "localhost")
}

fn refusal(result: Result<Pair, Failed>) -> CertificateError {
    match result {
        Err(Failed::Server(Error::InvalidCertificate(error))) => error,
        Err(other) => panic!("another failure: {other:?}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[test]
fn a_device_comes_with_its_certificate_or_without() {
    let house = House::new();
    let plain = house.client([house.ca()]).osap_lbs();
    let pair = connect(&plain, &house.tls.osap_lbs(&house.verifier), "localhost").expect("never required");
    assert!(pair.server.peer_certificates().is_none());

    let device = Device::new();
    let chain = house.devices.device_certificate(&device.request, "SN 1/ü", 365 * DAY, NOW).expect("issued");
    let pair = come(&house, &device.identity(&chain)).expect("accepted");
    let shown = pair.server.peer_certificates().expect("asked for");
    assert_eq!(device_serial(&shown[0]).as_deref(), Ok("SN 1/ü"));
}

#[test]
fn keys_of_devices_may_be_of_the_usual_kinds() {
    let house = House::new();
    for algorithm in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256]
    {
        let device = Device::with_key(rcgen::KeyPair::generate_for(algorithm).expect("a key"));
        let chain = house.devices.device_certificate(&device.request, "SN1", DAY, NOW).expect("issued");
        come(&house, &device.identity(&chain)).unwrap_or_else(|_| panic!("{algorithm:?}"));
    }
    let other = Device::with_key(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key"));
    let refused = house.devices.device_certificate(&other.request, "SN1", DAY, NOW);
    assert!(matches!(refused, Err(IssueError::Request(CsrError::Algorithm))));
}

#[test]
fn a_certificate_of_any_other_ca_is_refused() {
    let house = House::new();
    let device = Device::new();
    let stranger = authority(Purpose::Devices, NOW);
    let chain = stranger.device_certificate(&device.request, "SN1", DAY, NOW).expect("issued");
    assert_eq!(refusal(come(&house, &device.identity(&chain))), CertificateError::UnknownIssuer);
    // Nor does our own CA for servers make a device.
    let servers = house.servers.device_certificate(&device.request, "SN1", DAY, NOW);
    assert!(matches!(servers, Err(IssueError::Purpose(Purpose::Servers))));
    let devices = house.devices.server_certificate(&house.key, &["localhost".to_owned()], NOW);
    assert!(matches!(devices, Err(IssueError::Purpose(Purpose::Devices))));
}

#[test]
fn a_revoked_or_ended_certificate_is_refused_at_the_next_handshake() {
    let house = House::new();
    let (device, other) = (Device::new(), Device::new());
    let chain = house.devices.device_certificate(&device.request, "SN1", 30 * DAY, NOW).expect("issued");
    let others = house.devices.device_certificate(&other.request, "SN2", 30 * DAY, NOW).expect("issued");
    let open = come(&house, &device.identity(&chain)).expect("accepted");
    house.revoke(&chain);
    assert_eq!(refusal(come(&house, &device.identity(&chain))), CertificateError::Revoked);
    assert!(!open.server.is_handshaking(), "what is open is the registry's to end");
    come(&house, &other.identity(&others)).expect("another one is not touched");
    house.clock.set(NOW + 31 * DAY);
    // Its server's certificate is valid for longer.
    let ended = refusal(come(&house, &other.identity(&others)));
    assert!(matches!(ended, CertificateError::ExpiredContext { .. }), "{ended:?}");
}

#[test]
fn what_was_revoked_stays_so_whatever_else_changes() {
    let mut house = House::new();
    let device = Device::new();
    let chain = house.devices.device_certificate(&device.request, "SN1", 30 * DAY, NOW).expect("issued");
    house.revoke(&chain);
    for ca in house.devices.roll(NOW).expect("made") {
        house.devices.add(ca);
    }
    house.verifier.replace(house.devices.anchors(NOW)).expect("readable");
    // However many others there are.
    house.verifier.revoke((0..100_000_u32).map(|n| n.to_be_bytes().to_vec()));
    assert_eq!(house.verifier.revoked(), 100_001);
    assert_eq!(refusal(come(&house, &device.identity(&chain))), CertificateError::Revoked);
}

#[test]
fn a_new_root_is_known_once_it_is_told() {
    let mut house = House::new();
    let device = Device::new();
    for ca in house.devices.roll(NOW).expect("made") {
        house.devices.add(ca);
    }
    let chain = house.devices.device_certificate(&device.request, "SN1", DAY, NOW).expect("issued");
    assert_eq!(refusal(come(&house, &device.identity(&chain))), CertificateError::UnknownIssuer);
    house.verifier.replace(house.devices.anchors(NOW)).expect("readable");
    come(&house, &device.identity(&chain)).expect("now it is known");
}

#[test]
fn certificates_of_an_older_root_stay_good_after_a_roll() {
    let mut house = House::new();
    let device = Device::new();
    let chain = house.devices.device_certificate(&device.request, "SN1", 365 * DAY, NOW).expect("issued");
    for ca in house.devices.roll(NOW).expect("made") {
        house.devices.add(ca);
    }
    assert_eq!(house.devices.anchors(NOW).len(), 2);
    house.verifier.replace(house.devices.anchors(NOW)).expect("readable");
    come(&house, &device.identity(&chain)).expect("still trusted");
    house.revoke(&chain);
    assert_eq!(refusal(come(&house, &device.identity(&chain))), CertificateError::Revoked);
}

#[test]
fn a_certificate_never_outlives_two_years_or_its_issuer() {
    let mut devices = authority(Purpose::Devices, NOW);
    let device = Device::new();
    let end = |chain: &[CertificateDer<'static>]| {
        let facts = chain.iter().map(|der| vestibule_tls::CertificateFacts::read(der).expect("ours"));
        facts.map(|facts| facts.not_after).collect::<Vec<_>>()
    };
    let ends = end(&devices.device_certificate(&device.request, "SN1", i64::MAX, NOW).expect("issued"));
    assert_eq!(ends[0], NOW + 730 * DAY);
    // However late, a whole life is covered: the intermediate is replaced in time.
    for years in 1..45 {
        let now = NOW + years * 365 * DAY;
        renew(&mut devices, now);
        let ends = end(&devices.device_certificate(&device.request, "SN1", i64::MAX, now).expect("issued"));
        assert_eq!(ends[0], now + 730 * DAY, "after {years} years");
        assert!(ends[0] <= ends[1]);
    }
}

#[test]
fn a_request_has_to_be_signed_with_its_own_key() {
    let devices = authority(Purpose::Devices, NOW);
    let device = Device::new();
    let issue = |der: Vec<u8>| devices.device_certificate(&CertificateSigningRequestDer::from(der), "SN1", DAY, NOW);
    let mut refused = 0;
    for at in 0..device.request.len() {
        let mut changed = device.request.to_vec();
        changed[at] ^= 1;
        match issue(changed) {
            Err(IssueError::Request(_)) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
            Ok(_) => panic!("byte {at} was changed and nobody saw it"),
        }
        let cut = issue(device.request[..at].to_vec());
        assert!(matches!(cut, Err(IssueError::Request(CsrError::Malformed))), "{at} bytes");
    }
    assert_eq!(refused, device.request.len());
    let long = issue(vec![0x30; MAX_CSR + 1]);
    assert!(matches!(long, Err(IssueError::Request(CsrError::TooLong))));
    let serial = devices.device_certificate(&device.request, "", DAY, NOW);
    assert!(matches!(serial, Err(IssueError::Serial)));
}

#[test]
fn what_a_device_asks_to_be_is_not_what_it_gets() {
    let house = House::new();
    let device = Device::new();
    let chain = house.devices.device_certificate(&device.request, "SN1", DAY, NOW).expect("issued");
    assert!(!vestibule_tls::covers(&chain[0], "lbs.example.org"), "it asked for the name of a server");
    assert_eq!(device_serial(&chain[0]).as_deref(), Ok("SN1"));
    assert!(device_serial(&chain[1]).is_err(), "an intermediate is no device");
    assert!(device_serial(&house.tls.resolver().chain()[0]).is_err(), "nor is a server");
}

#[test]
fn serials_are_written_in_one_form() {
    for (serial, uri) in [
        ("SN0000001", "urn:osap:device:SN0000001"),
        ("a-b.c_d~e:f", "urn:osap:device:a-b.c_d~e:f"),
        ("a/b c%", "urn:osap:device:a%2Fb%20c%25"),
        ("ü", "urn:osap:device:%C3%BC"),
    ] {
        assert_eq!(device_uri(serial), uri);
    }
}

/// A certificate of the device CA's making that names what the test says.
fn named(uris: &[&str]) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|&uri| rcgen::SanType::URI(uri.try_into().expect("ASCII"))).collect();
    params.self_signed(&key).expect("signed").into()
}

#[test]
fn a_certificate_names_exactly_one_device_in_one_form() {
    assert_eq!(device_serial(&named(&["urn:osap:device:SN1"])).as_deref(), Ok("SN1"));
    let none: [&[&str]; 8] = [
        &[],
        &["urn:osap:device:SN1", "urn:osap:device:SN2"],
        &["urn:osap:device:"],
        &["urn:osap:hub:SN1"],
        &["urn:osap:device:%2f"],
        &["urn:osap:device:%53N1"],
        &["urn:osap:device:a b"],
        &["urn:osap:device:%C3"],
    ];
    for uris in none {
        assert!(device_serial(&named(uris)).is_err(), "{uris:?}");
    }
    assert!(device_serial(&CertificateDer::from(vec![0x30, 0x80])).is_err());
}

#[test]
fn an_anchor_for_servers_is_none_for_devices() {
    let house = House::new();
    assert_ne!(house.ca(), Anchor::Ca(house.devices.anchors(NOW).remove(0)));
}
