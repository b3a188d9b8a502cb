//! Where devices belong, and that nobody sees more than their part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vestibule_platform::{
    AddDeviceError, AuditQuery, Caller, Change, Changes, Describe, DescribeError, Device, DeviceQuery, DirectError,
    Directive, EventQuery, Filter, Followed, Invoke, InvokeError, NewDevice, OrgPath, Pass, PassError, Position,
    RecordKind, Role, Secret, Set, SetError, StoreError,
};

use crate::bed::{Bed, PATIENCE, connect, new_device, path};
use crate::token::make;

fn org(path: &str) -> OrgPath {
    OrgPath::parse(path).expect("a place")
}

async fn add(bed: &Bed, serial: &str, path: &str) -> Arc<Device> {
    let new = NewDevice { org: Some(org(path)), ..new_device(serial) };
    bed.platform.add_device(new, &bed.caller()).await.expect("registered")
}

async fn bound(bed: &Bed, path: &str) -> Caller {
    let token = make(&bed.platform, &format!("bound to {path}"), Role::Admin, path, &bed.caller()).await;
    bed.platform.authorize(&token).expect("known")
}

async fn go(bed: &Bed, device: &Device, path: &str) {
    let change = Describe { org: Some(org(path)), ..Describe::default() };
    bed.platform.describe_device(device, change, &bed.caller()).await.expect("moved");
}

async fn serials(bed: &Bed, place: &str, by: &Caller) -> Vec<String> {
    bed.below(&org(place), by).await.iter().map(|device| device.serial.to_string()).collect()
}

async fn next(changes: &mut Changes) -> Change {
    tokio::time::timeout(PATIENCE, changes.next()).await.expect("in time")
}

#[tokio::test]
async fn a_device_belongs_where_it_is_put_also_after_a_restart() {
    let bed = Bed::new().await;
    add(&bed, "A", "/a/b").await;
    add(&bed, "R", "/").await;
    let labels = BTreeMap::from([("floor".to_owned(), Some("2".to_owned())), ("none".to_owned(), None)]);
    let change = Describe { name: Some(Some("Tür".into())), labels, if_match: Some(1), ..Describe::default() };
    let device = bed.platform.device("A", &bed.caller()).expect("there");
    let described = bed.platform.describe_device(&device, change.clone(), &bed.caller()).await.expect("described");
    assert_eq!((described.version, described.labels.len()), (2, 1));
    let stale = bed.platform.describe_device(&device, change, &bed.caller()).await;
    assert!(matches!(stale, Err(DescribeError::Stale { version: 2 })));
    let bed = bed.restart().await;
    let device = bed.platform.device("A", &bed.caller()).expect("there");
    assert_eq!(device.description(), described);
    assert_eq!(device.org().as_str(), "/a/b");
    let off =
        Describe { name: Some(None), labels: BTreeMap::from([("floor".to_owned(), None)]), ..Describe::default() };
    let bare = bed.platform.describe_device(&device, off, &bed.caller()).await.expect("described");
    assert_eq!((&bare.name, bare.labels.len(), bare.version), (&None, 0, 3));
    assert_eq!(serials(&bed, "/a", &bed.caller()).await, ["A"]);
}

#[tokio::test]
async fn labels_have_limits() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let label = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), Some(value.to_owned()))]);
    let many = (0..33).map(|n| (format!("l{n}"), Some(String::new()))).collect();
    for labels in [label("", "x"), label(&"n".repeat(65), ""), label("n", &"v".repeat(257)), label("n", "a\nb"), many] {
        let change = Describe { labels, ..Describe::default() };
        let refused = bed.platform.describe_device(&device, change, &bed.caller()).await;
        assert!(matches!(refused, Err(DescribeError::Invalid { field: "labels", .. })));
    }
    assert_eq!(device.description().version, 1);
}

