use std::convert::Infallible;
use std::task::{Context as Waker, Poll};

use hyper::body::Frame;

use super::*;
use crate::turns::Turns;

/// A body that brings a little every so often, and never ends.
struct Trickle(Pin<Box<tokio::time::Sleep>>, usize);

const EVERY: Duration = Duration::from_millis(100);

fn trickle(size: usize) -> Body {
    Body::new(Trickle(Box::pin(tokio::time::sleep(EVERY)), size))
}

impl hyper::body::Body for Trickle {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.0.as_mut().poll(cx));
        self.0.as_mut().reset(Instant::now() + EVERY);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![7; self.1])))))
    }
}

/// How a source ends, and after how long.
async fn end(source: &mut Source, turn: &Turn) -> (Kind, Duration) {
    let start = Instant::now();
    loop {
        match source.next(turn).await {
            Ok(bytes) => assert!(bytes.is_some(), "it never ends by itself"),
            Err(problem) => return (problem.kind, start.elapsed()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_trickles_yields_and_ends() {
    const FAR: Duration = Duration::from_secs(3_600);
    let turns = std::sync::Arc::new(Turns::default());
    let id = Uuid::now_v7();
    let turn = turns.take(id).await;

    let mut slow = Source::new(trickle(1), Instant::now() + FAR);
    assert_eq!(end(&mut slow, &turn).await, (Kind::Timeout, WINDOW));

    let mut enough = Source::new(trickle(LEAST as usize), Instant::now() + FAR);
    assert_eq!(end(&mut enough, &turn).await, (Kind::Ticket, FAR), "it has its time, and no more");

    let mut going = Source::new(trickle(1), Instant::now() + FAR);
    assert!(going.next(&turn).await.is_ok());
    let newer = tokio::spawn(async move { turns.take(id).await });
    turn.ended().await;
    assert_eq!(end(&mut going, &turn).await, (Kind::Conflict, ON_ITS_WAY), "what comes does not put it off");
    drop(turn);
    newer.await.expect("a turn");
}
