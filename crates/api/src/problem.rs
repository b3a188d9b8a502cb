//! Errors as problem documents (RFC 9457).

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use vestibule_platform::StoreError;

/// The media type of every error.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Every kind of error there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    MalformedRequest,
    MalformedJson,
    Unauthenticated,
    Forbidden,
    UnknownRoute,
    UnknownDevice,
    UnknownAttribute,
    UnknownOperation,
    UnknownWebhook,
    UnknownJob,
    TooManyJobs,
    UnknownView,
    TooManyViews,
    TooManyWebhooks,
    UnknownObject,
    MediaOff,
    QuotaUsed,
    DeviceOffline,
    KeyUnderWay,
    KeyTaken,
    Unsupported,
    Stale,
    MethodNotAllowed,
    Timeout,
    SerialTaken,
    NameTaken,
    UnknownToken,
    UnknownUser,
    UnknownSession,
    LoginRefused,
    TooManyRequests,
    BodyTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    WrongHost,
    UnknownField,
    MissingField,
    DuplicateField,
    WrongType,
    InvalidValue,
    HeadTooLarge,
    StoreUnavailable,
    Overloaded,
    TooManyConnections,
    TooManyStreams,
    RegistryFull,
    DeviceBusy,
    QueueFull,
    ShuttingDown,
}

impl Kind {
    /// Last part of the `type`, title and status.
    fn parts(self) -> (&'static str, &'static str, StatusCode) {
        use StatusCode as S;
        match self {
            Kind::MalformedRequest => ("malformed-request", "Malformed request", S::BAD_REQUEST),
            Kind::MalformedJson => ("malformed-json", "Malformed JSON", S::BAD_REQUEST),
            Kind::Unauthenticated => ("unauthenticated", "Token missing or unknown", S::UNAUTHORIZED),
            Kind::Forbidden => ("forbidden", "Permission missing", S::FORBIDDEN),
            Kind::UnknownRoute => ("unknown-route", "No such resource", S::NOT_FOUND),
            Kind::UnknownDevice => ("unknown-device", "No such device", S::NOT_FOUND),
            Kind::UnknownAttribute => ("unknown-attribute", "No such attribute", S::NOT_FOUND),
            Kind::UnknownOperation => ("unknown-operation", "No such operation", S::NOT_FOUND),
            Kind::UnknownWebhook => ("unknown-webhook", "No such webhook", S::NOT_FOUND),
            Kind::UnknownJob => ("unknown-job", "No such job", S::NOT_FOUND),
            Kind::TooManyJobs => ("too-many-jobs", "Too many jobs", S::CONFLICT),
            Kind::UnknownView => ("unknown-view", "No such view", S::NOT_FOUND),
            Kind::TooManyViews => ("too-many-views", "Too many views", S::CONFLICT),
            Kind::TooManyWebhooks => ("too-many-webhooks", "Too many webhooks", S::CONFLICT),
            Kind::UnknownObject => ("unknown-object", "Unknown picture or file", S::NOT_FOUND),
            Kind::MediaOff => ("media-off", "No pictures and files here", S::NOT_FOUND),
            Kind::QuotaUsed => ("quota-used", "No room for more", S::TOO_MANY_REQUESTS),
            Kind::DeviceOffline => ("device-offline", "Device offline", S::CONFLICT),
            Kind::KeyUnderWay => ("key-under-way", "Request under way", S::CONFLICT),
            Kind::KeyTaken => ("key-taken", "Idempotency key taken", S::UNPROCESSABLE_ENTITY),
            Kind::Unsupported => ("unsupported", "Not supported by the device", S::UNPROCESSABLE_ENTITY),
            Kind::Stale => ("stale", "Changed meanwhile", S::PRECONDITION_FAILED),
            Kind::MethodNotAllowed => ("method-not-allowed", "Method not allowed", S::METHOD_NOT_ALLOWED),
            Kind::Timeout => ("timeout", "Request not completed in time", S::REQUEST_TIMEOUT),
            Kind::SerialTaken => ("serial-taken", "Serial taken", S::CONFLICT),
            Kind::NameTaken => ("name-taken", "Name taken", S::CONFLICT),
            Kind::UnknownToken => ("unknown-token", "No such token", S::NOT_FOUND),
            Kind::UnknownUser => ("unknown-user", "No such user", S::NOT_FOUND),
            Kind::UnknownSession => ("unknown-session", "No session", S::NOT_FOUND),
            Kind::LoginRefused => ("login-refused", "Name or password wrong", S::UNAUTHORIZED),
            Kind::TooManyRequests => ("too-many-requests", "Too many requests", S::TOO_MANY_REQUESTS),
            Kind::BodyTooLarge => ("body-too-large", "Body too large", S::PAYLOAD_TOO_LARGE),
            Kind::UriTooLong => ("uri-too-long", "Address too long", S::URI_TOO_LONG),
            Kind::UnsupportedMediaType => {
                ("unsupported-media-type", "Unsupported media type", S::UNSUPPORTED_MEDIA_TYPE)
            }
            Kind::WrongHost => ("wrong-host", "Wrong host", S::MISDIRECTED_REQUEST),
            Kind::UnknownField => ("unknown-field", "Unknown field", S::UNPROCESSABLE_ENTITY),
            Kind::MissingField => ("missing-field", "Missing field", S::UNPROCESSABLE_ENTITY),
            Kind::DuplicateField => ("duplicate-field", "Duplicate field", S::UNPROCESSABLE_ENTITY),
            Kind::WrongType => ("wrong-type", "Wrong type", S::UNPROCESSABLE_ENTITY),
            Kind::InvalidValue => ("invalid-value", "Invalid value", S::UNPROCESSABLE_ENTITY),
            Kind::HeadTooLarge => ("head-too-large", "Headers too large", S::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Kind::StoreUnavailable => ("store-unavailable", "Store unavailable", S::SERVICE_UNAVAILABLE),
            Kind::Overloaded => ("overloaded", "Answer not ready in time", S::SERVICE_UNAVAILABLE),
            Kind::TooManyConnections => ("too-many-connections", "Too many connections", S::SERVICE_UNAVAILABLE),
            Kind::TooManyStreams => ("too-many-streams", "Too many event streams", S::SERVICE_UNAVAILABLE),
            Kind::RegistryFull => ("registry-full", "Registry full", S::SERVICE_UNAVAILABLE),
            Kind::DeviceBusy => ("device-busy", "Device busy", S::SERVICE_UNAVAILABLE),
            Kind::QueueFull => ("queue-full", "Queue full", S::SERVICE_UNAVAILABLE),
            Kind::ShuttingDown => ("shutting-down", "Shutting down", S::SERVICE_UNAVAILABLE),
        }
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
        let (name, title, status) = self.kind.parts();
        let document = ProblemDocument {
            kind: format!("/problems/{name}"),
            title,
            status: status.as_u16(),
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
