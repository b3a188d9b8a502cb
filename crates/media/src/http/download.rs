//! Downloads: pictures with their thumbnails, and files (media 7.2).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use object_store::{GetOptions, GetRange, GetResult};
use vestibule_store::{MediaKind, MediaRow, MediaState};

use super::range::{Sent, asked};
use super::{id_in, parameter, permitted};
use crate::blobs::{Part, THUMBNAILS};
use crate::content::Format;
use crate::hex;
use crate::media::{Media, object_path, stored};
use crate::problem::{Kind, Problem};
use crate::thumbnail::ThumbnailError;
use crate::ticket::TicketKind;

/// A picture, or a thumbnail of it.
pub(super) async fn picture(
    State(media): State<Arc<Media>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (uri, headers) = (request.uri(), request.headers());
    let row = object(&media, MediaKind::Picture, &id, uri, headers).await?;
    let width = match uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("w="))) {
        false => None,
        true => {
            let width = parameter(uri, "w").and_then(|text| text.parse().ok());
            let width = width.filter(|width| THUMBNAILS.contains(width));
            Some(width.ok_or_else(|| Problem::new(Kind::Request, "w is 160, 320 or 640."))?)
        }
    };
    let Some(width) = width else {
        return send(&media, &row, Part::Original, row.media_type.as_str(), stored(row.bytes), headers).await;
    };
    let length = thumbnail(&media, &row, width).await?;
    send(&media, &row, Part::Thumbnail(width), "image/jpeg", length, headers).await
}

/// A file.
pub(super) async fn file(
    State(media): State<Arc<Media>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers();
    let row = object(&media, MediaKind::File, &id, request.uri(), headers).await?;
    let mut response = send(&media, &row, Part::Original, &row.media_type, stored(row.bytes), headers).await?;
    response.headers_mut().insert(header::CONTENT_DISPOSITION, attachment(&row.name));
    Ok(response)
}

/// The object, if whoever asks may have it: by a ticket for it, or by a token of somebody who sees its device. What belongs
/// elsewhere is not there.
async fn object(media: &Media, kind: MediaKind, id: &str, uri: &Uri, headers: &HeaderMap) -> Result<MediaRow, Problem> {
    let id = id_in(id);
    let caller = match parameter(uri, "ticket") {
        None => Some(permitted(media, headers)?),
        Some(ticket) => {
            let id = id.ok_or_else(Problem::ticket)?;
            let opened = media.keys.open_ticket(ticket, TicketKind::Object, id, &object_path(kind, id));
            let now = u64::try_from(media.now() / 1_000).unwrap_or(u64::MAX);
            opened.filter(|ticket| now < ticket.expiry).ok_or_else(Problem::ticket)?;
            None
        }
    };
    let row = media.control.media(id.ok_or_else(Problem::not_found)?).await?;
    let is_seen =
        |row: &MediaRow| caller.as_ref().is_none_or(|caller| media.platform.sees_media_of(row.device, caller));
    row.filter(|row| row.state == MediaState::Here && row.kind == kind && is_seen(row)).ok_or_else(Problem::not_found)
}

