//! Transparent pass-through, both ways.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use vestibule_platform::{Answer, Caller, Device, NotSent, Pass, PassError, PassOutcome, PassQuery, ReportError};

use crate::bed::{Bed, connect, path};

const LONG: Duration = Duration::from_secs(20);

async fn pass(bed: &Bed, device: &Arc<Device>, body: &[u8], deadline: Duration) -> Result<PassOutcome, PassError> {
    let caller = bed.caller();
    let path = (*path("Serial")).clone();
    let pass = Pass { path, media_type: "application/x-meter", body, deadline, by: &caller };
    bed.platform.pass(device, pass).await
}

async fn kept(bed: &Bed) -> Vec<Value> {
    bed.durable(bed.platform.journal().appended()).await;
    let query = PassQuery { limit: 100, ..PassQuery::default() };
    let records = bed.platform.passed_messages(query, &Caller::program()).await.expect("readable").items;
    records.iter().map(|record| serde_json::from_str(&record.data).expect("JSON")).collect()
}

#[tokio::test]
async fn a_message_reaches_the_device_as_it_is_and_what_became_of_it_is_kept() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    assert_eq!(pass(&bed, &device, b"\x00\xff", LONG).await.expect("tried"), PassOutcome::Offline);
    let (_, line) = connect(&bed.platform, &device, 1);
    let (outcome, ()) = tokio::join!(pass(&bed, &device, b"read 7", LONG), async {
        let sent = line.operation().await;
        assert_eq!(sent.input.as_deref(), Some("application/x-meter read 7"));
        assert!(sent.reply.answer(Answer::Done(None)));
    });
    assert_eq!(outcome.expect("tried"), PassOutcome::Delivered);
    let (outcome, ()) = tokio::join!(pass(&bed, &device, b"", LONG), async { drop(line.operation().await.reply) });
    assert_eq!(outcome.expect("tried"), PassOutcome::Unknown);
    let outcome = pass(&bed, &device, b"x", Duration::from_millis(100)).await;
    assert_eq!(outcome.expect("tried"), PassOutcome::TimedOut);
    let entry = |outcome: &str, base64: &str, bytes: usize| {
        json!({"direction": "down", "media_type": "application/x-meter", "bytes": bytes, "base64": base64,
               "by": "administrator", "outcome": outcome})
    };
    let expected = [
        entry("timed_out", "eA==", 1),
        entry("unknown", "", 0),
        entry("delivered", "cmVhZCA3", 6),
        entry("offline", "AP8=", 2),
    ];
    assert_eq!(kept(&bed).await, expected);
}

#[tokio::test]
async fn a_message_of_a_device_is_kept_as_it_is_within_its_limits() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    bed.platform.passed(&device, &path("Serial"), "text/plain", b"\xfe").expect("taken");
    let long = vec![0; 65_537];
    let refused = bed.platform.passed(&device, &path("Serial"), "text/plain", &long);
    assert_eq!(refused, Err(ReportError::TooLarge));
    let expected = json!({"direction": "up", "media_type": "text/plain", "bytes": 1, "base64": "/g=="});
    assert_eq!(kept(&bed).await, [expected]);
}

#[tokio::test]
async fn what_cannot_be_passed_is_an_error_and_not_kept() {
    let bed = Bed::new().await;
    let (device, caller) = (bed.add("A").await, bed.caller());
    let (_, line) = connect(&bed.platform, &device, 1);
    line.refuse(NotSent::Unsupported);
    assert!(matches!(pass(&bed, &device, b"x", LONG).await, Err(PassError::Unsupported)));
    let long = vec![0; 65_537];
    for (media_type, body, deadline, field) in [
        ("text", &b"x"[..], LONG, "Content-Type"),
        ("/plain", b"x", LONG, "Content-Type"),
        ("text/\u{e4}", b"x", LONG, "Content-Type"),
        ("text/plain", &long, LONG, "body"),
        ("text/plain", b"x", Duration::ZERO, "deadline_ms"),
    ] {
        let path = (*path("Serial")).clone();
        let refused = bed.platform.pass(&device, Pass { path, media_type, body, deadline, by: &caller }).await;
        assert!(matches!(refused, Err(PassError::Invalid { field: named, .. }) if named == field), "{field}");
    }
    assert!(kept(&bed).await.is_empty());
}
