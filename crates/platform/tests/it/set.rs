//! Attributes: what was reported, what is wished, and what becomes of a wish.

use std::sync::Arc;
use std::time::Duration;

use vestibule_platform::{
    Answer, Caller, Device, DevicePath, Leaf, NotSent, Position, RecordKind, Report, ReportError, Set, SetError,
    SetOutcome,
};

use crate::bed::{Bed, connect, eventually, path};

const LONG: Duration = Duration::from_secs(20);

fn report(bed: &Bed, device: &Arc<Device>, name: &str, value: &str) -> Result<Position, ReportError> {
    let report = Report { kind: RecordKind::Attribute, path: path(name), id: None, time: None, data: value };
    bed.platform.report(device, report)
}

async fn set(
    bed: &Bed,
    device: &Arc<Device>,
    value: &str,
    if_match: Option<u64>,
    wait: Duration,
) -> Result<Leaf, SetError> {
    let caller = bed.platform.authorize(&bed.token()).expect("the administrator");
    let set = Set { path: (*path("Power")).clone(), value, if_match, wait, expires_in: None, by: &caller };
    bed.platform.set(device, set).await
}

fn outcome(leaf: &Leaf) -> &SetOutcome {
    &leaf.desired.as_ref().expect("a wish").outcome
}

fn power(bed: &Bed, device: &Device) -> Leaf {
    bed.platform.attribute(device, &path("Power")).expect("an attribute")
}

fn value(leaf: &Leaf) -> &str {
    leaf.reported.as_ref().expect("reported").value.get()
}

#[tokio::test]
async fn what_is_reported_is_read_and_survives_a_restart() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    report(&bed, &device, "Power", "true").expect("taken");
    let last = report(&bed, &device, "Power", "false").expect("taken");
    report(&bed, &device, "Level", "[1.50, null]").expect("taken");
    let leaf = power(&bed, &device);
    assert_eq!((value(&leaf), leaf.version), ("false", 2));
    let names: Vec<_> = bed.platform.attributes(&device).iter().map(|leaf| leaf.path.name.to_string()).collect();
    assert_eq!(names, ["Level", "Power"]);
    bed.durable(last).await;
    let bed = bed.restart().await;
    let device = bed.platform.device("A", &Caller::program()).expect("still there");
    assert_eq!(value(&power(&bed, &device)), "false");
    assert_eq!(bed.platform.attributes(&device).len(), 2);
}

#[tokio::test]
async fn what_the_journal_has_beyond_the_twin_is_applied_at_the_start() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let last = report(&bed, &device, "Power", "1").expect("taken");
    bed.durable(last).await;
    // The process ends here as by kill -9: the twin was never written.
    let bed = bed.crash().await;
    let device = bed.platform.device("A", &Caller::program()).expect("still there");
    assert_eq!(value(&power(&bed, &device)), "1");
    // And once more: what was applied is not applied twice.
    let version = power(&bed, &device).version;
    let bed = bed.restart().await;
    let device = bed.platform.device("A", &Caller::program()).expect("still there");
    assert_eq!(power(&bed, &device).version, version);
}

#[tokio::test]
async fn a_wish_is_answered_by_the_device() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    let (applied, ()) = tokio::join!(set(&bed, &device, "true", None, LONG), async {
        let sent = line.operation().await;
        assert_eq!((sent.path, sent.input.as_deref()), ((*path("Power")).clone(), Some("true")));
        assert!(sent.reply.answer(Answer::Done(None)));
    });
    let applied = applied.expect("taken");
    assert_eq!(
        (outcome(&applied), &*applied.desired.as_ref().expect("a wish").by),
        (&SetOutcome::Applied, "administrator")
    );
    let (refused, ()) = tokio::join!(set(&bed, &device, "7", None, LONG), async {
        line.operation().await.reply.answer(Answer::Failed { code: -1, message: None });
    });
    assert_eq!(outcome(&refused.expect("taken")), &SetOutcome::Refused { code: -1, message: None });
    line.refuse(NotSent::NotAddressable("too long"));
    let refused = set(&bed, &device, "8", None, LONG).await.expect("taken");
    assert_eq!(outcome(&refused), &SetOutcome::Refused { code: -1, message: Some("too long".into()) });
}

#[tokio::test]
async fn a_wish_for_a_device_that_is_away_waits_durably_and_is_sent_when_it_comes() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let leaf = set(&bed, &device, "1", None, LONG).await.expect("taken");
    assert_eq!(outcome(&leaf), &SetOutcome::Pending);
    set(&bed, &device, "2", Some(leaf.version), LONG).await.expect("taken");
    let bed = bed.crash().await;
    let device = bed.platform.device("A", &Caller::program()).expect("still there");
    let (_, line) = connect(&bed.platform, &device, 1);
    bed.platform.send_pending(&device);
    let sent = line.operation().await;
    assert_eq!((sent.input.as_deref(), line.waiting()), (Some("2"), 0), "the newest only");
    drop(sent.reply);
    assert_eq!(outcome(&power(&bed, &device)), &SetOutcome::Pending, "a lost link decides nothing");
    report(&bed, &device, "Power", "2").expect("taken");
    assert_eq!(outcome(&power(&bed, &device)), &SetOutcome::Applied, "it says so itself");
    assert_eq!(bed.platform.desired(&device).len(), 0);
}

