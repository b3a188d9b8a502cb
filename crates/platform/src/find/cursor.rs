//! Where a page of devices ended, as text that means something to the same query only.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BadCursor, DeviceOrder, DeviceQuery};
use crate::catalogue::{Key, Place};

/// Longer than any place is.
const LONGEST: usize = 4_096;
/// Bytes of the query's digest: it tells queries apart, it keeps no secret.
const DIGEST: usize = 8;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    q: [u8; DIGEST],
    id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<(u8, i64)>,
}

/// The cursor of the page after this place.
pub(super) fn write(place: &Place, query: &DeviceQuery) -> String {
    let (text, seen) = match &place.key {
        Key::Added => (None, None),
        Key::Text(text) => (Some(text.to_string()), None),
        Key::Seen(rank, since) => (None, Some((*rank, *since))),
    };
    let written = Written { q: digest_of(query), id: place.id.into(), text, seen };
    // Numbers and strings always have a JSON text.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&written).unwrap_or_default())
}

/// The place a cursor names.
pub(super) fn read(cursor: &str, query: &DeviceQuery) -> Result<Place, BadCursor> {
    let json =
        Some(cursor).filter(|cursor| cursor.len() <= LONGEST).and_then(|cursor| URL_SAFE_NO_PAD.decode(cursor).ok());
    let written: Written = json.and_then(|json| serde_json::from_slice(&json).ok()).ok_or(BadCursor)?;
    let key = match (query.order, written.text, written.seen) {
        (DeviceOrder::Added, None, None) => Key::Added,
        (DeviceOrder::Serial | DeviceOrder::Name, Some(text), None) => Key::Text(text.into()),
        (DeviceOrder::Seen, None, Some((rank, since))) => Key::Seen(rank, since),
        _ => return Err(BadCursor),
    };
    if written.q != digest_of(query) {
        return Err(BadCursor);
    }
    Ok(Place { key, id: written.id.into() })
}

/// What tells this query from others.
fn digest_of(query: &DeviceQuery) -> [u8; DIGEST] {
    let mut query = query.clone();
    // Labels are wanted together, in whichever order they are named.
    query.filter.labels.sort_unstable();
    query.filter.labels.dedup();
    let digest = digest::digest(&digest::SHA256, format!("{query:?}").as_bytes());
    let mut first = [0; DIGEST];
    first.copy_from_slice(&digest.as_ref()[..DIGEST]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::{DeviceFilter, LabelFilter};

    fn query(order: DeviceOrder, labels: &[&str]) -> DeviceQuery {
        let label = |name: &&str| LabelFilter { name: (*name).to_owned(), value: None };
        let filter = DeviceFilter { labels: labels.iter().map(label).collect(), ..DeviceFilter::default() };
        DeviceQuery { filter, order, descending: false }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_by_its_own_query_only() {
        let id = Uuid::now_v7().into();
        for (order, key) in [
            (DeviceOrder::Added, Key::Added),
            (DeviceOrder::Serial, Key::Text("SN \"1\"".into())),
            (DeviceOrder::Name, Key::Text("".into())),
            (DeviceOrder::Seen, Key::Seen(2, i64::MIN)),
        ] {
            let place = Place { key, id };
            let own = query(order, &["a", "b"]);
            let cursor = write(&place, &own);
            assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')), "{cursor}");
            assert_eq!(read(&cursor, &own), Ok(place.clone()));
            assert_eq!(read(&cursor, &query(order, &["b", "a"])), Ok(place));
            for other in DeviceOrder::ALL {
                assert_eq!(read(&cursor, &query(other, &["a"])), Err(BadCursor));
            }
            assert_eq!(read(&cursor, &DeviceQuery { descending: true, ..own }), Err(BadCursor));
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let query = query(DeviceOrder::Added, &[]);
        for wrong in ["", "x", "e30", "0", "=", &"A".repeat(5_000)] {
            assert_eq!(read(wrong, &query), Err(BadCursor), "{wrong}");
        }
    }
}
