//! What every request passes on its way to a route, and every answer on its way back.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::Shared;
use crate::problem::{Kind, Problem};

/// Checks the host, bounds the time to the answer, counts the answer, adds the headers all answers have.
pub(crate) async fn pass(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let limit = shared.config.answer_timeout;
    through(&shared, request, async move |request| match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(Kind::Overloaded, "The answer was not ready in time. Try again.").into_response(),
    })
    .await
}

/// The same, without a bound of the time to the answer.
pub(crate) async fn pass_unhurried(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    through(&shared, request, async move |request| next.run(request).await).await
}

/// Marks a request that came over TLS to this very server.
#[derive(Clone, Copy)]
pub(crate) struct OverTls;

/// What keeps a browser at HTTPS for this host, for a year. Not said as `localhost`, where it would reach every other server of
/// this machine; an address is none that a browser keeps it for.
fn strict_transport(request: &Request) -> Option<HeaderValue> {
    request.extensions().get::<OverTls>()?;
    let host = request.headers().get(header::HOST)?.to_str().ok()?.parse::<Uri>().ok()?;
    let name = host.host()?;
    let is_address = name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
    let is_local = name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    (!is_address && !is_local).then(|| HeaderValue::from_static("max-age=31536000"))
}

async fn through(shared: &Shared, request: Request, run: impl AsyncFnOnce(Request) -> Response) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = method_name(request.method());
    let strict = strict_transport(&request);
    let mut response = if is_for_us(&shared.config.allowed_hosts, &request) {
        run(request).await
    } else {
        Problem::new(Kind::WrongHost, "This server does not answer for that host name.").into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(strict) = strict {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, strict);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    metrics::counter!(
        "vestibule_http_requests_total",
        "method" => method,
        "route" => route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned()),
        "status" => response.status().as_u16().to_string(),
    )
    .increment(1);
    response
}

/// The answer where no route is.
pub(crate) async fn unknown_route() -> Problem {
    Problem::new(Kind::UnknownRoute, "There is nothing at this address. /v1/openapi.json lists what there is.")
}

/// The answer where a route is, but not for this method.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::new(Kind::MethodNotAllowed, "The header Allow says which methods this address takes.")
}

fn is_for_us(allowed: &[String], request: &Request) -> bool {
    if allowed.is_empty() {
        return true;
    }
    let header = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let named = match request.uri().host() {
        Some(host) => Some(host.to_owned()),
        None => header().and_then(|host| host.parse::<Uri>().ok()).and_then(|host| host.host().map(str::to_owned)),
    };
    named.is_some_and(|named| allowed.iter().any(|host| host.eq_ignore_ascii_case(&named)))
}

/// The method as a label; a client cannot make up new ones.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn asked(host: &str) -> Request {
        Request::builder().header(header::HOST, host).body(Body::empty()).expect("a request")
    }

    #[test]
    fn browsers_are_kept_at_https_for_names_that_are_this_servers_alone() {
        let over_tls = |host: &str| {
            let mut request = asked(host);
            request.extensions_mut().insert(OverTls);
            strict_transport(&request).is_some()
        };
        for host in ["hall.example.org", "Hall.Example.org:8443"] {
            assert!(over_tls(host) && strict_transport(&asked(host)).is_none(), "{host}");
        }
        for host in ["localhost", "LOCALHOST:8443", "a.localhost", "127.0.0.1:8443", "[::1]:8443", ""] {
            assert!(!over_tls(host), "{host}");
        }
    }

    #[test]
    fn only_allowed_hosts_are_answered() {
        let allowed = ["vestibule.example".to_owned(), "[::1]".to_owned()];
        for host in ["vestibule.example", "Vestibule.Example:8080", "[::1]:8080"] {
            assert!(is_for_us(&allowed, &asked(host)), "{host}");
        }
        for host in ["other.example", "vestibule.example.org", "", "::::"] {
            assert!(!is_for_us(&allowed, &asked(host)), "{host}");
        }
        assert!(!is_for_us(&allowed, &Request::new(Body::empty())));
        assert!(is_for_us(&[], &asked("anything")));
    }
}
