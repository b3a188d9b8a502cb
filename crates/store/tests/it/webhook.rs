//! Webhooks and their dead letters.

use uuid::Uuid;
use vestibule_store::{DeadLetter, DeviceId, Position, Secret, WebhookPlace, WebhookRow};

use crate::bed::{Bed, NOON, on_both};

on_both!(
    a_webhook_comes_back_with_its_secret,
    what_failed_before_a_change_is_not_held_against_a_webhook,
    there_are_so_many_webhooks_at_most,
    dead_letters_have_a_bound_and_can_be_told_once_more,
);

pub fn row(number: i64) -> WebhookRow {
    WebhookRow {
        id: Uuid::now_v7(),
        name: Some("Grüße".into()),
        url: format!("https://hall.example/{number}"),
        kinds: "event pass".into(),
        device: Some(DeviceId::mint()),
        area: Some("Alarm".into()),
        event: Some("Smoke".into()),
        enabled: true,
        disabled_because: None,
        created: NOON + number,
        version: 1,
        place: WebhookPlace { position: Position::new(7), stuck: None },
        missed: 0,
        dropped: 0,
        dead_letters: 0,
    }
}

fn letter(webhook: Uuid, position: i64) -> DeadLetter {
    DeadLetter {
        webhook,
        position: Position::new(position),
        device: DeviceId::mint(),
        serial: "SN-1".into(),
        kind: "event".into(),
        died: NOON,
        attempts: 3,
        status: Some(422),
        reason: "the receiver answered 422".into(),
        replay: false,
    }
}

