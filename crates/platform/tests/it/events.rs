//! What devices report.

use std::sync::Arc;
use std::time::Duration;

use vestibule_platform::{
    Caller, DevicePath, EventQuery, Flags, PlatformConfig, Record, RecordKind, Report, ReportError,
};
use vestibule_store::Scan;

use crate::bed::{Bed, NOON, Plan, path};

const MINUTE: i64 = 60_000;

async fn stored(bed: &Bed, query: EventQuery) -> Vec<Arc<Record>> {
    bed.platform.events(EventQuery { limit: 100, ..query }, &Caller::program()).await.expect("readable").items
}

#[tokio::test]
async fn both_times_are_kept_and_a_clock_that_cannot_be_right_is_flagged() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let cases = [
        (Some(NOON), Flags::NONE),
        (Some(NOON + 5 * MINUTE), Flags::NONE),
        (Some(NOON + 5 * MINUTE + 1), Flags::CLOCK_SUSPECT),
        (Some(NOON - 400 * 24 * 60 * MINUTE), Flags::NONE),
        (Some(1_577_836_800_000), Flags::NONE),
        (Some(1_577_836_799_999), Flags::CLOCK_SUSPECT),
        (Some(0), Flags::CLOCK_SUSPECT),
        (Some(i64::MAX), Flags::CLOCK_SUSPECT),
        (Some(i64::MIN), Flags::CLOCK_SUSPECT),
        (None, Flags::NO_TIME),
    ];
    let mut last = None;
    for (n, (time, _)) in cases.iter().enumerate() {
        last = Some(bed.report(&device, "Smoke", Some(&format!("event-{n}")), *time));
    }
    bed.durable(last.expect("reported")).await;
    let mut events = stored(&bed, EventQuery::default()).await;
    events.reverse();
    assert_eq!(events.len(), cases.len());
    for (event, (time, flags)) in events.iter().zip(cases) {
        assert_eq!((event.time, event.received, event.flags), (time.unwrap_or(NOON), NOON, flags), "{time:?}");
    }
}

#[tokio::test]
async fn an_event_without_an_identity_is_labelled() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    bed.event(&device, "Smoke", None).await;
    let attribute =
        Report { kind: RecordKind::Attribute, path: path("Power"), id: None, time: Some(NOON), data: "true" };
    let position = bed.platform.report(&device, attribute).expect("taken");
    bed.durable(position).await;
    let events = stored(&bed, EventQuery::default()).await;
    assert_eq!(events.len(), 1, "an attribute's value is no event");
    assert_eq!(events[0].flags, Flags::AT_LEAST_ONCE);
    let scan = Scan { kind: Some(RecordKind::Attribute), limit: 10, ..Scan::default() };
    let values = bed.platform.journal().scan(&scan).await.expect("readable");
    let [attribute] = &values[..] else { panic!("one value") };
    assert_eq!(attribute.flags, Flags::NONE, "a value said twice is the same value");
}

#[tokio::test]
async fn an_event_that_comes_again_is_stored_once() {
    let bed = Bed::new().await;
    let device = bed.add("SN1").await;
    let other = bed.add("SN2").await;
    let first = bed.event(&device, "Smoke", Some("same")).await;
    bed.event(&device, "Smoke", Some("same")).await;
    bed.event(&other, "Smoke", Some("same")).await;
    let bed = bed.restart().await;
    let device = bed.platform.device("SN1", &Caller::program()).expect("registered");
    bed.event(&device, "Smoke", Some("same")).await;
    let events = stored(&bed, EventQuery::default()).await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].position, first, "the original stays");
}