#[tokio::test]
async fn what_was_reported_before_a_wish_does_not_fulfil_it_after_a_crash() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    report(&bed, &device, "Power", "true").expect("taken");
    let last = report(&bed, &device, "Power", "false").expect("taken");
    bed.durable(last).await;
    set(&bed, &device, "true", None, LONG).await.expect("taken");
    let bed = bed.crash().await;
    let device = bed.platform.device("A", &Caller::program()).expect("still there");
    let leaf = power(&bed, &device);
    assert_eq!((value(&leaf), outcome(&leaf)), ("false", &SetOutcome::Pending));
}

#[tokio::test]
async fn an_answer_to_an_older_wish_says_nothing_of_the_newer() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    set(&bed, &device, "1", None, Duration::ZERO).await.expect("taken");
    let first = line.operation().await;
    set(&bed, &device, "2", None, Duration::ZERO).await.expect("taken");
    let second = line.operation().await;
    assert!(first.reply.answer(Answer::Done(None)));
    assert!(second.reply.answer(Answer::Failed { code: 5, message: None }));
    eventually("the second answer counts", || {
        *outcome(&power(&bed, &device)) == SetOutcome::Refused { code: 5, message: None }
    })
    .await;
}

#[tokio::test]
async fn a_wish_for_another_version_is_refused() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let stale = set(&bed, &device, "1", Some(3), LONG).await;
    assert!(matches!(stale, Err(SetError::Stale { version: 0 })), "{stale:?}");
    set(&bed, &device, "1", Some(0), LONG).await.expect("it did not exist");
    report(&bed, &device, "Power", "0").expect("taken");
    let stale = set(&bed, &device, "1", Some(1), LONG).await;
    assert!(matches!(stale, Err(SetError::Stale { version: 2 })), "{stale:?}");
}

#[tokio::test]
async fn a_lying_device_fills_its_own_twin_only() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    for n in 0..4_096 {
        report(&bed, &device, &format!("A{n}"), "1").expect("taken");
    }
    assert_eq!(report(&bed, &device, "Power", "1"), Err(ReportError::TooManyAttributes));
    report(&bed, &device, "A7", "2").expect("known ones still change");
    assert!(matches!(set(&bed, &device, "1", None, LONG).await, Err(SetError::Full)));
    let long = format!("\"{}\"", "x".repeat(65_536));
    assert_eq!(report(&bed, &device, "A7", &long), Err(ReportError::TooLarge));
    let other = bed.add("B").await;
    report(&bed, &other, "Power", "1").expect("taken");
    for wrong in ["", "1,2", "{", &"[".repeat(40)] {
        assert!(matches!(set(&bed, &other, wrong, None, LONG).await, Err(SetError::Invalid { field: "value", .. })));
    }
    let caller = bed.platform.authorize(&bed.token()).expect("the administrator");
    let nowhere = DevicePath { area: "".into(), ..(*path("Power")).clone() };
    let refused = bed
        .platform
        .set(&other, Set { path: nowhere, value: "1", if_match: None, wait: LONG, expires_in: None, by: &caller })
        .await;
    assert!(matches!(refused, Err(SetError::Invalid { field: "area", .. })));
}

#[tokio::test]
async fn a_wish_that_another_one_replaces_is_superseded() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    let (first, second) = tokio::join!(set(&bed, &device, "1", None, LONG), async {
        let told = line.operation().await;
        let second = set(&bed, &device, "2", None, Duration::ZERO).await.expect("taken");
        drop(told);
        second
    });
    let first = first.expect("taken");
    assert_eq!(outcome(&first), &SetOutcome::Superseded);
    assert_eq!(first.desired.expect("its own").value.get(), "1");
    assert_eq!(outcome(&second), &SetOutcome::Pending);
    assert_eq!(power(&bed, &device).desired.expect("the newer").value.get(), "2");
}

#[tokio::test]
async fn a_wish_whose_time_is_over_is_not_told_any_more_but_a_report_still_fulfils_it() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let caller = bed.caller();
    let expires_in = Some(Duration::from_secs(60));
    let path = (*path("Power")).clone();
    let wish = Set { path, value: "1", if_match: None, wait: Duration::ZERO, expires_in, by: &caller };
    let leaf = bed.platform.set(&device, wish.clone()).await.expect("taken");
    assert_eq!(leaf.desired.expect("a wish").expires, Some(bed.now() + 60_000));
    bed.advance(Duration::from_secs(59));
    assert_eq!(bed.platform.desired(&device).len(), 1);
    bed.advance(Duration::from_secs(1));
    assert_eq!(outcome(&power(&bed, &device)), &SetOutcome::Expired);
    assert!(bed.platform.desired(&device).is_empty());
    let bed = bed.restart().await;
    let device = bed.platform.device("A", &Caller::program()).expect("registered");
    assert_eq!(outcome(&power(&bed, &device)), &SetOutcome::Expired);
    report(&bed, &device, "Power", "1").expect("taken");
    assert_eq!(outcome(&power(&bed, &device)), &SetOutcome::Applied);
    let forever = Set { expires_in: Some(Duration::from_secs(367 * 86_400)), ..wish };
    assert!(matches!(bed.platform.set(&device, forever).await, Err(SetError::Invalid { field: "expires_in", .. })));
}
