//! The writer task: takes what is queued, makes it durable, says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout_at};

use super::forward::Forwarding;
use super::segments::Doubt;
use super::sqlite::SegmentWriter;
use super::{JournalHealth, Shared};
use crate::config::Clock;
use crate::{OpenError, Position, Record};

/// How often the retention looks for what to remove.
const RETENTION_EVERY: Duration = Duration::from_secs(3600);
/// The pause after a failed commit, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How often a failing commit is tried when the store is being closed.
const CLOSING_ATTEMPTS: u32 = 3;

/// What one commit did.
#[derive(Default)]
pub(super) struct Committed {
    /// How many records from the beginning of the batch are dealt with.
    pub(super) count: usize,
    /// Which of them were repetitions, by position.
    pub(super) dropped: Vec<Position>,
}

/// Why a commit did not happen.
#[derive(Debug)]
pub(super) enum CommitError {
    /// At the size cap.
    Full { bytes: u64, max_bytes: u64 },
    /// The database or the file system failed.
    Failed(String),
}

impl std::fmt::Display for CommitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CommitError::Full { bytes, max_bytes } => write!(f, "{bytes} of {max_bytes} bytes are taken"),
            CommitError::Failed(error) => f.write_str(error),
        }
    }
}

impl CommitError {
    pub(super) fn failed(error: impl Into<String>) -> CommitError {
        CommitError::Failed(error.into())
    }
}

impl From<sqlx::Error> for CommitError {
    fn from(error: sqlx::Error) -> CommitError {
        CommitError::Failed(error.to_string())
    }
}

impl From<std::io::Error> for CommitError {
    fn from(error: std::io::Error) -> CommitError {
        CommitError::Failed(error.to_string())
    }
}

impl From<OpenError> for CommitError {
    fn from(error: OpenError) -> CommitError {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        CommitError::Failed(format!("{error}{}", source.unwrap_or_default()))
    }
}

/// The task.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) segments: SegmentWriter,
    /// Where readers say that a segment may be damaged.
    pub(super) doubts: mpsc::Receiver<Doubt>,
    /// Compares the sealed segments with their seals.
    pub(super) checking: JoinHandle<()>,
    /// Copies what is committed to PostgreSQL.
    pub(super) forwarding: Option<Forwarding>,
    pub(super) now: Clock,
    pub(super) commit_records: usize,
    pub(super) commit_delay: Duration,
}

impl Writer {
    /// Serves the queue until asked to stop, then makes what is queued durable and closes the files.
    pub(super) async fn run(mut self) {
        let mut begun = None;
        let mut retention = interval_at(Instant::now() + RETENTION_EVERY, RETENTION_EVERY);
        retention.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.retain().await;
        let mut closing = false;
        while !closing {
            let shared = self.shared.clone();
            tokio::select! {
                biased;
                () = shared.stop.notified() => closing = true,
                _ = retention.tick() => self.retain().await,
                Some(doubt) = self.doubts.recv(), if self.segments.may_look() => self.segments.look(doubt).await,
                done = self.segments.beside() => self.segments.went(done).await,
                () = shared.queue.work() => {
                    closing = self.pause(begun).await;
                }
            }
            begun = Some(Instant::now());
            if self.drain(&mut closing, &mut retention).await.is_err() {
                break;
            }
        }
        self.checking.abort();
        // Who waits for an answer is told that the journal is closed.
        drop(self.doubts);
        self.segments.stop_looking().await;
        if let Some(forwarding) = self.forwarding {
            forwarding.finish().await;
        }
        self.segments.close().await;
    }

    /// Waits until `commit_delay` after the last commit began, or until a batch is full; true: asked to stop.
    async fn pause(&self, begun: Option<Instant>) -> bool {
        let Some(due) = begun.map(|begun| begun + self.commit_delay) else {
            return false;
        };
        let queue = &self.shared.queue;
        while queue.waiting() < self.commit_records && Instant::now() < due {
            tokio::select! {
                biased;
                () = self.shared.stop.notified() => return true,
                _ = timeout_at(due, queue.work()) => {}
            }
        }
        false
    }

