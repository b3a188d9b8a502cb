//! Reading records back, each for somebody who sees a part of the organisation only.

use std::sync::Arc;

use vestibule_store::{DeviceId, MAX_SCAN, Order, Position, Record, Scan, StoreError};

use crate::caller::Caller;
use crate::platform::Platform;

/// So many devices are asked for one by one; of more, the records of all are read and those of others left out.
const FEW: usize = 64;
/// How many records are read at a time then.
const BATCH: usize = 256;
/// How often, for one page.
const BATCHES: usize = 64;

/// Records, newest first.
#[derive(Debug, Default)]
pub struct Records {
    /// The records.
    pub items: Vec<Arc<Record>>,
    /// Looking for more was given up here, though there may be some: a page that ends early goes on before this position.
    pub resume: Option<Position>,
}

impl Platform {
    /// Reads records, newest first, of devices that `by` sees. The work is bounded: by what is returned for who sees
    /// everything or few devices, by [`BATCH`] × [`BATCHES`] records for all others.
    pub(crate) async fn records(&self, scan: Scan, by: &Caller) -> Result<Records, StoreError> {
        if by.subtree().is_root() {
            return Ok(Records { items: self.journal().scan(&scan).await?, resume: None });
        }
        if let Some(device) = scan.device {
            let is_seen = self.registry().is_seen(device, by);
            let items = if is_seen { self.journal().scan(&scan).await? } else { Vec::new() };
            return Ok(Records { items, resume: None });
        }
        match self.few_seen(by) {
            Some(devices) => Ok(Records { items: self.scan_each(scan, devices).await?, resume: None }),
            None => self.left_over(scan, by).await,
        }
    }

    /// The devices that `by` sees, when they are so few that each is asked for by itself.
    pub(crate) fn few_seen(&self, by: &Caller) -> Option<Vec<DeviceId>> {
        self.registry().few_below(by.subtree(), FEW)
    }

    /// Reads the records of a few devices, in one order.
    pub(crate) async fn scan_each(&self, scan: Scan, devices: Vec<DeviceId>) -> Result<Vec<Arc<Record>>, StoreError> {
        let mut scan = Scan { limit: scan.limit.min(MAX_SCAN), ..scan };
        let mut items: Vec<Arc<Record>> = Vec::new();
        for device in devices {
            scan.device = Some(device);
            items.extend(self.journal().scan(&scan).await?);
            items.sort_unstable_by_key(|record| record.position);
            if scan.order == Order::Newest {
                items.reverse();
            }
            items.truncate(scan.limit);
            if let Some(last) = items.last().filter(|_| items.len() == scan.limit) {
                // What lies beyond has no place on this page any more.
                match scan.order {
                    Order::Newest => scan.after = last.position,
                    Order::Oldest => scan.before = Some(last.position),
                }
            }
        }
        Ok(items)
    }

    /// Reads the records of all and leaves out those that `by` does not see.
    async fn left_over(&self, scan: Scan, by: &Caller) -> Result<Records, StoreError> {
        let limit = scan.limit.min(MAX_SCAN);
        let mut scan = Scan { limit: BATCH, ..scan };
        let mut items = Vec::new();
        for _ in 0..BATCHES {
            let batch = self.journal().scan(&scan).await?;
            let (count, last) = (batch.len(), batch.last().map(|record| record.position));
            items.extend(batch.into_iter().filter(|record| self.registry().is_seen(record.device, by)));
            if items.len() >= limit {
                items.truncate(limit);
                return Ok(Records { items, resume: None });
            }
            if count < BATCH {
                return Ok(Records { items, resume: None });
            }
            scan.before = last;
        }
        Ok(Records { items, resume: scan.before })
    }
}
