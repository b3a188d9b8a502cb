//! Uploads: whole, or in pieces in either dialect (media 7.1).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Body as _;
use serde::Serialize;
use uuid::Uuid;
use vestibule_store::MediaRow;

use super::{id_in, number, parameter};
use crate::hex;
use crate::media::{Media, stored};
use crate::problem::{Kind, Problem, UPLOAD_OFFSET};
use crate::upload::{Piece, Taken};

const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: &str = "1.0.0";
const TUS_TYPE: &str = "application/offset+octet-stream";
const PLAIN_TYPE: &str = "application/partial-upload";
const REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");

#[derive(Serialize)]
struct Arrived {
    id: Uuid,
    sha256: String,
    bytes: u64,
}

/// Takes a whole object.
pub(super) async fn put(
    State(media): State<Arc<Media>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, ticket) = ticket(&id, &request)?;
    let length = number(request.headers(), "content-length")?;
    let length = length.ok_or_else(|| Problem::new(Kind::Length, "Send the header \"Content-Length\"."))?;
    let digest = repr_digest(request.headers())?;
    let taken = to_the_end(async move { media.put(id, &ticket, length, digest, request.into_body()).await }).await?;
    Ok(answer(taken, false))
}

/// Takes a piece of an object.
pub(super) async fn patch(
    State(media): State<Arc<Media>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, ticket) = ticket(&id, &request)?;
    let headers = request.headers();
    let tus = match content_type(headers) {
        Some(PLAIN_TYPE) => false,
        Some(TUS_TYPE) => {
            if headers.get(TUS_RESUMABLE).is_none_or(|version| version != TUS_VERSION) {
                return Ok(other_tus());
            }
            true
        }
        _ => {
            let detail = format!("A piece is sent as {PLAIN_TYPE} or {TUS_TYPE}.");
            return Err(Problem::new(Kind::Type, detail));
        }
    };
    let offset = number(headers, "upload-offset")?;
    let offset = offset.ok_or_else(|| Problem::new(Kind::Request, "Send the header \"Upload-Offset\"."))?;
    let piece = Piece {
        offset,
        length: number(headers, "upload-length")?,
        body: request.body().size_hint().exact(),
        last: headers.get(UPLOAD_COMPLETE).is_some_and(|value| value == "?1"),
        digest: repr_digest(headers)?,
    };
    let taken = to_the_end(async move { media.append(id, &ticket, piece, request.into_body()).await }).await;
    let mut response = match taken {
        Ok(taken) => answer(taken, tus),
        Err(problem) => problem.into_response(),
    };
    if tus {
        response.headers_mut().insert(TUS_RESUMABLE, HeaderValue::from_static(TUS_VERSION));
    }
    Ok(response)
}

/// Says how much is here.
pub(super) async fn standing(
    State(media): State<Arc<Media>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, ticket) = ticket(&id, &request)?;
    let (offset, length) = media.standing(id, &ticket).await?;
    let mut response = partly(offset, length.is_some_and(|length| length == offset));
    let headers = response.headers_mut();
    if let Some(length) = length {
        headers.insert(UPLOAD_LENGTH, HeaderValue::from(length));
    }
    headers.insert(TUS_RESUMABLE, HeaderValue::from_static(TUS_VERSION));
    Ok(response)
}

/// Says which dialects are spoken.
pub(super) async fn options(State(media): State<Arc<Media>>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("PUT, PATCH, HEAD, OPTIONS"));
    headers.insert(
        "accept-patch",
        HeaderValue::from_static("application/partial-upload, application/offset+octet-stream"),
    );
    headers.insert(TUS_RESUMABLE, HeaderValue::from_static(TUS_VERSION));
    headers.insert("tus-version", HeaderValue::from_static(TUS_VERSION));
    headers.insert("tus-max-size", HeaderValue::from(media.config.file_max_bytes));
    response
}

