//! Devices that are parts of others.

use vestibule_store::{DeviceId, DeviceRow, InsertError, Secret, StoreError};

use crate::bed::{Bed, on_both};
use crate::control::{registered, row};

on_both!(a_part_knows_its_parent_also_after_a_restart, a_parent_that_is_removed_leaves_its_parts, a_parent_must_exist,);

async fn a_part_knows_its_parent_also_after_a_restart(bed: Bed) {
    let store = bed.open().await;
    let hub = registered(&store, "HUB").await;
    let mut born = DeviceRow { parent: Some(hub.id), ..row("BORN") };
    store.control.insert_device(&born, &Secret::new(*b"ABCDEF")).await.unwrap();
    let mut joined = registered(&store, "JOINED").await;
    store.control.set_parent(joined.id, Some(hub.id)).await.unwrap();
    store.control.set_parent(born.id, Some(joined.id)).await.unwrap();
    store.control.set_parent(hub.id, None).await.unwrap();
    (joined.parent, born.parent) = (Some(hub.id), Some(joined.id));
    store.close().await;

    let store = bed.open().await;
    let mut expected = vec![hub, born.clone(), joined];
    expected.sort_by_key(|row| row.id);
    assert_eq!(store.control.devices(None, 10).await.unwrap(), expected);
    store.control.set_parent(born.id, None).await.unwrap();
    let rows = store.control.devices(None, 10).await.unwrap();
    assert!(rows.iter().any(|row| row.id == born.id && row.parent.is_none()));
    store.close().await;
}

async fn a_parent_that_is_removed_leaves_its_parts(bed: Bed) {
    let store = bed.open().await;
    let hub = registered(&store, "HUB").await.id;
    let part = registered(&store, "PART").await;
    store.control.set_parent(part.id, Some(hub)).await.unwrap();
    assert!(store.control.remove_device(hub).await.unwrap());
    assert_eq!(store.control.devices(None, 10).await.unwrap(), [part]);
    store.close().await;
}

async fn a_parent_must_exist(bed: Bed) {
    let store = bed.open().await;
    let device = registered(&store, "S-1").await;
    let nobody = DeviceId::mint();
    for (id, parent) in [(device.id, nobody), (nobody, device.id)] {
        let result = store.control.set_parent(id, Some(parent)).await;
        assert!(matches!(result, Err(StoreError::UnknownDevice)), "{result:?}");
    }
    let orphan = DeviceRow { parent: Some(nobody), ..row("S-2") };
    let result = store.control.insert_device(&orphan, &Secret::new(*b"ABCDEF")).await;
    assert!(matches!(result, Err(InsertError::Store(StoreError::UnknownDevice))), "{result:?}");
    assert_eq!(store.control.devices(None, 10).await.unwrap(), [device]);
    store.close().await;
}
