//! The routes under `/media/v1`.

mod download;
mod range;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, Uri, header};
use axum::routing::{get, put};
use uuid::Uuid;
use vestibule_platform::{Caller, Permission};

use crate::media::Media;
use crate::problem::{Kind, Problem};

/// The routes of uploads and downloads. They bound their bodies and their time themselves.
pub fn router(media: Arc<Media>) -> Router {
    Router::new()
        .route(
            "/media/v1/upload/{id}",
            put(upload::put).patch(upload::patch).head(upload::standing).options(upload::options),
        )
        .route("/media/v1/picture/{id}", get(download::picture))
        .route("/media/v1/file/{id}", get(download::file))
        .with_state(media)
}

/// The id in a path, in the one way that it is written: it is part of what a ticket was signed for.
fn id_in(path: &str) -> Option<Uuid> {
    Uuid::try_parse(path).ok().filter(|id| id.hyphenated().to_string() == path)
}

/// The parameter of this name; `None` unless there is exactly one.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
    let (pair, None) = (pairs.next()?, pairs.next()) else { return None };
    Some(pair.1)
}

/// A number in a header; an error when it is there and is none.
fn number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let number = digits.and_then(|text| text.parse().ok());
            number.map(Some).ok_or_else(|| Problem::new(Kind::Request, format!("The header {name} is no number.")))
        }
        _ => Err(Problem::new(Kind::Request, format!("The header {name} comes more than once."))),
    }
}

/// Lets in who has a token that may see pictures and files, and says who it is: which of them it sees is asked of each.
fn permitted(media: &Media, headers: &HeaderMap) -> Result<Caller, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Problem::ticket()) };
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    let caller = token.and_then(|token| media.platform.authorize(token)).ok_or_else(Problem::ticket)?;
    media.platform.count_request(&caller).map_err(Problem::too_often)?;
    if !caller.may(Permission::MediaRead) {
        media.platform.denied(&caller, Permission::MediaRead);
        let detail = "This token does not have the permission to see pictures and files.";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    Ok(caller)
}