/// Makes the thumbnail unless there is one; returns how long it is.
async fn thumbnail(media: &Media, row: &MediaRow, width: u32) -> Result<u64, Problem> {
    let digest = row.digest.ok_or_else(Problem::not_found)?;
    let head = || async move {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match media.blobs.get(&digest, Part::Thumbnail(width), options).await {
            Ok(found) => Ok(Some(found.meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Problem::from(error)),
        }
    };
    if let Some(length) = head().await? {
        return Ok(length);
    }
    let place = media.thumbnails.place().await.map_err(not_made)?;
    // Somebody else may have made it while this request waited.
    if let Some(length) = head().await? {
        return Ok(length);
    }
    let format = Format::of_media_type(&row.media_type).ok_or_else(Problem::not_found)?;
    let original = fetched(media, row, &digest, Part::Original, GetOptions::default()).await?.bytes().await?;
    let made = media.thumbnails.make(place, original.to_vec(), format, width, media.config.picture_max_pixels).await;
    let made = made.map_err(not_made)?;
    let length = made.len() as u64;
    let _gate = media.blobs.gate(&digest).await;
    if !media.control.has_media_digest(digest).await? {
        // It was removed meanwhile.
        return Err(Problem::not_found());
    }
    media.blobs.store_thumbnail(&digest, width, made).await.map_err(|error| match error {
        crate::blobs::BlobError::Staged(error) => Problem::from(error),
        crate::blobs::BlobError::Store(error) => Problem::from(error),
    })?;
    metrics::counter!("vestibule_media_thumbnails_total").increment(1);
    Ok(length)
}

/// Bytes of an object that is here. It may be removed while this request is under way; otherwise its bytes have to be there.
async fn fetched(
    media: &Media,
    row: &MediaRow,
    digest: &[u8; 32],
    part: Part,
    options: GetOptions,
) -> Result<GetResult, Problem> {
    match media.blobs.get(digest, part, options).await {
        Err(object_store::Error::NotFound { .. })
            if media.control.media(row.id).await?.is_none_or(|row| row.state != MediaState::Here) =>
        {
            Err(Problem::not_found())
        }
        found => Ok(found?),
    }
}

fn not_made(error: ThumbnailError) -> Problem {
    match error {
        ThumbnailError::NotDecoded => {
            Problem::new(Kind::Codec, "Pictures of this format are stored as they are; leave out w.")
        }
        ThumbnailError::TooLarge => {
            Problem::new(Kind::Codec, "The picture takes too much memory to make a thumbnail of it; leave out w.")
        }
        ThumbnailError::Broken(_) | ThumbnailError::Resize(_) => {
            Problem::new(Kind::Content, "The picture cannot be decoded; leave out w.")
        }
        ThumbnailError::Ended => Problem::new(Kind::Store, "The thumbnail was not made. Try again."),
    }
}

async fn send(
    media: &Media,
    row: &MediaRow,
    part: Part,
    media_type: &str,
    length: u64,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let digest = row.digest.ok_or_else(Problem::not_found)?;
    let etag = match part {
        Part::Original => format!("\"{}\"", hex::encode(&digest)),
        Part::Thumbnail(width) => format!("\"{}-{width}\"", hex::encode(&digest)),
    };
    let sent = asked(headers, &etag, length);
    let (status, from, to) = match sent {
        Sent::Whole => (StatusCode::OK, 0, length),
        Sent::Part(from, to) => (StatusCode::PARTIAL_CONTENT, from, to),
        Sent::Nothing => (StatusCode::NOT_MODIFIED, 0, 0),
        Sent::OutOfRange => return Err(Problem::new(Kind::Range, "There are no such bytes.").of(length)),
    };
    let body = if from < to {
        let options = GetOptions { range: Some(GetRange::Bounded(from..to)), ..GetOptions::default() };
        Body::from_stream(fetched(media, row, &digest, part, options).await?.into_stream())
    } else {
        Body::empty()
    };
    metrics::counter!("vestibule_media_out_bytes_total").increment(to - from);
    let mut response = (status, body).into_response();
    let answer = response.headers_mut();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Problem::not_found());
    answer.insert(header::ETAG, value(&etag)?);
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, immutable, max-age=31536000"));
    answer.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Whatever it is, it is not to run as part of this site, and its address may hold a ticket.
    answer.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    answer.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if sent != Sent::Nothing {
        answer.insert(header::CONTENT_TYPE, value(media_type)?);
        answer.insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    }
    if let Sent::Part(from, to) = sent {
        answer.insert(header::CONTENT_RANGE, value(&format!("bytes {from}-{}/{length}", to - 1))?);
    }
    Ok(response)
}

/// Has a browser save the file, under its name.
fn attachment(name: &str) -> HeaderValue {
    let mut text = String::from("attachment");
    if !name.is_empty() {
        text.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    // Only letters, digits and signs of ASCII are in it.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_header() {
        assert_eq!(attachment(""), "attachment");
        assert_eq!(attachment("log 1.txt"), "attachment; filename*=UTF-8''log%201.txt");
        assert_eq!(attachment("a\"; x=ü/../"), "attachment; filename*=UTF-8''a%22%3B%20x%3D%C3%BC%2F..%2F");
    }
}
