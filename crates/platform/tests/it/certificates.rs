//! The platform's certificates over restarts and years, and those of devices.

use std::time::Duration;

use vestibule_platform::{
    AuditQuery, AuthorityView, Caller, CertificatesError, DeviceCertificateQuery, LONGEST_CERTIFICATE, Platform,
    PlatformConfig, Purpose, Suites,
};
use vestibule_tls::rustls::pki_types::{CertificateSigningRequestDer, UnixTime};
use vestibule_tls::rustls::server::danger::ClientCertVerifier as _;
use vestibule_tls::rustls::{CertificateError, Error};
use vestibule_tls::{covers, device_serial, read_pem};

use crate::bed::{Bed, Plan};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn request() -> CertificateSigningRequestDer<'static> {
    let key = rcgen::KeyPair::generate().expect("a key");
    rcgen::CertificateParams::default().serialize_request(&key).expect("signed").der().clone()
}

async fn view(platform: &Platform) -> AuthorityView {
    platform.certificates().view().await.expect("certificates")
}

#[tokio::test]
async fn a_restart_finds_the_certificates_as_they_were() {
    let bed = Bed::new().await;
    let before = view(&bed.platform).await;
    let kinds: Vec<&str> = before.authorities.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    for kind in ["servers/root", "servers/intermediate", "devices/root", "devices/intermediate"] {
        assert!(kinds.contains(&kind), "{kind}");
    }
    let anchors = bed.platform.certificates().anchors_pem(Purpose::Servers).await;
    let bed = bed.restart().await;
    let after = view(&bed.platform).await;
    assert_eq!(after.server.serial, before.server.serial);
    assert_eq!(bed.platform.certificates().anchors_pem(Purpose::Servers).await, anchors);
    let roots = read_pem(anchors.as_bytes()).expect("PEM");
    assert_eq!(roots.len(), 1);
    assert!(before.authorities.iter().any(|one| one.kind == "servers/root" && one.pem == anchors));
}

#[tokio::test]
async fn another_name_makes_another_certificate_with_the_same_key() {
    let bed = Bed::new().await;
    let before = view(&bed.platform).await.server;
    let platform = PlatformConfig { server_names: vec!["hall.example.org".into()], ..PlatformConfig::default() };
    let bed = bed.restart_with(Plan { platform, ..Plan::default() }).await;
    let after = view(&bed.platform).await.server;
    assert_ne!(after.serial, before.serial);
    assert_eq!(after.spki_sha256, before.spki_sha256, "devices may have pinned it");
    let leaf = read_pem(after.pem.as_bytes()).expect("PEM").remove(0);
    for name in ["hall.example.org", "localhost", "127.0.0.1", "::1"] {
        assert!(covers(&leaf, name), "{name}");
    }
}

#[tokio::test]
async fn what_is_due_is_renewed_while_it_is_still_good() {
    let bed = Bed::new().await;
    let mut changes = bed.platform.certificates().changes();
    changes.mark_unchanged();
    let first = view(&bed.platform).await.server;
    bed.advance(59 * DAY);
    assert!(!bed.platform.certificates().renew().await.expect("looked"));
    assert!(!changes.has_changed().expect("open"));
    bed.advance(2 * DAY);
    assert!(bed.platform.certificates().renew().await.expect("renewed"));
    assert!(changes.has_changed().expect("open"));
    let second = view(&bed.platform).await.server;
    assert!(second.not_after > first.not_after && bed.now() < first.not_after);
    assert_eq!(second.spki_sha256, first.spki_sha256);
    // For five years, as the keeper does it but a month at a time.
    for _ in 0..60 {
        bed.advance(30 * DAY);
        bed.platform.certificates().renew().await.expect("renewed");
        let server = view(&bed.platform).await.server;
        assert!(server.not_before <= bed.now() && server.not_after > bed.now() + 25 * 86_400_000);
    }
    let bed = bed.restart().await;
    assert_eq!(bed.platform.certificates().anchors_pem(Purpose::Servers).await.matches("BEGIN").count(), 1);
}

