//! Pictures and files of devices: which there are, how far each has come, and the keys their tickets are signed with.

mod row;
mod write;

use uuid::Uuid;

use super::Control;
use super::device::stored_id;
use super::writer::Write;
use crate::db::on_db;
use crate::envelope::{Place, Sealed};
use crate::{DeviceId, StoreError};

use row::{Columns, media_row, stored_digest, stored_uuid};
pub(super) use write::MediaWrite;

pub use row::{MediaArrival, MediaKey, MediaKind, MediaRow, MediaState};

const KEY: Sealed = Sealed::MediaKey;

/// Rows of one answer at most.
pub const MEDIA_PAGE: i64 = 256;

/// Bytes an object counts as at least: what its row and the block of its file take, however short it is.
pub const MEDIA_LEAST: i64 = 4_096;

impl Control {
    /// The keys of tickets, the newest first.
    pub async fn media_keys(&self) -> Result<Vec<MediaKey>, StoreError> {
        let rows: Vec<(i64, i64, Vec<u8>)> = self
            .read(|db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as("SELECT number, made, sealed FROM media_key ORDER BY number DESC LIMIT 2")
                        .fetch_all(pool)
                        .await?
                }))
            })
            .await?;
        rows.into_iter()
            .map(|(number, made, sealed)| {
                let place = Place { column: KEY, row: &number.to_be_bytes() };
                Ok(MediaKey { number, made, key: self.0.envelope.open_sealed(&sealed, &place)? })
            })
            .collect()
    }

    /// Adds a key, unless one of this number is there, and removes those that are not among the newest two.
    pub async fn add_media_key(&self, key: &MediaKey) -> Result<(), StoreError> {
        let place = Place { column: KEY, row: &key.number.to_be_bytes() };
        let sealed = self.0.envelope.seal(&key.key, &place);
        let (number, made) = (key.number, key.made);
        self.write(Write::Media(MediaWrite::Key { number, made, sealed })).await.map(drop)
    }

    /// Adds an object that is offered, durably when this returns; `false` when there is one of this id, or the device has
    /// `most` that are offered or under way.
    pub async fn offer_media(&self, row: MediaRow, most: i64) -> Result<bool, StoreError> {
        Ok(self.write(Write::Media(MediaWrite::Offer(Box::new(row), most))).await? > 0)
    }

    /// Offers an object once more, until `deadline`: one that nobody has begun, or one that is here, whose upload may be
    /// repeated. Whoever has begun has the time that was given then. `false` when nothing was changed.
    pub async fn renew_media(&self, id: Uuid, deadline: i64) -> Result<bool, StoreError> {
        Ok(self.write(Write::Media(MediaWrite::Renew { id, deadline })).await? > 0)
    }

    /// An object.
    pub async fn media(&self, id: Uuid) -> Result<Option<MediaRow>, StoreError> {
        let row: Option<Columns> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as(
                        "SELECT id, device, kind, name, media_type, state, bytes, length, digest, width, height, created, \
                         deadline FROM media_object WHERE id = $1",
                    )
                    .bind(id.as_bytes().to_vec())
                    .fetch_optional(pool)
                    .await?
                }))
            })
            .await?;
        row.map(media_row).transpose()
    }

    /// Those objects of these ids that there are.
    pub async fn media_of(&self, ids: &[Uuid]) -> Result<Vec<MediaRow>, StoreError> {
        let mut found = Vec::new();
        for some in ids.chunks(8) {
            // One statement whatever their number: the last one again, where there are fewer.
            let id = |n: usize| some.get(n).or(some.last()).map_or_else(Vec::new, |id| id.as_bytes().to_vec());
            let ids: [Vec<u8>; 8] = std::array::from_fn(id);
            let rows: Vec<Columns> = self
                .read(move |db| async move {
                    Ok(on_db!(&db, pool => {
                        let mut query = sqlx::query_as(
                            "SELECT id, device, kind, name, media_type, state, bytes, length, digest, width, height, \
                             created, deadline FROM media_object WHERE id IN ($1, $2, $3, $4, $5, $6, $7, $8)",
                        );
                        for id in ids {
                            query = query.bind(id);
                        }
                        query.fetch_all(pool).await?
                    }))
                })
                .await?;
            for row in rows {
                found.push(media_row(row)?);
            }
        }
        Ok(found)
    }

    /// Marks an offered object as under way; `false` when somebody was faster, or its time is up. `length` and `digest`
    /// are what it will be, as far as that is known; of a known length it takes no more than that.
    pub async fn begin_media(
        &self,
        id: Uuid,
        now: i64,
        length: Option<i64>,
        digest: Option<[u8; 32]>,
        deadline: i64,
    ) -> Result<bool, StoreError> {
        let begin = MediaWrite::Begin { id, now, length, digest, deadline };
        Ok(self.write(Write::Media(begin)).await? > 0)
    }

    /// Takes down what an object under way will be; `false` when it is not under way.
    pub async fn learn_media(
        &self,
        id: Uuid,
        length: Option<i64>,
        digest: Option<[u8; 32]>,
    ) -> Result<bool, StoreError> {
        Ok(self.write(Write::Media(MediaWrite::Learn { id, length, digest })).await? > 0)
    }

    /// Marks an object under way as here, durably when this returns; `false` when it is not under way.
    pub async fn finish_media(&self, id: Uuid, arrival: MediaArrival) -> Result<bool, StoreError> {
        Ok(self.write(Write::Media(MediaWrite::Finish { id, arrival })).await? > 0)
    }

    /// Takes down that those who follow events have been told that an object is here; `false` when that was known.
    pub async fn told_media(&self, id: Uuid) -> Result<bool, StoreError> {
        Ok(self.write(Write::Media(MediaWrite::Told { id })).await? > 0)
    }

    /// Objects that are here, and of which nobody has been told that they are, the oldest first, [`MEDIA_PAGE`] at most.
    pub async fn untold_media(&self) -> Result<Vec<MediaRow>, StoreError> {
        let rows: Vec<Columns> = self
            .read(|db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as(
                        "SELECT id, device, kind, name, media_type, state, bytes, length, digest, width, height, created, \
                         deadline FROM media_object WHERE state = 2 AND told = 0 ORDER BY created LIMIT $1",
                    )
                    .bind(MEDIA_PAGE)
                    .fetch_all(pool)
                    .await?
                }))
            })
            .await?;
        rows.into_iter().map(media_row).collect()
    }

    /// Removes an object that is in this state; `false` when it is not.
    pub async fn remove_media(&self, id: Uuid, state: MediaState) -> Result<bool, StoreError> {
        let remove = MediaWrite::Remove { id, state, due: i64::MAX };
        Ok(self.write(Write::Media(remove)).await? > 0)
    }

    /// Removes an object that is in this state and whose deadline is not after `now`; `false` when it is not, or has been
    /// given more time since it was found to be due.
    pub async fn remove_due_media(&self, id: Uuid, state: MediaState, now: i64) -> Result<bool, StoreError> {
        let remove = MediaWrite::Remove { id, state, due: now };
        Ok(self.write(Write::Media(remove)).await? > 0)
    }

    /// Objects in this state whose deadline is not after `now`, the oldest first, [`MEDIA_PAGE`] at most.
    pub async fn due_media(&self, state: MediaState, now: i64) -> Result<Vec<MediaRow>, StoreError> {
        let rows: Vec<Columns> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as(
                        "SELECT id, device, kind, name, media_type, state, bytes, length, digest, width, height, created, \
                         deadline FROM media_object WHERE state = $1 AND deadline <= $2 ORDER BY deadline LIMIT $3",
                    )
                    .bind(state.number())
                    .bind(now)
                    .bind(MEDIA_PAGE)
                    .fetch_all(pool)
                    .await?
                }))
            })
            .await?;
        rows.into_iter().map(media_row).collect()
    }

    /// Marks an object that is here as gone; `false` when it is not here.
    pub async fn evict_media(&self, id: Uuid) -> Result<bool, StoreError> {
        Ok(self.write(Write::Media(MediaWrite::Evict { id })).await? > 0)
    }

    /// Objects in this state that arrived at `before` or earlier, the oldest first, [`MEDIA_PAGE`] at most.
    pub async fn old_media(&self, state: MediaState, before: i64) -> Result<Vec<MediaRow>, StoreError> {
        let rows: Vec<Columns> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as(
                        "SELECT id, device, kind, name, media_type, state, bytes, length, digest, width, height, created, \
                         deadline FROM media_object WHERE state = $1 AND created <= $2 ORDER BY created LIMIT $3",
                    )
                    .bind(state.number())
                    .bind(before)
                    .bind(MEDIA_PAGE)
                    .fetch_all(pool)
                    .await?
                }))
            })
            .await?;
        rows.into_iter().map(media_row).collect()
    }

    /// Every object under way.
    pub async fn receiving_media(&self) -> Result<Vec<Uuid>, StoreError> {
        let rows: Vec<(Vec<u8>,)> = self
            .read(|db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as("SELECT id FROM media_object WHERE state = 1").fetch_all(pool).await?
                }))
            })
            .await?;
        rows.into_iter().map(|(id,)| stored_uuid(&id)).collect()
    }

    /// How many bytes the objects of each device take: those that are here, and what those under way may take, each
    /// [`MEDIA_LEAST`] at least.
    pub async fn media_usage(&self) -> Result<Vec<(DeviceId, i64)>, StoreError> {
        let rows: Vec<(Vec<u8>, i64)> = self
            .read(|db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as(
                        "SELECT device, CAST(SUM(CASE WHEN bytes > $1 THEN bytes ELSE $1 END) AS BIGINT) \
                         FROM media_object WHERE state IN (1, 2) GROUP BY device",
                    )
                    .bind(MEDIA_LEAST)
                    .fetch_all(pool)
                    .await?
                }))
            })
            .await?;
        rows.into_iter().map(|(device, bytes)| Ok((stored_id(&device)?, bytes))).collect()
    }

    /// The digests of objects that are here and begin with this byte, each once.
    pub async fn media_digests(&self, first: u8) -> Result<Vec<[u8; 32]>, StoreError> {
        let last = [&[first][..], &[0xff; 31]].concat();
        let rows: Vec<(Vec<u8>,)> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as(
                        "SELECT DISTINCT digest FROM media_object WHERE digest >= $1 AND digest <= $2 AND state = 2",
                    )
                    .bind(vec![first])
                    .bind(last)
                    .fetch_all(pool)
                    .await?
                }))
            })
            .await?;
        rows.into_iter().map(|(digest,)| stored_digest(digest)).collect()
    }

    /// Whether an object that is here has this digest.
    pub async fn has_media_digest(&self, digest: [u8; 32]) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as("SELECT state FROM media_object WHERE digest = $1 AND state = 2 LIMIT 1")
                        .bind(digest.to_vec())
                        .fetch_optional(pool)
                        .await?
                }))
            })
            .await?;
        Ok(row.is_some())
    }
}
