//! Jobs, and many devices at once.

use uuid::Uuid;
use vestibule_store::{AuditQuery, DeviceId, DeviceRow, InsertError, JobRow, NewAudit, Secret, StoreError};

use crate::bed::{Bed, NOON, on_both};
use crate::control::row;

on_both!(
    a_job_comes_back_as_it_was_kept_last,
    many_devices_are_registered_with_their_audit_and_their_job,
    where_one_cannot_be_registered_none_is,
);

fn job(state: &str, detail: &str) -> JobRow {
    JobRow {
        id: Uuid::now_v7(),
        kind: "import".into(),
        org: "/a".into(),
        actor: "ci".into(),
        created: NOON,
        finished: None,
        state: state.into(),
        dry_run: true,
        detail: detail.into(),
    }
}

fn audit(of: &DeviceRow) -> NewAudit {
    NewAudit {
        time: NOON,
        actor: "ci".into(),
        action: "device.add".into(),
        device: Some(of.id),
        serial: Some(of.serial.clone()),
        org: Some(of.org.clone()),
        detail: "{}".into(),
        ok: true,
    }
}

async fn a_job_comes_back_as_it_was_kept_last(bed: Bed) {
    let store = bed.open().await;
    let (mut first, second) = (job("running", "{}"), job("running", "{\"a\":1}"));
    for job in [&first, &second] {
        store.control.put_job(job.clone()).await.unwrap();
    }
    first = JobRow { state: "done".into(), finished: Some(NOON + 1), detail: "{\"b\":2}".into(), ..first };
    store.control.put_job(first.clone()).await.unwrap();
    store.close().await;
    let store = bed.open().await;
    assert_eq!(store.control.jobs().await.unwrap(), [first.clone(), second.clone()]);
    assert!(store.control.remove_job(first.id).await.unwrap());
    assert!(!store.control.remove_job(first.id).await.unwrap());
    assert_eq!(store.control.jobs().await.unwrap(), [second]);
    store.close().await;
}

async fn many_devices_are_registered_with_their_audit_and_their_job(bed: Bed) {
    let store = bed.open().await;
    let devices: Vec<(DeviceRow, Secret)> =
        (0..300).map(|n| (row(&format!("S{n}")), Secret::new(format!("CODE{n}")))).collect();
    let audits = devices.iter().map(|(row, _)| audit(row)).collect();
    let job = job("running", "{\"changed\":300}");
    let codes = store.control.enlist(&devices, audits, Some(job.clone())).await.unwrap();
    assert!(store.control.open_code(devices[7].0.id, &codes[7]).unwrap() == Secret::new("CODE7"));
    store.close().await;
    let store = bed.open().await;
    let mut kept: Vec<String> =
        store.control.devices(None, 1_000).await.unwrap().into_iter().map(|row| row.serial).collect();
    let mut wanted: Vec<String> = devices.iter().map(|(row, _)| row.serial.clone()).collect();
    kept.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(kept, wanted);
    assert!(store.control.code(devices[299].0.id).await.unwrap() == Some(Secret::new("CODE299")));
    assert_eq!(store.control.audits(&AuditQuery { limit: 1_000, ..AuditQuery::default() }).await.unwrap().len(), 300);
    assert_eq!(store.control.jobs().await.unwrap(), [job]);
    store.close().await;
}

async fn where_one_cannot_be_registered_none_is(bed: Bed) {
    let store = bed.open().await;
    let there = row("THERE");
    store.control.insert_device(&there, &Secret::new("X")).await.unwrap();
    let orphan = DeviceRow { parent: Some(DeviceId::mint()), ..row("ORPHAN") };
    for (wrong, is_unknown) in [(row("THERE"), false), (orphan, true)] {
        let devices: Vec<_> = [row("NEW"), wrong].into_iter().map(|row| (row, Secret::new("X"))).collect();
        let audits = devices.iter().map(|(row, _)| audit(row)).collect();
        // Another write at the same time is not failed with it.
        let (refused, other) = tokio::join!(
            store.control.enlist(&devices, audits, Some(job("running", "{}"))),
            store.control.set_disabled(there.id, true)
        );
        assert_eq!(matches!(refused, Err(InsertError::Store(StoreError::UnknownDevice))), is_unknown);
        assert_eq!(matches!(refused, Err(InsertError::SerialTaken)), !is_unknown);
        assert!(other.is_ok());
    }
    assert_eq!(store.control.devices(None, 10).await.unwrap().len(), 1);
    assert!(store.control.jobs().await.unwrap().is_empty());
    assert!(store.control.audits(&AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap().is_empty());
    let taken = store.control.insert_device(&row("THERE"), &Secret::new("X")).await;
    assert!(matches!(taken, Err(InsertError::SerialTaken)));
    store.close().await;
}