#[tokio::test]
async fn a_roll_is_durable_audited_and_keeps_the_older_root() {
    let bed = Bed::new().await;
    let older = bed.platform.certificates().anchors_pem(Purpose::Servers).await;
    bed.platform.roll_authority(Purpose::Servers, false, &bed.caller()).await.expect("rolled");
    let both = bed.platform.certificates().anchors_pem(Purpose::Servers).await;
    assert!(both.ends_with(&older) && both.len() > older.len());
    let server = view(&bed.platform).await.server;
    let bed = bed.restart().await;
    assert_eq!(bed.platform.certificates().anchors_pem(Purpose::Servers).await, both);
    assert_eq!(view(&bed.platform).await.server.serial, server.serial);
    for _ in 0..5 {
        bed.platform.roll_authority(Purpose::Servers, false, &bed.caller()).await.expect("rolled");
    }
    let four = bed.platform.certificates().anchors_pem(Purpose::Servers).await;
    assert!(four.matches("BEGIN").count() == 4 && !four.contains(&older));
    let bed = bed.restart().await;
    assert_eq!(bed.platform.certificates().anchors_pem(Purpose::Servers).await, four);
    let query = AuditQuery { limit: 10, ..AuditQuery::default() };
    let rows = bed.platform.audits(&query, &Caller::program()).await.expect("readable");
    assert_eq!((rows[0].action.as_str(), rows[0].ok), ("authority.roll", true));
}

#[tokio::test]
async fn a_device_is_issued_a_certificate_that_can_be_revoked() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let (platform, caller) = (&bed.platform, bed.caller());
    let issued = platform.issue_certificate(&device, &request(), LONGEST_CERTIFICATE, &caller).await.expect("issued");
    assert_eq!(device_serial(&issued.chain[0]).as_deref(), Ok("SN1"));
    assert_eq!(issued.row.ends, bed.now() + 730 * 86_400_000);
    let of_it = DeviceCertificateQuery { device: Some("SN1".into()), limit: 10, ..Default::default() };
    assert_eq!(platform.certificates().issued(of_it.clone()).await.expect("listed"), std::slice::from_ref(&issued.row));

    let other = bed.add("SN2").await;
    let foreign = platform.revoke_certificates(&other, Some(&issued.row.serial), &caller).await;
    assert!(matches!(foreign, Err(CertificatesError::Unknown)), "it is another device's");
    assert_eq!(platform.revoke_certificates(&device, Some(&issued.row.serial), &caller).await.expect("revoked"), 1);
    let again = platform.revoke_certificates(&device, Some(&issued.row.serial), &caller).await;
    assert!(matches!(again, Err(CertificatesError::Unknown)));
    assert_eq!(platform.certificates().verifier().revoked(), 1);
    assert_eq!(platform.certificates().issued(of_it).await.expect("listed")[0].revoked, Some(bed.now()));
}

#[tokio::test]
async fn a_clock_that_was_ahead_for_a_while_makes_no_revoked_certificate_good_again() {
    const AHEAD: Duration = Duration::from_secs(3 * 365 * 24 * 3_600);
    let mut bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let caller = bed.caller();
    let stolen =
        bed.platform.issue_certificate(&device, &request(), LONGEST_CERTIFICATE, &caller).await.expect("issued");
    let good = bed.platform.issue_certificate(&device, &request(), LONGEST_CERTIFICATE, &caller).await.expect("issued");
    let revoked = bed.platform.revoke_certificates(&device, Some(&stolen.row.serial), &caller).await;
    assert_eq!(revoked.expect("revoked"), 1);
    // Started with a clock that is wrong, as a machine is that has none of its own.
    bed.advance(AHEAD);
    bed = bed.restart().await;
    bed.platform.certificates().renew().await.expect("renewed");
    assert_eq!(bed.platform.certificates().forget_ended().await.expect("looked"), 0);
    for restarted in [false, true] {
        if restarted {
            bed = bed.restart().await;
        } else {
            bed.set_back(AHEAD);
        }
        let (verifier, now) = (bed.platform.certificates().verifier(), bed.now().unsigned_abs());
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now));
        let shown = |chain: &[_]| verifier.verify_client_cert(&chain[0], &chain[1..], now).map(drop);
        assert_eq!(shown(&stolen.chain), Err(Error::InvalidCertificate(CertificateError::Revoked)));
        assert_eq!(shown(&good.chain), Ok(()));
    }
    let device = bed.platform.device_by_serial("SN1").expect("registered");
    let revoked = bed.platform.revoke_certificates(&device, Some(&good.row.serial), &bed.caller()).await;
    assert_eq!(revoked.expect("it is still known"), 1);
}

#[tokio::test]
async fn certificates_of_devices_are_forgotten_with_their_issuer_once_they_have_ended() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    bed.platform.issue_certificate(&device, &request(), DAY, &bed.caller()).await.expect("issued");
    bed.platform.roll_authority(Purpose::Devices, false, &bed.caller()).await.expect("rolled");
    bed.platform.retire_authority(Purpose::Devices, true, &bed.caller()).await.expect("retired");
    assert_eq!(bed.platform.certificates().forget_ended().await.expect("looked"), 0);
    bed.advance(2 * DAY);
    assert_eq!(bed.platform.certificates().forget_ended().await.expect("looked"), 1);
}

