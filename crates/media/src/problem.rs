//! Errors as a client sees them: RFC 9457 documents of the types of media 11.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use vestibule_store::StoreError;

/// Where an upload stands, in answers of both dialects.
pub(crate) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

/// The kind of an error; its name never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NotFound,
    Forbidden,
    Ticket,
    Codec,
    Quota,
    TooLarge,
    Type,
    Content,
    Conflict,
    Request,
    Length,
    Range,
    Timeout,
    Store,
}

impl Kind {
    fn parts(self) -> (&'static str, StatusCode) {
        match self {
            Kind::NotFound => ("not-found", StatusCode::NOT_FOUND),
            Kind::Forbidden => ("forbidden", StatusCode::FORBIDDEN),
            Kind::Ticket => ("ticket", StatusCode::UNAUTHORIZED),
            Kind::Codec => ("codec", StatusCode::NOT_ACCEPTABLE),
            Kind::Quota => ("quota", StatusCode::TOO_MANY_REQUESTS),
            Kind::TooLarge => ("too-large", StatusCode::PAYLOAD_TOO_LARGE),
            Kind::Type => ("type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Kind::Content => ("content", StatusCode::UNPROCESSABLE_ENTITY),
            Kind::Conflict => ("conflict", StatusCode::CONFLICT),
            Kind::Request => ("request", StatusCode::BAD_REQUEST),
            Kind::Length => ("length", StatusCode::LENGTH_REQUIRED),
            Kind::Range => ("range", StatusCode::RANGE_NOT_SATISFIABLE),
            Kind::Timeout => ("timeout", StatusCode::REQUEST_TIMEOUT),
            Kind::Store => ("store", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    detail: Cow<'static, str>,
    /// Where the upload stands, when its sender has to know.
    offset: Option<u64>,
    /// How long the object is, when a range of it was asked for that it does not have.
    length: Option<u64>,
    /// Seconds.
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Problem {
        let retry_after = match kind {
            Kind::Quota => Some(30),
            Kind::Store => Some(5),
            _ => None,
        };
        Problem { kind, detail: detail.into(), offset: None, length: None, retry_after }
    }

    /// One answer for a ticket that is absent, expired, used or forged: none of them learns which.
    pub(crate) fn ticket() -> Problem {
        Problem::new(Kind::Ticket, "A ticket or a token is needed that is valid for this.")
    }

    pub(crate) fn not_found() -> Problem {
        Problem::new(Kind::NotFound, "There is no such picture or file, or it has not arrived.")
    }

    /// A token that is used too often.
    pub(crate) fn too_often(after: Duration) -> Problem {
        let problem = Problem::new(Kind::Quota, "This token is used too often.");
        Problem { retry_after: Some(after.as_secs() + u64::from(after.subsec_nanos() > 0)), ..problem }
    }

    /// What is told to people.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Where the upload stands, when its sender is told.
    pub(crate) fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// Says where the upload stands.
    pub(crate) fn at(self, offset: u64) -> Problem {
        Problem { offset: Some(offset), ..self }
    }

    /// Says how long the object is.
    pub(crate) fn of(self, length: u64) -> Problem {
        Problem { length: Some(length), ..self }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        tracing::error!(error = &error as &dyn std::error::Error, "a request for media failed because of the store");
        Problem::new(Kind::Store, "The store does not answer. Try again.")
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Problem {
        tracing::error!(%error, "a file of an upload cannot be used");
        Problem::new(Kind::Store, "The disk does not answer. Try again.")
    }
}

impl From<object_store::Error> for Problem {
    fn from(error: object_store::Error) -> Problem {
        // Who asks has looked into the list before: what is in it and not in the store is the store's failure.
        tracing::error!(error = &error as &dyn std::error::Error, "the store of pictures and files failed");
        Problem::new(Kind::Store, "The store of pictures and files does not answer. Try again.")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (name, status) = self.kind.parts();
        metrics::counter!("vestibule_media_refused_total", "why" => name).increment(1);
        let document = Document {
            kind: format!("urn:vestibule:media:{name}"),
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: &self.detail,
        };
        // A struct of strings and numbers always has a JSON text.
        let mut response = (status, serde_json::to_vec(&document).unwrap_or_default()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after));
        }
        if let Some(offset) = self.offset {
            headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
        }
        if let Some(length) = self.length
            && let Ok(range) = HeaderValue::from_str(&format!("bytes */{length}"))
        {
            headers.insert(header::CONTENT_RANGE, range);
        }
        match self.kind {
            Kind::Ticket => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"vestibule\""));
            }
            // The rest of the body is not worth waiting for.
            Kind::Timeout | Kind::TooLarge => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
