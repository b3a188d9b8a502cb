//! What handlers take from a request: a JSON body, a query, the device and part of the path, who asks. Every mistake is a
//! problem.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use utoipa::IntoParams;
use vestibule_platform::{Caller, Device, DeviceId, DevicePath, Entrance, Platform};

use crate::access::NOBODYS;
use crate::api::Shared;
use crate::fields;
use crate::problem::{Kind, Problem};
use crate::request::OverTls;

/// Where the request came in: over HTTPS with the host that it named. Who named none is told an address of ours, like a device.
pub(crate) struct TheEntrance(pub(crate) Entrance);

impl<S: Sync> FromRequestParts<S> for TheEntrance {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        if parts.extensions.get::<OverTls>().is_none() {
            return Ok(TheEntrance(Entrance::Plain));
        }
        let named = || parts.headers.get(header::HOST)?.to_str().ok()?.parse::<Authority>().ok();
        let host = parts.uri.authority().cloned().or_else(named).filter(|host| !host.as_str().contains('@'));
        Ok(TheEntrance(host.map_or(Entrance::DeviceTls, |host| Entrance::Https(host.to_string()))))
    }
}

/// A JSON object as the body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Problem> {
        if !is_of_type(request.headers(), &["application/json"]) {
            let detail = "Send the body as JSON, with the header \"Content-Type: application/json\".";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail));
        }
        fields::from_json(&body(request, shared).await?).map(JsonBody)
    }
}

/// A JSON object as the body that says what is to change (RFC 7396).
pub(crate) struct PatchBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for PatchBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Problem> {
        if !is_of_type(request.headers(), &[MERGE_PATCH, "application/json"]) {
            let detail = "Send the body as JSON, with the header \"Content-Type: application/merge-patch+json\".";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail));
        }
        fields::from_json(&body(request, shared).await?).map(PatchBody)
    }
}

/// The media type of a change.
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";

/// Reads a member of a change, where null is not the same as nothing at all.
pub(crate) fn null_or<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// A body of any type, with what its sender says it is.
pub(crate) struct TypedBody {
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}

impl FromRequest<Arc<Shared>> for TypedBody {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let missing = || {
            let detail = "Say what the body is, with one header such as \"Content-Type: application/octet-stream\".";
            Problem::new(Kind::UnsupportedMediaType, detail)
        };
        let media_type = one_header(request.headers(), &header::CONTENT_TYPE).map_err(|()| missing())?;
        let media_type = media_type.ok_or_else(missing)?.to_owned();
        Ok(TypedBody { media_type, bytes: body(request, shared).await? })
    }
}

/// The body, to its end.
async fn body(request: Request, shared: &Arc<Shared>) -> Result<Bytes, Problem> {
    let caller = request.extensions().get::<Caller>().cloned();
    let read = tokio::time::timeout(shared.config.body_timeout, Bytes::from_request(request, shared));
    match read.await {
        // A body may be long in coming: who has lost his rights meanwhile does nothing with it.
        Ok(Ok(_)) if caller.is_some_and(|caller| !caller.is_current(shared.platform.clock().now_ms())) => {
            Err(Problem::new(Kind::Unauthenticated, NOBODYS))
        }
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Problem::new(
            Kind::BodyTooLarge,
            format!("The body is longer than {} bytes.", shared.config.max_body_bytes),
        )),
        Ok(Err(_)) => Err(Problem::new(Kind::MalformedRequest, "The body ended before it was complete.")),
        Err(_) => Err(Problem::new(Kind::Timeout, "The body did not arrive in time.")),
    }
}

/// The one header of this name, if there is one; an error when there are more, or it is no text.
pub(crate) fn one_header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(drop),
        _ => Err(()),
    }
}

fn is_of_type(headers: &HeaderMap, types: &[&str]) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let kind = kind.split_once(';').map_or(kind, |(kind, _)| kind);
    types.iter().any(|wanted| kind.trim().eq_ignore_ascii_case(wanted))
}

/// The parameters of the query string.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Shared>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Shared>) -> Result<Self, Problem> {
        let Query(pairs) = Query::try_from_uri(&parts.uri)
            .map_err(|_| Problem::new(Kind::MalformedRequest, "The query string is not percent-encoded UTF-8."))?;
        fields::from_query(pairs).map(Params)
    }
}

/// No parameters at all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// A device in a path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct DeviceInPath {
    /// Id or serial of the device.
    d: String,
}

/// A part of a device in a path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct PartInPath {
    /// Id or serial of the device.
    #[serde(rename = "d")]
    _d: String,
    /// The part of the device; `global` for the device itself.
    #[param(value_type = String)]
    resource: Box<str>,
    /// Which of several such parts.
    #[param(value_type = String)]
    index: Box<str>,
    /// The functional area.
    #[param(value_type = String)]
    area: Box<str>,
    /// The attribute, operation or message.
    #[param(value_type = String)]
    name: Box<str>,
}

/// The device `{d}` of the path: its id or its serial.
pub(crate) struct TheDevice(pub(crate) Arc<Device>);

