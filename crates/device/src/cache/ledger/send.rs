//! What goes to the queue of the connection next.

use std::sync::Arc;

use super::{Ledger, Place, READS, Slot};
use crate::attribute::Message;
use crate::cache::record::Loss;
use crate::outbox;

/// The event that is sent next.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    Memory {
        sub: Arc<str>,
        seq: u64,
        lane: outbox::Lane,
        message: &'a Message,
    },
    /// It has to be read first.
    Medium,
}

/// The lane of the queue in which the events of a sub-device may be sent now.
pub(crate) type OpenLane<'a> = &'a dyn Fn(&str) -> Option<outbox::Lane>;

impl Ledger {
    /// Takes back what is in lanes of the queue that were closed: it would be in the way of others there. Gives the
    /// sub-devices whose events the queue is to forget.
    pub(crate) fn retract(&mut self, open: OpenLane<'_>) -> Vec<Arc<str>> {
        let mut closed = Vec::new();
        for (sub, lane) in self.lanes.iter_mut().filter(|(sub, lane)| lane.cursor > 0 && open(sub).is_none()) {
            for slot in lane.events.values_mut() {
                if let Some(cost) = slot.handed.take() {
                    self.handed = (self.handed.0 - 1, self.handed.1 - cost as usize);
                }
            }
            lane.cursor = 0;
            closed.push(Arc::clone(sub));
        }
        closed
    }

    /// Events that were dropped while the queue of the connection had them.
    pub(crate) fn take_evicted(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.evicted)
    }

    /// The oldest event that was not handed to the queue and may be sent now.
    pub(crate) fn next(&self, open: OpenLane<'_>) -> Option<Next<'_>> {
        if self.blocked || self.handed.0 >= self.options.ahead.0 {
            return None;
        }
        let (sub, lane, seq, slot) =
            if self.bypasses() { self.next_in_memory(open)? } else { self.next_in_order(open)? };
        match &slot.place {
            Place::Medium { .. } => Some(Next::Medium),
            Place::Memory(message) => {
                self.has_room(message.cost()).then(|| Next::Memory { sub: Arc::clone(sub), seq, lane, message })
            }
        }
    }

    fn next_in_order(&self, open: OpenLane<'_>) -> Option<(&Arc<str>, outbox::Lane, u64, &Slot)> {
        let waiting = self.lanes.iter().filter_map(|(sub, lane)| {
            let number = open(sub)?;
            let (seq, slot) = lane.next()?;
            Some((sub, number, seq, slot))
        });
        waiting.min_by_key(|(.., seq, _)| *seq)
    }

    fn next_in_memory(&self, open: OpenLane<'_>) -> Option<(&Arc<str>, outbox::Lane, u64, &Slot)> {
        self.fresh.iter().find_map(|(seq, fresh)| {
            let slot = self.lanes.get(&fresh.sub)?.events.get(seq).filter(|slot| slot.handed.is_none())?;
            Some((&fresh.sub, open(&fresh.sub)?, *seq, slot))
        })
    }

    /// Whether what is in memory goes before what cannot be read.
    fn bypasses(&self) -> bool {
        self.loaded && self.reading.row >= READS
    }

    /// Whether the queue may get so many bytes more.
    pub(super) fn has_room(&self, cost: usize) -> bool {
        let (events, bytes) = self.handed;
        events == 0 || (events < self.options.ahead.0 && bytes + cost <= self.options.ahead.1)
    }

    /// Whether an event that was read is the next one of its lane, and there is room for it.
    pub(crate) fn is_next(&self, sub: &str, seq: u64, cost: usize) -> bool {
        let next = self.lanes.get(sub).and_then(super::Lane::next);
        !self.blocked && self.has_room(cost) && next.is_some_and(|(next, _)| next == seq)
    }

    /// The queue has taken an event.
    pub(crate) fn handle_handed(&mut self, sub: &str, seq: u64, cost: usize) {
        let Some(lane) = self.lanes.get_mut(sub) else { return };
        let follows = lane.next().is_some_and(|(next, _)| next == seq);
        // One that goes before others leaves the cursor where they are.
        lane.cursor = if follows { seq + 1 } else { lane.cursor.max(1) };
        let Some(slot) = lane.events.get_mut(&seq) else { return };
        slot.handed = Some(u32::try_from(cost).unwrap_or(u32::MAX));
        self.handed = (self.handed.0 + 1, self.handed.1 + cost);
    }

    /// The queue has no room before something in it is acknowledged.
    pub(crate) fn handle_full(&mut self) {
        self.blocked = true;
    }

    /// Something left the queue.
    pub(crate) fn handle_room(&mut self) {
        self.blocked = false;
    }

    /// There is a connection: what was lost becomes a report, under an id that it keeps.
    pub(crate) fn tell_losses(&mut self, id: impl FnOnce() -> Box<str>) {
        if self.loaded && self.losses.telling.is_none() && self.losses.untold.count > 0 {
            self.losses.telling = Some((id(), std::mem::take(&mut self.losses.untold)));
            self.losses_dirty = true;
        }
    }

    /// The report of losses, when it is time to send it: a restart must not give it another id.
    pub(crate) fn losses(&self) -> Option<(&str, Loss)> {
        let safe = !self.losses_dirty || self.writing.row > 0;
        let (id, loss) = self.losses.telling.as_ref().filter(|_| safe && !self.losses_handed && !self.blocked)?;
        Some((id, *loss))
    }

    /// The queue has taken the report of losses.
    pub(crate) fn handle_losses_handed(&mut self) {
        self.losses_handed = true;
    }

    /// The platform has the report of losses.
    pub(crate) fn handle_losses_told(&mut self) {
        self.losses.telling = None;
        self.losses_handed = false;
        self.losses_dirty = true;
    }
}

impl super::Lane {
    /// The oldest event that was not handed to the queue.
    pub(super) fn next(&self) -> Option<(u64, &Slot)> {
        self.events.range(self.cursor..).find(|(_, slot)| slot.handed.is_none()).map(|(seq, slot)| (*seq, slot))
    }
}
