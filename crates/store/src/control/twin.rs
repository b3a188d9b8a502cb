//! The twin: the last reported and the desired value of each attribute.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::Control;
use super::device::stored_id;
use super::statements::Statements;
use super::writer::{Write, rows};
use crate::db::{Transaction, on_db};
use crate::{DeviceId, DevicePath, Position, StoreError};

/// The most rows one [`Control::leaves`] returns.
const MAX_LEAVES: i64 = 10_000;
/// Leaves of one write; a larger batch is several.
const BATCH: usize = 1_000;
/// Leaves of one statement at most; a power of two.
const TOGETHER: usize = 64;

/// One attribute of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRow {
    /// The device.
    pub device: DeviceId,
    /// Which attribute of which part.
    pub path: DevicePath,
    /// Grows with every change.
    pub version: i64,
    /// What it was last reported as.
    pub reported: Option<LeafPart>,
    /// What it is wished to be.
    pub desired: Option<LeafPart>,
}

/// One side of a leaf. Each side is stored by itself: an older version of it, or none, never replaces a newer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafPart {
    /// The leaf's version when this side changed.
    pub version: i64,
    /// What is kept of it, JSON.
    pub json: String,
}

impl LeafPart {
    fn from_stored(version: i64, json: Option<String>) -> Option<LeafPart> {
        json.map(|json| LeafPart { version, json })
    }

    fn version_of(part: Option<&LeafPart>) -> i64 {
        part.map_or(0, |part| part.version)
    }

    fn json_of(part: Option<&LeafPart>) -> Option<&str> {
        part.map(|part| &*part.json)
    }
}

impl Control {
    /// The leaves of all devices behind `after`, by device and path, at most 10,000 of them.
    pub async fn leaves(&self, after: Option<(DeviceId, DevicePath)>) -> Result<Vec<LeafRow>, StoreError> {
        type Text = Option<String>;
        type Row = (Vec<u8>, String, String, String, String, i64, Text, i64, Text, i64);
        let (device, path) = match after {
            Some((device, path)) => (device.as_bytes().to_vec(), path),
            None => {
                (Vec::new(), DevicePath { resource: "".into(), index: "".into(), area: "".into(), name: "".into() })
            }
        };
        self.read(move |db| async move {
            let rows: Vec<Row> = on_db!(&db, pool => sqlx::query_as(
                "SELECT device, resource, place, area, name, version, reported, reported_version, \
                 desired, desired_version FROM leaf \
                 WHERE (device, resource, place, area, name) > ($1, $2, $3, $4, $5) \
                 ORDER BY device, resource, place, area, name LIMIT $6",
            )
            .bind(device)
            .bind(path.resource.into_string())
            .bind(path.index.into_string())
            .bind(path.area.into_string())
            .bind(path.name.into_string())
            .bind(MAX_LEAVES)
            .fetch_all(pool)
            .await?);
            rows.into_iter()
                .map(|(device, resource, place, area, name, version, reported, reported_at, desired, desired_at)| {
                    let path = DevicePath {
                        resource: resource.into(),
                        index: place.into(),
                        area: area.into(),
                        name: name.into(),
                    };
                    let device = stored_id(&device)?;
                    let reported = LeafPart::from_stored(reported_at, reported);
                    let desired = LeafPart::from_stored(desired_at, desired);
                    Ok(LeafRow { device, path, version, reported, desired })
                })
                .collect()
        })
        .await
    }

    /// Writes leaves, durably when this returns; a leaf of a device that is gone is ignored, and a side of it that is stored
    /// in a newer version is left alone. `applied` says that all reports up to this position are in what was written so far;
    /// it never goes back.
    pub async fn put_leaves(&self, mut leaves: Vec<LeafRow>, applied: Option<Position>) -> Result<(), StoreError> {
        while leaves.len() > BATCH {
            let rest = leaves.split_off(BATCH);
            self.write(Write::Leaves(LeavesWrite { leaves, applied: None })).await?;
            leaves = rest;
        }
        self.write(Write::Leaves(LeavesWrite { leaves, applied })).await.map(drop)
    }

