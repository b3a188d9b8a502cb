//! Server-sent events: records as they become durable, and changes of presence.
//!
//! A stream is a follower of the journal, not a queue: what a client has not taken yet stays in the journal. Only
//! a handful of ready-made messages lie between the follower and the socket.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use vestibule_platform::{Caller, Change, Changes, DeviceId, Filter, Follow, Followed, Platform, Position, Record};

use crate::api::Shared;
use crate::events::position;
use crate::extract::Answer;
use crate::problem::{Kind, Problem};
use crate::shapes::{DeviceRef, DeviceShape};

/// Messages made ready before the client has taken the earlier ones.
const READY: usize = 32;

/// What one stream shows.
pub(crate) struct Show {
    /// To whom: what it does not see is left out, and the stream ends with its rights.
    pub(crate) by: Caller,
    /// Which records.
    pub(crate) filter: Filter,
    /// After which position; from now on without one.
    pub(crate) after: Option<Position>,
    /// One record as a message.
    pub(crate) record: fn(&Record) -> Bytes,
    /// Whether changes of presence are shown as well.
    pub(crate) presence: bool,
}

/// Where a client wants its stream to begin: what it has seen last counts before what it asks for.
pub(crate) fn begin(headers: &HeaderMap, after: Option<&str>) -> Answer<Option<Position>> {
    match (headers.get("last-event-id"), after) {
        (Some(id), _) => position("Last-Event-ID", id.to_str().unwrap_or_default()).map(Some),
        (None, Some(after)) => position("after", after).map(Some),
        (None, None) => Ok(None),
    }
}

/// A place among the answers that go on for long: streams and exports. Somebody who asks for many waits for himself.
pub(crate) fn place(shared: &Shared) -> Answer<OwnedSemaphorePermit> {
    if *shared.closing.borrow() {
        return Err(Problem::new(Kind::ShuttingDown, "The platform is shutting down."));
    }
    Arc::clone(&shared.streams).try_acquire_owned().map_err(|_| {
        metrics::counter!("vestibule_http_streams_refused_total").increment(1);
        Problem::new(Kind::TooManyStreams, "As many streams and exports as allowed are open.")
    })
}

