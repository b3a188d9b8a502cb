//! Requests of applications over MQTT: each is answered as the same request over HTTP would be.

use std::net::IpAddr;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderValue, Request as HttpRequest, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use tower::ServiceExt as _;
use vestibule_platform::Caller;

use super::topic::Request;
use crate::extract::ThePeer;
use crate::problem::{Kind, Problem};

/// The longest answer, which no operation or attribute comes near.
const MAX_ANSWER: usize = 1 << 20;

/// What is said to the application.
#[derive(Serialize)]
struct ReplyShape<'a> {
    /// As over HTTP.
    status: u16,
    /// The body as over HTTP; a problem document when the status is 400 or more.
    body: &'a RawValue,
}

/// Answers a request, whose body is that of the same request over HTTP.
pub(crate) async fn answer(
    router: Router,
    host: HeaderValue,
    caller: Caller,
    peer: IpAddr,
    asked: &Request,
    body: Bytes,
) -> Vec<u8> {
    let request = HttpRequest::builder()
        .method(asked.method.clone())
        .uri(&asked.uri)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .extension(caller)
        .extension(ThePeer(peer))
        .body(Body::from(body));
    let Ok(request) = request else {
        return refusal(Problem::new(Kind::MalformedRequest, "The topic cannot be read as a path."));
    };
    let response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status();
    match to_bytes(response.into_body(), MAX_ANSWER).await {
        Ok(body) => reply(status, &body),
        Err(_) => refusal(Problem::new(Kind::Overloaded, "The answer broke off.")),
    }
}

/// The reply that a problem makes.
pub(crate) fn refusal(problem: Problem) -> Vec<u8> {
    reply(problem.kind.status(), &problem.to_json())
}

fn reply(status: StatusCode, body: &[u8]) -> Vec<u8> {
    let body = serde_json::from_slice(body).unwrap_or(RawValue::NULL);
    let shape = ReplyShape { status: status.as_u16(), body };
    // A number and checked JSON: it always has a JSON text.
    serde_json::to_vec(&shape).unwrap_or_default()
}