#[tokio::test]
async fn a_caller_sees_devices_of_its_part_only() {
    let bed = Bed::new().await;
    for (serial, path) in [("R", "/"), ("A", "/a"), ("AB", "/a/b"), ("LIKE", "/a-1"), ("A2", "/a/b"), ("B", "/b")] {
        add(&bed, serial, path).await;
    }
    let by = bound(&bed, "/a").await;
    assert_eq!(serials(&bed, "/", &by).await, ["A", "AB", "A2"]);
    assert_eq!(serials(&bed, "/a/b", &by).await, ["AB", "A2"]);
    assert!(serials(&bed, "/b", &by).await.is_empty() && serials(&bed, "/a-1", &by).await.is_empty());
    assert_eq!(serials(&bed, "/", &bed.caller()).await, ["R", "A", "AB", "LIKE", "A2", "B"]);
    let all = DeviceQuery::default();
    let first = bed.platform.find_devices(&all, None, 1, &by).await.expect("a page");
    let rest = bed.platform.find_devices(&all, first.next.as_deref(), 1, &by).await.expect("a page");
    assert_eq!(&*rest.items[0].serial, "AB");
    let hidden = bed.platform.device("B", &bed.caller()).expect("there");
    assert!(bed.platform.device("B", &by).is_none() && bed.platform.device(&hidden.id.to_string(), &by).is_none());
    bed.platform.remove_device(&hidden, &bed.caller()).await.expect("removed");
    assert_eq!(serials(&bed, "/b", &bed.caller()).await, [""; 0]);
}

#[tokio::test]
async fn nobody_puts_a_device_out_of_their_own_sight() {
    let bed = Bed::new().await;
    let by = bound(&bed, "/a").await;
    for path in ["/", "/b", "/ab"] {
        let new = NewDevice { org: Some(org(path)), ..new_device("A") };
        let refused = bed.platform.add_device(new, &by).await;
        assert!(matches!(refused, Err(AddDeviceError::Invalid { field: "org", .. })), "{path}");
    }
    let device = bed.platform.add_device(new_device("A"), &by).await.expect("registered");
    assert_eq!(device.org(), org("/a"), "where it does not say it is that of who registers it");
    let away = Describe { org: Some(org("/b")), ..Describe::default() };
    let refused = bed.platform.describe_device(&device, away, &by).await;
    assert!(matches!(refused, Err(DescribeError::Invalid { field: "org", .. })));
    let hub = add(&bed, "HUB", "/h/1").await;
    let child = NewDevice { parent: Some(Arc::clone(&hub)), ..new_device("CHILD") };
    let child = bed.platform.add_device(child, &bed.caller()).await.expect("registered");
    assert_eq!(child.org(), org("/h/1"), "that of its hub");
    go(&bed, &hub, "/a").await;
    assert_eq!(child.org(), org("/h/1"), "it stays where it is");
    assert!(bed.platform.children_seen(&hub, &by).is_empty());
    go(&bed, &child, "/a/c").await;
    assert_eq!(bed.platform.children_seen(&hub, &by).len(), 1);
    assert_eq!(bed.platform.parent_seen(&child, &by), Some(hub.id));
    go(&bed, &hub, "/h").await;
    assert_eq!(bed.platform.parent_seen(&child, &by), None);
}

/// Few devices are asked for one by one, of many the records of all are read: both say the same.
#[tokio::test]
async fn records_are_those_of_seen_devices_however_many_they_are() {
    for seen in [3, 70] {
        let bed = Bed::new().await;
        let mut devices = Vec::new();
        for n in 0..seen {
            devices.push(add(&bed, &format!("A{n}"), if n % 2 == 0 { "/a" } else { "/a/b" }).await);
        }
        let other = add(&bed, "B", "/b").await;
        let mut last = Position::START;
        for n in 0..700 {
            let device = if n % 10 == 0 { &devices[n / 10 % devices.len()] } else { &other };
            last = bed.report(device, "Smoke", Some(&format!("e{n}")), None);
        }
        bed.durable(last).await;
        let by = bound(&bed, "/a").await;
        let mut all = Vec::new();
        let mut before = None;
        loop {
            let query = EventQuery { before, limit: 7, ..EventQuery::default() };
            let page = bed.platform.events(query, &by).await.expect("readable");
            let Some(oldest) = page.items.last() else { break };
            before = Some(oldest.position);
            all.extend(page.items.iter().map(|record| record.position));
        }
        assert_eq!(all, (0..70).rev().map(|n| Position::new(n * 10 + 1)).collect::<Vec<_>>());
        let of = |device: &Device| EventQuery { device: Some(device.id), limit: 9, ..EventQuery::default() };
        assert!(bed.platform.events(of(&other), &by).await.expect("readable").items.is_empty());
        let own = bed.platform.events(of(&devices[0]), &by).await.expect("readable").items;
        assert!(!own.is_empty() && own.iter().all(|record| record.device == devices[0].id));
    }
}

