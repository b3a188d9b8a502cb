//! Pictures and files, and the keys of their tickets.

use uuid::Uuid;
use vestibule_store::{DeviceId, MEDIA_LEAST, MediaArrival, MediaKey, MediaKind, MediaRow, MediaState, Secret};

use crate::bed::{Bed, HOUR, NOON, on_both};

on_both!(
    the_newest_two_keys_are_kept,
    an_object_is_begun_by_one_of_many,
    what_is_too_late_does_not_begin,
    an_object_goes_forward_only,
    what_is_due_and_old_is_found,
    what_was_given_more_time_stays,
    a_device_has_so_many_open_offers_and_one_of_each_id,
    what_is_here_is_told_once,
    what_makes_room_is_remembered_as_gone,
);

fn offered(device: DeviceId) -> MediaRow {
    MediaRow {
        id: Uuid::now_v7(),
        device,
        kind: MediaKind::Picture,
        name: "door.jpg".into(),
        media_type: String::new(),
        state: MediaState::Offered,
        bytes: 1_000,
        length: None,
        digest: None,
        size: None,
        created: NOON,
        deadline: NOON + HOUR,
    }
}

fn arrival(digest: [u8; 32]) -> MediaArrival {
    MediaArrival { digest, bytes: 700, media_type: "image/jpeg", size: Some((640, 480)), now: NOON + 5 }
}

async fn the_newest_two_keys_are_kept(bed: Bed) {
    let store = bed.open().await;
    let key = |number: i64, byte: u8| MediaKey { number, made: NOON + number, key: Secret::new([byte; 32]) };
    for number in 1..=3 {
        store.control.add_media_key(&key(number, number as u8)).await.unwrap();
    }
    // Another process that makes the same number later does not replace it.
    store.control.add_media_key(&key(3, 99)).await.unwrap();
    store.close().await;
    let store = bed.open().await;
    assert_eq!(store.control.media_keys().await.unwrap(), [key(3, 3), key(2, 2)]);
    store.close().await;
}

async fn an_object_is_begun_by_one_of_many(bed: Bed) {
    let store = bed.open().await;
    let row = offered(DeviceId::mint());
    assert!(store.control.offer_media(row.clone(), 9).await.unwrap());
    assert_eq!(store.control.media(row.id).await.unwrap().as_ref(), Some(&row));
    let mut begins = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (control, id) = (store.control.clone(), row.id);
        begins.spawn(async move { control.begin_media(id, NOON, Some(700), None, NOON + 9).await.unwrap() });
    }
    assert_eq!(begins.join_all().await.into_iter().filter(|begun| *begun).count(), 1);
    let mut finishes = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (control, id) = (store.control.clone(), row.id);
        finishes.spawn(async move { control.finish_media(id, arrival([1; 32])).await.unwrap() });
    }
    assert_eq!(finishes.join_all().await.into_iter().filter(|done| *done).count(), 1);
    store.close().await;
}

async fn what_is_too_late_does_not_begin(bed: Bed) {
    let store = bed.open().await;
    let row = offered(DeviceId::mint());
    assert!(store.control.offer_media(row.clone(), 9).await.unwrap());
    let begin = async |id, now| store.control.begin_media(id, now, None, None, NOON).await.unwrap();
    assert!(!begin(row.id, row.deadline).await);
    assert!(!begin(Uuid::now_v7(), NOON).await, "nobody offered it");
    assert!(begin(row.id, row.deadline - 1).await);
    store.close().await;
}

