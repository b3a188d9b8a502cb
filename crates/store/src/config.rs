//! How a store is opened.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::EnvelopeKey;

/// Where the store takes the time from: Unix milliseconds.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How the pages of the journal's files are read where the store looks at them itself: from the file of this path into the
/// bytes, from this offset on, like `pread`.
pub type ReadAt = Arc<dyn Fn(&Path, &File, &mut [u8], u64) -> io::Result<usize> + Send + Sync>;

/// The configuration of a store; [`StoreConfig::new`] has the defaults.
#[derive(Clone)]
pub struct StoreConfig {
    /// The data directory; it holds the journal and the key file also when the control database is elsewhere.
    pub dir: PathBuf,
    /// `postgres://…` keeps the control database there and copies the journal to it; `None`: SQLite files in `dir`.
    pub url: Option<String>,
    /// The key that secrets are sealed under. `None`: `keys/envelope.key` in `dir`, made when the directory is new.
    pub envelope_key: Option<EnvelopeKey>,
    /// How long a record stays in the journal and its copy after its receipt, by the clock and by how long the journal has
    /// run; in the journal at least until it is copied. 30 days.
    pub retention: Duration,
    /// The size of the journal at which commits stop until retention frees space, in bytes; damaged files that were set aside
    /// count, and give way before. `None`: 80 % of the volume `dir` is on. PostgreSQL's space is its operator's to watch.
    pub max_bytes: Option<u64>,
    /// Rows of a segment file after which the next one begins. Until then a row also takes some 50 bytes of memory.
    /// 1,000,000.
    pub segment_rows: u64,
    /// Records not yet durable at which the journal has no more room. 65,536.
    pub queue_records: usize,
    /// Bytes of records not yet durable at which the journal has no more room. 64 MiB.
    pub queue_bytes: usize,
    /// Records of one commit at most, and how many waiting ones end `commit_delay` early. 1,000.
    pub commit_records: usize,
    /// Least time between the beginnings of two commits which are not full. 2 ms.
    pub commit_delay: Duration,
    /// Committed records kept in memory for those who follow. 4,096.
    pub tail_records: usize,
    /// The time.
    pub now: Clock,
    /// Milliseconds that have passed since some moment, which no clock that is set changes: what ages records.
    pub elapsed: Clock,
    /// The disk.
    pub read_at: ReadAt,
}

impl StoreConfig {
    /// The defaults over this directory, with the system's clocks.
    pub fn new(dir: impl Into<PathBuf>) -> StoreConfig {
        let begun = Instant::now();
        StoreConfig {
            dir: dir.into(),
            url: None,
            envelope_key: None,
            retention: Duration::from_secs(30 * 24 * 3600),
            max_bytes: None,
            segment_rows: 1_000_000,
            queue_records: 65_536,
            queue_bytes: 64 << 20,
            commit_records: 1_000,
            commit_delay: Duration::from_millis(2),
            tail_records: 4_096,
            now: Arc::new(system_now),
            elapsed: Arc::new(move || i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX)),
            read_at: read_at(),
        }
    }
}

/// The disk as it is.
pub(crate) fn read_at() -> ReadAt {
    Arc::new(|_, file, bytes, offset| file.read_at(bytes, offset))
}

/// The system's clock as Unix milliseconds; a clock before 1970 reads as 1970.
fn system_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
