//! What the listeners agree to (osap-wire 13.3, TLS profile 1 to 3 and 5).

use std::io::Write as _;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{AlertDescription, ClientConfig, Error, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore};
use vestibule_tls::{ALPN_DAS, ALPN_LBS, Anchor, Identity, Key, Purpose, Resolver, ServerTls};

use crate::pair::{Failed, House, NOW, authority, connect};

/// A client of somebody else's making: rustls as it comes.
fn foreign(house: &House, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let Anchor::Ca(root) = house.ca() else { unreachable!("the house has a CA") };
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("a root");
    let time: Arc<dyn rustls::time_provider::TimeProvider> = Arc::<crate::pair::Clock>::clone(&house.clock);
    ClientConfig::builder_with_details(Arc::new(default_provider()), time)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[test]
fn osap_is_tls_1_3_with_the_hybrid_group_and_names_its_protocol() {
    let house = House::new();
    let tls = house.client([house.ca()]);
    for (client, server, alpn) in [
        (tls.osap_lbs(), house.tls.osap_lbs(&house.verifier), ALPN_LBS),
        (tls.osap_das(), house.tls.osap_das(&house.verifier), ALPN_DAS),
    ] {
        let pair = connect(&client, &server, "lbs.example.org").expect("a handshake");
        assert_eq!(pair.server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(pair.client.alpn_protocol(), Some(alpn));
        assert_eq!(pair.server.alpn_protocol(), Some(alpn));
        assert_eq!(
            pair.server.negotiated_key_exchange_group().map(|group| group.name()),
            Some(NamedGroup::X25519MLKEM768)
        );
    }
}

#[test]
fn osap_refuses_tls_1_2_and_http_and_mqtt_do_not() {
    let house = House::new();
    let old = Arc::new(foreign(&house, &[&rustls::version::TLS12]));
    for server in [house.tls.osap_lbs(&house.verifier), house.tls.osap_das(&house.verifier)] {
        assert!(matches!(connect(&old, &server, "localhost"), Err(Failed::Server(Error::PeerIncompatible(_)))));
    }
    for server in [house.tls.http(), house.tls.mqtt()] {
        let pair = connect(&old, &server, "127.0.0.1").expect("a handshake");
        assert_eq!(pair.server.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    }
}

#[test]
fn the_groups_and_suites_are_those_of_the_profile() {
    let house = House::new();
    let server = house.tls.osap_lbs(&house.verifier);
    let groups: Vec<NamedGroup> = server.crypto_provider().kx_groups.iter().map(|group| group.name()).collect();
    let profile = [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp384r1, NamedGroup::secp256r1];
    assert_eq!(groups, profile);
    assert_eq!(server.crypto_provider().cipher_suites.len(), 3);
    for group in [kx_group::X25519, kx_group::SECP384R1, kx_group::SECP256R1] {
        let mut client = foreign(&house, &[&rustls::version::TLS13]);
        client.alpn_protocols = vec![ALPN_LBS.to_vec()];
        let provider = rustls::crypto::CryptoProvider { kx_groups: vec![group], ..default_provider() };
        let mut alone = ClientConfig::builder_with_details(Arc::new(provider), Arc::clone(&client.time_provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        alone.alpn_protocols = vec![ALPN_LBS.to_vec()];
        let failed = connect(&Arc::new(alone), &server, "localhost");
        // The group is agreed on before the certificate, which this client does not trust, is seen.
        assert!(matches!(failed, Err(Failed::Client(Error::InvalidCertificate(_)))), "{:?}", group.name());
    }
}

#[test]
fn a_missing_protocol_is_seen_by_both_ends_and_another_one_refused() {
    let house = House::new();
    let server = house.tls.osap_lbs(&house.verifier);
    let silent = Arc::new(foreign(&house, &[&rustls::version::TLS13]));
    let pair = connect(&silent, &server, "localhost").expect("the library goes on");
    assert_eq!((pair.server.alpn_protocol(), pair.client.alpn_protocol()), (None, None));
    let das = house.client([house.ca()]).osap_das();
    let failed = connect(&das, &server, "localhost");
    assert!(matches!(failed, Err(Failed::Server(Error::NoApplicationProtocol))));
    // And a server that names none is noticed by the device.
    let mut nameless = (*server).clone();
    nameless.alpn_protocols.clear();
    let pair = connect(&house.client([house.ca()]).osap_lbs(), &Arc::new(nameless), "localhost").expect("goes on");
    assert_eq!(pair.client.alpn_protocol(), None);
}

#[test]
fn osap_and_mqtt_neither_resume_nor_take_early_data() {
    let house = House::new();
    for (server, alpn) in [
        (house.tls.osap_lbs(&house.verifier), Some(ALPN_LBS)),
        (house.tls.osap_das(&house.verifier), Some(ALPN_DAS)),
        (house.tls.mqtt(), None),
    ] {
        // A client that would resume if it were given anything to resume with.
        let mut eager = foreign(&house, &[&rustls::version::TLS13]);
        eager.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        eager.enable_early_data = true;
        let eager = Arc::new(eager);
        for _ in 0..2 {
            let mut pair = connect(&eager, &server, "localhost").expect("a handshake");
            pair.server.writer().write_all(b"after the tickets, were there any").expect("room");
            pair.settle().expect("handed over");
            assert_eq!(pair.client.tls13_tickets_received(), 0);
            assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Full));
            assert!(!pair.client.is_early_data_accepted());
        }
    }
    let browser = Arc::new(foreign(&house, &[&rustls::version::TLS13]));
    connect(&browser, &house.tls.http(), "localhost").expect("a handshake");
}

#[test]
fn our_clients_do_not_resume_where_they_could() {
    let house = House::new();
    let (client, server) = (house.client([house.ca()]).http(), house.tls.http());
    for _ in 0..2 {
        let pair = connect(&client, &server, "localhost").expect("a handshake");
        assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn both_ends_export_the_same_and_other_connections_another() {
    let house = House::new();
    let (client, server) = (house.client([house.ca()]).osap_lbs(), house.tls.osap_lbs(&house.verifier));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let pair = connect(&client, &server, "localhost").expect("a handshake");
        for (label, context) in [("EXPERIMENTAL-osap2-lbs", &b"SN0000001"[..]), ("EXPERIMENTAL-osap2-das", b"")] {
            let ours =
                pair.server.export_keying_material([0u8; 48], label.as_bytes(), Some(context)).expect("exported");
            let theirs =
                pair.client.export_keying_material([0u8; 48], label.as_bytes(), Some(context)).expect("exported");
            assert_eq!(ours, theirs);
            assert!(!seen.contains(&ours));
            seen.push(ours);
        }
    }
}

#[test]
fn a_certificate_is_exchanged_under_an_open_connection() {
    let house = House::new();
    let (client, server) = (house.client([house.ca()]).mqtt(), house.tls.mqtt());
    let mut before = connect(&client, &server, "localhost").expect("a handshake");
    house.show(
        house
            .servers
            .server_certificate(&house.key, &["other.example.org".to_owned()], crate::pair::NOW)
            .expect("issued"),
    );
    before.client.writer().write_all(b"still there").expect("room");
    before.settle().expect("it goes on");
    assert!(connect(&client, &server, "localhost").is_err());
    connect(&client, &server, "other.example.org").expect("the new one is shown");
}

#[test]
fn a_foreign_protocol_is_answered_with_its_alert() {
    let house = House::new();
    let mut h2 = foreign(&house, &[&rustls::version::TLS13]);
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let (h2, server) = (Arc::new(h2), house.tls.http());
    let name = "localhost".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(h2, name).expect("a client");
    let mut server = rustls::ServerConnection::new(server).expect("a server");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory");
    server.read_tls(&mut &bytes[..]).expect("memory");
    assert!(server.process_new_packets().is_err());
    let mut alert = Vec::new();
    server.write_tls(&mut alert).expect("memory");
    client.read_tls(&mut &alert[..]).expect("memory");
    let told = client.process_new_packets().expect_err("an alert");
    assert_eq!(told, Error::AlertReceived(AlertDescription::NoApplicationProtocol));
}

#[test]
fn another_certificate_is_shown_to_who_asks_for_one_of_its_names_and_to_nobody_else() {
    let house = House::new();
    let (public, key) = (authority(Purpose::Servers, NOW), Key::generate().expect("a key"));
    let chain = public.server_certificate(&key, &["lbs.example.org".to_owned()], NOW).expect("issued");
    let resolver = Resolver::beside(house.tls.resolver());
    let time: Arc<dyn rustls::time_provider::TimeProvider> = Arc::<crate::pair::Clock>::clone(&house.clock);
    let server = ServerTls::new(Arc::clone(&resolver), time).http();
    let of_house = house.client([house.ca()]).http();
    let of_public = house.client([Anchor::Ca(public.anchors(NOW).remove(0))]).http();
    assert!(connect(&of_house, &server, "lbs.example.org").is_ok(), "there is no other one yet");
    resolver.show_by_name(Some(&Identity::new(chain, &key).expect("a pair"))).expect("a pair");
    assert!(connect(&of_public, &server, "lbs.example.org").is_ok());
    assert!(connect(&of_house, &server, "lbs.example.org").is_err());
    for name in ["localhost", "127.0.0.1", "::1"] {
        assert!(connect(&of_house, &server, name).is_ok(), "{name}");
    }
    let next = house.servers.server_certificate(&house.key, &["localhost".to_owned()], NOW).expect("issued");
    house.show(next.clone());
    assert_eq!(resolver.chain(), next, "what is exchanged is so here, too");
    resolver.show_by_name(None).expect("nothing");
    assert!(connect(&of_public, &server, "lbs.example.org").is_err());
}