async fn an_object_goes_forward_only(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    let row = offered(device);
    assert!(store.control.offer_media(row.clone(), 9).await.unwrap());
    assert!(!store.control.finish_media(row.id, arrival([7; 32])).await.unwrap(), "nobody has begun");
    assert!(!store.control.learn_media(row.id, None, None).await.unwrap());
    assert!(store.control.media_usage().await.unwrap().is_empty(), "an offer takes nothing");
    assert!(store.control.begin_media(row.id, NOON, Some(900), None, NOON + 9).await.unwrap());
    assert_eq!(store.control.media_usage().await.unwrap(), [(device, MEDIA_LEAST)], "however short");
    let long = MediaRow { bytes: 10_000, ..offered(device) };
    assert!(store.control.offer_media(long.clone(), 9).await.unwrap());
    assert!(store.control.begin_media(long.id, NOON, None, None, NOON + 9).await.unwrap());
    assert_eq!(store.control.media_usage().await.unwrap(), [(device, MEDIA_LEAST + 10_000)]);
    assert!(store.control.remove_media(long.id, MediaState::Receiving).await.unwrap());
    assert_eq!(store.control.receiving_media().await.unwrap(), [row.id]);
    assert!(store.control.learn_media(row.id, Some(800), Some([7; 32])).await.unwrap());
    assert!(!store.control.has_media_digest([7; 32]).await.unwrap(), "it is not here");
    assert!(store.control.finish_media(row.id, arrival([7; 32])).await.unwrap());
    let here = store.control.media(row.id).await.unwrap().unwrap();
    assert_eq!((here.state, here.bytes, here.length), (MediaState::Here, 700, Some(700)));
    assert_eq!((here.size, here.media_type.as_str(), here.created), (Some((640, 480)), "image/jpeg", NOON + 5));
    assert_eq!(here.digest, Some([7; 32]));
    assert!(store.control.has_media_digest([7; 32]).await.unwrap());
    assert_eq!(store.control.media_digests(7).await.unwrap(), [[7; 32]]);
    assert!(store.control.media_digests(8).await.unwrap().is_empty());
    for state in [MediaState::Offered, MediaState::Receiving] {
        assert!(!store.control.remove_media(row.id, state).await.unwrap(), "it is further");
    }
    assert!(store.control.remove_media(row.id, MediaState::Here).await.unwrap());
    assert_eq!(store.control.media(row.id).await.unwrap(), None);
    store.close().await;
}

async fn what_is_due_and_old_is_found(bed: Bed) {
    let store = bed.open().await;
    let rows = [offered(DeviceId::mint()), offered(DeviceId::mint())];
    for (n, row) in rows.iter().enumerate() {
        let row = MediaRow { deadline: NOON + HOUR + n as i64, ..row.clone() };
        assert!(store.control.offer_media(row, 9).await.unwrap());
    }
    let due = async |state, now| {
        let due = store.control.due_media(state, now).await.unwrap();
        due.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert!(due(MediaState::Offered, NOON).await.is_empty());
    assert_eq!(due(MediaState::Offered, NOON + HOUR).await, [rows[0].id]);
    assert_eq!(due(MediaState::Offered, NOON + 2 * HOUR).await, [rows[0].id, rows[1].id]);
    assert!(store.control.begin_media(rows[0].id, NOON, None, None, NOON + 9).await.unwrap());
    assert_eq!(due(MediaState::Receiving, NOON + 9).await, [rows[0].id]);
    assert!(store.control.finish_media(rows[0].id, arrival([1; 32])).await.unwrap());
    assert!(store.control.old_media(MediaState::Here, NOON + 4).await.unwrap().is_empty());
    assert_eq!(store.control.old_media(MediaState::Here, NOON + 5).await.unwrap()[0].id, rows[0].id);
    store.close().await;
}

async fn what_was_given_more_time_stays(bed: Bed) {
    let store = bed.open().await;
    let (device, due) = (DeviceId::mint(), NOON + HOUR);
    let [renewed, begun, late] = [offered(device), offered(device), offered(device)];
    for row in [&renewed, &begun, &late] {
        assert!(store.control.offer_media(row.clone(), 9).await.unwrap());
    }
    assert_eq!(store.control.due_media(MediaState::Offered, due).await.unwrap().len(), 3);
    // Between the look and the removal.
    assert!(store.control.renew_media(renewed.id, due + 1).await.unwrap());
    assert!(store.control.begin_media(begun.id, due - 1, None, None, due + 1).await.unwrap());
    let remove = async |row: &MediaRow, state, now| store.control.remove_due_media(row.id, state, now).await.unwrap();
    assert!(remove(&late, MediaState::Offered, due).await);
    assert!(!remove(&renewed, MediaState::Offered, due).await);
    for state in [MediaState::Offered, MediaState::Receiving] {
        assert!(!remove(&begun, state, due).await);
    }
    assert!(remove(&renewed, MediaState::Offered, due + 1).await);
    assert!(remove(&begun, MediaState::Receiving, due + 1).await);
    store.close().await;
}

async fn a_device_has_so_many_open_offers_and_one_of_each_id(bed: Bed) {
    const MOST: i64 = 5;
    let store = bed.open().await;
    let (device, other) = (DeviceId::mint(), DeviceId::mint());
    let mut offers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (control, row) = (store.control.clone(), offered(device));
        offers.spawn(async move { control.offer_media(row, MOST).await.unwrap() });
    }
    assert_eq!(offers.join_all().await.into_iter().filter(|added| *added).count(), MOST as usize);
    let row = offered(other);
    assert!(store.control.offer_media(row.clone(), MOST).await.unwrap(), "another device is not concerned");
    let again = MediaRow { device: DeviceId::mint(), ..row.clone() };
    assert!(!store.control.offer_media(again, MOST).await.unwrap(), "the id is taken");
    assert_eq!(store.control.media(row.id).await.unwrap().as_ref(), Some(&row));
    let here = store.control.media_of(&[Uuid::now_v7(), row.id]).await.unwrap();
    assert_eq!(here, std::slice::from_ref(&row));
    assert!(store.control.media_of(&[]).await.unwrap().is_empty());
    let many: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).chain([row.id]).collect();
    assert_eq!(store.control.media_of(&many).await.unwrap().len(), 1);
    // Once more, and later; never earlier, and not while it is under way.
    let deadline = async || store.control.media(row.id).await.unwrap().unwrap().deadline;
    assert!(store.control.renew_media(row.id, NOON + 2 * HOUR).await.unwrap());
    assert!(!store.control.renew_media(row.id, NOON + HOUR).await.unwrap());
    assert_eq!(deadline().await, NOON + 2 * HOUR);
    assert!(store.control.begin_media(row.id, NOON, None, None, NOON + 9).await.unwrap());
    assert!(!store.control.renew_media(row.id, NOON + 3 * HOUR).await.unwrap());
    assert!(store.control.finish_media(row.id, arrival([1; 32])).await.unwrap());
    assert!(store.control.renew_media(row.id, NOON + 3 * HOUR).await.unwrap());
    assert_eq!(deadline().await, NOON + 3 * HOUR);
    store.close().await;
}