#[tokio::test]
async fn a_bad_request_is_the_requesters_fault_and_is_in_the_audit() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let request = CertificateSigningRequestDer::from(vec![0x30, 0]);
    let refused = bed.platform.issue_certificate(&device, &request, DAY, &bed.caller()).await;
    assert!(matches!(refused, Err(CertificatesError::Issue(vestibule_tls::IssueError::Request(_)))));
    let query = AuditQuery { limit: 1, ..AuditQuery::default() };
    let rows = bed.platform.audits(&query, &Caller::program()).await.expect("readable");
    assert_eq!((rows[0].action.as_str(), rows[0].ok), ("certificate.issue", false));
}

#[tokio::test]
async fn a_device_has_so_many_certificates_and_loses_all_when_it_is_removed() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    for _ in 0..8 {
        bed.platform.issue_certificate(&device, &request(), DAY, &bed.caller()).await.expect("issued");
    }
    let ninth = bed.platform.issue_certificate(&device, &request(), DAY, &bed.caller()).await;
    assert!(matches!(ninth, Err(CertificatesError::Full(8))));
    bed.advance(2 * DAY);
    bed.platform.issue_certificate(&device, &request(), DAY, &bed.caller()).await.expect("the others have ended");
    bed.platform.remove_device(&device, &bed.caller()).await.expect("removed");
    let removed = bed.platform.issue_certificate(&device, &request(), DAY, &bed.caller()).await;
    assert!(matches!(removed, Err(CertificatesError::Unknown)));
    let good = DeviceCertificateQuery { device: Some("SN1".into()), limit: 100, ..Default::default() };
    let rows = bed.platform.certificates().issued(good).await.expect("listed");
    assert!(rows.iter().all(|row| row.revoked.is_some()), "whoever is given the serial next is somebody else");
}

#[tokio::test]
async fn an_older_root_goes_when_every_device_has_said_that_it_knows_the_newest() {
    let bed = Bed::new().await;
    let (platform, caller) = (&bed.platform, bed.caller());
    let certificates = platform.certificates();
    let (knows, lags) = (bed.add("SN1").await, bed.add("SN2").await);
    for device in [&knows, &lags] {
        platform.set_suites(device, Suites { legacy: Some(false), ..Suites::default() }, &caller).await.expect("kept");
    }
    let id = |der: Vec<u8>| {
        <[u8; 32]>::try_from(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der).as_ref()).expect("32 bytes")
    };
    let first = id(certificates.root_to_tell(&[]).expect("it knows nothing"));
    assert_eq!(certificates.root_to_tell(&[first]), None);
    platform.roll_authority(Purpose::Servers, false, &caller).await.expect("rolled");
    let second = id(certificates.root_to_tell(&[first]).expect("there is a newer one"));
    assert_eq!(certificates.root_to_tell(&[first, second]), None, "both are in force");
    let refused = platform.retire_authority(Purpose::Servers, false, &caller).await;
    assert!(matches!(refused, Err(CertificatesError::Overdue { devices: 2, unseen: 0 })), "{refused:?}");

    platform.note_roots(&knows, Some(&[first, second])).await;
    platform.note_roots(&lags, Some(&[first])).await;
    let overdue = certificates.overdue_roots("", 10).await.expect("listed");
    let hex = |id: [u8; 32]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!((overdue.total, &overdue.newest, overdue.rows.len()), (1, &hex(second), 1));
    assert_eq!((&*overdue.rows[0].serial, overdue.rows[0].root.clone()), ("SN2", Some(hex(first))));
    let shown = certificates.server_tls().resolver().chain();
    platform.retire_authority(Purpose::Servers, false, &caller).await.expect_err("one is left");
    platform.note_roots(&lags, Some(&[second])).await;
    // A third one lies in its box, with the first root in its firmware.
    let boxed = bed.add("SN3").await;
    let refused = platform.retire_authority(Purpose::Servers, false, &caller).await;
    assert!(matches!(refused, Err(CertificatesError::Overdue { devices: 0, unseen: 1 })), "{refused:?}");
    platform.remove_device(&boxed, &caller).await.expect("removed");
    assert_eq!(platform.retire_authority(Purpose::Servers, false, &caller).await.expect("retired"), 3);
    assert_eq!(certificates.server_tls().resolver().chain().len(), shown.len() - 1, "nobody vouches for it any more");
    assert!(certificates.root_to_tell(&[second, first]).is_some(), "what is retired is to be forgotten");
    let query = AuditQuery { limit: 1, ..AuditQuery::default() };
    let rows = platform.audits(&query, &Caller::program()).await.expect("readable");
    assert_eq!((rows[0].action.as_str(), rows[0].ok), ("authority.retire", true));
}

