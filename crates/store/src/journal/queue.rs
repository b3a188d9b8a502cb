//! What was appended and is not durable yet.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Position, Record};

/// The bounded queue before the writer. Its bounds count what the writer has taken and not yet committed as well.
pub(super) struct Queue {
    state: Mutex<State>,
    max_records: usize,
    max_bytes: usize,
    /// How many waiting records end the writer's pause early.
    full_batch: usize,
    has_room: AtomicBool,
    /// Tells who waits for room.
    room: Notify,
    /// Tells the writer that the queue is no longer empty, or holds a full batch.
    work: Notify,
}

struct State {
    waiting: Vec<Record>,
    last: i64,
    records: usize,
    bytes: usize,
}

impl Queue {
    /// An empty queue that hands out the positions after `last`.
    pub(super) fn new(last: Position, max_records: usize, max_bytes: usize, full_batch: usize) -> Queue {
        Queue {
            state: Mutex::new(State { waiting: Vec::new(), last: last.get(), records: 0, bytes: 0 }),
            max_records: max_records.max(1),
            max_bytes: max_bytes.max(1),
            full_batch: full_batch.max(1),
            has_room: AtomicBool::new(true),
            room: Notify::new(),
            work: Notify::new(),
        }
    }

    /// Takes the record and gives it the next position.
    pub(super) fn push(&self, mut record: Record) -> Position {
        let size = record.size();
        let mut state = self.state.lock();
        state.last += 1;
        let position = Position::new(state.last);
        record.position = position;
        state.waiting.push(record);
        state.records += 1;
        state.bytes += size;
        if state.records >= self.max_records || state.bytes >= self.max_bytes {
            self.has_room.store(false, Ordering::Release);
        }
        let waiting = state.waiting.len();
        drop(state);
        if waiting == 1 || waiting == self.full_batch {
            self.work.notify_one();
        }
        position
    }

    /// Everything that waits, in position order. It keeps counting until [`Queue::settle`].
    pub(super) fn take(&self) -> Vec<Record> {
        let mut state = self.state.lock();
        let capacity = state.waiting.len();
        std::mem::replace(&mut state.waiting, Vec::with_capacity(capacity))
    }

    /// How many wait to be taken.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// How many are not durable.
    pub(super) fn records(&self) -> usize {
        self.state.lock().records
    }

    /// Returns when something may have been pushed since the last call.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    /// Frees the room of records that are durable now.
    pub(super) fn settle(&self, records: usize, bytes: usize) {
        let mut state = self.state.lock();
        state.records -= records;
        state.bytes -= bytes;
        if state.records < self.max_records && state.bytes < self.max_bytes {
            self.has_room.store(true, Ordering::Release);
            drop(state);
            self.room.notify_waiters();
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Acquire)
    }

    pub(super) async fn room(&self) {
        loop {
            let mut freed = std::pin::pin!(self.room.notified());
            // Registered before the look, so that room made in between is not missed.
            freed.as_mut().enable();
            if self.has_room() {
                return;
            }
            freed.await;
        }
    }

    pub(super) fn appended(&self) -> Position {
        Position::new(self.state.lock().last)
    }
}
