//! The newest committed records, in memory for those who follow.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Position, Record};

/// The tail holds no more than this, whatever the number of records.
const MAX_BYTES: usize = 64 << 20;

/// What [`Journal::recent`](crate::Journal::recent) has.
#[derive(Clone, Debug, PartialEq)]
pub enum Recent {
    /// The next committed records, in position order; empty: there are none yet.
    Records(Vec<Arc<Record>>),
    /// Some of them are no longer in memory: scan.
    Gone,
}

/// A ring of committed records without a hole.
pub(super) struct Tail {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    capacity: usize,
    /// Every committed record beyond this position is in the ring.
    from: Position,
}

impl Tail {
    /// An empty tail of a journal that ends at `last`.
    pub(super) fn new(last: Position, capacity: usize) -> Tail {
        Tail { records: VecDeque::new(), bytes: 0, capacity: capacity.max(1), from: last }
    }

    /// Adds the next committed record.
    pub(super) fn push(&mut self, record: Arc<Record>) {
        self.bytes += record.size();
        self.records.push_back(record);
        while self.records.len() > self.capacity || (self.bytes > MAX_BYTES && self.records.len() > 1) {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= oldest.size();
            self.from = oldest.position;
        }
    }

    /// The records beyond `after`, at most `max`.
    pub(super) fn after(&self, after: Position, max: usize) -> Recent {
        if after < self.from {
            return Recent::Gone;
        }
        let start = self.records.partition_point(|record| record.position <= after);
        Recent::Records(self.records.range(start..).take(max).cloned().collect())
    }
}
