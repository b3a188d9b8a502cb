//! The platform's certificates over restarts and years, and those of devices.

use std::time::Duration;

use vestibule_platform::{
    AuditQuery, AuthorityView, Caller, CertificatesError, DeviceCertificateQuery, LONGEST_CERTIFICATE, Platform,
    PlatformConfig, Purpose,
};
use vestibule_tls::rustls::pki_types::CertificateSigningRequestDer;
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
    bed.platform.roll_authority(Purpose::Servers, &bed.caller()).await.expect("rolled");
    let both = bed.platform.certificates().anchors_pem(Purpose::Servers).await;
    assert!(both.ends_with(&older) && both.len() > older.len());
    let server = view(&bed.platform).await.server;
    let bed = bed.restart().await;
    assert_eq!(bed.platform.certificates().anchors_pem(Purpose::Servers).await, both);
    assert_eq!(view(&bed.platform).await.server.serial, server.serial);
    for _ in 0..5 {
        bed.platform.roll_authority(Purpose::Servers, &bed.caller()).await.expect("rolled");
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
    let before = platform.certificates().revocation_lists().await.expect("lists");
    assert_eq!(platform.revoke_certificates(&device, Some(&issued.row.serial), &caller).await.expect("revoked"), 1);
    let again = platform.revoke_certificates(&device, Some(&issued.row.serial), &caller).await;
    assert!(matches!(again, Err(CertificatesError::Unknown)));
    let after = platform.certificates().revocation_lists().await.expect("lists");
    assert!(after[0].len() > before[0].len());
    assert_eq!(platform.certificates().issued(of_it).await.expect("listed")[0].revoked, Some(bed.now()));
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
