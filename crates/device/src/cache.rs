//! Where events are kept until the platform has acknowledged them.

mod file;
mod keeper;
mod ledger;
mod record;

use std::path::PathBuf;

pub use file::FileCache;
pub(crate) use keeper::{Cache, Keeper, settled};
pub(crate) use ledger::{Fate, Ledger, MIN_BYTES, Next, Options};
pub(crate) use record::{Record, Scan, Scanned, Seal, frame};

/// A place for events that outlives a restart and a loss of power: a few numbered segments, to which bytes are appended
/// and which are taken away as a whole.
///
/// What the bytes are, how many there may be and when they are written is decided by the SDK, so that an implementation
/// needs to know its medium only. Nothing is ever changed in place or renamed. Segments are appended to in ascending
/// order, none after a later one was begun, and taken away from the oldest on; only one whose first append failed goes
/// before older ones. A segment has up to 256 KiB and a read stays inside of one.
///
/// What was appended is not trusted: what has changed since, or cannot be read though the medium does other things, is
/// left out and counted. A medium that fails altogether leaves the device without a cache until it answers.
///
/// The methods may block: the SDK calls them on tokio's blocking pool, one at a time, and [`segments`](Self::segments)
/// and [`read`](Self::read) also once, when the device starts.
pub trait EventCache: Send + 'static {
    /// The segments there are, ascending.
    ///
    /// # Errors
    /// [`CacheError`].
    fn segments(&mut self) -> Result<Vec<u64>, CacheError>;

    /// The bytes of a segment from `offset` on, `len` at most and fewer at its end.
    ///
    /// # Errors
    /// [`CacheError`].
    fn read(&mut self, segment: u64, offset: u64, len: usize) -> Result<Vec<u8>, CacheError>;

    /// Appends to a segment, which is made if there is none. When this returns, the bytes and all before them have to
    /// survive a loss of power. One that hits earlier may leave any part of them, or rubbish in their place; what was
    /// there before stays.
    ///
    /// # Errors
    /// [`CacheError`]; the SDK then appends nothing more to this segment.
    fn append(&mut self, segment: u64, bytes: &[u8]) -> Result<(), CacheError>;

    /// Takes a segment away. A loss of power may bring it back, unless another segment was made since.
    ///
    /// # Errors
    /// [`CacheError`]; not when there is no such segment.
    fn remove(&mut self, segment: u64) -> Result<(), CacheError>;
}

/// How a cache is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatus {
    /// Events that are not acknowledged, those that are not written yet included.
    pub events: usize,
    /// Bytes on the medium.
    pub bytes: u64,
    /// The medium refuses, or has not answered since the start: events are kept in memory, and it is tried again.
    pub failing: bool,
}

/// Why events could not be cached, or read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: "read", "write", …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another process, or another device of this one, uses the directory.
    #[error("{} is in use{}", dir.display(), by(holder.as_deref()))]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process that uses it, where that is known.
        holder: Option<String>,
    },
    /// The cache holds events of another device.
    #[error("the cache belongs to the device {serial}")]
    Foreign {
        /// The device it belongs to.
        serial: String,
    },
    /// The cache was written by a newer release of this SDK.
    #[error("the cache has format {0}, which this program does not know")]
    Newer(u8),
    /// No device has reported as many events as the cache says: somebody else has written to it.
    #[error("the numbers in the cache are not ours")]
    Numbers,
    /// An implementation of [`EventCache`] outside this crate failed.
    #[error("the cache failed")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn by(holder: Option<&str>) -> String {
    holder.map(|pid| format!(" by process {pid}")).unwrap_or_default()
}
