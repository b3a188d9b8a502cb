//! What the attributes of a device were at a moment of the past.
//!
//! An attribute that was not reported since is what it is now, which memory says. Of the others the journal is asked for the
//! last report up to that moment, so that the work grows with what is returned. What lies before the retention of the journal is
//! not known; who asks is told from when on it is.

use std::sync::Arc;

use serde_json::value::RawValue;
use vestibule_store::{DevicePath, Record, Scan, StoreError};

use crate::device::Device;
use crate::platform::Platform;
use crate::twin::Leaf;

/// Attributes that the journal is asked for at once; each may have 64 KiB.
const ASKED: usize = 64;

/// An attribute as it was.
#[derive(Debug, Clone)]
pub struct PastLeaf {
    /// Which attribute of which part.
    pub path: Arc<DevicePath>,
    /// What it had last been reported as. None: nothing is known of a report up to then.
    pub reported: Option<PastReport>,
}

/// A value that was reported.
#[derive(Debug, Clone)]
pub struct PastReport {
    /// JSON text.
    pub value: Box<RawValue>,
    /// The device's time, or that of receipt where it sends none; milliseconds since 1970.
    pub time: i64,
    /// When it was received, milliseconds since 1970.
    pub received: i64,
}

/// Attributes as they were, by path.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// The attributes that the device has ever reported.
    pub items: Vec<PastLeaf>,
    /// Whether there are more behind them.
    pub more: bool,
    /// When the oldest record that is kept was received, milliseconds since 1970: of attributes that were reported since the
    /// moment, what was reported before this is not known. None: nothing is kept.
    pub known_from: Option<i64>,
}

impl Platform {
    /// The attributes of a device as they were at a moment, milliseconds since 1970 by the time of receipt: those behind `after`,
    /// in the order of their paths, at most `limit` and about `max_bytes` of values, though one at least.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn attributes_at(
        &self,
        device: &Device,
        at: i64,
        after: Option<&DevicePath>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Past, StoreError> {
        let mut leaves = self.attributes(device);
        leaves.retain(|leaf| leaf.reported.is_some() && after.is_none_or(|after| *leaf.path > *after));
        let all = leaves.len();
        let mut bytes = 0;
        let mut items: Vec<PastLeaf> = Vec::new();
        'pages: for some in leaves.chunks(ASKED) {
            for leaf in self.past_of(device, some.to_vec(), at).await? {
                bytes += leaf.reported.as_ref().map_or(0, |reported| reported.value.get().len());
                if items.len() >= limit || (bytes > max_bytes && !items.is_empty()) {
                    break 'pages;
                }
                items.push(leaf);
            }
        }
        Ok(Past { more: items.len() < all, items, known_from: self.known_from().await? })
    }

    /// One attribute of a device as it was at a moment, milliseconds since 1970 by the time of receipt, and since when records are
    /// kept. None: the device has never reported it.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn attribute_at(
        &self,
        device: &Device,
        path: &DevicePath,
        at: i64,
    ) -> Result<Option<(PastLeaf, Option<i64>)>, StoreError> {
        let Some(leaf) = self.attribute(device, path).filter(|leaf| leaf.reported.is_some()) else { return Ok(None) };
        let leaf = self.past_of(device, vec![leaf], at).await?.pop();
        Ok(leaf.zip(Some(self.known_from().await?)))
    }

    async fn past_of(&self, device: &Device, leaves: Vec<Leaf>, at: i64) -> Result<Vec<PastLeaf>, StoreError> {
        let is_newer = |leaf: &&Leaf| leaf.reported.as_ref().is_some_and(|reported| reported.received > at);
        let changed: Vec<Arc<DevicePath>> = leaves.iter().filter(is_newer).map(|leaf| Arc::clone(&leaf.path)).collect();
        let mut found: Vec<Arc<Record>> = Vec::new();
        if !changed.is_empty() {
            let until = self.journal().position_at(at).await?;
            found = self.journal().last_reports(device.id, changed, until).await?;
        }
        let past = |leaf: Leaf| {
            let reported = match leaf.reported {
                Some(reported) if reported.received <= at => {
                    Some(PastReport { value: reported.value, time: reported.time, received: reported.received })
                }
                _ => found.iter().find(|record| record.path == leaf.path).and_then(|record| report(record)),
            };
            PastLeaf { path: leaf.path, reported }
        };
        Ok(leaves.into_iter().map(past).collect())
    }

    async fn known_from(&self) -> Result<Option<i64>, StoreError> {
        let oldest = self.journal().scan(&Scan { limit: 1, ..Scan::default() }).await?;
        Ok(oldest.first().map(|record| record.received))
    }
}

fn report(record: &Record) -> Option<PastReport> {
    // What the journal has of attributes was checked to be JSON when it came.
    let value = RawValue::from_string(record.data.to_string()).ok()?;
    Some(PastReport { value, time: record.time, received: record.received })
}
