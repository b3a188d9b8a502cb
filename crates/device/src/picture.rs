//! Pictures: named in an event, sent after it (osap-wire 10.7).

mod exchange;
mod upload;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use hyper::body::Bytes;
use osap::das::pending::Pending;
use osap::das::storage::Grants;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::calls::Answer;

pub(crate) use upload::{Outcome, send, send_in_background};

/// A picture that the device has, under an id of its own: it can be named before it is sent.
///
/// It serializes as `{"id": …}`, which is how the body of an event or the value of an attribute names it. The bytes stay in
/// memory until the platform has them; clones share them.
#[derive(Clone)]
pub struct Picture(Arc<Content>);

struct Content {
    id: Uuid,
    media_type: Box<str>,
    bytes: Bytes,
    sha256: [u8; 32],
}

/// A picture did not reach the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// As many pictures as allowed are on their way: they are taken faster than they are sent, or the platform was out of
    /// reach for too long.
    #[error("as many pictures as allowed are on their way")]
    Full,
    /// The platform does not take it, for this reason in the words of HTTP: 413 it is too large, 415 it is of a type that is
    /// not taken, 422 it is broken or too large in pixels, 404 the platform keeps no pictures.
    #[error("the platform does not take the picture (status {0})")]
    Refused(u16),
    /// The platform says to send it where the device cannot: over HTTPS, of which a device knows nothing that does not come
    /// in over TLS, or over something else.
    #[error("the platform wants the picture at an address where the device cannot send it")]
    Address,
    /// It was tried a hundred times.
    #[error("the picture was given up after a hundred attempts")]
    GivenUp,
    /// The device stopped before the platform had it.
    #[error("the device stopped")]
    Stopped,
}

impl Picture {
    /// A picture of this media type: JPEG, PNG, WebP or AVIF. The platform looks at the content, not at what is said here.
    #[must_use]
    pub fn new(media_type: &str, bytes: impl Into<Vec<u8>>) -> Picture {
        let bytes = Bytes::from(bytes.into());
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        Picture(Arc::new(Content { id: Uuid::now_v7(), media_type: media_type.into(), bytes, sha256 }))
    }

    /// A JPEG.
    #[must_use]
    pub fn jpeg(bytes: impl Into<Vec<u8>>) -> Picture {
        Picture::new("image/jpeg", bytes)
    }

    /// The id under which the platform has it, or will.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.0.id
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// Whether it has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.bytes.is_empty()
    }
}

impl Serialize for Picture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("id", &self.0.id.hyphenated().to_string())?;
        map.end()
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picture").field("id", &self.0.id).field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The body of an event with the pictures it names.
pub(crate) struct WithPictures<'a, T: ?Sized> {
    pub(crate) body: &'a T,
    pub(crate) pictures: &'a [(Box<str>, Picture)],
}

impl<T: Serialize + ?Sized> Serialize for WithPictures<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        let mut body = match serde_json::to_value(self.body).map_err(S::Error::custom)? {
            serde_json::Value::Object(body) => body,
            // The event is refused for what it is.
            other => return other.serialize(serializer),
        };
        for (member, picture) in self.pictures {
            body.insert(member.to_string(), serde_json::to_value(picture).map_err(S::Error::custom)?);
        }
        body.serialize(serializer)
    }
}

/// Pictures that are on their way at most.
const MAX_PICTURES: usize = 16;

/// What is asked of the platform about pictures, on the present connection.
#[derive(Debug)]
pub(crate) struct Asking {
    /// How many pictures are on their way.
    under_way: usize,
    /// Questions that wait for the task.
    questions: Vec<Answer>,
    waiting: Pending<oneshot::Sender<Grants>>,
}

impl Default for Asking {
    fn default() -> Self {
        Self { under_way: 0, questions: Vec::new(), waiting: Pending::new(MAX_PICTURES) }
    }
}

impl Asking {
    /// What is to be asked by now.
    pub(crate) fn take_questions(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.questions)
    }

    /// The answer to a question; `false` when there is none.
    pub(crate) fn handle_answer(&mut self, seq: u64, body: &[u8]) -> bool {
        let osap::das::pending::Take::Found(asker) = self.waiting.take(seq, |_| true) else { return false };
        match Grants::parse(body) {
            Ok(grants) => {
                // It may have stopped waiting.
                let _ = asker.send(grants);
                true
            }
            Err(_) => false,
        }
    }

    /// The connection is over: what was asked on it is not answered any more.
    pub(crate) fn handle_link_end(&mut self) {
        self.questions.clear();
        self.waiting = Pending::new(MAX_PICTURES);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_names_its_pictures() {
        let picture = Picture::jpeg(*b"jpeg");
        let named = |body| {
            let pictures = [("shot".into(), picture.clone())];
            serde_json::to_value(WithPictures { body: &body, pictures: &pictures }).expect("JSON")
        };
        let id = picture.id().to_string();
        assert_eq!(named(json!({"level": 3})), json!({"level": 3, "shot": {"id": id}}));
        assert_eq!(named(json!([3])), json!([3]), "refused later, for what it is");
        assert!(!format!("{picture:?}").contains("jpeg"));
    }

    #[test]
    fn an_answer_is_for_its_question() {
        let mut asking = Asking::default();
        let (asker, mut answer) = oneshot::channel();
        let until = crate::driver::now() + std::time::Duration::from_secs(9);
        asking.waiting.enter(7, until, asker).expect("room");
        assert!(!asking.handle_answer(8, br#"{"code":429}"#));
        assert!(asking.handle_answer(7, br#"{"code":429}"#));
        assert_eq!(answer.try_recv().expect("answered").code, 429);
        assert!(!asking.handle_answer(7, br#"{"code":0,"objects":[]}"#), "answered already");
        let (asker, mut answer) = oneshot::channel::<Grants>();
        asking.waiting.enter(9, until, asker).expect("room");
        asking.handle_link_end();
        assert!(answer.try_recv().is_err());
    }
}
