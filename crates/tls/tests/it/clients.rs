//! What proves a server to a client (osap-wire 13.3, TLS profile 4).

use std::sync::Arc;

use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, Error};
use vestibule_tls::{Anchor, ClientError, ClientTls, Identity, Key, Purpose, spki_sha256};

use crate::pair::{Clock, DAY, Failed, House, NOW, authority, connect, names, renew};

fn refusal(result: Result<crate::pair::Pair, Failed>) -> CertificateError {
    match result {
        Err(Failed::Client(Error::InvalidCertificate(error))) => error,
        Err(other) => panic!("another failure: {other:?}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[test]
fn a_ca_proves_its_own_names_while_they_are_valid() {
    let house = House::new();
    let (client, server) = (house.client([house.ca()]).osap_lbs(), house.tls.osap_lbs(&house.verifier));
    for name in ["lbs.example.org", "localhost", "127.0.0.1", "::1"] {
        connect(&client, &server, name).expect(name);
    }
    let wrong = refusal(connect(&client, &server, "das.example.org"));
    assert!(matches!(wrong, CertificateError::NotValidForNameContext { .. }), "{wrong:?}");
    house.clock.set(NOW + 91 * DAY);
    let ended = refusal(connect(&client, &server, "localhost"));
    assert!(matches!(ended, CertificateError::ExpiredContext { .. }), "{ended:?}");
    house.clock.set(NOW - DAY);
    let early = refusal(connect(&client, &server, "localhost"));
    assert!(matches!(early, CertificateError::NotValidYetContext { .. }), "{early:?}");
}

#[test]
fn another_ca_proves_nothing_and_neither_does_the_ca_of_devices() {
    let house = House::new();
    let server = house.tls.osap_lbs(&house.verifier);
    for stranger in [authority(Purpose::Servers, NOW).anchors(NOW), house.devices.anchors(NOW)] {
        let client = house.client([Anchor::Ca(stranger[0].clone())]).osap_lbs();
        assert_eq!(refusal(connect(&client, &server, "localhost")), CertificateError::UnknownIssuer);
    }
}

#[test]
fn a_certificate_of_a_device_proves_no_server() {
    let house = House::new();
    let device = crate::pair::Device::new();
    let chain = house.devices.device_certificate(&device.request, "localhost", DAY, NOW).expect("issued");
    house.tls.resolver().replace(&device.identity(&chain)).expect("a pair");
    let client = house.client([Anchor::Ca(house.devices.anchors(NOW).remove(0))]).osap_lbs();
    refusal(connect(&client, &house.tls.osap_lbs(&house.verifier), "localhost"));
}

#[test]
fn a_pin_goes_by_the_key_alone() {
    let house = House::new();
    let server = house.tls.osap_das(&house.verifier);
    let pin = spki_sha256(&house.tls.resolver().chain()[0]).expect("ours");
    let client = house.client([Anchor::Pin(pin)]).osap_das();
    connect(&client, &server, "any.name.at.all").expect("the name does not matter");
    house.clock.set(NOW + 4_000 * DAY);
    connect(&client, &server, "localhost").expect("nor does the date");
    house.clock.set(NOW);
    // The same key in a renewed certificate, below another CA.
    house.show(authority(Purpose::Servers, NOW).server_certificate(&house.key, &names(), NOW).expect("issued"));
    connect(&client, &server, "localhost").expect("the key is the same");
    let other = Key::generate().expect("a key");
    let chain = house.servers.server_certificate(&other, &names(), NOW).expect("issued");
    house.tls.resolver().replace(&Identity::new(chain, &other).expect("a pair")).expect("a pair");
    assert_eq!(refusal(connect(&client, &server, "localhost")), CertificateError::UnknownIssuer);
    // A CA beside the pin: either is enough.
    let both = house.client([Anchor::Pin(pin), house.ca()]).osap_das();
    connect(&both, &server, "localhost").expect("by the CA");
}

#[test]
fn a_pinned_certificate_without_its_key_is_refused() {
    let house = House::new();
    let chain = house.tls.resolver().chain();
    let pin = spki_sha256(&chain[0]).expect("ours");
    // Somebody who has seen the certificate, and signs with a key of their own.
    let own = Key::generate().expect("a key");
    let own = rustls::pki_types::PrivateKeyDer::Pkcs8(own.pkcs8().into());
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&own).expect("a key");
    let forged = SingleCertAndKey::from(CertifiedKey::new(chain, signer));
    let mut server = (*house.tls.osap_lbs(&house.verifier)).clone();
    server.cert_resolver = Arc::new(forged);
    let server = Arc::new(server);
    for anchors in [vec![Anchor::Pin(pin)], vec![house.ca()]] {
        let client = house.client(anchors).osap_lbs();
        assert_eq!(refusal(connect(&client, &server, "localhost")), CertificateError::BadSignature);
    }
    // TLS 1.2 signs at another place.
    let mut server = (*house.tls.http()).clone();
    server.cert_resolver = Arc::clone(&forged_again(&house));
    let mut client = (*house.client([Anchor::Pin(pin)]).http()).clone();
    client.alpn_protocols.clear();
    connect(&Arc::new(client), &Arc::new(server), "localhost").map(|_| ()).expect_err("forged");
}

fn forged_again(house: &House) -> Arc<dyn rustls::server::ResolvesServerCert> {
    let own = Key::generate().expect("a key");
    let own = rustls::pki_types::PrivateKeyDer::Pkcs8(own.pkcs8().into());
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&own).expect("a key");
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(house.tls.resolver().chain(), signer)))
}

