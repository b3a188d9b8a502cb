//! Tokens and people.

use uuid::Uuid;
use vestibule_store::{PrincipalRow, Secret};

use crate::bed::{Bed, NOON, on_both};

on_both!(
    a_principal_comes_back_as_it_was,
    a_name_is_one_principal,
    principals_are_listed_by_id_in_pages,
    the_last_use_is_kept_and_what_is_gone_stays_gone,
);

pub fn principal(name: &str) -> PrincipalRow {
    PrincipalRow {
        id: Uuid::now_v7(),
        kind: "token".into(),
        name: name.into(),
        role: "viewer".into(),
        subtree: "/".into(),
        secret: Secret::new([7; 32]),
        created: NOON,
        created_by: "administrator".into(),
        expires: None,
        last_used: None,
    }
}

async fn a_principal_comes_back_as_it_was(bed: Bed) {
    let store = bed.open().await;
    let bare = principal("a");
    let full = PrincipalRow {
        kind: "user".into(),
        role: "admin".into(),
        subtree: "/Werk 1/Halle ß".into(),
        secret: Secret::new(*b"\0$argon2id"),
        created_by: "a 'quoted\" name".into(),
        expires: Some(i64::MAX),
        last_used: Some(NOON + 1),
        ..principal("Jörg 🚪")
    };
    for row in [&bare, &full] {
        assert!(store.control.insert_principal(row.clone()).await.unwrap());
    }
    store.close().await;
    let store = bed.open().await;
    assert_eq!(store.control.principals(None, 10).await.unwrap(), [bare, full]);
    store.close().await;
}

async fn a_name_is_one_principal(bed: Bed) {
    let store = bed.open().await;
    let first = principal("a");
    assert!(store.control.insert_principal(first.clone()).await.unwrap());
    let again = PrincipalRow { kind: "user".into(), ..principal("a") };
    assert!(!store.control.insert_principal(again.clone()).await.unwrap(), "whatever kind it is");
    assert!(store.control.remove_principal(first.id).await.unwrap());
    assert!(!store.control.remove_principal(first.id).await.unwrap());
    assert!(store.control.insert_principal(again).await.unwrap(), "it is free again");
    store.close().await;
}

async fn principals_are_listed_by_id_in_pages(bed: Bed) {
    let store = bed.open().await;
    let mut all = Vec::new();
    for n in 0..5 {
        all.push(principal(&format!("p{n}")));
        store.control.insert_principal(all[n].clone()).await.unwrap();
    }
    let first = store.control.principals(None, 3).await.unwrap();
    let rest = store.control.principals(Some(first[2].id), 3).await.unwrap();
    assert_eq!(([first, rest].concat(), store.control.principals(None, -1).await.unwrap()), (all, Vec::new()));
    store.close().await;
}

async fn the_last_use_is_kept_and_what_is_gone_stays_gone(bed: Bed) {
    let store = bed.open().await;
    let (one, other) = (principal("a"), principal("b"));
    store.control.insert_principal(one.clone()).await.unwrap();
    store.control.insert_principal(other.clone()).await.unwrap();
    store.control.note_used(vec![(one.id, NOON + 5), (Uuid::now_v7(), NOON)]).await.unwrap();
    store.control.note_used(Vec::new()).await.unwrap();
    let used = PrincipalRow { last_used: Some(NOON + 5), ..one };
    assert_eq!(store.control.principals(None, 10).await.unwrap(), [used, other]);
    store.close().await;
}
