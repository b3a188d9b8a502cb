//! Operations that wait for their device: sent once, in order, in time or not at all.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use uuid::Uuid;
use vestibule_platform::{Answer, Caller, Device, Invoke, InvokeError, NotSent, OperationQuery, Outcome};
use vestibule_store::{Control, QueuedOperation};

use crate::bed::{Bed, PATIENCE, connect, eventually, path};

const MINUTE: Duration = Duration::from_secs(60);

async fn queue(bed: &Bed, device: &Arc<Device>, input: &str) -> Result<(Uuid, Outcome), InvokeError> {
    let caller = bed.caller();
    let invoke = Invoke {
        path: (*path("Open")).clone(),
        input: Some(input),
        deadline: Duration::from_secs(20),
        queue: Some(MINUTE),
        idempotency_key: None,
        by: &caller,
    };
    bed.platform.invoke(device, invoke).await
}

/// Outcomes and what they are the end of, oldest first.
async fn logged(bed: &Bed) -> Vec<(String, Option<String>)> {
    bed.durable(bed.platform.journal().appended()).await;
    let query = OperationQuery { limit: 100, ..OperationQuery::default() };
    let records = bed.platform.operations(query, &Caller::program()).await.expect("readable").items;
    let entry = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let of = |entry: Value| (text(&entry["outcome"]).expect("an outcome"), text(&entry["queued"]));
    records.iter().rev().map(|record| of(entry(&record.data))).collect()
}

async fn expect_logged(bed: &Bed, count: usize) {
    let written = async { while logged(bed).await.len() < count {} };
    tokio::time::timeout(PATIENCE, written).await.expect("it is written down");
}

#[tokio::test]
async fn what_waits_is_sent_in_order_when_the_device_comes_also_after_a_restart() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let mut ids = Vec::new();
    for input in ["1", "2", "3"] {
        let (id, outcome) = queue(&bed, &device, input).await.expect("queued");
        assert_eq!(outcome, Outcome::Queued { expires: bed.now() + 60_000 });
        ids.push(id);
    }
    let bed = bed.crash().await;
    let device = bed.platform.device("A", &Caller::program()).expect("known");
    let waiting: Vec<_> = bed.platform.waiting(&device).into_iter().map(|one| (one.id, one.input)).collect();
    assert_eq!(waiting, [(ids[0], Some("1".into())), (ids[1], Some("2".into())), (ids[2], Some("3".into()))]);
    let (_, line) = connect(&bed.platform, &device, 1);
    for input in ["1", "2", "3"] {
        let sent = line.operation().await;
        assert_eq!((sent.input.as_deref(), line.waiting()), (Some(input), 0), "one after the other");
        assert!(sent.reply.answer(Answer::Done(None)));
    }
    eventually("none waits", || bed.platform.waiting(&device).is_empty()).await;
    let expected: Vec<_> = ids.iter().map(|id| ("done".to_owned(), Some(id.to_string()))).collect();
    expect_logged(&bed, 6).await;
    assert_eq!(logged(&bed).await[3..], expected);
    let bed = bed.restart().await;
    assert!(bed.platform.waiting(&bed.platform.device("A", &Caller::program()).expect("known")).is_empty());
}

#[tokio::test]
async fn what_has_had_its_time_is_not_sent() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (id, _) = queue(&bed, &device, "1").await.expect("queued");
    bed.advance(MINUTE);
    let (_, line) = connect(&bed.platform, &device, 1);
    eventually("it is given up", || bed.platform.waiting(&device).is_empty()).await;
    expect_logged(&bed, 2).await;
    let expected = [("queued".to_owned(), None), ("expired".to_owned(), Some(id.to_string()))];
    assert_eq!((logged(&bed).await.as_slice(), line.waiting()), (&expected[..], 0));
}

#[tokio::test]
async fn what_was_taken_and_not_sent_goes_on_waiting_in_front() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    for input in ["1", "2"] {
        queue(&bed, &device, input).await.expect("queued");
    }
    let (_, line) = connect(&bed.platform, &device, 1);
    line.refuse(NotSent::Busy);
    eventually("it is taken, refused and put back", || line.refused() > 0 && bed.platform.waiting(&device).len() == 2)
        .await;
    line.accept();
    for input in ["1", "2"] {
        let sent = line.operation().await;
        assert_eq!(sent.input.as_deref(), Some(input));
        assert!(sent.reply.answer(Answer::Done(None)));
    }
}

#[tokio::test]
async fn what_was_taken_when_the_platform_ended_is_unknown_and_not_sent_again() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (id, _) = queue(&bed, &device, "1").await.expect("queued");
    let (_, line) = connect(&bed.platform, &device, 1);
    let sent = line.operation().await;
    let bed = bed.crash().await;
    let device = bed.platform.device("A", &Caller::program()).expect("known");
    let (_, again) = connect(&bed.platform, &device, 1);
    expect_logged(&bed, 2).await;
    let expected = [("queued".to_owned(), None), ("unknown".to_owned(), Some(id.to_string()))];
    assert_eq!((logged(&bed).await.as_slice(), again.waiting()), (&expected[..], 0));
    drop(sent);
    let bed = bed.restart().await;
    assert!(bed.platform.waiting(&bed.platform.device("A", &Caller::program()).expect("known")).is_empty());
}

