//! The past, page by page, for those who see all of it and for those who see a part.

use std::sync::Arc;
use std::time::Duration;

use vestibule_platform::{
    Caller, Describe, Device, EventQuery, HistoryQuery, Order, OrgPath, PlatformConfig, Position, RecordKind, Role,
};

use crate::bed::{Bed, Plan};
use crate::token::make;

fn events(after: i64, limit: usize) -> HistoryQuery {
    HistoryQuery { after: Position::new(after), limit, ..HistoryQuery::all(RecordKind::Event) }
}

#[tokio::test]
async fn who_is_overtaken_by_retention_is_told() {
    let day = Duration::from_secs(24 * 3_600);
    let plan = || Plan { segment_rows: Some(100), retention: Some(day), ..Plan::default() };
    let bed = Bed::with(plan()).await;
    let device = bed.add("SN1").await;
    for _ in 0..250 {
        bed.report(&device, "Smoke", None, None);
    }
    let last = bed.event(&device, "Smoke", None).await;
    let page = bed.platform.history(events(0, 10), &Caller::program()).await.expect("readable");
    assert_eq!((page.items.len(), page.reached, page.overtaken), (10, Some(Position::new(10)), false));
    assert!(!bed.platform.history(events(10, 10), &Caller::program()).await.expect("readable").overtaken);
    bed.advance(3 * day);
    bed.event(&device, "Smoke", None).await;
    drop(device);
    // Retention runs at the start.
    let bed = bed.restart_with(plan()).await;
    let oldest = bed.platform.journal().oldest().await.expect("readable").expect("one is left").get();
    assert!(oldest > 11, "something was taken: {oldest}");
    let overtaken = async |after: i64, before: Option<Position>| {
        let query = HistoryQuery { before, ..events(after, 10) };
        bed.platform.history(query, &Caller::program()).await.expect("readable").overtaken
    };
    assert!(overtaken(10, None).await, "there is a hole behind it");
    assert!(overtaken(oldest - 2, None).await && !overtaken(oldest - 1, None).await);
    assert!(!overtaken(0, None).await, "from the beginning is from the oldest that is left");
    assert!(!overtaken(10, Some(Position::new(11))).await, "what was asked for is all there");
    assert!(overtaken(10, Some(last)).await);
}

/// So many devices below `/a`.
async fn devices_of_a_part(bed: &Bed, count: usize) -> Vec<Arc<Device>> {
    let mut devices = Vec::new();
    for n in 0..count {
        let device = bed.add(&format!("A{n}")).await;
        let place = Describe { org: Some(OrgPath::parse("/a").expect("a place")), ..Describe::default() };
        bed.platform.describe_device(&device, place, &bed.caller()).await.expect("moved");
        devices.push(device);
    }
    devices
}

/// Few devices are asked for one by one, of many the records of all are read: both say the same, in the same order.
#[tokio::test]
async fn the_past_is_that_of_seen_devices_however_many_they_are() {
    for seen in [3, 70] {
        let bed = Bed::new().await;
        let devices = devices_of_a_part(&bed, seen).await;
        let other = bed.add("B").await;
        let mut last = Position::START;
        for n in 0..700 {
            let device = if n % 10 == 0 { &devices[n / 10 % devices.len()] } else { &other };
            last = bed.report(device, "Smoke", Some(&format!("e{n}")), None);
        }
        bed.durable(last).await;
        let token = make(&bed.platform, "bound", Role::Viewer, "/a", &bed.caller()).await;
        let by = bed.platform.authorize(&token).expect("known");
        let (mut all, mut after, mut pages) = (Vec::new(), 0, 0);
        loop {
            let page = bed.platform.history(events(after, 20), &by).await.expect("readable");
            all.extend(page.items.iter().map(|record| record.position.get()));
            pages += 1;
            if page.is_last {
                break;
            }
            after = page.reached.expect("somewhere").get();
        }
        assert_eq!(all, (0..70).map(|n| n * 10 + 1).collect::<Vec<_>>());
        assert_eq!(pages < 10, seen == 3, "of few devices nothing of others is read: {pages} pages");
    }
}

/// However little a page may look at, all pages together have what one that may look at everything has, in both orders, for
/// who sees everything, few devices, or many but not all.
#[tokio::test]
async fn pages_that_end_early_lose_nothing_and_repeat_nothing() {
    // In one segment a page of somebody who sees many ends by what it was shown and left out, and not by segments.
    for (seen, segment_rows) in [(3, 10), (70, 10), (70, 1_000)] {
        let max_look = 20;
        let platform = PlatformConfig { max_look, ..PlatformConfig::default() };
        let bed = Bed::with(Plan { segment_rows: Some(segment_rows), platform, ..Plan::default() }).await;
        let devices = devices_of_a_part(&bed, seen).await;
        let other = bed.add("B").await;
        let mut last = Position::START;
        for n in 0..400 {
            let device = if n % 3 == 0 { &devices[n / 3 % devices.len()] } else { &other };
            last = bed.report(device, if n % 7 == 0 { "Smoke" } else { "Heat" }, None, None);
        }
        bed.durable(last).await;
        let token = make(&bed.platform, "part", Role::Viewer, "/a", &bed.caller()).await;
        let part = bed.platform.authorize(&token).expect("known");
        for by in [&Caller::program(), &part] {
            for name in [None, Some("Smoke".to_owned()), Some("Nothing".to_owned())] {
                let is_wanted = |n: &i64| {
                    let n = n - 1;
                    (by.subtree().is_root() || n % 3 == 0)
                        && (name.is_none() || name.as_deref() == Some("Smoke") && n % 7 == 0)
                };
                let expected: Vec<i64> = (1..=400).filter(is_wanted).collect();
                for order in [Order::Oldest, Order::Newest] {
                    let (mut found, mut pages) = (Vec::new(), 0);
                    let mut query = HistoryQuery { name: name.clone(), order, ..events(0, 15) };
                    loop {
                        let page = bed.platform.history(query.clone(), by).await.expect("readable");
                        found.extend(page.items.iter().map(|record| record.position.get()));
                        pages += 1;
                        assert!(pages <= 400, "it comes to an end");
                        match (page.is_last, order) {
                            (true, _) => break,
                            (_, Order::Oldest) => query.after = page.reached.expect("how far"),
                            (_, Order::Newest) => query.before = Some(page.reached.expect("how far")),
                        }
                    }
                    if order == Order::Newest {
                        found.reverse();
                    }
                    assert_eq!(found, expected, "{seen} {name:?} {order:?}");
                    assert!(pages > 1 || segment_rows > 10, "{seen} {name:?} {order:?}");
                }
                let (mut found, mut query) =
                    (Vec::new(), EventQuery { name: name.clone(), limit: 15, ..EventQuery::default() });
                for asked in 0.. {
                    assert!(asked < 400, "it comes to an end");
                    let page = bed.platform.events(query.clone(), by).await.expect("readable");
                    found.extend(page.items.iter().map(|record| record.position.get()));
                    let full = page.items.last().filter(|_| page.items.len() == 15).map(|record| record.position);
                    query.before = full.or(page.resume);
                    if query.before.is_none() {
                        break;
                    }
                }
                found.reverse();
                assert_eq!(found, expected, "{seen} {name:?}");
            }
        }
    }
}
