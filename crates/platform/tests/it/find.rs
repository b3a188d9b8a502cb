//! Devices are found by what is true of them now.

use std::collections::BTreeMap;
use std::sync::Arc;

use vestibule_platform::{
    BadCursor, Caller, Describe, Device, DeviceFilter, DeviceOrder, DeviceQuery, Family, LabelFilter, NewDevice,
    NewToken, OrgPath, PresenceState, Role,
};

use crate::bed::{Bed, connect, new_device};

fn org(path: &str) -> OrgPath {
    OrgPath::parse(path).expect("a place")
}

async fn add(bed: &Bed, serial: &str, product: &str, place: &str) -> Arc<Device> {
    let labels = BTreeMap::from([("kind".to_owned(), product.to_owned())]);
    let new = NewDevice { product: Some(product.into()), org: Some(org(place)), labels, ..new_device(serial) };
    bed.platform.add_device(new, &bed.caller()).await.expect("registered")
}

async fn serials(bed: &Bed, filter: DeviceFilter, order: DeviceOrder, by: &Caller) -> Vec<String> {
    let query = DeviceQuery { filter, order, descending: false };
    let page = bed.platform.find_devices(&query, None, 100, by).await.expect("a page");
    page.items.iter().map(|device| device.serial.to_string()).collect()
}

async fn found(bed: &Bed, filter: DeviceFilter) -> Vec<String> {
    serials(bed, filter, DeviceOrder::Added, &bed.caller()).await
}

fn label(name: &str, value: Option<&str>) -> LabelFilter {
    LabelFilter { name: name.into(), value: value.map(str::to_owned) }
}

#[tokio::test]
async fn each_filter_and_all_of_them_follow_what_becomes_of_a_device() {
    let bed = Bed::new().await;
    let (cam, door) = (add(&bed, "CAM", "cam", "/a").await, add(&bed, "DOOR", "door", "/a/b").await);
    let child = NewDevice { parent: Some(Arc::clone(&door)), ..new_device("CHILD") };
    let child = bed.platform.add_device(child, &bed.caller()).await.expect("registered");
    let none = DeviceFilter::default;
    let presence = |state| DeviceFilter { presence: Some(state), ..none() };
    let product = |name: &str| DeviceFilter { product: Some(name.into()), ..none() };
    let parent = || DeviceFilter { parent: Some(door.id), ..none() };
    let at = |place: &str| DeviceFilter { org: Some(org(place)), ..none() };
    assert_eq!(found(&bed, none()).await, ["CAM", "DOOR", "CHILD"]);
    assert_eq!(found(&bed, presence(PresenceState::NeverSeen)).await.len(), 3);
    assert_eq!(found(&bed, product("cam")).await, ["CAM"]);
    assert_eq!(found(&bed, parent()).await, ["CHILD"]);
    assert_eq!(found(&bed, at("/a/b")).await, ["DOOR", "CHILD"]);
    assert_eq!(found(&bed, DeviceFilter { family: Some(Family::Osap), ..none() }).await.len(), 3);
    let labels = |labels| DeviceFilter { labels, ..none() };
    assert_eq!(found(&bed, labels(vec![label("kind", None)])).await, ["CAM", "DOOR"]);
    assert_eq!(found(&bed, labels(vec![label("kind", Some("door")), label("kind", None)])).await, ["DOOR"]);
    assert!(found(&bed, labels(vec![label("kind", Some("door")), label("kind", Some("cam"))])).await.is_empty());
    assert_eq!(found(&bed, DeviceFilter { text: Some("oO".into()), ..none() }).await, ["DOOR"]);

    let (connection, _line) = connect(&bed.platform, &cam, 1);
    let suite = || DeviceFilter { suite: Some("legacy".into()), ..none() };
    assert_eq!(found(&bed, presence(PresenceState::Online)).await, ["CAM"]);
    assert_eq!(found(&bed, suite()).await, ["CAM"]);
    bed.platform.disconnected(&cam, connection, "disconnect");
    assert!(found(&bed, presence(PresenceState::Online)).await.is_empty());
    let both = DeviceFilter { product: Some("cam".into()), suite: Some("legacy".into()), ..at("/a") };
    assert_eq!(found(&bed, DeviceFilter { presence: Some(PresenceState::Offline), ..both }).await, ["CAM"]);

    bed.platform.set_disabled(&door, true, &bed.caller()).await.expect("disabled");
    assert_eq!(found(&bed, DeviceFilter { disabled: Some(true), ..none() }).await, ["DOOR"]);
    assert_eq!(found(&bed, DeviceFilter { disabled: Some(false), ..none() }).await, ["CAM", "CHILD"]);
    let change =
        Describe { org: Some(org("/c")), clear_labels: true, name: Some(Some("Säule".into())), ..Describe::default() };
    bed.platform.describe_device(&cam, change, &bed.caller()).await.expect("described");
    assert_eq!(found(&bed, at("/a")).await, ["DOOR", "CHILD"]);
    assert_eq!(found(&bed, at("/c")).await, ["CAM"]);
    assert_eq!(found(&bed, labels(vec![label("kind", None)])).await, ["DOOR"]);
    assert_eq!(found(&bed, DeviceFilter { text: Some("SÄULE".into()), ..none() }).await, ["CAM"]);
    bed.platform.remove_device(&door, &bed.caller()).await.expect("removed");
    assert!(child.parent().is_none() && found(&bed, parent()).await.is_empty());
    assert_eq!(found(&bed, none()).await, ["CAM", "CHILD"]);
    drop((cam, door, child));
    // And again from the disk.
    let bed = bed.restart().await;
    assert_eq!(found(&bed, at("/c")).await, ["CAM"]);
    assert_eq!(found(&bed, suite()).await, ["CAM"]);
    assert_eq!(found(&bed, presence(PresenceState::Offline)).await, ["CAM"]);
}

