//! What is known of a picture or a file, and of a key.

use uuid::Uuid;

use super::super::device::stored_id;
use crate::{DeviceId, Secret, StoreError};

/// What an object is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// A picture, whose content is looked at.
    Picture,
    /// Any bytes.
    File,
}

impl MediaKind {
    /// The kind as it is stored and told.
    pub fn as_str(self) -> &'static str {
        match self {
            MediaKind::Picture => "picture",
            MediaKind::File => "file",
        }
    }

    fn stored(text: &str) -> Result<MediaKind, StoreError> {
        match text {
            "picture" => Ok(MediaKind::Picture),
            "file" => Ok(MediaKind::File),
            _ => Err(StoreError::Corrupt("kind of a media object")),
        }
    }
}

/// How far an object has come. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MediaState {
    /// Somebody may send it.
    Offered,
    /// Somebody has begun to send it.
    Receiving,
    /// All of it is here.
    Here,
    /// It was here, and went early to make room (3 in the database): nobody waits for it any more.
    Gone,
}

impl MediaState {
    pub(super) fn number(self) -> i64 {
        match self {
            MediaState::Offered => 0,
            MediaState::Receiving => 1,
            MediaState::Here => 2,
            MediaState::Gone => 3,
        }
    }
}

/// A picture or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRow {
    /// Its id, which is that of its upload ticket.
    pub id: Uuid,
    /// Whose it is.
    pub device: DeviceId,
    /// What it is taken for.
    pub kind: MediaKind,
    /// What its sender calls it; may be empty.
    pub name: String,
    /// What its content is once it is here; before, what it has to be, or empty.
    pub media_type: String,
    /// How far it has come.
    pub state: MediaState,
    /// Bytes it has once it is here; before, the most it may have.
    pub bytes: i64,
    /// How long it is, once that is known.
    pub length: Option<i64>,
    /// SHA-256 that it has once it is here; before, the one it has to have, if that is known.
    pub digest: Option<[u8; 32]>,
    /// Width and height of a picture that is here.
    pub size: Option<(u32, u32)>,
    /// When it was offered, and from its arrival on when it arrived; Unix milliseconds.
    pub created: i64,
    /// Until when it may be begun, and from then on until when it may be completed and its upload be repeated; Unix milliseconds.
    pub deadline: i64,
}

/// A key that tickets are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaKey {
    /// Counts up from 1.
    pub number: i64,
    /// When it was made, Unix milliseconds.
    pub made: i64,
    /// The key.
    pub key: Secret,
}

/// What is known of an object when all of it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaArrival {
    /// Its SHA-256.
    pub digest: [u8; 32],
    /// How many bytes it has.
    pub bytes: i64,
    /// What its content is.
    pub media_type: &'static str,
    /// Width and height of a picture.
    pub size: Option<(u32, u32)>,
    /// When it arrived, Unix milliseconds.
    pub now: i64,
}

/// A row as it is read.
pub(super) type Columns = (
    Vec<u8>,
    Vec<u8>,
    String,
    String,
    String,
    i64,
    i64,
    Option<i64>,
    Option<Vec<u8>>,
    Option<i64>,
    Option<i64>,
    i64,
    i64,
);

pub(super) fn media_row(row: Columns) -> Result<MediaRow, StoreError> {
    let (id, device, kind, name, media_type, state, bytes, length, digest, width, height, created, deadline) = row;
    let pixels = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    Ok(MediaRow {
        id: stored_uuid(&id)?,
        device: stored_id(&device)?,
        kind: MediaKind::stored(&kind)?,
        name,
        media_type,
        state: match state {
            0 => MediaState::Offered,
            1 => MediaState::Receiving,
            2 => MediaState::Here,
            3 => MediaState::Gone,
            _ => return Err(StoreError::Corrupt("state of a media object")),
        },
        bytes,
        length,
        digest: digest.map(stored_digest).transpose()?,
        size: pixels(width).zip(pixels(height)),
        created,
        deadline,
    })
}

pub(super) fn stored_uuid(bytes: &[u8]) -> Result<Uuid, StoreError> {
    Uuid::from_slice(bytes).map_err(|_| StoreError::Corrupt("id of a media object"))
}

pub(super) fn stored_digest(bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt("digest"))
}