/// Goes to the end also when the connection breaks, which ends the body: what has come is written before somebody else goes on
/// with the upload, and what is complete is kept.
async fn to_the_end(receive: impl Future<Output = Result<Taken, Problem>> + Send + 'static) -> Result<Taken, Problem> {
    match tokio::spawn(receive).await {
        Ok(taken) => taken,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Problem::new(Kind::Store, "The platform is shutting down.")),
    }
}

fn ticket(id: &str, request: &Request<Body>) -> Result<(Uuid, String), Problem> {
    let id = id_in(id).ok_or_else(Problem::ticket)?;
    let ticket = parameter(request.uri(), "ticket").ok_or_else(Problem::ticket)?;
    Ok((id, ticket.to_owned()))
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split_once(';').map_or(text, |(kind, _)| kind).trim())
}

/// The SHA-256 of the whole, if its sender says one (RFC 9530).
fn repr_digest(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Problem> {
    let wrong = || Problem::new(Kind::Request, "Repr-Digest is written like sha-256=:<base64>:.");
    for value in headers.get_all("repr-digest") {
        for member in value.to_str().map_err(|_| wrong())?.split(',') {
            if let Some(text) = member.trim().strip_prefix("sha-256=") {
                let text = text.strip_prefix(':').and_then(|text| text.strip_suffix(':')).ok_or_else(wrong)?;
                let bytes = STANDARD.decode(text).map_err(|_| wrong())?;
                return bytes.try_into().map(Some).map_err(|_| wrong());
            }
        }
    }
    Ok(None)
}

fn answer(taken: Taken, tus: bool) -> Response {
    let here = |status: StatusCode, row: &MediaRow| {
        let arrived = Arrived {
            id: row.id,
            sha256: row.digest.as_ref().map(hex::encode).unwrap_or_default(),
            bytes: stored(row.bytes),
        };
        let mut response = (status, axum::Json(arrived)).into_response();
        response.headers_mut().insert(UPLOAD_OFFSET, HeaderValue::from(stored(row.bytes)));
        response.headers_mut().insert(UPLOAD_COMPLETE, HeaderValue::from_static("?1"));
        private(response)
    };
    match taken {
        // Clients of tus know one answer to a piece.
        Taken::Arrived(row) if tus => partly(stored(row.bytes), true),
        Taken::Arrived(row) => here(StatusCode::CREATED, &row),
        Taken::Again(row) => here(StatusCode::OK, &row),
        Taken::Partly(offset) => partly(offset, false),
    }
}

fn partly(offset: u64, complete: bool) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    let complete = HeaderValue::from_static(if complete { "?1" } else { "?0" });
    response.headers_mut().insert(UPLOAD_COMPLETE, complete);
    private(response)
}

/// The address of what is answered holds a ticket.
fn private(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The answer to another version of tus.
fn other_tus() -> Response {
    let mut response = StatusCode::PRECONDITION_FAILED.into_response();
    response.headers_mut().insert("tus-version", HeaderValue::from_static(TUS_VERSION));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(values: &[&str]) -> Result<Option<[u8; 32]>, Kind> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("repr-digest", value.parse().expect("a value"));
        }
        repr_digest(&headers).map_err(|problem| problem.kind)
    }

    #[test]
    fn a_digest_is_read_from_its_header() {
        let text = format!("sha-256=:{}:", STANDARD.encode([7; 32]));
        assert_eq!(digest(&[]), Ok(None));
        assert_eq!(digest(&[&text]), Ok(Some([7; 32])));
        assert_eq!(digest(&[&format!("sha-512=:AAAA:, {text}")]), Ok(Some([7; 32])));
        assert_eq!(digest(&["sha-512=:AAAA:", &text]), Ok(Some([7; 32])));
        for wrong in ["sha-256=AAAA", "sha-256=:AAAA:", "sha-256=:*:", "sha-256=::"] {
            assert_eq!(digest(&[wrong]), Err(Kind::Request), "{wrong}");
        }
    }
}
