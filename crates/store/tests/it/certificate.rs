//! Certificates of the platform's own, and of devices.

use vestibule_store::{CertificateRow, DeviceCertificateQuery, DeviceCertificateRow, KnownBy, Secret};

use crate::bed::{Bed, HOUR, NOON, on_both};

on_both!(
    keys_are_sealed_and_one_of_the_same_name_takes_the_place,
    certificates_of_devices_are_listed_revoked_and_end,
    who_does_not_know_a_root_is_listed,
);

pub fn own(id: &str, key: Option<&[u8]>) -> CertificateRow {
    let (kind, chain) = ("servers/root".to_owned(), format!("chain of {id}"));
    CertificateRow { id: id.to_owned(), kind, chain, key: key.map(Secret::new) }
}

async fn keys_are_sealed_and_one_of_the_same_name_takes_the_place(bed: Bed) {
    let store = bed.open().await;
    store.control.put_certificates(vec![own("b", None), own("a", Some(b"a key nobody sees"))]).await.unwrap();
    store.control.put_certificates(vec![own("b", Some(b"another key"))]).await.unwrap();
    store.close().await;
    let store = bed.open().await;
    let rows = [own("a", Some(b"a key nobody sees")), own("b", Some(b"another key"))];
    assert_eq!(store.control.certificates().await.unwrap(), rows);
    let gone = vec!["a".to_owned(), "none".to_owned()];
    store.control.replace_certificates(gone, vec![own("c", None)]).await.unwrap();
    assert_eq!(store.control.certificates().await.unwrap(), [rows[1].clone(), own("c", None)]);
    store.close().await;
}

fn issued(serial: u8, device: &str, ends: i64) -> DeviceCertificateRow {
    let (issuer, device) = ("devices issuing".to_owned(), device.to_owned());
    DeviceCertificateRow { serial: vec![serial; 16], issuer, device, made: NOON, ends, revoked: None }
}

async fn certificates_of_devices_are_listed_revoked_and_end(bed: Bed) {
    let store = bed.open().await;
    let control = &store.control;
    let rows = [issued(1, "SN1", NOON + HOUR), issued(2, "SN1", NOON + 3 * HOUR), issued(3, "SN2", NOON + 2 * HOUR)];
    for row in &rows {
        control.add_device_certificate(row.clone()).await.unwrap();
    }
    assert!(control.add_device_certificate(rows[0].clone()).await.is_err(), "a serial number is one certificate's");
    let all = DeviceCertificateQuery { limit: 10, ..DeviceCertificateQuery::default() };
    assert_eq!(control.device_certificates(all.clone()).await.unwrap(), rows);
    let page = DeviceCertificateQuery { after: Some(vec![1; 16]), limit: 1, ..all.clone() };
    assert_eq!(control.device_certificates(page).await.unwrap(), rows[1..2]);
    let of_one = DeviceCertificateQuery { device: Some("SN2".into()), ..all.clone() };
    assert_eq!(control.device_certificates(of_one.clone()).await.unwrap(), rows[2..]);

    // What a device has replaced is not overdue.
    let ending = DeviceCertificateQuery { ending: Some(NOON + 2 * HOUR), ..all.clone() };
    assert_eq!(control.device_certificates(ending.clone()).await.unwrap(), rows[2..]);

    assert!(control.revoke_certificate(&[3; 16], NOON).await.unwrap());
    assert!(!control.revoke_certificate(&[3; 16], NOON + 1).await.unwrap(), "once");
    assert_eq!(control.revoke_certificates_of("SN1", NOON + 1).await.unwrap(), 2);
    assert_eq!(control.device_certificates(ending).await.unwrap(), []);
    let revoked = DeviceCertificateQuery { revoked: true, ..all.clone() };
    let since: Vec<_> =
        control.device_certificates(revoked.clone()).await.unwrap().iter().map(|row| row.revoked).collect();
    assert_eq!(since, [Some(NOON + 1), Some(NOON + 1), Some(NOON)]);

    assert_eq!(control.count_certificates_of("devices issuing", NOON).await.unwrap(), 0);
    control.add_device_certificate(issued(4, "SN3", NOON + HOUR)).await.unwrap();
    assert_eq!(control.count_certificates_of("devices issuing", NOON).await.unwrap(), 1);
    assert_eq!(control.count_certificates_of("devices issuing", NOON + 2 * HOUR).await.unwrap(), 0);
    let lasting = DeviceCertificateQuery { lasting: Some(NOON + 2 * HOUR), ..all.clone() };
    assert_eq!(control.device_certificates(lasting).await.unwrap().len(), 2);
    control
        .add_device_certificate(DeviceCertificateRow { issuer: "another".into(), ..issued(5, "SN3", NOON) })
        .await
        .unwrap();
    let mut issuers = control.device_issuers().await.unwrap();
    issuers.sort();
    assert_eq!(issuers, ["another", "devices issuing"]);
    assert_eq!(control.expire_certificates("devices issuing", NOON + 2 * HOUR).await.unwrap(), 2);
    assert_eq!(control.device_certificates(revoked).await.unwrap().len(), 2);
    assert_eq!(control.device_certificates(all).await.unwrap().len(), 3, "the other's is not touched");
    store.close().await;
}

async fn who_does_not_know_a_root_is_listed(bed: Bed) {
    let store = bed.open().await;
    let control = &store.control;
    let mut devices = Vec::new();
    for n in 0..6 {
        devices.push(crate::control::registered(&store, &format!("SN{n}")).await.id);
    }
    assert_eq!(control.count_unseen_devices().await.unwrap(), 6);
    // The last one comes in by the legacy suite.
    for device in &devices[..5] {
        control.set_suites(*device, true, false).await.unwrap();
    }
    assert_eq!(control.count_unseen_devices().await.unwrap(), 1);
    let root = |name: &str| KnownBy::Root(name.to_owned());
    assert!(control.note_root(devices[0], &root("new"), NOON).await.unwrap());
    assert!(control.note_root(devices[1], &root("old"), NOON).await.unwrap());
    assert!(!control.note_root(devices[1], &root("old"), NOON + 1).await.unwrap(), "it was so before");
    assert!(control.note_root(devices[2], &KnownBy::Untold, NOON).await.unwrap());
    assert!(control.note_root(devices[3], &KnownBy::Plain, NOON).await.unwrap());
    for known in &devices[1..3] {
        assert!(!control.note_root(*known, &KnownBy::Plain, NOON).await.unwrap(), "it came over TLS before");
    }
    let overdue = async |after: &str, limit| {
        let rows = control.overdue_roots("new", after, limit).await.unwrap();
        rows.into_iter().map(|row| (row.serial, row.root, row.since)).collect::<Vec<_>>()
    };
    let one = ("SN1".to_owned(), Some("old".to_owned()), Some(NOON));
    let two = ("SN2".to_owned(), None, Some(NOON));
    let four = ("SN4".to_owned(), None, None);
    assert_eq!(overdue("", 10).await, [one.clone(), two.clone(), four.clone()]);
    assert_eq!((overdue("", 1).await, overdue("SN1", 10).await), (vec![one], vec![two, four]));
    assert_eq!(control.count_overdue_roots("new").await.unwrap(), 3);
    assert!(control.note_root(devices[1], &root("new"), NOON + 2).await.unwrap());
    control.remove_device(devices[2]).await.unwrap();
    assert_eq!(control.count_overdue_roots("new").await.unwrap(), 1);
    assert!(!control.note_root(devices[2], &KnownBy::Untold, NOON).await.unwrap(), "it is gone");
    store.close().await;
}