    /// Up to which position of the journal reports are in the leaves.
    pub async fn twin_applied(&self) -> Result<Position, StoreError> {
        self.read(|db| async move {
            let position: Option<i64> = on_db!(&db, pool => sqlx::query_scalar("SELECT position FROM twin_applied")
                .fetch_optional(pool)
                .await?);
            Ok(position.map_or(Position::START, Position::new))
        })
        .await
    }
}

/// Leaves to be written.
pub(super) struct LeavesWrite {
    leaves: Vec<LeafRow>,
    applied: Option<Position>,
}

impl LeavesWrite {
    /// How many rows these are, nearly.
    pub(super) fn weight(&self) -> usize {
        self.leaves.len().max(1)
    }

    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        let mut leaves = self.leaves.as_slice();
        while !leaves.is_empty() {
            let (some, rest) = leaves.split_at(together(leaves));
            put_together(transaction, some).await?;
            leaves = rest;
        }
        if let Some(applied) = self.applied {
            rows!(
                transaction,
                "INSERT INTO twin_applied (singleton, position) VALUES (1, $1) ON CONFLICT (singleton) \
                 DO UPDATE SET position = excluded.position WHERE excluded.position > twin_applied.position",
                applied.get()
            )?;
        }
        Ok(1)
    }
}

/// How many of the leaves from the first on one statement takes: it may not touch a row twice.
fn together(leaves: &[LeafRow]) -> usize {
    let mut seen = HashSet::with_capacity(TOGETHER);
    leaves.iter().take(TOGETHER).take_while(|leaf| seen.insert((leaf.device, &leaf.path))).count()
}

/// The statements that write leaves together.
static STATEMENTS: LazyLock<Statements<TOGETHER>> = LazyLock::new(|| {
    Statements::new(10, |rows| {
        format!(
            "INSERT INTO leaf (device, resource, place, area, name, version, reported, reported_version, desired, \
             desired_version) SELECT device.id, column2, column3, column4, column5, column6, column7, column8, column9, \
             column10 FROM (VALUES {rows}) AS given JOIN device ON device.id = given.column1 WHERE TRUE \
             ON CONFLICT (device, resource, place, area, name) DO UPDATE SET \
             version = CASE WHEN excluded.version > leaf.version THEN excluded.version ELSE leaf.version END, \
             reported = CASE WHEN excluded.reported_version >= leaf.reported_version \
             THEN excluded.reported ELSE leaf.reported END, \
             reported_version = CASE WHEN excluded.reported_version >= leaf.reported_version \
             THEN excluded.reported_version ELSE leaf.reported_version END, \
             desired = CASE WHEN excluded.desired_version >= leaf.desired_version \
             THEN excluded.desired ELSE leaf.desired END, \
             desired_version = CASE WHEN excluded.desired_version >= leaf.desired_version \
             THEN excluded.desired_version ELSE leaf.desired_version END"
        )
    })
});

/// Writes leaves in one statement.
async fn put_together(transaction: &mut Transaction<'_>, leaves: &[LeafRow]) -> Result<(), sqlx::Error> {
    // Rows without a device fill it up.
    let (statement, rows) = STATEMENTS.of(transaction.dialect(), leaves.len());
    on_db!(Transaction, transaction, transaction => {
        let mut query = sqlx::query(statement);
        for leaf in leaves {
            query = query
                .bind(leaf.device.as_bytes().to_vec())
                .bind(&*leaf.path.resource)
                .bind(&*leaf.path.index)
                .bind(&*leaf.path.area)
                .bind(&*leaf.path.name)
                .bind(leaf.version)
                .bind(LeafPart::json_of(leaf.reported.as_ref()))
                .bind(LeafPart::version_of(leaf.reported.as_ref()))
                .bind(LeafPart::json_of(leaf.desired.as_ref()))
                .bind(LeafPart::version_of(leaf.desired.as_ref()));
        }
        for _ in leaves.len()..rows {
            query = query.bind(None::<Vec<u8>>);
            for _ in 1..5 {
                query = query.bind("");
            }
            query = query.bind(0_i64).bind(None::<&str>).bind(0_i64).bind(None::<&str>).bind(0_i64);
        }
        query.execute(&mut **transaction).await?;
    });
    Ok(())
}
