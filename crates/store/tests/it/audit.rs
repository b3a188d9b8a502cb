//! The audit.

use vestibule_store::{AuditQuery, AuditRow, DeviceId, NewAudit};

use crate::bed::{Bed, NOON, on_both};
use crate::control::registered;

on_both!(
    what_was_done_comes_back_newest_first,
    ids_grow_also_over_an_expiry_and_a_restart,
    filters_of_the_audit_agree_with_a_plain_reading,
    a_removed_device_leaves_its_audit,
    a_subtree_sees_what_belongs_to_it,
    any_text_is_written_down,
);

fn audit(actor: &str, action: &str, time: i64) -> NewAudit {
    NewAudit {
        time,
        actor: actor.into(),
        action: action.into(),
        device: None,
        serial: None,
        org: None,
        detail: r#"{"from":"127.0.0.1"}"#.into(),
        ok: true,
    }
}

fn stored(id: i64, new: &NewAudit) -> AuditRow {
    let NewAudit { time, actor, action, device, serial, org: _, detail, ok } = new.clone();
    AuditRow { id, time, actor, action, device, serial, detail, ok }
}

fn all() -> AuditQuery {
    AuditQuery { limit: 1_000, ..AuditQuery::default() }
}

async fn what_was_done_comes_back_newest_first(bed: Bed) {
    let store = bed.open().await;
    let plain = audit("alice", "device.add", NOON);
    let rich = NewAudit {
        device: Some(DeviceId::mint()),
        serial: Some("S/\"'ß".into()),
        detail: r#"{"text":"\u0000 '"}"#.into(),
        ok: false,
        ..audit("bob", "operation.invoke", NOON)
    };
    let first = store.control.add_audit(plain.clone()).await.unwrap();
    let second = store.control.add_audit(rich.clone()).await.unwrap();
    assert!(first < second);
    store.close().await;
    let store = bed.open().await;
    let rows = [stored(second, &rich), stored(first, &plain)];
    assert_eq!(store.control.audits(&all()).await.unwrap(), rows);
    assert_eq!(store.control.audits(&AuditQuery::default()).await.unwrap(), []);
    store.close().await;
}

async fn ids_grow_also_over_an_expiry_and_a_restart(bed: Bed) {
    let store = bed.open().await;
    let mut adds = tokio::task::JoinSet::new();
    for n in 0..1_500 {
        let (control, new) = (store.control.clone(), audit("alice", "x", NOON + n));
        adds.spawn(async move { control.add_audit(new).await.unwrap() });
    }
    let mut ids = adds.join_all().await;
    ids.sort_unstable();
    assert!(ids.is_sorted_by(|a, b| a < b), "an id was given twice");
    assert_eq!(store.control.expire_audits(NOON + 200).await.unwrap(), 200);
    assert_eq!(store.control.audits(&all()).await.unwrap().last().map(|row| row.time), Some(NOON + 500));
    assert_eq!(store.control.expire_audits(i64::MAX).await.unwrap(), 1_300, "more than one statement removes");
    assert_eq!(store.control.audits(&all()).await.unwrap(), []);
    store.close().await;
    let store = bed.open().await;
    let next = store.control.add_audit(audit("alice", "x", NOON)).await.unwrap();
    assert!(next > ids[ids.len() - 1], "{next} after {:?}", ids.last());
    store.close().await;
}