#[tokio::test]
async fn the_next_one_is_sent_after_the_answer_to_the_one_before_however_long_that_takes() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    for input in ["1", "2"] {
        queue(&bed, &device, input).await.expect("queued");
    }
    let (_, line) = connect(&bed.platform, &device, 1);
    let first = line.operation().await;
    // Longer than from one look at the queues to the next.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(line.waiting(), 0);
    assert!(first.reply.answer(Answer::Done(None)));
    assert_eq!(line.operation().await.input.as_deref(), Some("2"));
}

#[tokio::test]
async fn what_has_had_its_time_while_the_one_before_was_waited_for_is_not_sent() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    queue(&bed, &device, "1").await.expect("queued");
    let (late, _) = queue(&bed, &device, "2").await.expect("queued");
    let (_, line) = connect(&bed.platform, &device, 1);
    let first = line.operation().await;
    bed.advance(MINUTE);
    assert!(first.reply.answer(Answer::Done(None)));
    expect_logged(&bed, 4).await;
    assert_eq!(logged(&bed).await[3], ("expired".to_owned(), Some(late.to_string())));
    assert_eq!(line.waiting(), 0);
}

#[tokio::test]
async fn what_waits_for_a_device_that_is_removed_ends_with_it() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (id, _) = queue(&bed, &device, "1").await.expect("queued");
    bed.platform.remove_device(&device, &bed.caller()).await.expect("removed");
    expect_logged(&bed, 2).await;
    assert_eq!(logged(&bed).await[1], ("cancelled".to_owned(), Some(id.to_string())));
}

#[tokio::test]
async fn what_ended_and_stayed_in_the_queue_does_not_end_twice() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (id, _) = queue(&bed, &device, "1").await.expect("queued");
    assert!(bed.platform.cancel(&device, id, &bed.caller()).await.expect("stored"));
    // As if the platform had ended before it could take it out.
    let left = QueuedOperation {
        id,
        device: device.id,
        path: (*path("Open")).clone(),
        input: Some("1".into()),
        created: bed.now(),
        expires: bed.now() + 60_000,
        deadline_ms: 20_000,
        by: "program".into(),
        taken: true,
    };
    let bed = bed.restart_after(async |control| assert!(control.queue_operation(left, 1).await.expect("stored"))).await;
    let device = bed.platform.device("A", &Caller::program()).expect("known");
    eventually("it is looked at", || bed.platform.waiting(&device).is_empty()).await;
    let none_left = async |control: &Control| assert_eq!(control.queued_operations().await.expect("readable"), []);
    let bed = bed.restart_after(none_left).await;
    let expected = [("queued".to_owned(), None), ("cancelled".to_owned(), Some(id.to_string()))];
    assert_eq!(logged(&bed).await, expected);
}

#[tokio::test]
async fn what_waits_is_taken_back_and_has_a_limit() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (id, _) = queue(&bed, &device, "1").await.expect("queued");
    assert!(bed.platform.cancel(&device, id, &bed.caller()).await.expect("stored"));
    assert!(!bed.platform.cancel(&device, id, &bed.caller()).await.expect("stored"));
    let expected = [("queued".to_owned(), None), ("cancelled".to_owned(), Some(id.to_string()))];
    assert_eq!(logged(&bed).await, expected);
    for _ in 0..256 {
        queue(&bed, &device, "1").await.expect("queued");
    }
    assert!(matches!(queue(&bed, &device, "1").await, Err(InvokeError::QueueFull)));
    assert_eq!(bed.platform.waiting(&device).len(), 256);
    // A device that is removed takes its queue along.
    bed.platform.remove_device(&device, &bed.caller()).await.expect("removed");
    eventually("none waits", || bed.platform.waiting(&device).is_empty()).await;
}

#[tokio::test]
async fn what_the_store_does_not_answer_for_is_unknown_and_taken_back() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let options = SqliteConnectOptions::new().filename(bed.data().join("control.db"));
    let mut obstacle = options.connect().await.expect("a database");
    obstacle.execute("BEGIN IMMEDIATE").await.expect("nobody writes");
    let (id, outcome) = queue(&bed, &device, "1").await.expect("an answer");
    assert_eq!(outcome, Outcome::Unknown);
    assert!(bed.platform.waiting(&device).is_empty());
    // As if the insertion had gone through, and only its answer had been lost.
    sqlx::query(
        "INSERT INTO queued_operation (id, device, resource, place, area, name, input, created, expires, deadline_ms, \
         asked_by, taken) VALUES ($1, $2, 'global', '0', 'area', 'Open', '1', 0, 9000000000000, 1000, 'somebody', 0)",
    )
    .bind(id.as_bytes().as_slice())
    .bind(device.id.as_bytes().as_slice())
    .execute(&mut obstacle)
    .await
    .expect("inserted");
    obstacle.execute("COMMIT").await.expect("committed");
    let left = async |connection: &mut sqlx::SqliteConnection| -> i64 {
        let left = sqlx::query_scalar("SELECT count(*) FROM queued_operation").fetch_one(connection).await;
        left.expect("readable")
    };
    let gone = async { while left(&mut obstacle).await > 0 {} };
    tokio::time::timeout(PATIENCE, gone).await.expect("it is taken back");
    obstacle.close().await.expect("closed");
    expect_logged(&bed, 1).await;
    assert_eq!(logged(&bed).await, [("unknown".to_owned(), None)]);
    let bed = bed.restart().await;
    assert!(bed.platform.waiting(&bed.platform.device("A", &Caller::program()).expect("known")).is_empty());
}
