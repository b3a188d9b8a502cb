//! Operations that wait for their device.

use uuid::Uuid;

use super::Control;
use super::device::stored_id;
use super::writer::{Write, rows};
use crate::db::{Transaction, on_db};
use crate::{DeviceId, DevicePath, StoreError};

/// An operation that is sent when its device comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedOperation {
    /// Which one.
    pub id: Uuid,
    /// For which device.
    pub device: DeviceId,
    /// Which operation of which part of it.
    pub path: DevicePath,
    /// What it is called with, JSON.
    pub input: Option<Box<str>>,
    /// When it was asked for, Unix milliseconds.
    pub created: i64,
    /// From when on it is not sent any more, Unix milliseconds.
    pub expires: i64,
    /// How long the device has to answer once it is sent, milliseconds.
    pub deadline_ms: i64,
    /// Who asked for it.
    pub by: String,
    /// Whether it was taken to be sent: from then on nobody knows whether it was, until it is removed.
    pub taken: bool,
}

impl QueuedOperation {
    /// Whether it is not to be sent any more: a process that has ended had taken it, or it has had its time.
    pub fn is_over(&self, now: i64) -> bool {
        self.taken || self.expires <= now
    }
}

impl Control {
    /// Queues an operation, durably when this returns; false: that many wait for the device already. It goes when its
    /// device is removed.
    pub async fn queue_operation(&self, op: QueuedOperation, max_per_device: usize) -> Result<bool, StoreError> {
        let max = i64::try_from(max_per_device).unwrap_or(i64::MAX);
        let write = QueueWrite::Put { op: Box::new(op), max };
        Ok(self.write(Write::Queue(write)).await? > 0)
    }

    /// Every operation that waits, oldest first.
    pub async fn queued_operations(&self) -> Result<Vec<QueuedOperation>, StoreError> {
        type Row = (Vec<u8>, Vec<u8>, String, String, String, String, Option<String>, i64, i64, i64, String, i64);
        self.read(|db| async move {
            let rows: Vec<Row> = on_db!(&db, pool => sqlx::query_as(
                "SELECT id, device, resource, place, area, name, input, created, expires, deadline_ms, asked_by, \
                 taken FROM queued_operation ORDER BY created, id",
            )
            .fetch_all(pool)
            .await?);
            rows.into_iter()
                .map(|row| {
                    Ok(QueuedOperation {
                        id: Uuid::from_slice(&row.0).map_err(|_| StoreError::Corrupt("operation id"))?,
                        device: stored_id(&row.1)?,
                        path: DevicePath {
                            resource: row.2.into(),
                            index: row.3.into(),
                            area: row.4.into(),
                            name: row.5.into(),
                        },
                        input: row.6.map(String::into_boxed_str),
                        created: row.7,
                        expires: row.8,
                        deadline_ms: row.9,
                        by: row.10,
                        taken: row.11 != 0,
                    })
                })
                .collect()
        })
        .await
    }

    /// Marks an operation as taken to be sent, or as waiting again, durably when this returns; false: it is gone.
    pub async fn mark_queued(&self, id: Uuid, taken: bool) -> Result<bool, StoreError> {
        Ok(self.write(Write::Queue(QueueWrite::Mark { id, taken })).await? > 0)
    }

    /// Removes an operation that has ended; false: it is gone already.
    pub async fn remove_queued(&self, id: Uuid) -> Result<bool, StoreError> {
        Ok(self.write(Write::Queue(QueueWrite::Remove { id })).await? > 0)
    }
}

/// A change of the queue.
pub(super) enum QueueWrite {
    Put { op: Box<QueuedOperation>, max: i64 },
    Mark { id: Uuid, taken: bool },
    Remove { id: Uuid },
}

impl QueueWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        match self {
            QueueWrite::Put { op, max } => rows!(
                transaction,
                "INSERT INTO queued_operation (id, device, resource, place, area, name, input, created, expires, \
                 deadline_ms, asked_by, taken) SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 \
                 WHERE (SELECT count(*) FROM queued_operation WHERE device = $2) < $13",
                op.id.as_bytes().to_vec(),
                op.device.as_bytes().to_vec(),
                &*op.path.resource,
                &*op.path.index,
                &*op.path.area,
                &*op.path.name,
                op.input.as_deref(),
                op.created,
                op.expires,
                op.deadline_ms,
                &op.by,
                i64::from(op.taken),
                max
            ),
            QueueWrite::Mark { id, taken } => rows!(
                transaction,
                "UPDATE queued_operation SET taken = $1 WHERE id = $2",
                i64::from(*taken),
                id.as_bytes().to_vec()
            ),
            QueueWrite::Remove { id } => {
                rows!(transaction, "DELETE FROM queued_operation WHERE id = $1", id.as_bytes().to_vec())
            }
        }
    }
}
