//! The twin: the last reported and the desired value of each attribute.

use crate::control::Control;
use crate::control::writer::Write;
use crate::db::on_db;
use crate::{DeviceId, DevicePath, Position, StoreError};

/// The most rows one [`Control::leaves`] returns.
const MAX_LEAVES: i64 = 10_000;
/// Leaves of one write; a larger batch is several.
const BATCH: usize = 1_000;

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

    pub(super) fn version_of(part: Option<&LeafPart>) -> i64 {
        part.map_or(0, |part| part.version)
    }

    pub(super) fn json_of(part: Option<&LeafPart>) -> Option<&str> {
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
                    let device = DeviceId::from_stored(&device).ok_or(StoreError::Corrupt("device id"))?;
                    let reported = LeafPart::from_stored(reported_at, reported);
                    let desired = LeafPart::from_stored(desired_at, desired);
                    Ok(LeafRow { device, path, version, reported, desired })
                })
                .collect()
        })
        .await
    }

    /// Writes leaves, durably when this returns; a leaf of a device that is gone is ignored, and a side of
    /// it that is stored in a newer version is left alone. `applied` says that all reports up to this position are in what was written so far.
    pub async fn put_leaves(&self, mut leaves: Vec<LeafRow>, applied: Option<Position>) -> Result<(), StoreError> {
        while leaves.len() > BATCH {
            let rest = leaves.split_off(BATCH);
            self.write(Write::Leaves { leaves, applied: None }).await?;
            leaves = rest;
        }
        self.write(Write::Leaves { leaves, applied }).await.map(drop)
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
