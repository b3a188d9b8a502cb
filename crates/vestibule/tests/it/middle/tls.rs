//! Somebody who ends TLS with a certificate that the device trusts (osap-wire 13.3, 13.7.4).

use std::fs;
use std::sync::Arc;

use vestibule_device::{Anchor, Reason};
use vestibule_tls::rustls::pki_types::UnixTime;
use vestibule_tls::rustls::time_provider::TimeProvider;
use vestibule_tls::{
    Anchor as Root, Authority, ClientTls, DeviceVerifier, Identity, Key, Purpose, Resolver, ServerTls, read_pem,
};

use super::line::{Ended, From, Line, honest, session_unknown};
use super::subject::{Subject, done, eventually, platform, runtime, stored};
use crate::support::Platform;

#[derive(Debug)]
struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::now())
    }
}

fn authority(purpose: Purpose, now: i64) -> Authority {
    let mut authority = Authority::new(purpose, []);
    authority.due(now).expect("made").into_iter().for_each(|ca| authority.add(ca));
    authority
}

/// Somebody with a certificate for the very names of the platform: what the device trusts, and how he ends TLS of the LBS
/// and of the DAS.
fn impostor(platform: &Platform) -> (Vec<Anchor>, Ended, Ended) {
    let now = i64::try_from(UnixTime::now().as_secs()).expect("before the end of time") * 1_000;
    let (servers, devices) = (authority(Purpose::Servers, now), authority(Purpose::Devices, now));
    let key = Key::generate().expect("a key");
    let host = platform.ready()["listeners"]["lbs"].as_str().expect("it listens");
    let host = host.rsplit_once(':').expect("an address").0.to_owned();
    let chain = servers.server_certificate(&key, &["localhost".to_owned(), host], now).expect("issued");
    let resolver = Resolver::new(&Identity::new(chain, &key).expect("a pair")).expect("a pair");
    let tls = ServerTls::new(resolver, Arc::new(Now));
    let verifier = DeviceVerifier::new(devices.anchors(now), []).expect("readable");

    let roots = fs::read(platform.ca_file()).expect("the roots");
    let client = ClientTls::new(read_pem(&roots).expect("PEM").into_iter().map(Root::Ca), Arc::new(Now));
    let client = client.expect("anchors");
    let mut anchors = Anchor::from_pem(&roots).expect("a root");
    anchors.extend(servers.anchors(now).into_iter().map(|root| Anchor::Certificate(root.to_vec())));
    let lbs = Ended { server: tls.osap_lbs(&verifier), client: client.osap_lbs() };
    let das = Ended { server: tls.osap_das(&verifier), client: client.osap_das() };
    (anchors, lbs, das)
}

#[test]
fn osap_13_7_4_a_relay_with_a_certificate_the_device_trusts_lets_nobody_in_at_the_lbs() {
    let platform = platform();
    let (anchors, lbs, das) = impostor(&platform);
    runtime().block_on(async {
        // He is there from the first: the code proves nothing over his connection either.
        let begin = |lbs: &Line, _: &Line| lbs.attack(|_| honest());
        let subject = Subject::over_tls(&platform, anchors, Some(lbs), Some(das), begin).await;
        subject.waits_for(Reason::LbsAnswer).await;
        let heard: Vec<(From, u8)> = subject.lbs.seen().iter().map(|(from, frame)| (*from, frame[0])).collect();
        let [told @ .., (From::Platform, 0x2a)] = &heard[..] else { panic!("{heard:?}") };
        assert!(told.iter().all(|(_, first)| [0x1a, 0x2a].contains(first)), "nothing but hellos: {heard:?}");
        assert!(subject.logins() == 0 && subject.kept().slots.newest.is_none(), "nothing was given to it");
        eventually("the platform tells of it", || {
            platform.reasons(&subject.serial).contains(&"connection_lost".to_owned()).then_some(())
        });
        subject.lbs.leave();
        subject.online().await;
        done(subject.report(2)).await;
        assert_eq!(stored(&platform, &subject.serial), Vec::from_iter(subject.reported()));

        // One that has a ticket is not let in over him either.
        let newest = subject.kept().slots.newest;
        subject.lbs.attack(|_| honest());
        subject.das.attack(|_| session_unknown());
        let logins = subject.logins();
        subject.waits_for(Reason::LbsAnswer).await;
        assert_eq!(subject.logins(), logins);
        assert_eq!(subject.kept().slots.newest, newest);
        subject.lbs.leave();
        subject.das.leave();
        subject.online().await;
    });
    platform.assert_no_panic();
}

#[test]
fn osap_13_7_4_a_relay_with_a_certificate_the_device_trusts_lets_nobody_in_at_the_das() {
    let platform = platform();
    let (anchors, _, das) = impostor(&platform);
    runtime().block_on(async {
        let begin = |_: &Line, das: &Line| das.attack(|_| honest());
        let subject = Subject::over_tls(&platform, anchors, None, Some(das), begin).await;
        subject.waits_for(Reason::LoginRefused(11)).await;
        assert_eq!(subject.logins(), 0);
        eventually("the platform tells of it", || {
            platform.reasons(&subject.serial).contains(&"wrong_proof".to_owned()).then_some(())
        });
        // All that he has heard of the device is its CONNECT, which is of no use on another connection.
        let heard = subject.das.seen();
        assert!(heard.iter().all(|(from, packet)| *from == From::Platform || packet[0] == 0x10), "{heard:?}");
        subject.das.leave();
        subject.online().await;
        done(subject.report(2)).await;
        assert_eq!(stored(&platform, &subject.serial), Vec::from_iter(subject.reported()));
    });
    platform.assert_no_panic();
}