#[tokio::test]
async fn what_is_beyond_the_limits_is_refused() {
    let platform = PlatformConfig { max_report_bytes: 1_000, ..PlatformConfig::default() };
    let bed = Bed::with(Plan { platform, ..Plan::default() }).await;
    let device = bed.add("SN1").await;
    let report = |path, id: Option<&str>, data: &str| {
        bed.platform.report(&device, Report { kind: RecordKind::Event, path, id, time: None, data }).map(drop)
    };
    let text = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
    assert_eq!(report(path("Smoke"), None, &text(1_000)), Ok(()));
    assert_eq!(report(path("Smoke"), None, &text(1_001)), Err(ReportError::TooLarge));
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(report(path("Smoke"), None, &nested(32)), Ok(()));
    assert_eq!(report(path("Smoke"), None, &nested(33)), Err(ReportError::TooDeep));
    assert_eq!(report(path(&"n".repeat(128)), None, "1"), Ok(()));
    assert_eq!(report(path(&"n".repeat(129)), None, "1"), Err(ReportError::BadPath));
    assert_eq!(report(path(""), None, "1"), Err(ReportError::BadPath));
    let no_index = DevicePath { index: "".into(), ..(*path("Smoke")).clone() };
    assert_eq!(report(Arc::new(no_index), None, "1"), Err(ReportError::BadPath));
    assert_eq!(report(path("Smoke"), Some(&"i".repeat(64)), "1"), Ok(()));
    assert_eq!(report(path("Smoke"), Some(&"i".repeat(65)), "1"), Err(ReportError::BadEventId));
    assert_eq!(report(path("Smoke"), Some(""), "1"), Err(ReportError::BadEventId));
}

#[tokio::test]
async fn events_are_read_by_device_name_time_and_page() {
    let bed = Bed::new().await;
    let (one, two) = (bed.add("SN1").await, bed.add("SN2").await);
    for n in 0..10 {
        let device = if n % 2 == 0 { &one } else { &two };
        bed.event(device, if n < 5 { "Smoke" } else { "Motion" }, None).await;
        bed.advance(Duration::from_secs(60));
    }
    let positions = |events: &[Arc<Record>]| events.iter().map(|event| event.position.get()).collect::<Vec<_>>();
    let of_one = stored(&bed, EventQuery { device: Some(one.id), ..EventQuery::default() }).await;
    assert_eq!(positions(&of_one), [9, 7, 5, 3, 1], "newest first");
    let motion = stored(&bed, EventQuery { name: Some("Motion".into()), ..EventQuery::default() }).await;
    assert_eq!(positions(&motion), [10, 9, 8, 7, 6]);
    let nowhere = stored(&bed, EventQuery { area: Some("Heat".into()), ..EventQuery::default() }).await;
    assert!(nowhere.is_empty());
    let window = EventQuery { from: Some(NOON + 2 * MINUTE), to: Some(NOON + 4 * MINUTE), ..EventQuery::default() };
    assert_eq!(positions(&stored(&bed, window).await), [4, 3], "from is inside, to is not");
    let page = EventQuery { limit: 4, ..EventQuery::default() };
    let first = bed.platform.events(page.clone(), &Caller::program()).await.expect("readable").items;
    assert_eq!(positions(&first), [10, 9, 8, 7]);
    let before = first.last().map(|event| event.position);
    let second = bed.platform.events(EventQuery { before, ..page }, &Caller::program()).await.expect("readable").items;
    assert_eq!(positions(&second), [6, 5, 4, 3]);
}

#[tokio::test]
async fn a_platform_that_stores_is_ready() {
    let bed = Bed::new().await;
    let health = bed.platform.health();
    assert!(health.ready && health.problems.is_empty());
}

#[tokio::test]
async fn a_damaged_journal_is_told_and_keeps_nothing_from_being_stored() {
    let bed = Bed::new().await;
    let device = bed.add("SN-1").await;
    bed.event(&device, "Smoke", None).await;
    let aside = bed.data().join("journal/damaged/2026-01-01-1");
    std::fs::create_dir_all(&aside).expect("a directory");
    std::fs::write(aside.join("damage.txt"), "file: x.db\noffset: 4096\nwhat: a page\nsalvaged: 3\nlost: 1\n")
        .expect("written");
    let bed = bed.restart().await;
    let health = bed.platform.health();
    assert!(health.ready);
    assert_eq!(health.problems.len(), 1);
    let told = &health.problems[0];
    assert!(told.contains("x.db at byte 4096") && told.contains("3 records were salvaged, 1 are lost"), "{told}");
    assert!(told.contains(aside.to_str().expect("UTF-8")), "{told}");
}