#[tokio::test]
async fn a_page_is_given_up_where_too_much_is_of_others() {
    let bed = Bed::new().await;
    for n in 0..65 {
        add(&bed, &format!("A{n}"), "/a").await;
    }
    let (own, other) = (bed.platform.device("A0", &bed.caller()).expect("there"), add(&bed, "B", "/b").await);
    bed.report(&own, "First", Some("e"), None);
    let mut last = Position::START;
    for n in 0..256 * 64 + 10 {
        while !bed.platform.journal().has_room() {
            bed.platform.journal().room().await;
        }
        last = bed.report(&other, "Smoke", Some(&format!("e{n}")), None);
    }
    bed.durable(last).await;
    let by = bound(&bed, "/a").await;
    let query = EventQuery { limit: 5, ..EventQuery::default() };
    let page = bed.platform.events(query.clone(), &by).await.expect("readable");
    assert!(page.items.is_empty() && page.resume.is_some(), "it says where it goes on");
    let rest = bed.platform.events(EventQuery { before: page.resume, ..query }, &by).await.expect("readable");
    assert_eq!((rest.items.len(), &*rest.items[0].path.name, rest.resume), (1, "First", None));
}

#[tokio::test]
async fn a_follower_gets_records_of_seen_devices_only() {
    let bed = Bed::new().await;
    let (own, other) = (add(&bed, "A", "/a").await, add(&bed, "B", "/b").await);
    let by = bound(&bed, "/a").await;
    let mut follow = bed.platform.follow(Some(Position::START), Filter::all(RecordKind::Event), &by);
    bed.event(&other, "Hidden", Some("1")).await;
    bed.event(&own, "Seen", Some("2")).await;
    let mut names = Vec::new();
    let mut read = async |count: usize| {
        for _ in 0..count {
            match tokio::time::timeout(PATIENCE, follow.next()).await.expect("in time").expect("readable") {
                Followed::Record(record) => names.push(record.path.name.to_string()),
                Followed::Lagged { .. } => panic!("nothing is gone"),
            }
        }
        std::mem::take(&mut names)
    };
    assert_eq!(read(1).await, ["Seen"]);
    go(&bed, &own, "/b").await;
    go(&bed, &other, "/a").await;
    bed.event(&own, "Gone", Some("3")).await;
    bed.event(&other, "Came", Some("4")).await;
    assert_eq!(read(1).await, ["Came"]);
}

#[tokio::test]
async fn changes_are_told_of_seen_devices_only() {
    let bed = Bed::new().await;
    let (own, other) = (add(&bed, "A", "/a").await, add(&bed, "B", "/b").await);
    let by = bound(&bed, "/a").await;
    let mut changes = bed.platform.changes(&by);
    connect(&bed.platform, &other, 1);
    connect(&bed.platform, &own, 2);
    assert!(matches!(next(&mut changes).await, Change::Device(device) if device.id == own.id));
    go(&bed, &own, "/b").await;
    assert!(matches!(next(&mut changes).await, Change::Gone(device) if device.id == own.id), "it went out of sight");
    go(&bed, &other, "/a/c").await;
    assert!(matches!(next(&mut changes).await, Change::Device(device) if device.id == other.id), "it came into sight");
    bed.platform.remove_device(&own, &bed.caller()).await.expect("removed");
    bed.platform.remove_device(&other, &bed.caller()).await.expect("removed");
    assert!(matches!(next(&mut changes).await, Change::Gone(device) if device.id == other.id));
}

#[tokio::test]
async fn the_audit_is_that_of_what_is_seen() {
    let bed = Bed::new().await;
    let (own, other) = (add(&bed, "A", "/a").await, add(&bed, "B", "/b").await);
    let by = bound(&bed, "/a").await;
    bed.advance(Duration::from_secs(1));
    bed.platform.set_disabled(&other, true, &bed.caller()).await.expect("stored");
    bed.platform.set_disabled(&own, true, &by).await.expect("stored");
    bed.platform.remove_device(&own, &by).await.expect("removed");
    let rows = bed.platform.audits(&AuditQuery { limit: 10, ..AuditQuery::default() }, &by).await.expect("readable");
    let deeds: Vec<_> = rows.iter().map(|row| (&*row.actor, &*row.action)).collect();
    let (me, boss) = ("bound to /a", "administrator");
    assert_eq!(deeds, [(me, "device.remove"), (me, "device.disable"), (boss, "token.add"), (boss, "device.add")]);
    let of_other = AuditQuery { device: Some(other.id), limit: 10, ..AuditQuery::default() };
    assert!(bed.platform.audits(&of_other, &by).await.expect("readable").is_empty());
}

