//! The way of one picture to the platform, over any number of connections: asked where, sent, gone on with after a cut.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use osap::das::storage::{self, Grant, Object, Query, Results, Uploaded};
use osap::das::topic::{GLOBAL, Topic};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::exchange::{Answered, Sent, authority, exchange};
use super::{Asking, MAX_PICTURES, Picture, UploadError};
use crate::attribute::Message;
use crate::calls::Answer;
use crate::driver::now;
use crate::shared::Shared;
use crate::state::State;

/// How long the platform's answer is waited for.
const ANSWER: Duration = Duration::from_secs(30);
/// First pause after an attempt that failed; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Attempts at one picture.
const ATTEMPTS: u32 = 100;

/// One of the pictures that are on their way.
struct Place<'a>(&'a Shared);

impl<'a> Place<'a> {
    fn take(shared: &'a Shared) -> Result<Place<'a>, UploadError> {
        let mut steering = shared.steering.lock();
        let asking = steering.asking.get_or_insert_default();
        if asking.under_way >= MAX_PICTURES {
            return Err(UploadError::Full);
        }
        asking.under_way += 1;
        Ok(Place(shared))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(asking) = &mut self.0.steering.lock().asking {
            asking.under_way -= 1;
        }
    }
}

/// Why an attempt led to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// The next may do better.
    Again,
    /// The address is worth nothing any more.
    Elsewhere,
    /// Nothing will.
    Ever(UploadError),
}

/// How a picture fared: nothing until that is known.
pub(crate) type Outcome = Option<Result<(), UploadError>>;

/// Sends a picture without anybody waiting for it; what is returned says how it went.
pub(crate) fn send_in_background(shared: &Arc<Shared>, sub: &str, picture: Picture) -> watch::Receiver<Outcome> {
    let (sender, outcome) = watch::channel(None);
    let (shared, sub) = (Arc::clone(shared), Box::<str>::from(sub));
    tokio::spawn(async move {
        let sent = send(&shared, &sub, &picture).await;
        if let Err(error) = sent {
            tracing::debug!(serial = %shared.profile.serial, picture = %picture.id(), %error, "a picture is not sent");
        }
        sender.send_replace(Some(sent));
    });
    outcome
}

/// Sends a picture of the device or of a child; returns when the platform has it.
pub(crate) async fn send(shared: &Shared, sub: &str, picture: &Picture) -> Result<(), UploadError> {
    let _place = Place::take(shared)?;
    let mut state = shared.state.subscribe();
    let mut way = Way { shared, sub, picture, place: None, begun: false };
    let mut pause = FIRST_PAUSE;
    for _ in 0..ATTEMPTS {
        until(&mut state, |state| *state == State::Online).await?;
        let mut end = state.clone();
        let tried = tokio::select! {
            tried = way.attempt() => tried,
            stopped = until(&mut end, |_| false) => return stopped,
        };
        match tried {
            Ok(()) => return Ok(()),
            Err(Failed::Ever(error)) => {
                way.tell(-1);
                return Err(error);
            }
            Err(Failed::Elsewhere) => way.place = None,
            Err(Failed::Again) => {}
        }
        // A device that has lost its connection is at once there again when that is back.
        let lost = timeout(pause, until(&mut state, |state| *state != State::Online)).await;
        pause = if lost.is_ok() { FIRST_PAUSE } else { (pause * 2).min(MAX_PAUSE) };
    }
    way.tell(-1);
    Err(UploadError::GivenUp)
}

/// Waits for a state; an error when the device stops before.
async fn until(state: &mut watch::Receiver<State>, wanted: impl Fn(&State) -> bool) -> Result<(), UploadError> {
    let is_over = |state: &State| matches!(state, State::Stopped(_));
    match state.wait_for(|state| is_over(state) || wanted(state)).await {
        Ok(state) if is_over(&state) => Err(UploadError::Stopped),
        Ok(_) => Ok(()),
        Err(_) => Err(UploadError::Stopped),
    }
}

struct Way<'a> {
    shared: &'a Shared,
    sub: &'a str,
    picture: &'a Picture,
    /// Where it is to be sent, once the platform has said so.
    place: Option<(Uri, HeaderMap)>,
    /// Some of it may be there.
    begun: bool,
}

