//! Views.

use vestibule_store::ViewRow;

use crate::bed::{Bed, NOON, on_both};

on_both!(a_view_is_replaced_by_name_and_there_are_so_many_of_a_place);

fn view(org: &str, name: &str, query: &str) -> ViewRow {
    ViewRow { org: org.into(), name: name.into(), query: query.into(), actor: "ci".into(), changed: NOON }
}

async fn a_view_is_replaced_by_name_and_there_are_so_many_of_a_place(bed: Bed) {
    let store = bed.open().await;
    for (org, name, query, is_kept) in [
        ("/a", "b", "{}", true),
        ("/a", "a", "{}", true),
        ("/a", "c", "{}", false),
        ("/a", "a", "{\"order\":\"name\"}", true),
        ("/", "c", "{}", true),
    ] {
        assert_eq!(store.control.put_view(view(org, name, query), 2).await.unwrap(), is_kept, "{org} {name}");
    }
    store.close().await;
    let store = bed.open().await;
    let (a, b) = (view("/a", "a", "{\"order\":\"name\"}"), view("/a", "b", "{}"));
    assert_eq!(store.control.views("/a").await.unwrap(), [a.clone(), b]);
    assert_eq!(store.control.view("/a", "a").await.unwrap(), Some(a));
    assert_eq!(store.control.view("/", "a").await.unwrap(), None);
    assert!(store.control.remove_view("/a", "a").await.unwrap());
    assert!(!store.control.remove_view("/a", "a").await.unwrap());
    assert_eq!(store.control.views("/").await.unwrap().len(), 1);
    store.close().await;
}