#[tokio::test]
async fn where_a_device_came_from_is_told_to_who_sees_that_place() {
    let bed = Bed::new().await;
    let device = add(&bed, "A", "/b/secret").await;
    let by = bound(&bed, "/a").await;
    for place in ["/a/x", "/a/y"] {
        go(&bed, &device, place).await;
    }
    let query = AuditQuery { action: Some("device.describe".into()), limit: 10, ..AuditQuery::default() };
    let origins = async |by: &Caller| {
        let rows = bed.platform.audits(&query, by).await.expect("readable");
        let detail = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        rows.iter().map(|row| detail(&row.detail)["from"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(origins(&bed.caller()).await, [Some("/a/x".to_owned()), Some("/b/secret".to_owned())]);
    assert_eq!(origins(&by).await, [Some("/a/x".to_owned()), None]);
}

#[tokio::test]
async fn what_waits_while_a_device_is_moved_away_does_nothing_to_it() {
    let bed = Bed::new().await;
    let device = add(&bed, "A", "/a").await;
    let by = bound(&bed, "/a").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    // As it was found, before the body of the request was there.
    let found = bed.platform.device("A", &by).expect("seen");
    go(&bed, &device, "/b").await;
    let unknown = |error: StoreError| matches!(error, StoreError::UnknownDevice);

    let back = Describe { org: Some(org("/a")), ..Describe::default() };
    let refused = bed.platform.describe_device(&found, back, &by).await;
    assert!(matches!(refused, Err(DescribeError::Store(StoreError::UnknownDevice))));
    let refused = bed.platform.rotate_device(&found, Secret::new("GHIJKL"), false, &by).await;
    assert!(matches!(refused, Err(AddDeviceError::Store(StoreError::UnknownDevice))));
    assert!(bed.platform.set_disabled(&found, true, &by).await.is_err_and(unknown));
    assert!(bed.platform.open_enrolment(&found, Duration::from_secs(60), false, &by).await.is_err_and(unknown));
    assert!(bed.platform.remove_device(&found, &by).await.is_err_and(unknown));
    assert!(bed.platform.cancel(&found, uuid::Uuid::nil(), &by).await.is_err_and(unknown));

    let place = || (*path("Dim")).clone();
    for idempotency_key in [None, Some("key")] {
        let (deadline, queue) = (Duration::from_secs(1), Some(Duration::from_secs(60)));
        let invoke = Invoke { path: place(), input: None, deadline, queue, idempotency_key, by: &by };
        let refused = bed.platform.invoke(&found, invoke).await;
        assert!(matches!(refused, Err(InvokeError::Store(StoreError::UnknownDevice))));
    }
    let wait = Duration::ZERO;
    let set = Set { path: place(), value: "1", if_match: None, wait, expires_in: None, by: &by };
    assert!(matches!(bed.platform.set(&found, set).await, Err(SetError::Store(StoreError::UnknownDevice))));
    let deadline = Duration::from_secs(1);
    let pass = Pass { path: place(), media_type: "text/plain", body: b"x", deadline, by: &by };
    assert!(matches!(bed.platform.pass(&found, pass).await, Err(PassError::UnknownDevice)));
    let refused = bed.platform.direct(&found, Directive::ForceOffline, &by).await;
    assert_eq!(refused, Err(DirectError::UnknownDevice));

    assert_eq!((line.waiting(), line.closed().len(), line.directives().len()), (0, 0, 0), "nothing went out");
    let shown = bed.platform.device("A", &bed.caller()).expect("there");
    assert!(!shown.is_disabled() && shown.enrol_until() == 0 && shown.org() == org("/b"));
    assert!(bed.platform.waiting(&shown).is_empty() && bed.platform.attributes(&shown).is_empty());
}