#[tokio::test]
async fn a_root_of_devices_goes_when_no_certificate_hangs_on_it() {
    let bed = Bed::new().await;
    let (platform, caller) = (&bed.platform, bed.caller());
    let device = bed.add("SN1").await;
    platform.issue_certificate(&device, &request(), DAY, &caller).await.expect("issued");
    platform.roll_authority(Purpose::Devices, false, &caller).await.expect("rolled");
    platform.issue_certificate(&device, &request(), DAY, &caller).await.expect("issued");
    let refused = platform.retire_authority(Purpose::Devices, false, &caller).await;
    assert!(matches!(refused, Err(CertificatesError::Dependent(1))), "{refused:?}");
    bed.advance(2 * DAY);
    assert_eq!(platform.retire_authority(Purpose::Devices, false, &caller).await.expect("retired"), 2);
}

#[tokio::test]
async fn a_fifth_root_takes_no_place_that_is_needed() {
    let bed = Bed::new().await;
    let (platform, caller) = (&bed.platform, bed.caller());
    let device = bed.add("SN1").await;
    platform.set_suites(&device, Suites { legacy: Some(false), ..Suites::default() }, &caller).await.expect("kept");
    for _ in 0..3 {
        platform.roll_authority(Purpose::Servers, false, &caller).await.expect("rolled");
    }
    let refused = platform.roll_authority(Purpose::Servers, false, &caller).await;
    assert!(matches!(refused, Err(CertificatesError::Overdue { devices: 1, unseen: 0 })), "{refused:?}");
    platform.roll_authority(Purpose::Servers, true, &caller).await.expect("forced");
}

#[tokio::test]
async fn what_was_revoked_is_so_after_a_restart_and_issuing_has_a_limit_not_revoking() {
    let mut bed = Bed::new().await;
    bed.add("SN1").await;
    let issue = async |bed: &Bed| {
        let device = bed.platform.device_by_serial("SN1").expect("registered");
        bed.platform.issue_certificate(&device, &request(), DAY, &bed.caller()).await
    };
    for n in 1..=128 {
        issue(&bed).await.expect("issued");
        let device = bed.platform.device_by_serial("SN1").expect("registered");
        assert_eq!(bed.platform.revoke_certificates(&device, None, &bed.caller()).await.expect("revoked"), 1);
        assert_eq!(bed.platform.certificates().verifier().revoked(), n);
    }
    assert!(matches!(issue(&bed).await, Err(CertificatesError::Spent(128))));
    bed = bed.restart().await;
    assert_eq!(bed.platform.certificates().verifier().revoked(), 128);
    assert!(matches!(issue(&bed).await, Err(CertificatesError::Spent(128))));
    bed.advance(DAY / 1_000);
    issue(&bed).await.expect("one at a time");
    assert!(matches!(issue(&bed).await, Err(CertificatesError::Spent(128))));
    bed.advance(2 * DAY);
    issue(&bed).await.expect("they have ended");
}

#[tokio::test]
async fn a_root_that_was_made_by_a_clock_that_was_ahead_takes_no_older_one_away() {
    const AHEAD: Duration = Duration::from_secs(365 * 24 * 3_600);
    let mut bed = Bed::new().await;
    let first = bed.platform.certificates().root_to_tell(&[]).expect("it knows nothing");
    bed.advance(AHEAD);
    for purpose in [Purpose::Servers, Purpose::Devices] {
        bed.platform.roll_authority(purpose, false, &bed.caller()).await.expect("rolled");
    }
    let ahead = bed.platform.certificates().root_to_tell(&[]).expect("it knows nothing");
    bed.set_back(AHEAD);
    for restarted in [false, true] {
        if restarted {
            bed = bed.restart().await;
        }
        bed.platform.certificates().renew().await.expect("looked");
        for (purpose, force) in [(Purpose::Servers, false), (Purpose::Servers, true), (Purpose::Devices, true)] {
            let refused = bed.platform.retire_authority(purpose, force, &bed.caller()).await;
            assert!(matches!(refused, Err(CertificatesError::Early)), "{refused:?}");
        }
        assert_eq!(bed.platform.certificates().root_to_tell(&[]), Some(first.clone()), "the one that issues");
        assert_eq!(bed.platform.certificates().anchors_pem(Purpose::Servers).await.matches("BEGIN").count(), 2);
        let device = bed.add(if restarted { "SN2" } else { "SN1" }).await;
        bed.platform.issue_certificate(&device, &request(), DAY, &bed.caller()).await.expect("issued");
    }
    // Its time has come.
    bed.advance(AHEAD);
    bed.platform.certificates().renew().await.expect("looked");
    assert_eq!(bed.platform.certificates().root_to_tell(&[]), Some(ahead));
    assert!(bed.platform.retire_authority(Purpose::Servers, true, &bed.caller()).await.expect("retired") > 0);
}
