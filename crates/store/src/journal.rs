//! The journal: one writer, many readers.

mod active;
mod age;
mod check;
mod checksum;
mod damage;
mod disk;
mod examine;
mod filter;
mod format;
mod forward;
mod live;
mod name;
mod origin;
mod pages;
mod queue;
mod row;
mod salvage;
mod seal;
mod segment;
mod segments;
mod sqlite;
mod start;
mod stored;
mod tail;
mod tree;
mod watermark;
mod writer;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::control::on_runtime;
use crate::db::postgres_options;
use crate::{DeviceId, DevicePath, Looked, OpenError, Position, Record, Scan, StoreConfig, StoreError};
use damage::Damages;
use forward::{Claim, Forwarding};
use queue::Queue;
use segments::SegmentReader;
use sqlite::SegmentWriter;
use tail::Tail;
use writer::Writer;

pub use check::{Checked, Flaw, check_segment};
pub use damage::Damage;
pub(crate) use name::{parse_name, segment_files};
pub(crate) use segment::{LOG, SEAL};
pub(crate) use start::RESTORED;
pub use tail::Recent;

/// How the journal is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JournalHealth {
    /// It takes records.
    #[default]
    Ok,
    /// It is at its size cap: nothing is committed until retention frees space or the cap is raised.
    Full {
        /// Its size.
        bytes: u64,
        /// The cap.
        max_bytes: u64,
    },
    /// The last commits failed and are being tried again.
    Failing {
        /// Since when, Unix milliseconds.
        since_ms: i64,
        /// What the database said last.
        error: String,
    },
}

/// The journal. Cheap to clone; every method may be called from any runtime.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

/// What the writer and everybody else share.
struct Shared {
    queue: Queue,
    tail: RwLock<Tail>,
    durable: watch::Sender<Position>,
    health: Mutex<JournalHealth>,
    damages: Damages,
    /// The position from which on records are kept; sent whenever retention has looked.
    kept: watch::Sender<i64>,
    /// Where records are read that the tail no longer has.
    reader: SegmentReader,
    runtime: Handle,
    /// Asks the writer to finish.
    stop: Notify,
}

