//! Sessions of people.

use uuid::Uuid;
use vestibule_store::{PrincipalRow, Secret, SessionRow, Store};

use crate::bed::{Bed, HOUR, NOON, on_both};
use crate::principal::principal;

on_both!(
    a_session_comes_back_as_it_was_and_goes_with_its_principal,
    another_secret_ends_all_sessions_but_one,
    sessions_expire,
);

/// Whether a session of somebody with the secret that [`principal`] gives begins.
async fn begin(store: &Store, row: &SessionRow) -> bool {
    store.control.insert_session(row.clone(), &principal("any").secret).await.unwrap()
}

fn session(of: &PrincipalRow, n: u8) -> SessionRow {
    SessionRow { digest: [n; 32], principal: of.id, created: NOON, expires: NOON + i64::from(n) * HOUR }
}

async fn a_session_comes_back_as_it_was_and_goes_with_its_principal(bed: Bed) {
    let store = bed.open().await;
    let (one, other) = (principal("a"), principal("b"));
    for row in [&one, &other] {
        store.control.insert_principal(row.clone()).await.unwrap();
    }
    let [first, second, third] = [session(&one, 1), session(&other, 2), session(&one, 255)];
    for row in [&first, &second, &third] {
        assert!(begin(&store, row).await);
    }
    let nobody = SessionRow { principal: Uuid::now_v7(), ..session(&one, 9) };
    assert!(!begin(&store, &nobody).await);
    store.close().await;
    let store = bed.open().await;
    assert_eq!(store.control.sessions(None, 2).await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(store.control.sessions(Some(second.digest), 2).await.unwrap(), [third]);
    store.control.remove_principal(one.id).await.unwrap();
    assert_eq!(store.control.sessions(None, 9).await.unwrap(), std::slice::from_ref(&second));
    assert!(store.control.remove_session(second.digest).await.unwrap());
    assert!(!store.control.remove_session(second.digest).await.unwrap());
    store.close().await;
}

async fn another_secret_ends_all_sessions_but_one(bed: Bed) {
    let store = bed.open().await;
    let (one, other) = (principal("a"), principal("b"));
    for row in [&one, &other] {
        store.control.insert_principal(row.clone()).await.unwrap();
    }
    let [first, second, third] = [session(&one, 1), session(&one, 2), session(&other, 3)];
    for row in [&first, &second, &third] {
        begin(&store, row).await;
    }
    assert!(store.control.set_secret(one.id, &Secret::new(*b"new"), Some(second.digest)).await.unwrap());
    assert_eq!(store.control.sessions(None, 9).await.unwrap(), [second, third.clone()]);
    assert!(store.control.set_secret(one.id, &Secret::new(*b"newer"), None).await.unwrap());
    assert_eq!(store.control.sessions(None, 9).await.unwrap(), [third]);
    assert!(!begin(&store, &session(&one, 4)).await, "who has shown another secret has come too late");
    assert!(store.control.insert_session(session(&one, 5), &Secret::new(*b"newer")).await.unwrap());
    assert!(store.control.remove_session([5; 32]).await.unwrap());
    assert!(!store.control.set_secret(Uuid::now_v7(), &Secret::new(*b"x"), None).await.unwrap());
    let changed = PrincipalRow { secret: Secret::new(*b"newer"), ..one };
    assert_eq!(store.control.principals(None, 9).await.unwrap(), [changed, other]);
    store.close().await;
}

async fn sessions_expire(bed: Bed) {
    let store = bed.open().await;
    let one = principal("a");
    store.control.insert_principal(one.clone()).await.unwrap();
    for n in 1..=5 {
        begin(&store, &session(&one, n)).await;
    }
    assert_eq!(store.control.expire_sessions(NOON + 3 * HOUR).await.unwrap(), 3);
    assert_eq!(store.control.sessions(None, 9).await.unwrap(), [session(&one, 4), session(&one, 5)]);
    store.close().await;
}
