//! The twin's leaves.

use vestibule_store::{DeviceId, DevicePath, LeafPart, LeafRow, Position, Secret};

use crate::bed::{Bed, on_both};
use crate::control::{registered, row};
use crate::meter::Meter;

on_both!(
    leaves_come_back_with_the_position_they_contain,
    an_older_version_replaces_nothing,
    a_removed_device_takes_its_leaves_along,
    many_leaves_are_read_in_pages,
    a_leaf_that_comes_twice_at_once_is_written_twice,
    the_position_the_twin_contains_never_goes_back,
    a_transaction_takes_so_many_leaves_at_most,
);

fn leaf(device: DeviceId, name: &str, version: i64) -> LeafRow {
    let path = DevicePath { resource: "Lamp".into(), index: "0".into(), area: "Light".into(), name: name.into() };
    let reported = Some(LeafPart { version, json: format!(r#"{{"value":"{name} ß"}}"#) });
    LeafRow { device, path, version, reported, desired: None }
}

async fn leaves_come_back_with_the_position_they_contain(bed: Bed) {
    let store = bed.open().await;
    let device = row("S-1");
    store.control.insert_device(&device, &Secret::new(*b"ABCDEF")).await.unwrap();
    assert_eq!(store.control.twin_applied().await.unwrap(), Position::START);
    let mut both = leaf(device.id, "Power", 3);
    both.desired = Some(LeafPart { version: 2, json: r#"{"value":true}"#.to_owned() });
    let wanted = vec![leaf(device.id, "Colour", 1), both];
    let stranger = leaf(DeviceId::mint(), "Power", 1);
    let leaves = wanted.iter().cloned().chain([stranger]).collect();
    store.control.put_leaves(leaves, Some(Position::new(7))).await.unwrap();
    store.close().await;
    let store = bed.open().await;
    assert_eq!(store.control.leaves(None).await.unwrap(), wanted);
    assert_eq!(store.control.twin_applied().await.unwrap(), Position::new(7));
    store.control.put_leaves(Vec::new(), Some(Position::new(9))).await.unwrap();
    assert_eq!(store.control.twin_applied().await.unwrap(), Position::new(9));
    store.close().await;
}

async fn an_older_version_replaces_nothing(bed: Bed) {
    let store = bed.open().await;
    let device = row("S-1");
    store.control.insert_device(&device, &Secret::new(*b"ABCDEF")).await.unwrap();
    let newer = leaf(device.id, "Power", 5);
    let wished = |version, json: &str| Some(LeafPart { version, json: json.to_owned() });
    store.control.put_leaves(vec![newer.clone()], None).await.unwrap();
    let older = LeafRow { reported: wished(4, "4"), ..leaf(device.id, "Power", 4) };
    store.control.put_leaves(vec![older], None).await.unwrap();
    assert_eq!(store.control.leaves(None).await.unwrap(), std::slice::from_ref(&newer));
    // Neither side takes the other along.
    let wish = LeafRow { reported: None, desired: wished(6, "6"), ..leaf(device.id, "Power", 6) };
    store.control.put_leaves(vec![wish], None).await.unwrap();
    store.control.put_leaves(vec![leaf(device.id, "Power", 7)], None).await.unwrap();
    let both = LeafRow { desired: wished(6, "6"), ..leaf(device.id, "Power", 7) };
    assert_eq!(store.control.leaves(None).await.unwrap(), [both]);
    store.close().await;
}

async fn a_removed_device_takes_its_leaves_along(bed: Bed) {
    let store = bed.open().await;
    let device = row("S-1");
    store.control.insert_device(&device, &Secret::new(*b"ABCDEF")).await.unwrap();
    store.control.put_leaves(vec![leaf(device.id, "Power", 1)], None).await.unwrap();
    assert!(store.control.remove_device(device.id).await.unwrap());
    assert_eq!(store.control.leaves(None).await.unwrap(), []);
    store.close().await;
}

async fn many_leaves_are_read_in_pages(bed: Bed) {
    let store = bed.open().await;
    let device = row("S-1");
    store.control.insert_device(&device, &Secret::new(*b"ABCDEF")).await.unwrap();
    let leaves: Vec<LeafRow> = (0..10_500).map(|n| leaf(device.id, &format!("{n:05}"), 1)).collect();
    store.control.put_leaves(leaves.clone(), None).await.unwrap();
    let mut read = store.control.leaves(None).await.unwrap();
    assert_eq!(read.len(), 10_000);
    let last = read.last().unwrap();
    let after = Some((last.device, last.path.clone()));
    read.extend(store.control.leaves(after).await.unwrap());
    assert_eq!(read, leaves);
    store.close().await;
}

async fn a_leaf_that_comes_twice_at_once_is_written_twice(bed: Bed) {
    let store = bed.open().await;
    let device = registered(&store, "S-1").await.id;
    let stranger = DeviceId::mint();
    let wished = |version, json: &str| Some(LeafPart { version, json: json.to_owned() });
    // More than one statement takes, with strangers and repetitions in between; the older one comes last.
    let mut leaves = Vec::new();
    for n in 0..150 {
        leaves.push(leaf(device, &format!("{n:03}"), 5));
        leaves.push(leaf(stranger, &format!("{n:03}"), 5));
        if n % 40 == 0 {
            leaves.push(LeafRow { reported: wished(9, "9"), ..leaf(device, &format!("{n:03}"), 9) });
            leaves.push(LeafRow { reported: wished(7, "7"), ..leaf(device, &format!("{n:03}"), 7) });
        }
    }
    store.control.put_leaves(leaves, None).await.unwrap();
    let expected: Vec<LeafRow> = (0..150)
        .map(|n| match n % 40 {
            0 => LeafRow { reported: wished(9, "9"), ..leaf(device, &format!("{n:03}"), 9) },
            _ => leaf(device, &format!("{n:03}"), 5),
        })
        .collect();
    assert_eq!(store.control.leaves(None).await.unwrap(), expected);
    store.close().await;
}

async fn the_position_the_twin_contains_never_goes_back(bed: Bed) {
    let store = bed.open().await;
    for (given, kept) in [(7, 7), (5, 7), (7, 7), (8, 8), (1, 8)] {
        store.control.put_leaves(Vec::new(), Some(Position::new(given))).await.unwrap();
        assert_eq!(store.control.twin_applied().await.unwrap(), Position::new(kept), "after {given}");
    }
    store.close().await;
}

async fn a_transaction_takes_so_many_leaves_at_most(bed: Bed) {
    const CALLERS: u64 = 8;
    std::thread::spawn(move || {
        let meter = Meter::default();
        meter.run(async {
            let store = bed.open().await;
            let device = registered(&store, "S-1").await.id;
            let before = meter.count("vestibule_control_commits_total");
            let mut puts = tokio::task::JoinSet::new();
            for n in 0..CALLERS {
                let control = store.control.clone();
                let leaves = (0..1_000).map(|m| leaf(device, &format!("{n}-{m}"), 1)).collect();
                puts.spawn(async move { control.put_leaves(leaves, None).await });
            }
            assert!(puts.join_all().await.iter().all(Result::is_ok));
            assert_eq!(meter.count("vestibule_control_commits_total") - before, CALLERS);
            store.close().await;
        });
    })
    .join()
    .unwrap();
}
