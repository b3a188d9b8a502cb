//! Operations: what the caller is told is what is known.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use vestibule_platform::{
    Answer, Caller, Device, DevicePath, Invoke, InvokeError, NotSent, OperationQuery, Outcome, Platform, RecordKind,
};

use crate::bed::{Bed, connect, path};

fn open_door() -> DevicePath {
    (*path("Open")).clone()
}

async fn invoke_within(
    platform: Arc<Platform>,
    device: Arc<Device>,
    token: String,
    input: Option<&str>,
    deadline: Duration,
) -> Result<Outcome, String> {
    let caller = platform.authorize(&token).expect("the administrator");
    let invoke = Invoke { path: open_door(), input, deadline, queue: None, idempotency_key: None, by: &caller };
    platform.invoke(&device, invoke).await.map(|(_, outcome)| outcome).map_err(|error| error.to_string())
}

async fn invoke(bed: &Bed, device: &Arc<Device>, input: Option<&str>) -> Result<Outcome, String> {
    let (platform, device) = (Arc::clone(&bed.platform), Arc::clone(device));
    invoke_within(platform, device, bed.token(), input, Duration::from_secs(20)).await
}

/// The operation log, newest first.
async fn logged(bed: &Bed) -> Vec<Value> {
    let appended = bed.platform.journal().appended();
    bed.durable(appended).await;
    let query = OperationQuery { limit: 100, ..OperationQuery::default() };
    let records = bed.platform.operations(query, &Caller::program()).await.expect("readable").items;
    records
        .iter()
        .map(|record| {
            assert_eq!(record.kind, RecordKind::Operation);
            assert!(record.id.is_some());
            let mut entry: Value = serde_json::from_str(&record.data).expect("JSON");
            entry.as_object_mut().expect("an object").remove("took_ms").expect("how long it took");
            entry
        })
        .collect()
}

#[tokio::test]
async fn an_answer_is_passed_on_and_written_down() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    let (done, ()) = tokio::join!(invoke(&bed, &device, Some(r#"{"seconds": 5}"#)), async {
        let sent = line.operation().await;
        assert_eq!((sent.path, sent.input.as_deref()), (open_door(), Some(r#"{"seconds": 5}"#)));
        assert!(sent.reply.answer(Answer::Done(Some(r#"{"open":true}"#.into()))));
    });
    assert_eq!(done, Ok(Outcome::Done { output: Some(r#"{"open":true}"#.into()) }));
    let (failed, ()) = tokio::join!(invoke(&bed, &device, None), async {
        let sent = line.operation().await;
        assert_eq!(sent.input, None);
        assert!(sent.reply.answer(Answer::Failed { code: 7, message: Some("stuck".into()) }));
    });
    assert_eq!(failed, Ok(Outcome::Failed { code: 7, message: Some("stuck".into()) }));
    let expected = [
        json!({"by": "administrator", "outcome": "failed", "code": 7, "message": "stuck"}),
        json!({"by": "administrator", "input": {"seconds": 5}, "outcome": "done", "output": {"open": true}}),
    ];
    assert_eq!(logged(&bed).await, expected);
}

#[tokio::test]
async fn a_device_that_is_away_is_offline_and_sent_nothing_later() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    assert_eq!(invoke(&bed, &device, None).await, Ok(Outcome::Offline));
    let (_, line) = connect(&bed.platform, &device, 1);
    assert_eq!(line.waiting(), 0);
    line.refuse(NotSent::Ending);
    assert_eq!(invoke(&bed, &device, None).await, Ok(Outcome::Offline));
    assert_eq!(logged(&bed).await, vec![json!({"by": "administrator", "outcome": "offline"}); 2]);
}

#[tokio::test]
async fn a_link_lost_after_sending_leaves_the_outcome_unknown() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    let (outcome, ()) = tokio::join!(invoke(&bed, &device, None), async { drop(line.operation().await) });
    assert_eq!(outcome, Ok(Outcome::Unknown));
    assert_eq!(device.last_failure().expect("a fact").reason, "unknown");
    assert_eq!(logged(&bed).await.len(), 1);
}

#[tokio::test]
async fn a_deadline_that_passes_is_said_and_the_answer_after_it_is_late() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    let (platform, deadline) = (Arc::clone(&bed.platform), Duration::from_millis(100));
    let outcome = invoke_within(platform, Arc::clone(&device), bed.token(), None, deadline).await;
    assert_eq!(outcome, Ok(Outcome::TimedOut));
    assert!(!line.operation().await.reply.answer(Answer::Done(None)), "nobody waits any more");
    bed.platform.late_answer(&device, Some(&Arc::new(open_door())), 0);
    let facts = device.facts();
    let reasons: Vec<&str> = facts.iter().map(|fact| &*fact.reason).collect();
    assert_eq!(reasons, ["timed_out", "late_answer"]);
    let late = &logged(&bed).await[0];
    assert_eq!(*late, json!({"by": "device", "outcome": "late", "code": 0}));
}

#[tokio::test]
async fn what_was_not_sent_is_an_error_and_not_written_down() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    for (refusal, error) in [
        (NotSent::Busy, InvokeError::Busy),
        (NotSent::TooLarge, InvokeError::TooLarge),
        (NotSent::NotAddressable("too long"), InvokeError::Invalid { field: "path", reason: "too long" }),
    ] {
        line.refuse(refusal);
        assert_eq!(invoke(&bed, &device, None).await, Err(error.to_string()));
    }
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    let long = format!("\"{}\"", "x".repeat(65_536));
    for input in [&*deep, &*long, "1,2", "", "{"] {
        let refused = invoke(&bed, &device, Some(input)).await;
        assert!(refused.is_err_and(|error| error.starts_with("input ")), "{input:.20}");
    }
    let platform = Arc::clone(&bed.platform);
    let hasty = invoke_within(platform, Arc::clone(&device), bed.token(), None, Duration::from_millis(99)).await;
    assert!(hasty.is_err_and(|error| error.starts_with("deadline_ms ")));
    assert_eq!(logged(&bed).await, [] as [Value; 0]);
}

#[tokio::test]
async fn an_operation_is_written_down_when_its_caller_has_gone_away() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    let (platform, token) = (Arc::clone(&bed.platform), bed.token());
    let target = Arc::clone(&device);
    let caller =
        tokio::spawn(async move { invoke_within(platform, target, token, None, Duration::from_secs(20)).await });
    let sent = line.operation().await;
    caller.abort();
    assert!(caller.await.is_err_and(|error| error.is_cancelled()));
    let before = bed.platform.journal().appended();
    assert!(sent.reply.answer(Answer::Done(None)), "the platform still waits");
    crate::bed::eventually("the end is written down", || bed.platform.journal().appended() > before).await;
    assert_eq!(logged(&bed).await, [json!({"by": "administrator", "outcome": "done"})]);
}
