//! Operations that wait for their device.

use uuid::Uuid;
use vestibule_store::{DeviceId, DevicePath, QueuedOperation, StoreError};

use crate::bed::{Bed, NOON, on_both};
use crate::control::registered;

on_both!(
    queued_operations_come_back_oldest_first,
    a_device_has_so_many_at_most,
    an_operation_that_was_taken_is_known_as_such_until_it_is_removed,
    a_removed_device_takes_its_queue_along,
);

fn operation(device: DeviceId, created: i64) -> QueuedOperation {
    QueuedOperation {
        id: Uuid::now_v7(),
        device,
        path: DevicePath { resource: "Lock".into(), index: "0".into(), area: "Door".into(), name: "Open".into() },
        input: Some(r#"{"for":"Ä"}"#.into()),
        created,
        expires: created + 60_000,
        deadline_ms: 5_000,
        by: "alice".into(),
        taken: false,
    }
}

async fn queued_operations_come_back_oldest_first(bed: Bed) {
    let store = bed.open().await;
    let device = registered(&store, "S-1").await.id;
    let other = registered(&store, "S-2").await.id;
    let mut bare = operation(other, NOON + 2);
    bare.input = None;
    let all = [operation(device, NOON + 3), operation(device, NOON + 1), bare];
    for op in &all {
        assert!(store.control.queue_operation(op.clone(), 10).await.unwrap());
    }
    store.close().await;
    let store = bed.open().await;
    let [newest, oldest, middle] = all;
    assert_eq!(store.control.queued_operations().await.unwrap(), [oldest, middle, newest]);
    store.close().await;
}

async fn a_device_has_so_many_at_most(bed: Bed) {
    let store = bed.open().await;
    let device = registered(&store, "S-1").await.id;
    let other = registered(&store, "S-2").await.id;
    let mut puts = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (control, op) = (store.control.clone(), operation(device, NOON + n));
        puts.spawn(async move { control.queue_operation(op, 3).await.unwrap() });
    }
    assert_eq!(puts.join_all().await.into_iter().filter(|queued| *queued).count(), 3);
    assert!(store.control.queue_operation(operation(other, NOON), 3).await.unwrap());
    let queued = store.control.queued_operations().await.unwrap();
    assert_eq!(queued.len(), 4);
    // One that went makes room for one.
    let gone = queued.iter().find(|op| op.device == device).unwrap().id;
    assert!(store.control.remove_queued(gone).await.unwrap());
    assert!(store.control.queue_operation(operation(device, NOON), 3).await.unwrap());
    assert!(!store.control.queue_operation(operation(device, NOON), 3).await.unwrap());
    let nobody = store.control.queue_operation(operation(DeviceId::mint(), NOON), 3).await;
    assert!(matches!(nobody, Err(StoreError::UnknownDevice)), "{nobody:?}");
    store.close().await;
}

async fn an_operation_that_was_taken_is_known_as_such_until_it_is_removed(bed: Bed) {
    let store = bed.open().await;
    let device = registered(&store, "S-1").await.id;
    let op = operation(device, NOON);
    assert!(store.control.queue_operation(op.clone(), 1).await.unwrap());
    for taken in [true, false, true] {
        assert!(store.control.mark_queued(op.id, taken).await.unwrap());
    }
    store.close().await;
    let store = bed.open().await;
    assert_eq!(store.control.queued_operations().await.unwrap(), [QueuedOperation { taken: true, ..op.clone() }]);
    assert!(store.control.remove_queued(op.id).await.unwrap());
    assert!(!store.control.remove_queued(op.id).await.unwrap());
    assert!(!store.control.mark_queued(op.id, true).await.unwrap());
    assert_eq!(store.control.queued_operations().await.unwrap(), []);
    store.close().await;
}

async fn a_removed_device_takes_its_queue_along(bed: Bed) {
    let store = bed.open().await;
    let gone = registered(&store, "S-1").await.id;
    let kept = registered(&store, "S-2").await.id;
    let stays = operation(kept, NOON);
    assert!(store.control.queue_operation(operation(gone, NOON), 9).await.unwrap());
    assert!(store.control.queue_operation(stays.clone(), 9).await.unwrap());
    assert!(store.control.remove_device(gone).await.unwrap());
    assert_eq!(store.control.queued_operations().await.unwrap(), [stays]);
    store.close().await;
}