async fn a_webhook_comes_back_with_its_secret(bed: Bed) {
    let store = bed.open().await;
    let (mut first, second) = (row(1), row(2));
    let (secret, other) = (Secret::new(*b"a secret"), Secret::new(*b"another"));
    assert!(store.control.insert_webhook(second.clone(), &secret, 9).await.unwrap());
    assert!(store.control.insert_webhook(first.clone(), &other, 9).await.unwrap());
    let place = WebhookPlace { position: Position::new(9), stuck: Some((Position::new(10), NOON)) };
    assert!(store.control.place_webhook(first.id, 1, place, 3).await.unwrap());
    assert!(store.control.place_webhook(first.id, 1, place, 4).await.unwrap());
    store.close().await;
    let store = bed.open().await;
    (first.place, first.missed) = (place, 7);
    assert_eq!(store.control.webhooks().await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(store.control.webhook_secret(second.id).await.unwrap(), Some(secret));

    let wanted = WebhookRow { name: None, url: "https://other.example/".into(), device: None, ..first.clone() };
    assert!(store.control.change_webhook(wanted.clone(), None).await.unwrap());
    assert_eq!(store.control.webhook_secret(first.id).await.unwrap(), Some(other));
    let third = Secret::new(*b"the third");
    assert!(store.control.change_webhook(wanted.clone(), Some(&third)).await.unwrap());
    assert_eq!(store.control.webhook_secret(first.id).await.unwrap(), Some(third));
    assert!(!store.control.give_up_webhook(first.id, 2, "gone").await.unwrap(), "it was changed since");
    assert!(store.control.give_up_webhook(first.id, 3, "gone").await.unwrap());
    let mut changed = WebhookRow { enabled: false, disabled_because: Some("gone".into()), version: 4, ..wanted };
    changed.place.stuck = None;
    assert_eq!(store.control.webhooks().await.unwrap()[0], changed);

    assert!(store.control.remove_webhook(first.id).await.unwrap());
    assert!(!store.control.remove_webhook(first.id).await.unwrap());
    assert!(!store.control.place_webhook(first.id, 1, place, 0).await.unwrap());
    assert!(!store.control.enable_webhook(first.id, true).await.unwrap());
    assert_eq!(store.control.webhook_secret(first.id).await.unwrap(), None);
    store.close().await;
}

async fn what_failed_before_a_change_is_not_held_against_a_webhook(bed: Bed) {
    let store = bed.open().await;
    let hook = row(1);
    assert!(store.control.insert_webhook(hook.clone(), &Secret::new(*b"a secret"), 9).await.unwrap());
    let place = WebhookPlace { position: Position::new(9), stuck: Some((Position::new(10), NOON)) };
    let stored = async || store.control.webhooks().await.unwrap()[0].place;
    for (version, change) in (1..).zip(["change", "disable", "enable"]) {
        store.control.place_webhook(hook.id, version, place, 0).await.unwrap();
        assert_eq!(stored().await, place, "{change}");
        assert!(match change {
            "change" => store.control.change_webhook(hook.clone(), None).await.unwrap(),
            change => store.control.enable_webhook(hook.id, change == "enable").await.unwrap(),
        });
        assert_eq!(stored().await, WebhookPlace { stuck: None, ..place }, "{change}");
        // The last word of who told it until then.
        let further = WebhookPlace { position: Position::new(11), stuck: Some((Position::new(12), NOON)) };
        store.control.place_webhook(hook.id, version, further, 0).await.unwrap();
        assert_eq!(stored().await, WebhookPlace { stuck: None, ..further }, "{change}");
    }
    store.close().await;
}

async fn there_are_so_many_webhooks_at_most(bed: Bed) {
    let store = bed.open().await;
    let secret = Secret::new(*b"a secret");
    for number in 0..3 {
        let taken = store.control.insert_webhook(row(number), &secret, 2).await.unwrap();
        assert_eq!(taken, number < 2);
    }
    store.close().await;
}

async fn dead_letters_have_a_bound_and_can_be_told_once_more(bed: Bed) {
    let store = bed.open().await;
    let (one, other) = (row(1), row(2));
    for webhook in [&one, &other] {
        store.control.insert_webhook(webhook.clone(), &Secret::new(*b"a secret"), 9).await.unwrap();
    }
    for position in [5, 3, 8, 6] {
        store.control.bury_letter(letter(one.id, position), 3).await.unwrap();
    }
    store.control.bury_letter(letter(other.id, 1), 3).await.unwrap();
    let positions =
        |letters: Vec<DeadLetter>| -> Vec<i64> { letters.into_iter().map(|letter| letter.position.get()).collect() };
    let all = store.control.dead_letters(one.id, None, false, 10).await.unwrap();
    assert_eq!(positions(all), [8, 6, 5]);
    let webhooks = store.control.webhooks().await.unwrap();
    assert_eq!((webhooks[0].dead_letters, webhooks[0].dropped), (3, 1));
    assert_eq!((webhooks[1].dead_letters, webhooks[1].dropped), (1, 0));
    let page = store.control.dead_letters(one.id, Some(Position::new(8)), false, 1).await.unwrap();
    assert_eq!(positions(page), [6]);

    let some = vec![Position::new(6), Position::new(8), Position::new(99)];
    assert_eq!(store.control.replay_letters(one.id, Some(some)).await.unwrap(), 2);
    assert_eq!(positions(store.control.dead_letters(one.id, None, true, 10).await.unwrap()), [8, 6]);
    store.control.remove_letter(one.id, Position::new(8)).await.unwrap();
    // Buried again it does not wait any more.
    store.control.bury_letter(DeadLetter { attempts: 9, status: None, ..letter(one.id, 6) }, 3).await.unwrap();
    assert_eq!(store.control.dead_letters(one.id, None, true, 10).await.unwrap(), []);
    let all = store.control.dead_letters(one.id, None, false, 10).await.unwrap();
    assert_eq!((all[0].attempts, all[0].status, all.len()), (9, None, 2));
    assert_eq!(store.control.replay_letters(one.id, None).await.unwrap(), 2);

    store.control.remove_webhook(one.id).await.unwrap();
    assert_eq!(store.control.dead_letters(one.id, None, false, 10).await.unwrap(), []);
    // Of a webhook that is gone nothing is kept.
    store.control.bury_letter(letter(one.id, 5), 3).await.unwrap();
    assert_eq!(store.control.dead_letters(one.id, None, false, 10).await.unwrap(), []);
    store.close().await;
}