#[tokio::test]
async fn whoever_is_bound_to_a_part_finds_nothing_elsewhere() {
    let bed = Bed::new().await;
    for (serial, place) in [("A", "/a"), ("AB", "/a/b"), ("A1", "/a-1"), ("R", "/")] {
        add(&bed, serial, "cam", place).await;
    }
    let new = NewToken { name: "bound".into(), role: Role::Viewer, subtree: Some(org("/a")), expires_in: None };
    let token = bed.platform.add_token(new, &bed.caller()).await.expect("made").1;
    let by = bed.platform.authorize(&token).expect("known");
    for order in DeviceOrder::ALL {
        let all = serials(&bed, DeviceFilter::default(), order, &by).await;
        assert_eq!(all, ["A", "AB"], "{order:?}");
        let text = DeviceFilter { text: Some("cam".into()), ..DeviceFilter::default() };
        assert_eq!(serials(&bed, text, order, &by).await, ["A", "AB"], "{order:?}");
        let elsewhere = DeviceFilter { org: Some(org("/a-1")), ..DeviceFilter::default() };
        assert!(serials(&bed, elsewhere, order, &by).await.is_empty());
    }
}

#[tokio::test]
async fn the_order_by_when_they_were_seen_last_has_those_online_at_its_end() {
    let bed = Bed::new().await;
    let mut devices = Vec::new();
    for serial in ["NEVER", "OFF", "LONG", "SHORT"] {
        devices.push(add(&bed, serial, "cam", "/").await);
    }
    let seen = async || serials(&bed, DeviceFilter::default(), DeviceOrder::Seen, &bed.caller()).await;
    let (_long, _line) = connect(&bed.platform, &devices[2], 1);
    bed.advance(std::time::Duration::from_secs(1));
    let (off, _line) = connect(&bed.platform, &devices[1], 2);
    let (_short, _line) = connect(&bed.platform, &devices[3], 3);
    bed.advance(std::time::Duration::from_secs(1));
    bed.platform.disconnected(&devices[1], off, "disconnect");
    assert_eq!(seen().await, ["NEVER", "OFF", "LONG", "SHORT"]);
}

#[tokio::test]
async fn a_page_is_full_unless_it_is_the_last_and_a_cursor_is_of_its_query() {
    let bed = Bed::new().await;
    for n in 0..10 {
        add(&bed, &format!("S{n}"), if n % 2 == 0 { "even" } else { "odd" }, "/").await;
    }
    let filter = DeviceFilter { product: Some("even".into()), ..DeviceFilter::default() };
    for order in DeviceOrder::ALL {
        let query = DeviceQuery { filter: filter.clone(), order, descending: true };
        let by = bed.caller();
        let first = bed.platform.find_devices(&query, None, 4, &by).await.expect("a page");
        assert_eq!(first.items.len(), 4);
        let cursor = first.next.as_deref().expect("more");
        let last = bed.platform.find_devices(&query, Some(cursor), 4, &by).await.expect("a page");
        assert_eq!((last.items.len(), &last.next), (1, &None));
        let exact = bed.platform.find_devices(&query, None, 5, &by).await.expect("a page");
        assert_eq!((exact.items.len(), exact.next), (5, None));
        let other = DeviceQuery { order, ..DeviceQuery::default() };
        let refused = bed.platform.find_devices(&other, Some(cursor), 4, &by).await;
        assert_eq!(refused.expect_err("of another query"), BadCursor);
    }
}
