//! Idempotency keys: asked twice, done once.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use vestibule_platform::{Answer, Caller, Device, Invoke, InvokeError, Outcome, Role};

use crate::bed::{Bed, connect, eventually, path};
use crate::token::make;

async fn ask(bed: &Bed, device: &Arc<Device>, key: &str, input: &str) -> Result<(Uuid, Outcome), InvokeError> {
    ask_as(bed, device, key, input, &bed.caller()).await
}

async fn ask_as(
    bed: &Bed,
    device: &Arc<Device>,
    key: &str,
    input: &str,
    by: &Caller,
) -> Result<(Uuid, Outcome), InvokeError> {
    let invoke = Invoke {
        path: (*path("Open")).clone(),
        input: Some(input),
        deadline: Duration::from_secs(20),
        queue: None,
        idempotency_key: Some(key),
        by,
    };
    bed.platform.invoke(device, invoke).await
}

#[tokio::test]
async fn the_same_request_is_answered_as_the_first_time_and_sent_once() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    let (first, (under_way, other)) = tokio::join!(ask(&bed, &device, "k1", "1"), async {
        let sent = line.operation().await;
        let asked = (ask(&bed, &device, "k1", "1").await, ask(&bed, &device, "k1", "2").await);
        assert!(sent.reply.answer(Answer::Done(Some("7".into()))));
        asked
    });
    let first = first.expect("done");
    assert!(matches!(under_way, Err(InvokeError::KeyUnderWay)));
    assert!(matches!(other, Err(InvokeError::KeyTaken)));
    assert_eq!(ask(&bed, &device, "k1", "1").await.expect("as before"), first);
    assert!(matches!(ask(&bed, &device, "k1", "2").await, Err(InvokeError::KeyTaken)));
    let bed = bed.restart().await;
    let device = bed.platform.device("A", &Caller::program()).expect("known");
    assert_eq!(ask(&bed, &device, "k1", "1").await.expect("as before"), first);
    assert_eq!(line.waiting(), 0);
    bed.advance(Duration::from_secs(24 * 3_600));
    assert_eq!(ask(&bed, &device, "k1", "2").await.expect("a new request").1, Outcome::Offline);
}

#[tokio::test]
async fn a_request_of_which_nothing_was_sent_may_come_again() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    assert_eq!(ask(&bed, &device, "k", "1").await.expect("asked").1, Outcome::Offline);
    let (_, line) = connect(&bed.platform, &device, 1);
    let (done, ()) = tokio::join!(ask(&bed, &device, "k", "1"), async {
        assert!(line.operation().await.reply.answer(Answer::Done(None)));
    });
    assert_eq!(done.expect("done").1, Outcome::Done { output: None });
    for key in ["", &"k".repeat(256)] {
        let refused = ask(&bed, &device, key, "1").await;
        assert!(matches!(refused, Err(InvokeError::Invalid { field: "Idempotency-Key", .. })));
    }
}

#[tokio::test]
async fn what_the_platform_ended_in_the_middle_of_is_unknown_and_not_sent_again() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    let platform = Arc::clone(&bed.platform);
    let caller = bed.caller();
    let target = Arc::clone(&device);
    let asked = tokio::spawn(async move {
        let path = (*path("Open")).clone();
        let (deadline, idempotency_key) = (Duration::from_secs(20), Some("k"));
        let invoke = Invoke { path, input: Some("1"), deadline, queue: None, idempotency_key, by: &caller };
        platform.invoke(&target, invoke).await
    });
    eventually("it is sent", || line.waiting() == 1).await;
    let bed = bed.crash().await;
    let device = bed.platform.device("A", &Caller::program()).expect("known");
    let (_, line) = connect(&bed.platform, &device, 1);
    assert_eq!(ask(&bed, &device, "k", "1").await.expect("answered").1, Outcome::Unknown);
    assert_eq!(line.waiting(), 0);
    asked.abort();
}

#[tokio::test]
async fn of_many_at_the_same_moment_one_is_carried_out() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    for key in 0..50 {
        let key = format!("k{key}");
        let answered = async { assert!(line.operation().await.reply.answer(Answer::Done(None))) };
        let (first, second, third, ()) = tokio::join!(
            ask(&bed, &device, &key, "1"),
            ask(&bed, &device, &key, "1"),
            ask(&bed, &device, &key, "1"),
            answered
        );
        let asked = [first, second, third];
        let done = asked.iter().filter(|asked| matches!(asked, Ok((_, Outcome::Done { .. })))).count();
        let told_to_wait = asked.iter().filter(|asked| matches!(asked, Err(InvokeError::KeyUnderWay))).count();
        assert_eq!((done, told_to_wait, line.waiting()), (1, 2, 0), "{key}");
    }
}

#[tokio::test]
async fn who_is_given_the_name_of_somebody_else_is_not_given_his_keys() {
    let bed = Bed::new().await;
    let device = bed.add("A").await;
    let (_, line) = connect(&bed.platform, &device, 1);
    let mut asked = Vec::new();
    for input in ["1", "1", "2"] {
        let token = make(&bed.platform, "ci", Role::Operator, "/", &bed.caller()).await;
        let by = bed.platform.authorize(&token).expect("known");
        let (done, ()) = tokio::join!(ask_as(&bed, &device, "k", input, &by), async {
            assert!(line.operation().await.reply.answer(Answer::Done(None)));
        });
        asked.push(done.expect("done").0);
        assert_eq!(ask_as(&bed, &device, "k", input, &by).await.expect("as before").0, asked[asked.len() - 1]);
        assert!(bed.platform.remove_token("ci", &bed.caller()).await.expect("stored"));
    }
    asked.dedup();
    assert_eq!(asked.len(), 3, "each was carried out");
}