impl Way<'_> {
    async fn attempt(&mut self) -> Result<(), Failed> {
        let (url, headers) = match self.place.clone() {
            Some(place) => place,
            None => {
                let asked = self.ask().await?;
                self.place.insert(asked).clone()
            }
        };
        let content = &self.picture.0;
        let mut from = 0;
        if self.begun {
            let asked = Sent { method: Method::HEAD, headers: HeaderMap::new(), bytes: Bytes::new() };
            let standing = exchange(self.shared, &url, asked).await.map_err(|_| Failed::Again)?;
            match (standing.status, standing.offset) {
                // All of it may be there without having been looked at, so then it is sent once more.
                (200..300, Some(offset)) if offset < content.bytes.len() as u64 => from = offset,
                (200..300, _) => {}
                _ => return Err(judged(standing)),
            }
        }
        self.begun = true;
        let mut sent = Sent { method: Method::PUT, headers, bytes: content.bytes.clone() };
        if from > 0 {
            sent.method = Method::PATCH;
            sent.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/partial-upload"));
            sent.headers.insert(HeaderName::from_static("upload-offset"), from.into());
            sent.headers.insert(HeaderName::from_static("upload-length"), (content.bytes.len() as u64).into());
            sent.bytes = content.bytes.slice(usize::try_from(from).unwrap_or(content.bytes.len())..);
        } else {
            let media_type = HeaderValue::from_str(&content.media_type);
            sent.headers.insert(CONTENT_TYPE, media_type.map_err(|_| Failed::Ever(UploadError::Refused(415)))?);
        }
        let digest = format!("sha-256=:{}:", STANDARD.encode(content.sha256));
        let digest = HeaderValue::from_str(&digest).map_err(|_| Failed::Again)?;
        sent.headers.insert(HeaderName::from_static("repr-digest"), digest);
        match exchange(self.shared, &url, sent).await {
            Ok(Answered { status: 200 | 201, .. }) => {
                self.tell(0);
                Ok(())
            }
            Ok(answered) => Err(judged(answered)),
            Err(error) => {
                tracing::debug!(serial = %self.shared.profile.serial, %error, "a picture is interrupted");
                Err(Failed::Again)
            }
        }
    }

    /// Asks where the picture may be put. It has its id as its name, so that it is the same one whenever it is asked for.
    async fn ask(&self) -> Result<(Uri, HeaderMap), Failed> {
        let content = &self.picture.0;
        let object = Object {
            name: content.id.hyphenated().to_string(),
            size: Some(content.bytes.len() as u64),
            content_type: Some(content.media_type.to_string()),
            sha256: Some(content.sha256),
        };
        let mut body = Vec::new();
        let never = Failed::Ever(UploadError::Refused(415));
        Query { objects: vec![object] }.write(&mut body).map_err(|_| never)?;
        let topic = self.topic(storage::UPLOAD, "query").ok_or(never)?;
        let seq = self.shared.outbox.lock().next_seq();
        let (asker, answer) = oneshot::channel();
        {
            let mut steering = self.shared.steering.lock();
            let Asking { questions, waiting, .. } = &mut **steering.asking.get_or_insert_default();
            // Whoever asked these does not wait any more.
            waiting.expire(now());
            waiting.enter(seq, now() + ANSWER, asker).map_err(|_| Failed::Again)?;
            questions.push(Answer { topic, seq, body: body.into() });
        }
        self.shared.wake.notify_one();
        let Ok(Ok(grants)) = timeout(ANSWER, answer).await else { return Err(Failed::Again) };
        match (grants.code, grants.objects.into_iter().next()) {
            (0, Some(Grant { url, headers, .. })) => place(&url, headers, self.shared.web.is_some()),
            (429 | 503, _) | (0, None) => Err(Failed::Again),
            (code, _) => Err(Failed::Ever(UploadError::Refused(u16::try_from(code).unwrap_or(400)))),
        }
    }

    /// Tells the platform how it went. It is told once: the platform knows what it has.
    fn tell(&self, code: i64) {
        let etag = self.picture.0.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        let results =
            Results { objects: vec![Uploaded { name: self.picture.id().hyphenated().to_string(), code, etag }] };
        let mut body = Vec::new();
        if results.write(&mut body).is_ok()
            && let Some(topic) = self.topic(storage::RESULT, "report")
        {
            let _ = self.shared.enqueue(self.sub, Message { topic, body: body.into() });
        }
    }

    fn topic(&self, method: &str, msg_type: &str) -> Option<Box<str>> {
        let (serial, sub, module) = (self.shared.profile.serial.as_str(), self.sub, storage::MODULE);
        let topic = Topic::Module { serial, sub, index: "0", resource: GLOBAL, module, method, msg_type };
        topic.encode().ok().map(Into::into)
    }
}

/// Where the platform wants the picture, and what it wants to be said there. `web`: the device speaks TLS.
fn place(url: &str, said: Vec<(String, String)>, web: bool) -> Result<(Uri, HeaderMap), Failed> {
    let unusable = Failed::Ever(UploadError::Address);
    let url: Uri = url.parse().map_err(|_| unusable)?;
    authority(&url).filter(|authority| web || !authority.secure).ok_or(unusable)?;
    let mut headers = HeaderMap::new();
    for (name, value) in said {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable)?;
        headers.insert(name, HeaderValue::from_str(&value).map_err(|_| unusable)?);
    }
    Ok((url, headers))
}

/// What an answer that is no success means for the picture.
fn judged(answered: Answered) -> Failed {
    match answered.status {
        400 | 411 | 413 | 415 | 422 => Failed::Ever(UploadError::Refused(answered.status)),
        401 | 403 | 404 | 410 => Failed::Elsewhere,
        _ => Failed::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_picture_ends_it_and_nothing_else_does() {
        let judged = |status| judged(Answered { status, offset: None });
        for status in [413, 415, 422] {
            assert_eq!(judged(status), Failed::Ever(UploadError::Refused(status)));
        }
        assert_eq!(judged(401), Failed::Elsewhere, "the ticket is too old");
        for status in [204, 408, 409, 429, 500, 503] {
            assert_eq!(judged(status), Failed::Again, "{status}");
        }
    }

    #[test]
    fn a_place_is_plain_http_or_one_that_the_device_can_believe() {
        let headers = vec![("x-a".to_owned(), "b".to_owned())];
        let (url, said) = place("http://h:81/p?ticket=t", headers, false).expect("a place");
        assert_eq!((url.port_u16(), said.len()), (Some(81), 1));
        assert!(place("https://h/p", Vec::new(), true).is_ok());
        let unusable = Err(Failed::Ever(UploadError::Address));
        assert_eq!(place("https://h/p", Vec::new(), false), unusable);
        assert_eq!(place("ftp://h/p", Vec::new(), true), unusable);
        assert_eq!(place("http://h/p", vec![("a b".into(), "c".into())], true), unusable);
    }
}
