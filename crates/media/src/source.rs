//! The body of an upload, and how long it is waited for.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::Body as _;
use tokio::time::{Instant, timeout_at};

use crate::problem::{Kind, Problem};
use crate::turns::Turn;

/// The least an upload has to bring in each window of time, or its place is needed by others.
const WINDOW: Duration = Duration::from_secs(30);
const LEAST: u64 = 8 * 1024;
/// How long something that was sent before a newer request may be on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// A body that has to keep coming, and to come to an end.
pub(crate) struct Source {
    body: Body,
    window: Instant,
    come: u64,
    /// When the time of the upload is up.
    end: Instant,
    /// When what was on its way before a newer request came has come; from then on it is that one's turn.
    yields: Option<Instant>,
}

impl Source {
    /// Of an upload that has to be over at `end`.
    pub(crate) fn new(body: Body, end: Instant) -> Source {
        Source { body, window: Instant::now() + WINDOW, come: 0, end, yields: None }
    }

    /// What comes next; `None` at the end.
    pub(crate) async fn next(&mut self, turn: &Turn) -> Result<Option<Bytes>, Problem> {
        loop {
            let now = Instant::now();
            if self.yields.is_none() && turn.is_over() {
                // Once for all of the body: however it trickles, that is not put off.
                self.yields = Some(now + ON_ITS_WAY);
            }
            if self.yields.is_some_and(|yields| now >= yields) {
                return Err(Problem::new(Kind::Conflict, "Another request goes on with this upload."));
            }
            if now >= self.end {
                return Err(Problem::ticket());
            }
            if now >= self.window {
                if self.come < LEAST {
                    return Err(Problem::new(Kind::Timeout, "The content comes too slowly; go on with it later."));
                }
                (self.window, self.come) = (now + WINDOW, 0);
            }
            let until = self.window.min(self.end).min(self.yields.unwrap_or(self.end));
            let frame = timeout_at(until, poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)));
            let frame = tokio::select! {
                biased;
                frame = frame => frame,
                () = turn.ended(), if self.yields.is_none() => continue,
            };
            match frame {
                // Something is over; the next round looks at what it is.
                Err(_) => {}
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => {
                    return Err(Problem::new(Kind::Request, "The connection broke before the body was complete."));
                }
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.come += bytes.len() as u64;
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context as Waker, Poll};

    use hyper::body::Frame;
    use uuid::Uuid;

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
}