async fn filters_of_the_audit_agree_with_a_plain_reading(bed: Bed) {
    let store = bed.open().await;
    let devices = [DeviceId::mint(), DeviceId::mint()];
    let mut expected = Vec::new();
    for n in 0..60_i64 {
        let mut new = audit(["alice", "bob"][(n % 2) as usize], ["add", "remove"][(n / 2 % 2) as usize], 0);
        // The clock was set back in between, and stands still at times.
        new.time = NOON + if n < 40 { n / 4 * 10 } else { (n - 40) * 3 };
        new.device = (n % 3 != 0).then(|| devices[(n % 3 - 1) as usize]);
        new.ok = n % 5 != 0;
        let id = store.control.add_audit(new.clone()).await.unwrap();
        expected.push(stored(id, &new));
    }
    expected.sort_by_key(|row| std::cmp::Reverse((row.time, row.id)));
    let middle = expected[30].id;
    for bits in 0..64_u32 {
        let set = |bit: u32| bits & 1 << bit != 0;
        let query = AuditQuery {
            device: set(0).then_some(devices[0]),
            actor: set(1).then(|| "alice".into()),
            action: set(2).then(|| "remove".into()),
            from: set(3).then_some(NOON + 20),
            to: set(4).then_some(NOON + 50),
            before: set(5).then_some(middle),
            subtree: None,
            limit: 7,
        };
        let wanted: Vec<AuditRow> = expected[if set(5) { 31 } else { 0 }..]
            .iter()
            .filter(|row| query.device.is_none_or(|device| row.device == Some(device)))
            .filter(|row| query.actor.as_ref().is_none_or(|actor| row.actor == *actor))
            .filter(|row| query.action.as_ref().is_none_or(|action| row.action == *action))
            .filter(|row| query.from.is_none_or(|from| row.time >= from))
            .filter(|row| query.to.is_none_or(|to| row.time < to))
            .take(7)
            .cloned()
            .collect();
        assert_eq!(store.control.audits(&query).await.unwrap(), wanted, "{query:?}");
    }
    // Page by page everything once.
    let mut read: Vec<AuditRow> = Vec::new();
    loop {
        let query = AuditQuery { before: read.last().map(|row| row.id), limit: 7, ..AuditQuery::default() };
        let page = store.control.audits(&query).await.unwrap();
        if page.is_empty() {
            break;
        }
        read.extend(page);
    }
    assert_eq!(read, expected);
    store.close().await;
}

async fn a_removed_device_leaves_its_audit(bed: Bed) {
    let store = bed.open().await;
    let device = registered(&store, "S-1").await.id;
    let new = NewAudit { device: Some(device), serial: Some("S-1".into()), ..audit("alice", "device.remove", NOON) };
    let id = store.control.add_audit(new.clone()).await.unwrap();
    assert!(store.control.remove_device(device).await.unwrap());
    let query = AuditQuery { device: Some(device), ..all() };
    assert_eq!(store.control.audits(&query).await.unwrap(), [stored(id, &new)]);
    store.close().await;
}

async fn any_text_is_written_down(bed: Bed) {
    let store = bed.open().await;
    let new = NewAudit { serial: Some("\0".into()), ..audit("a\0b", "\0", NOON) };
    let id = store.control.add_audit(new).await.unwrap();
    let query = AuditQuery { actor: Some("a\0b".into()), ..all() };
    let rows = store.control.audits(&query).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [id]);
    assert_eq!((&*rows[0].actor, rows[0].serial.as_deref()), ("a\u{fffd}b", Some("\u{fffd}")));
    store.close().await;
}

async fn a_subtree_sees_what_belongs_to_it(bed: Bed) {
    let store = bed.open().await;
    let (here, there) = (registered(&store, "HERE").await, registered(&store, "THERE").await);
    store.control.describe(here.id, None, "/a/ß", "{}", 2).await.unwrap();
    store.control.describe(there.id, None, "/a/ßb", "{}", 2).await.unwrap();
    let mut ids = Vec::new();
    for (device, org) in [
        (Some(here.id), None),
        (Some(there.id), Some("/a/ß")),
        (None, Some("/a/ß/c")),
        (None, Some("/a")),
        (None, None),
        (Some(DeviceId::mint()), Some("/a/ß")),
        (Some(DeviceId::mint()), Some("/b")),
    ] {
        let org = org.map(str::to_owned);
        ids.push(store.control.add_audit(NewAudit { device, org, ..audit("x", "y", NOON) }).await.unwrap());
    }
    let seen = async |subtree: &str| {
        let query = AuditQuery { subtree: Some(subtree.into()), ..all() };
        let mut seen: Vec<i64> = store.control.audits(&query).await.unwrap().iter().map(|row| row.id).collect();
        seen.reverse();
        seen
    };
    assert_eq!(seen("/a/ß").await, [ids[0], ids[2], ids[5]], "a device is where it is now, what is gone where it was");
    assert_eq!(seen("/a").await, [ids[0], ids[1], ids[2], ids[3], ids[5]]);
    assert_eq!((seen("/a/%").await, seen("/A").await), (vec![], vec![]));
    store.close().await;
}