    /// Commits everything that waits; what comes meanwhile too, when the store is closing. An error means that it is and
    /// the database does not take it.
    async fn drain(&mut self, closing: &mut bool, retention: &mut Interval) -> Result<(), ()> {
        loop {
            let mut batch: VecDeque<Arc<Record>> = self.shared.queue.take().into_iter().map(Arc::new).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let mut failures = 0;
            while !batch.is_empty() {
                let started = Instant::now();
                let size = batch.len().min(self.commit_records);
                let slice = &batch.make_contiguous()[..size];
                match self.segments.commit(slice, (self.now)()).await {
                    Ok(committed) => {
                        histogram!("vestibule_journal_commit_seconds").record(started.elapsed().as_secs_f64());
                        failures = 0;
                        self.announce(&mut batch, &committed);
                    }
                    Err(error) => {
                        failures += 1;
                        self.refused(error, failures);
                        if *closing && failures >= CLOSING_ATTEMPTS {
                            tracing::error!(
                                records = self.shared.queue.records(),
                                "the journal closes without records that were never acknowledged"
                            );
                            return Err(());
                        }
                        let pause = LAST_PAUSE.min(FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(10)));
                        tokio::select! {
                            () = self.shared.stop.notified(), if !*closing => {
                                *closing = true;
                                failures = 0;
                            }
                            // What it removes may be what the disk is full of.
                            _ = retention.tick(), if !*closing => self.retain().await,
                            Some(doubt) = self.doubts.recv(), if self.segments.may_look() => {
                                self.segments.look(doubt).await;
                            }
                            done = self.segments.beside() => self.segments.went(done).await,
                            () = sleep(pause) => {}
                        }
                    }
                }
            }
            if !*closing {
                return Ok(());
            }
        }
    }

    /// Tells everybody what is durable now: first the tail, so that whoever sees the new watermark finds the records.
    fn announce(&self, batch: &mut VecDeque<Arc<Record>>, committed: &Committed) {
        let mut bytes = 0;
        let mut last = Position::START;
        {
            let mut tail = self.shared.tail.write();
            for record in batch.drain(..committed.count) {
                bytes += record.size();
                last = record.position;
                if committed.dropped.binary_search(&last).is_err() {
                    tail.push(record);
                }
            }
        }
        // Whoever learns that a record is durable finds its room free.
        self.shared.queue.settle(committed.count, bytes);
        self.shared.durable.send_replace(last);
        *self.shared.health.lock() = JournalHealth::Ok;
        let dropped = committed.dropped.len();
        counter!("vestibule_journal_committed_total").increment((committed.count - dropped) as u64);
        counter!("vestibule_journal_duplicates_total").increment(dropped as u64);
        gauge!("vestibule_journal_queue_records").set(self.shared.queue.records() as f64);
    }

    fn refused(&self, error: CommitError, failures: u32) {
        let mut health = self.shared.health.lock();
        let reason = match error {
            CommitError::Full { bytes, max_bytes } => {
                if failures == 1 {
                    tracing::error!(bytes, max_bytes, "the journal is at its size cap: nothing is acknowledged");
                }
                *health = JournalHealth::Full { bytes, max_bytes };
                "full"
            }
            CommitError::Failed(error) => {
                tracing::error!(%error, failures, "the journal failed to commit: the batch is kept and tried again");
                let since_ms = match &*health {
                    JournalHealth::Failing { since_ms, .. } => *since_ms,
                    _ => (self.now)(),
                };
                *health = JournalHealth::Failing { since_ms, error };
                "error"
            }
        };
        drop(health);
        counter!("vestibule_journal_refused_total", "reason" => reason).increment(1);
        gauge!("vestibule_journal_queue_records").set(self.shared.queue.records() as f64);
    }

    /// Removes what is too old.
    async fn retain(&mut self) {
        if let Err(CommitError::Failed(error)) = self.segments.retain((self.now)()).await {
            tracing::warn!(%error, "the journal's retention failed and is tried again in an hour");
        }
        self.shared.kept.send_replace(self.segments.kept());
    }
}
