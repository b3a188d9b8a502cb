//! Reading records back, each for somebody who sees a part of the organisation only.

use std::sync::Arc;

use vestibule_store::{DeviceId, Looked, MAX_SCAN, Order, Position, Record, Scan, StoreError};

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

impl From<Looked> for Records {
    fn from(looked: Looked) -> Records {
        Records { items: looked.records, resume: looked.resume }
    }
}

impl Platform {
    /// Reads records, newest first, of devices that `by` sees. The work is bounded: by what is returned where all records
    /// match, by [`max_look`](crate::PlatformConfig::max_look) where most are left out, and by [`BATCH`] × [`BATCHES`] that
    /// match for who sees neither everything nor few devices.
    pub(crate) async fn records(&self, scan: Scan, by: &Caller) -> Result<Records, StoreError> {
        if by.subtree().is_root() {
            return Ok(self.look(&scan).await?.into());
        }
        if let Some(device) = scan.device {
            let is_seen = self.registry().is_seen(device, by);
            return Ok(if is_seen { self.look(&scan).await?.into() } else { Records::default() });
        }
        match self.few_seen(by) {
            Some(devices) => Ok(self.look_at_each(scan, devices).await?.into()),
            None => self.left_over(scan, by).await,
        }
    }

    /// Reads the journal, and no further than a page may look.
    pub(crate) async fn look(&self, scan: &Scan) -> Result<Looked, StoreError> {
        self.journal().look(scan, self.config().max_look).await
    }

    /// The devices that `by` sees, when they are so few that each is asked for by itself.
    pub(crate) fn few_seen(&self, by: &Caller) -> Option<Vec<DeviceId>> {
        self.registry().few_below(by.subtree(), FEW)
    }

    /// Reads the records of a few devices, in one order.
    pub(crate) async fn look_at_each(&self, scan: Scan, devices: Vec<DeviceId>) -> Result<Looked, StoreError> {
        let mut scan = Scan { limit: scan.limit.min(MAX_SCAN), ..scan };
        let mut items: Vec<Arc<Record>> = Vec::new();
        let share = (self.config().max_look / devices.len().max(1) as u64).max(1);
        let mut resume = None;
        for device in devices {
            scan.device = Some(device);
            let looked = self.journal().look(&scan, share).await?;
            items.extend(looked.records);
            if let Some(reached) = looked.resume {
                // What the others have beyond is for the next page, too.
                resume = Some(reached);
                match scan.order {
                    Order::Newest => scan.after = Position::new(reached.get().saturating_sub(1)),
                    Order::Oldest => scan.before = Some(Position::new(reached.get().saturating_add(1))),
                }
                items.retain(|record| match scan.order {
                    Order::Newest => record.position > scan.after,
                    Order::Oldest => record.position <= reached,
                });
            }
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
                // A full page goes on behind its last record, which lies before.
                resume = None;
            }
        }
        Ok(Looked { records: items, resume })
    }

    /// Reads the records of all and leaves out those that `by` does not see.
    async fn left_over(&self, scan: Scan, by: &Caller) -> Result<Records, StoreError> {
        let limit = scan.limit.min(MAX_SCAN);
        let mut scan = Scan { limit: BATCH, ..scan };
        let most = self.config().max_look;
        let begun = scan.before.unwrap_or(Position::new(self.journal().durable().get().saturating_add(1)));
        let (mut items, mut looked) = (Vec::new(), 0);
        for _ in 0..BATCHES {
            let Looked { records: batch, resume } = self.journal().look(&scan, most - looked).await?;
            let (count, last) = (batch.len(), batch.last().map(|record| record.position));
            items.extend(batch.into_iter().filter(|record| self.registry().is_seen(record.device, by)));
            if items.len() >= limit {
                items.truncate(limit);
                return Ok(Records { items, resume: None });
            }
            if count < BATCH {
                return Ok(Records { items, resume });
            }
            scan.before = last;
            // Positions have no gaps to speak of: so much was looked at.
            looked = last.map_or(0, |last| begun.get().abs_diff(last.get()));
            if looked >= most {
                break;
            }
        }
        Ok(Records { items, resume: scan.before })
    }
}
