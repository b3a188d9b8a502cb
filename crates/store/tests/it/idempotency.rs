//! Idempotency keys.

use vestibule_store::Begun;

use crate::bed::{Bed, HOUR, NOON, on_both};

on_both!(
    a_key_is_new_then_running_then_done,
    one_of_many_at_the_same_time_is_the_first,
    a_forgotten_key_is_new_again,
    a_key_expires,
    a_start_finds_what_was_not_finished,
);

const DAY: i64 = 24 * HOUR;

async fn a_key_is_new_then_running_then_done(bed: Bed) {
    let store = bed.open().await;
    let begin = async |scope: &str, digest: u8| {
        store.control.begin_key(scope, "k", [digest; 32], NOON, NOON + DAY).await.unwrap()
    };
    assert_eq!(begin("alice", 1).await, Begun::New);
    assert_eq!(begin("alice", 2).await, Begun::Running { digest: [1; 32] });
    assert_eq!(begin("bob", 3).await, Begun::New, "a scope is its own");
    store.control.finish_key("alice", "k", r#"{"outcome":"done"}"#).await.unwrap();
    let done = Begun::Done { digest: [1; 32], answer: r#"{"outcome":"done"}"#.into() };
    assert_eq!(begin("alice", 1).await, done);
    assert_eq!(begin("bob", 3).await, Begun::Running { digest: [3; 32] });
    // A key nobody began is not made by its end.
    store.control.finish_key("carol", "k", "{}").await.unwrap();
    assert_eq!(begin("carol", 4).await, Begun::New);
    store.close().await;
    let store = bed.open().await;
    assert_eq!(store.control.begin_key("alice", "k", [9; 32], NOON, NOON + DAY).await.unwrap(), done);
    store.close().await;
}

async fn one_of_many_at_the_same_time_is_the_first(bed: Bed) {
    let store = bed.open().await;
    let mut begins = tokio::task::JoinSet::new();
    for n in 0..20 {
        let control = store.control.clone();
        begins.spawn(async move { (n, control.begin_key("s", "k", [n; 32], NOON, NOON + DAY).await.unwrap()) });
    }
    let begun = begins.join_all().await;
    let first: Vec<u8> = begun.iter().filter(|(_, begun)| *begun == Begun::New).map(|(n, _)| *n).collect();
    let [first] = first[..] else { panic!("first are {first:?}") };
    for (n, begun) in begun.into_iter().filter(|(n, _)| *n != first) {
        assert_eq!(begun, Begun::Running { digest: [first; 32] }, "{n}");
    }
    store.close().await;
}

async fn a_forgotten_key_is_new_again(bed: Bed) {
    let store = bed.open().await;
    for _ in 0..2 {
        assert_eq!(store.control.begin_key("s", "k", [1; 32], NOON, NOON + DAY).await.unwrap(), Begun::New);
        store.control.forget_key("s", "k").await.unwrap();
    }
    store.control.forget_key("s", "k").await.unwrap();
    store.close().await;
}

async fn a_key_expires(bed: Bed) {
    let store = bed.open().await;
    let control = &store.control;
    for n in [0, 700, 1_400] {
        let expires = NOON + DAY + n;
        assert_eq!(control.begin_key("s", &n.to_string(), [1; 32], NOON, expires).await.unwrap(), Begun::New);
    }
    let mut begins = tokio::task::JoinSet::new();
    for n in 0..2_100 {
        let control = control.clone();
        begins.spawn(async move { control.begin_key("many", &n.to_string(), [1; 32], NOON, NOON + 10).await });
    }
    assert!(begins.join_all().await.into_iter().all(|begun| begun.unwrap() == Begun::New));
    assert_eq!(control.expire_keys(NOON + 9).await.unwrap(), 0);
    assert_eq!(control.expire_keys(NOON + 10).await.unwrap(), 2_100, "more than one statement removes");
    control.finish_key("s", "0", "{}").await.unwrap();

    // One that is past its time is as good as removed.
    let late = NOON + DAY;
    assert_eq!(
        control.begin_key("s", "0", [2; 32], late - 1, late + DAY).await.unwrap(),
        Begun::Done { digest: [1; 32], answer: "{}".into() }
    );
    assert_eq!(control.begin_key("s", "0", [2; 32], late, late + DAY).await.unwrap(), Begun::New);
    assert_eq!(
        control.begin_key("s", "0", [3; 32], late, late + DAY).await.unwrap(),
        Begun::Running { digest: [2; 32] }
    );
    assert_eq!(control.expire_keys(late + 700).await.unwrap(), 1);
    store.close().await;
}

async fn a_start_finds_what_was_not_finished(bed: Bed) {
    let store = bed.open().await;
    for key in ["done", "running", "forgotten", "also running"] {
        assert_eq!(store.control.begin_key("s", key, [1; 32], NOON, NOON + DAY).await.unwrap(), Begun::New);
    }
    store.control.finish_key("s", "done", "{}").await.unwrap();
    store.control.forget_key("s", "forgotten").await.unwrap();
    store.close().await;
    let store = bed.open().await;
    for key in ["running", "also running"] {
        let begun = store.control.begin_key("s", key, [1; 32], NOON, NOON + DAY).await.unwrap();
        assert_eq!(begun, Begun::Running { digest: [1; 32] });
    }
    store.close().await;
}
