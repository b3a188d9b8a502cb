//! The twin's leaves.

use vestibule_store::{DeviceId, DevicePath, LeafPart, LeafRow, Position, Secret};

use crate::bed::{Bed, on_both};
use crate::control::row;

on_both!(
    leaves_come_back_with_the_position_they_contain,
    an_older_version_replaces_nothing,
    a_removed_device_takes_its_leaves_along,
    many_leaves_are_read_in_pages,
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
