//! What changes pictures, files and keys, one statement each.

use uuid::Uuid;

use super::super::writer::rows;
use super::{MediaArrival, MediaRow, MediaState};
use crate::db::Transaction;

/// A change of the objects or the keys.
pub(in super::super) enum MediaWrite {
    Key { number: i64, made: i64, sealed: Vec<u8> },
    Offer(Box<MediaRow>, i64),
    Renew { id: Uuid, deadline: i64 },
    Begin { id: Uuid, now: i64, length: Option<i64>, digest: Option<[u8; 32]>, deadline: i64 },
    Learn { id: Uuid, length: Option<i64>, digest: Option<[u8; 32]> },
    Finish { id: Uuid, arrival: MediaArrival },
    Told { id: Uuid },
    Evict { id: Uuid },
    Remove { id: Uuid, state: MediaState, due: i64 },
}

impl MediaWrite {
    pub(in super::super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        match self {
            MediaWrite::Key { number, made, sealed } => {
                let added = rows!(
                    transaction,
                    "INSERT INTO media_key (number, made, sealed) VALUES ($1, $2, $3) ON CONFLICT (number) DO NOTHING",
                    number,
                    made,
                    sealed
                )?;
                rows!(transaction, "DELETE FROM media_key WHERE number < $1 - 1", number)?;
                Ok(added)
            }
            // Counted where it is added: however many ask at once, none is one too many.
            MediaWrite::Offer(row, most) => rows!(
                transaction,
                "INSERT INTO media_object \
                 (id, device, kind, name, media_type, state, bytes, length, digest, created, deadline, told) \
                 SELECT $1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, 0 \
                 WHERE (SELECT COUNT(*) FROM media_object WHERE device = $2 AND state < 2) < $11 \
                 ON CONFLICT (id) DO NOTHING",
                row.id.as_bytes().to_vec(),
                row.device.as_bytes().to_vec(),
                row.kind.as_str(),
                &row.name,
                &row.media_type,
                row.bytes,
                row.length,
                row.digest.map(|digest| digest.to_vec()),
                row.created,
                row.deadline,
                most
            ),
            MediaWrite::Renew { id, deadline } => rows!(
                transaction,
                "UPDATE media_object SET deadline = $1 WHERE id = $2 AND state IN (0, 2) AND deadline < $1",
                deadline,
                id.as_bytes().to_vec()
            ),
            MediaWrite::Begin { id, now, length, digest, deadline } => rows!(
                transaction,
                "UPDATE media_object SET state = 1, bytes = COALESCE($1, bytes), length = $1, digest = $2, deadline = $3 \
                 WHERE id = $4 AND state = 0 AND deadline > $5",
                length,
                digest.map(|digest| digest.to_vec()),
                deadline,
                id.as_bytes().to_vec(),
                now
            ),
            MediaWrite::Learn { id, length, digest } => rows!(
                transaction,
                "UPDATE media_object SET length = $1, digest = $2 WHERE id = $3 AND state = 1",
                length,
                digest.map(|digest| digest.to_vec()),
                id.as_bytes().to_vec()
            ),
            MediaWrite::Finish { id, arrival } => rows!(
                transaction,
                "UPDATE media_object SET state = 2, bytes = $1, length = $1, digest = $2, media_type = $3, width = $4, \
                 height = $5, created = $6 WHERE id = $7 AND state = 1",
                arrival.bytes,
                arrival.digest.to_vec(),
                arrival.media_type,
                arrival.size.map(|(width, _)| i64::from(width)),
                arrival.size.map(|(_, height)| i64::from(height)),
                arrival.now,
                id.as_bytes().to_vec()
            ),
            MediaWrite::Evict { id } => rows!(
                transaction,
                "UPDATE media_object SET state = 3, bytes = 0, told = 1 WHERE id = $1 AND state = 2",
                id.as_bytes().to_vec()
            ),
            MediaWrite::Told { id } => rows!(
                transaction,
                "UPDATE media_object SET told = 1 WHERE id = $1 AND state = 2 AND told = 0",
                id.as_bytes().to_vec()
            ),
            MediaWrite::Remove { id, state, due } => rows!(
                transaction,
                "DELETE FROM media_object WHERE id = $1 AND state = $2 AND deadline <= $3",
                id.as_bytes().to_vec(),
                state.number(),
                due
            ),
        }
    }
}