async fn what_is_here_is_told_once(bed: Bed) {
    let store = bed.open().await;
    let row = offered(DeviceId::mint());
    assert!(store.control.offer_media(row.clone(), 9).await.unwrap());
    assert!(!store.control.told_media(row.id).await.unwrap(), "it is not here");
    assert!(store.control.begin_media(row.id, NOON, None, None, NOON + 9).await.unwrap());
    assert!(store.control.untold_media().await.unwrap().is_empty());
    assert!(store.control.finish_media(row.id, arrival([1; 32])).await.unwrap());
    let untold = store.control.untold_media().await.unwrap();
    assert_eq!(untold.iter().map(|row| row.id).collect::<Vec<_>>(), [row.id]);
    assert!(store.control.told_media(row.id).await.unwrap());
    assert!(!store.control.told_media(row.id).await.unwrap());
    assert!(store.control.untold_media().await.unwrap().is_empty());
    store.close().await;
}

async fn what_makes_room_is_remembered_as_gone(bed: Bed) {
    let store = bed.open().await;
    let row = offered(DeviceId::mint());
    assert!(store.control.offer_media(row.clone(), 9).await.unwrap());
    assert!(!store.control.evict_media(row.id).await.unwrap(), "it is not here");
    assert!(store.control.begin_media(row.id, NOON, None, None, NOON + 9).await.unwrap());
    assert!(store.control.finish_media(row.id, arrival([1; 32])).await.unwrap());
    assert!(store.control.evict_media(row.id).await.unwrap());
    assert!(store.control.media_usage().await.unwrap().is_empty());
    assert!(!store.control.has_media_digest([1; 32]).await.unwrap());
    assert!(store.control.untold_media().await.unwrap().is_empty());
    assert!(!store.control.renew_media(row.id, NOON + HOUR * 9).await.unwrap(), "it does not come again");
    assert_eq!(store.control.media(row.id).await.unwrap().unwrap().state, MediaState::Gone);
    assert_eq!(store.control.old_media(MediaState::Gone, NOON + 5).await.unwrap().len(), 1);
    assert!(store.control.remove_media(row.id, MediaState::Gone).await.unwrap());
    store.close().await;
}
