//! Errors as problem documents (RFC 9457).

mod kind;

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use vestibule_platform::StoreError;

pub(crate) use self::kind::Kind;

/// The media type of every error.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

impl Kind {
    /// The `type` of its documents.
    pub(crate) fn uri(self) -> String {
        format!("/problems/{}", self.name())
    }

    /// Last part of that; never changes.
    pub(crate) fn name(self) -> &'static str {
        self.parts().0
    }

    /// The kind in words.
    pub(crate) fn title(self) -> &'static str {
        self.parts().1
    }

    pub(crate) fn status(self) -> StatusCode {
        self.parts().2
    }
}

/// An error on its way to the client.
///
/// `detail` is for the person behind the client: what is wrong and what to do. It never holds what the client
/// sent as a value, because that may be a device's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    detail: Cow<'static, str>,
    field: Option<String>,
    retry_after: Option<u32>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Problem {
        let retry_after = (kind.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(5);
        Problem { kind, detail: detail.into(), field: None, retry_after }
    }

    /// A field of the body or a parameter of the query is wrong.
    pub(crate) fn field(kind: Kind, field: &str, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { field: Some(shortened(field)), ..Problem::new(kind, detail) }
    }

    /// The same problem, with how long to wait before another try.
    pub(crate) fn after(self, wait: Duration) -> Problem {
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        Problem { retry_after: Some(u32::try_from(seconds).unwrap_or(u32::MAX)), ..self }
    }

    pub(crate) fn unknown_device() -> Problem {
        Problem::new(Kind::UnknownDevice, "No device has this id or serial.")
    }

    /// What kind it is, of which field, and what it says.
    pub(crate) fn into_parts(self) -> (Kind, Option<String>, String) {
        (self.kind, self.field, self.detail.into_owned())
    }

    /// The document's JSON text.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let document = ProblemDocument {
            kind: self.kind.uri(),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            field: self.field.as_deref(),
        };
        // A struct of strings and numbers always has a JSON text.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// The whole answer as bytes of HTTP/1.1, for clients that never got as far as a route. It closes the connection.
    pub(crate) fn to_http(&self) -> Vec<u8> {
        let (body, status) = (self.to_json(), self.kind.status());
        let retry = self.retry_after.map(|after| format!("retry-after: {after}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\n{retry}\
             x-content-type-options: nosniff\r\nconnection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len(),
        );
        [head.into_bytes(), body].concat()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), self.to_json()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after));
        }
        match self.kind {
            Kind::Unauthenticated | Kind::LoginRefused => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"vestibule\""));
            }
            // The rest of the request is not worth waiting for.
            Kind::Timeout | Kind::BodyTooLarge => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        if matches!(error, StoreError::UnknownDevice) {
            // Removed by somebody else between the look-up and the change.
            return Problem::unknown_device();
        }
        tracing::error!(error = &error as &dyn std::error::Error, "a request failed because of the store");
        Problem::new(Kind::StoreUnavailable, "The store does not answer. Try again; /readyz says what is wrong.")
    }
}

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemDocument<'a> {
    /// Names the kind of error, for programs; never changes.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", example = "/problems/unknown-field")]
    kind: String,
    /// The kind of error in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request and what to do.
    detail: &'a str,
    /// The field of the body or the parameter of the query that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

/// A name from outside, short enough to be told back.
fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_tells_kind_status_and_field() {
        let problem = Problem::field(Kind::UnknownField, "colour", "There is no such field.");
        let text = String::from_utf8(problem.to_json()).expect("text");
        assert_eq!(
            text,
            r#"{"type":"/problems/unknown-field","title":"Unknown field","status":422,"detail":"There is no such field.","field":"colour"}"#
        );
    }

    #[test]
    fn the_raw_answer_is_complete_http() {
        let text = String::from_utf8(Problem::new(Kind::TooManyConnections, "Later.").to_http()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(head.contains("retry-after: 5"));
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }

    #[test]
    fn a_long_name_is_not_told_back_whole() {
        let problem = Problem::field(Kind::UnknownField, &"x".repeat(10_000), "");
        assert!(problem.to_json().len() < 300);
    }
}
