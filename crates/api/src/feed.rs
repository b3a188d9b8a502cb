//! The event stream: events as they become durable, and changes of presence (server-sent events).
//!
//! A stream is a follower of the journal, not a queue: what a client has not taken yet stays in the journal. Only
//! a handful of ready-made messages lie between the follower and the socket.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use utoipa::IntoParams;
use vestibule_platform::{Device, DeviceId, Filter, Follow, Followed, Position, RecordKind};

use crate::api::Shared;
use crate::events::position;
use crate::extract::{Answer, Params, device_filter};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::{DeviceRef, DeviceShape, EventShape};

/// Messages made ready before the client has taken the earlier ones.
const READY: usize = 32;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamParams {
    /// Only of the device with this id or serial.
    device: Option<String>,
    /// Only events of this area.
    area: Option<String>,
    /// Only events with this name.
    #[serde(rename = "type")]
    #[param(example = "Smoke")]
    kind: Option<String>,
    /// Begin after this position; `Last-Event-ID` counts before it. Without either the stream begins now.
    #[param(example = "0")]
    after: Option<String>,
}

/// Follow events and presence as they happen (server-sent events)
///
/// `event: event` has the position as its `id` and an Event as its data. To go on after a break, send the last
/// `id` as `Last-Event-ID`: nothing is missed and nothing comes twice. `event: presence` has a Device as its data
/// and no `id`, and `event: removed` the `id` and `serial` of a device that was removed; both follow `device`
/// only, not `area` and `type`. `event: lagged` says with
/// `{"resume": position}` that the events up to there are gone (retention) and the stream goes on after it.
/// `event: presence_lagged` says with `{"missed": n}` that changes of presence were lost: read the devices again.
/// A comment comes every 15 s.
#[utoipa::path(
    get,
    path = "/v1/events/stream",
    tag = "events",
    params(
        StreamParams,
        ("Last-Event-ID" = Option<String>, Header, description = "Begin after this position"),
    ),
    responses(
        (status = 200, description = "The stream; it ends when the platform shuts down",
            body = String, content_type = "text/event-stream"),
        (status = 404, description = "No device has this id or serial",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams are open, or the platform is shutting down",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn stream_events(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Params(params): Params<StreamParams>,
) -> Answer<Response> {
    let after = match (headers.get("last-event-id"), params.after) {
        (Some(id), _) => Some(position("Last-Event-ID", id.to_str().unwrap_or_default())?),
        (None, Some(after)) => Some(position("after", &after)?),
        (None, None) => None,
    };
    let device = device_filter(&shared.platform, params.device.as_deref())?;
    if *shared.closing.borrow() {
        return Err(Problem::new(Kind::ShuttingDown, "The platform is shutting down."));
    }
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        metrics::counter!("vestibule_http_streams_refused_total").increment(1);
        return Err(Problem::new(Kind::TooManyStreams, "As many event streams as allowed are open."));
    };
    // Both begin before the answer does, so that a client that has the answer misses nothing.
    let presence = shared.platform.presence_changes();
    let follow =
        shared.platform.follow(after, Filter { kind: RecordKind::Event, device, area: params.area, name: params.kind });
    let (sender, messages) = mpsc::channel(READY);
    let feed = Feed { follow, presence, device, sender, _open: Open::new(permit) };
    tokio::spawn(feed.run(shared));
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
    follow: Follow,
    presence: broadcast::Receiver<Arc<Device>>,
    device: Option<DeviceId>,
    sender: mpsc::Sender<Bytes>,
    _open: Open,
}

impl Feed {
    /// Runs until the client is gone, the server shuts down or the store fails; the client comes back by itself.
    async fn run(self, shared: Arc<Shared>) {
        let Feed { mut follow, mut presence, device, sender, _open } = self;
        let every = shared.config.keep_alive;
        let mut keep_alive = interval_at(Instant::now() + every, every);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing = shared.closing.subscribe();
        let mut message = Bytes::from_static(b"retry: 2000\n\n");
        loop {
            // Kept until it is there: a reading of the journal that began anew with every other message might never end.
            let mut followed = pin!(follow.next());
            let next = loop {
                tokio::select! {
                    sent = sender.send(message) => if sent.is_err() { return },
                    _ = closing.wait_for(|closing| *closing) => return,
                }
                message = tokio::select! {
                    () = sender.closed() => return,
                    _ = closing.wait_for(|closing| *closing) => return,
                    next = &mut followed => break next,
                    changed = next_change(&mut presence, device) => changed,
                    _ = keep_alive.tick() => Bytes::from_static(b": keep-alive\n\n"),
                };
            };
            message = match next {
                Ok(Followed::Record(record)) => event_message(record.position, &EventShape::from(&*record)),
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

/// The next change of presence that the stream is about, as a message.
async fn next_change(presence: &mut broadcast::Receiver<Arc<Device>>, only: Option<DeviceId>) -> Bytes {
    loop {
        match presence.recv().await {
            Ok(device) if only.is_some_and(|only| only != device.id) => {}
            Ok(device) if device.is_removed() => {
                return message("event: removed\n", &DeviceRef::new(device.id, &device.serial));
            }
            Ok(device) => return message("event: presence\n", &DeviceShape::from(&*device)),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                return message("event: presence_lagged\n", &serde_json::json!({ "missed": missed }));
            }
            // The platform is gone; the stream ends with the server.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn event_message(position: Position, event: &EventShape<'_>) -> Bytes {
    message(&format!("id: {}\nevent: event\n", position.get()), event)
}

/// The lag has an id of its own, so that a client that breaks off here does not meet it again.
fn lagged_message(resume: Position) -> Bytes {
    let resume = resume.get();
    message(&format!("id: {resume}\nevent: lagged\n"), &serde_json::json!({ "resume": resume }))
}

/// One message. A device's own JSON may hold line breaks between its tokens, which would end the line early:
/// they are spaces to JSON, so they become spaces.
fn message(head: &str, data: &impl serde::Serialize) -> Bytes {
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