impl Journal {
    /// Opens the journal and starts its writer on the current runtime and, when the configuration names a PostgreSQL, the
    /// task that copies it there.
    pub(crate) async fn start(config: &StoreConfig) -> Result<(Journal, JoinHandle<()>), OpenError> {
        let dir = config.dir.join("journal");
        let claim = match &config.url {
            Some(url) => Some(Claim::make(postgres_options(url)?, origin::of(&dir)?).await?),
            None => None,
        };
        let forwarded = claim.as_ref().map(Claim::forwarded);
        let floor = claim.as_ref().map_or(1, |claim| claim.floor);
        let mut segments = SegmentWriter::open(dir, config, floor, forwarded.clone()).await?;
        let last = segments.last();
        let doubts = segments.doubts().ok_or(OpenError::JournalInUse)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(last, config.queue_records, config.queue_bytes, config.commit_records),
            tail: RwLock::new(Tail::new(last, config.tail_records)),
            durable: watch::Sender::new(last),
            health: Mutex::new(JournalHealth::Ok),
            damages: segments.damages(),
            kept: watch::Sender::new(segments.kept()),
            reader: segments.reader(),
            runtime: Handle::current(),
            stop: Notify::new(),
        });
        let forwarding =
            claim.zip(forwarded).map(|(claim, forwarded)| Forwarding::start(claim, forwarded, shared.clone(), config));
        let writer = Writer {
            shared: shared.clone(),
            doubts,
            checking: tokio::spawn(check_seals(shared.reader.clone())),
            segments,
            forwarding,
            now: config.now.clone(),
            commit_records: config.commit_records.max(1),
            commit_delay: config.commit_delay,
        };
        Ok((Journal(shared), tokio::spawn(writer.run())))
    }

    /// Asks the writer to make durable what is queued and to end.
    pub(crate) fn stop(&self) {
        self.0.stop.notify_one();
    }

    /// Queues a record and says which position it was given. Never blocks and always takes the record; whoever can wait
    /// asks [`Journal::has_room`] first. After the store was closed nothing becomes durable any more.
    ///
    /// U+0000 in any text of the record is replaced by U+FFFD, and an id above [`MAX_EVENT_ID`](crate::MAX_EVENT_ID) by
    /// its digest: neither can be stored.
    pub fn append(&self, mut record: Record) -> Position {
        record.make_storable();
        self.0.queue.push(record)
    }

    /// Whether the queue is below its bounds. One atomic load.
    pub fn has_room(&self) -> bool {
        self.0.queue.has_room()
    }

    /// Returns when there is room.
    pub async fn room(&self) {
        self.0.queue.room().await;
    }

    /// The last position handed out.
    pub fn appended(&self) -> Position {
        self.0.queue.appended()
    }

    /// Everything up to here is committed and synced.
    pub fn durable(&self) -> Position {
        *self.0.durable.borrow()
    }

    /// Follows [`Journal::durable`].
    pub fn watch_durable(&self) -> watch::Receiver<Position> {
        self.0.durable.subscribe()
    }

    /// Committed records beyond `after` from memory, in position order, at most `max`.
    pub fn recent(&self, after: Position, max: usize) -> Recent {
        self.0.tail.read().after(after, max)
    }

    /// Reads the journal. A scan sees at least what was durable when it began.
    pub async fn scan(&self, scan: &Scan) -> Result<Vec<Arc<Record>>, StoreError> {
        let (shared, scan) = (self.0.clone(), scan.clone());
        on_runtime(&self.0.runtime, async move { shared.reader.scan(&scan).await }).await
    }

    /// The same, but gives up where it has looked at `most` records: of all, or of the device that is asked for. It ends with
    /// the segment in which that is reached, so that it is more by at most two segments.
    pub async fn look(&self, scan: &Scan, most: u64) -> Result<Looked, StoreError> {
        let (shared, scan) = (self.0.clone(), scan.clone());
        on_runtime(&self.0.runtime, async move { shared.reader.look(&scan, most).await }).await
    }

    /// The last position that was received at or before a time, milliseconds since 1970; [`Position::START`] when nothing that
    /// is kept was. Where the clock was set back meanwhile it is one of those that come into question.
    pub async fn position_at(&self, received: i64) -> Result<Position, StoreError> {
        let shared = self.0.clone();
        on_runtime(&self.0.runtime, async move { shared.reader.position_at(received).await }).await
    }

    /// What these attributes of a device were last reported as, up to and with a position, as far as it is kept; in the order of
    /// the journal. The work is bounded by how many are asked for and by how many segments there are.
    pub async fn last_reports(
        &self,
        device: DeviceId,
        paths: Vec<Arc<DevicePath>>,
        until: Position,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        let shared = self.0.clone();
        on_runtime(&self.0.runtime, async move { shared.reader.last_reports(device, &paths, until).await }).await
    }

    /// The oldest record still there.
    pub async fn oldest(&self) -> Result<Option<Position>, StoreError> {
        let shared = self.0.clone();
        on_runtime(&self.0.runtime, async move { shared.reader.oldest().await }).await
    }

    /// What of the journal was found to be damaged, oldest first, as long as what was set aside is still there.
    pub fn damage(&self) -> Vec<Damage> {
        self.0.damages.list()
    }

    /// Whether commits go through.
    pub fn health(&self) -> JournalHealth {
        self.0.health.lock().clone()
    }
}

/// Compares every sealed segment with its seal, newest first, at a quarter of what the disk can do.
async fn check_seals(reader: SegmentReader) {
    for segment in reader.list().into_iter().rev() {
        let begun = Instant::now();
        if !reader.is_as_sealed(&segment).await && matches!(reader.doubt(&segment).await, Err(StoreError::Closed)) {
            return;
        }
        sleep(begun.elapsed().saturating_mul(3)).await;
    }
}