/// Opens a stream; what it shows goes on until the client is gone or the server shuts down.
pub(crate) fn open(shared: &Arc<Shared>, show: Show) -> Answer<Response> {
    let permit = place(shared)?;
    // Both begin before the answer does, so that a client that has the answer misses nothing.
    let presence = show.presence.then(|| shared.platform.changes(&show.by));
    let device = show.filter.device;
    let after = show.after.unwrap_or_else(|| shared.platform.journal().durable());
    let follow = shared.platform.follow(Some(after), show.filter, &show.by);
    let (sender, messages) = mpsc::channel(READY);
    let (by, record, _open) = (show.by, show.record, Open::new(permit));
    let feed = Feed { by, follow, begin: after, record, presence, device, sender, _open };
    tokio::spawn(feed.run(Arc::clone(shared)));
    let mut response = Body::new(Messages(messages)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

/// One open stream, counted while it lives.
struct Open {
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(permit: OwnedSemaphorePermit) -> Open {
        metrics::gauge!("vestibule_http_streams").increment(1.0);
        Open { _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("vestibule_http_streams").decrement(1.0);
    }
}

/// What fills one stream.
struct Feed {
    by: Caller,
    follow: Follow,
    begin: Position,
    record: fn(&Record) -> Bytes,
    presence: Option<Changes>,
    device: Option<DeviceId>,
    sender: mpsc::Sender<Bytes>,
    _open: Open,
}

impl Feed {
    /// Runs until the client is gone or its rights have ended, the server shuts down or the store fails; the client comes
    /// back by itself.
    async fn run(self, shared: Arc<Shared>) {
        let Feed { by, mut follow, begin, record, mut presence, device, sender, _open } = self;
        let every = shared.config.keep_alive;
        let mut keep_alive = interval_at(Instant::now() + every, every);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing = shared.closing.subscribe();
        // With its place, so that a client that is cut off before the first record comes back to it.
        let mut message = Bytes::from(format!("retry: 2000\nid: {}\n\n", begin.get()));
        loop {
            // Kept until it is there: a reading of the journal that began anew with every other message might never end.
            let mut followed = pin!(follow.next());
            let next = loop {
                if !by.is_current(shared.platform.clock().now_ms()) {
                    return;
                }
                tokio::select! {
                    sent = sender.send(message) => if sent.is_err() { return },
                    _ = closing.wait_for(|closing| *closing) => return,
                }
                message = tokio::select! {
                    () = sender.closed() => return,
                    _ = closing.wait_for(|closing| *closing) => return,
                    next = &mut followed => break next,
                    changed = next_change(&shared.platform, presence.as_mut(), device, &by) => changed,
                    _ = keep_alive.tick() => Bytes::from_static(b": keep-alive\n\n"),
                };
            };
            message = match next {
                Ok(Followed::Record(followed)) => record(&followed),
                Ok(Followed::Lagged { resume }) => lagged_message(resume),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "an event stream ends: the journal cannot be read"
                    );
                    return;
                }
            };
        }
    }
}

/// The next change of presence that the stream is about, as a message; never, for a stream without them.
async fn next_change(
    platform: &Platform,
    presence: Option<&mut Changes>,
    only: Option<DeviceId>,
    by: &Caller,
) -> Bytes {
    let Some(presence) = presence else { return std::future::pending().await };
    loop {
        match presence.next().await {
            Change::Device(device) | Change::Gone(device) if only.is_some_and(|only| only != device.id) => {}
            Change::Gone(device) => return message("event: removed\n", &DeviceRef::new(device.id, &device.serial)),
            Change::Device(device) => return message("event: presence\n", &DeviceShape::of(platform, &device, by)),
            Change::Lagged(missed) => {
                return message("event: presence_lagged\n", &serde_json::json!({ "missed": missed }));
            }
        }
    }
}

/// A record as a message of this kind.
pub(crate) fn record_message(kind: &'static str, position: Position, shape: &impl Serialize) -> Bytes {
    message(&format!("id: {}\nevent: {kind}\n", position.get()), shape)
}

/// The lag has an id of its own, so that a client that breaks off here does not meet it again.
fn lagged_message(resume: Position) -> Bytes {
    let resume = resume.get();
    message(&format!("id: {resume}\nevent: lagged\n"), &serde_json::json!({ "resume": resume }))
}

/// One message. A device's own JSON may hold line breaks between its tokens, which would end the line early:
/// they are spaces to JSON, so they become spaces.
fn message(head: &str, data: &impl Serialize) -> Bytes {
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(b"data: ");
    let start = text.len();
    // Shapes are strings, numbers and checked JSON: they always have a JSON text.
    let _ = serde_json::to_writer(&mut text, data);
    for byte in &mut text[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text.extend_from_slice(b"\n\n");
    Bytes::from(text)
}

/// The stream's body: whatever messages are ready go out in one piece.
struct Messages(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Messages {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        let mut ready = Vec::new();
        let count = ready!(self.0.poll_recv_many(cx, &mut ready, READY));
        Poll::Ready(match count {
            0 => None,
            1 => ready.pop().map(|message| Ok(Frame::data(message))),
            _ => Some(Ok(Frame::data(Bytes::from(ready.concat())))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_the_device_sent() {
        let raw: Box<serde_json::value::RawValue> =
            serde_json::from_str("{\"a\":\r\n1,\n\n\"b\":\"\\n\"}").expect("JSON");
        assert_eq!(
            message("id: 1\nevent: event\n", &raw),
            "id: 1\nevent: event\ndata: {\"a\":  1,  \"b\":\"\\n\"}\n\n"
        );
    }

    #[test]
    fn a_lag_says_where_it_goes_on() {
        assert_eq!(lagged_message(Position::new(9)), "id: 9\nevent: lagged\ndata: {\"resume\":9}\n\n");
    }
}