#[test]
fn a_client_holds_one_or_two_anchors_that_can_be_read() {
    let clock = Clock::at(NOW);
    let make = |anchors: Vec<Anchor>| ClientTls::new(anchors, Arc::<Clock>::clone(&clock) as _).err();
    assert!(matches!(make(vec![]), Some(ClientError::Anchors(0))));
    assert!(matches!(make(vec![Anchor::Pin([0; 32]); 3]), Some(ClientError::Anchors(3))));
    assert!(matches!(make(vec![Anchor::Ca(vec![0x30, 0].into())]), Some(ClientError::Ca(_))));
    assert!(make(vec![Anchor::Pin([0; 32]); 2]).is_none());
}

#[test]
fn a_clock_that_was_never_set_is_the_least_the_time_can_be() {
    let house = House::new();
    let server = house.tls.osap_lbs(&house.verifier);
    let built = Clock::at(NOW - 400 * DAY);
    let client =
        |clock: Arc<Clock>| ClientTls::new([house.ca()], clock).expect("an anchor").with_unset_clock().osap_lbs();
    connect(&client(built), &server, "localhost").expect("made later than the firmware");
    let late = Clock::at(NOW + 400 * DAY);
    let ended = refusal(connect(&client(late), &server, "localhost"));
    assert!(matches!(ended, CertificateError::ExpiredContext { .. }), "{ended:?}");
    // Nor does it make a certificate good whose issuer has ended when it begins.
    let wrong = refusal(connect(&client(Clock::at(NOW - 400 * DAY)), &server, "das.example.org"));
    assert!(matches!(wrong, CertificateError::NotValidForNameContext { .. }), "{wrong:?}");
}

#[test]
fn who_knows_the_older_or_the_newer_root_alone_goes_on_after_a_roll() {
    let mut house = House::new();
    let older = house.ca();
    for ca in house.servers.roll(NOW).expect("made") {
        house.servers.add(ca);
    }
    let anchors = house.servers.anchors(NOW);
    assert_eq!(anchors.len(), 2);
    let newer = Anchor::Ca(anchors.into_iter().find(|root| Anchor::Ca(root.clone()) != older).expect("another"));
    let due = house.servers.server_certificate_is_due(&house.tls.resolver().chain(), &names(), NOW);
    assert!(due, "it was issued below the older root");
    let chain = house.servers.server_certificate(&house.key, &names(), NOW).expect("issued");
    assert!(!house.servers.server_certificate_is_due(&chain, &names(), NOW));
    house.show(chain);
    let server = house.tls.osap_lbs(&house.verifier);
    for anchors in [vec![older.clone()], vec![newer.clone()], vec![older, newer]] {
        connect(&house.client(anchors).osap_lbs(), &server, "localhost").expect("either root");
    }
    assert_eq!(renew(&mut house.servers, NOW), 0, "nothing is due after a roll");
}