impl FromRequestParts<Arc<Shared>> for TheDevice {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let path = Path::<DeviceInPath>::from_request_parts(parts, shared).await;
        let Path(DeviceInPath { d }) = path.map_err(|_| Problem::unknown_device())?;
        let TheCaller(caller) = TheCaller::from_request_parts(parts, shared).await?;
        shared.platform.device(&d, &caller).map(TheDevice).ok_or_else(Problem::unknown_device)
    }
}

/// The part of a device that `{resource}/{index}/{area}/{name}` of the path names.
pub(crate) struct ThePart(pub(crate) DevicePath);

impl FromRequestParts<Arc<Shared>> for ThePart {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let path = Path::<PartInPath>::from_request_parts(parts, shared).await;
        let Path(PartInPath { resource, index, area, name, .. }) =
            path.map_err(|_| Problem::new(Kind::MalformedRequest, "The path is not percent-encoded UTF-8."))?;
        Ok(ThePart(DevicePath { resource, index, area, name }))
    }
}

/// Who asks, as the guard of the route has recognised it.
pub(crate) struct TheCaller(pub(crate) Caller);

impl FromRequestParts<Arc<Shared>> for TheCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Shared>) -> Result<Self, Problem> {
        let caller = parts.extensions.get().cloned().map(TheCaller);
        // A route for everybody has nobody.
        caller.ok_or_else(|| Problem::new(Kind::Unauthenticated, "This needs a token."))
    }
}

/// The address a request came from: of whoever connected or, where that is a proxy that is trusted, of whom it passes on.
#[derive(Clone, Copy)]
pub(crate) struct ThePeer(pub(crate) IpAddr);

impl FromRequestParts<Arc<Shared>> for ThePeer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Shared>) -> Result<Self, Problem> {
        // Without one all count as one.
        Ok(parts.extensions.get().copied().unwrap_or(ThePeer(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

/// The id of the device a query names by id or serial. A removed device's events are still there under its id, for who sees
/// everything: where it belonged is not known any more.
pub(crate) fn device_filter(platform: &Platform, key: Option<&str>, by: &Caller) -> Result<Option<DeviceId>, Problem> {
    let Some(key) = key else { return Ok(None) };
    let removed = || key.parse().ok().filter(|_| by.subtree().is_root());
    let id = platform.device(key, by).map(|device| device.id).or_else(removed);
    id.map(Some).ok_or_else(Problem::unknown_device)
}

/// The most a page may hold.
pub(crate) const LARGEST_PAGE: usize = 1_000;

/// The size of a page.
pub(crate) fn page_size(limit: Option<u64>) -> Result<usize, Problem> {
    match usize::try_from(limit.unwrap_or(100)) {
        Ok(limit @ 1..=LARGEST_PAGE) => Ok(limit),
        _ => Err(Problem::field(Kind::InvalidValue, "limit", "limit must be between 1 and 1000.")),
    }
}

/// Cuts a list that was read one longer than the page; tells whether there is more.
pub(crate) fn cut<T>(list: &mut Vec<T>, size: usize) -> bool {
    let more = list.len() > size;
    list.truncate(size);
    more
}

/// What a handler answers with: something, or a problem.
pub(crate) type Answer<T> = Result<T, Problem>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_may_have_parameters() {
        for (kind, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/jsonl", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().expect("a value"))]);
            assert_eq!(is_of_type(&headers, &["application/json"]), json, "{kind}");
        }
        assert!(!is_of_type(&HeaderMap::new(), &["application/json"]));
    }

    #[test]
    fn pages_are_cut_to_size() {
        let mut list = vec![1, 2, 3];
        assert!(cut(&mut list, 2));
        assert_eq!(list, [1, 2]);
        assert!(!cut(&mut list, 2));
        assert!(page_size(Some(0)).is_err() && page_size(Some(1_001)).is_err());
        assert!(matches!((page_size(None), page_size(Some(1_000))), (Ok(100), Ok(1_000))));
    }

    #[tokio::test]
    async fn an_entrance_over_https_has_the_host_that_was_asked() {
        let entrance = async |target: &str, host: Option<&str>, over_tls: bool| {
            let mut request = Request::builder().uri(target);
            if let Some(host) = host {
                request = request.header(header::HOST, host);
            }
            let (mut parts, ()) = request.body(()).expect("a request").into_parts();
            if over_tls {
                parts.extensions.insert(OverTls);
            }
            let Ok(TheEntrance(entrance)) = TheEntrance::from_request_parts(&mut parts, &()).await;
            entrance
        };
        let https = |host: &str| Entrance::Https(host.to_owned());
        assert_eq!(entrance("/", Some("hall.example:8443"), true).await, https("hall.example:8443"));
        assert_eq!(entrance("/", Some("[2001:db8::1]:8443"), true).await, https("[2001:db8::1]:8443"));
        assert_eq!(entrance("https://hall.example/", Some("other.example"), true).await, https("hall.example"));
        assert_eq!(entrance("/", Some("hall.example"), false).await, Entrance::Plain);
        for unusable in [None, Some("a@hall.example"), Some("hall example/")] {
            assert_eq!(entrance("/", unusable, true).await, Entrance::DeviceTls, "{unusable:?}");
        }
    }
}
