//! One segment file of the journal on SQLite, as readers see it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use super::live::Live;
use crate::db::BUSY;

/// What the name of a segment's seal ends with, behind the segment's own.
pub(crate) const SEAL: &str = "-seal";
/// The same of its log.
pub(crate) const LOG: &str = "-wal";

/// What is true of every record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) rows: i64,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    /// The newest time of receipt; `i64::MIN` for a segment without a record.
    pub(super) received: i64,
    /// How long the journal had run when the last record was stored, in milliseconds.
    pub(super) ran: i64,
}

impl Bounds {
    pub(super) const EMPTY: Bounds =
        Bounds { rows: 0, min_time: i64::MAX, max_time: i64::MIN, received: i64::MIN, ran: 0 };

    /// Takes in one more record, by its two times.
    pub(super) fn include(&mut self, time: i64, received: i64) {
        self.rows += 1;
        self.min_time = self.min_time.min(time);
        self.max_time = self.max_time.max(time);
        self.received = self.received.max(received);
    }
}

/// A segment. It is written to, then it has ended, then it is sealed: indexed, settled, never changed again.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The UTC day in its name, counted from 1970.
    pub(super) day: i64,
    /// No record before this position is in it.
    pub(super) base: i64,
    /// What stands for its indexes until it is sealed.
    pub(super) live: RwLock<Option<Live>>,
    /// Set when it has ended.
    pub(super) bounds: OnceLock<Bounds>,
    /// What it takes on the volume, as last looked at.
    pub(super) bytes: AtomicU64,
    /// Set before its file goes.
    pub(super) removed: AtomicBool,
    /// Set, before `removed`, when it was damaged: what could be read of it.
    pub(super) salvaged: OnceLock<Arc<Segment>>,
    /// Whether this process knows the file to be as it was sealed.
    pub(super) checked: AtomicBool,
}

impl Segment {
    pub(super) fn new(path: PathBuf, day: i64, base: i64) -> Segment {
        Segment {
            path,
            day,
            base,
            live: RwLock::new(None),
            bounds: OnceLock::new(),
            bytes: AtomicU64::new(0),
            removed: AtomicBool::new(false),
            salvaged: OnceLock::new(),
            checked: AtomicBool::new(false),
        }
    }

    /// Its file and those beside it: the log, the index of the log, the seal.
    pub(super) fn files(path: &Path) -> [PathBuf; 4] {
        ["", LOG, "-shm", SEAL].map(|suffix| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            name.into()
        })
    }

    /// Looks at its files and remembers their size.
    pub(super) fn measure(&self) {
        let sizes = Segment::files(&self.path).map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()));
        self.bytes.store(sizes.iter().sum(), Ordering::Relaxed);
    }

    /// Removes its files. Who has them open still reads them.
    pub(super) fn unlink(&self) -> std::io::Result<()> {
        self.removed.store(true, Ordering::Release);
        remove_files(&self.path)
    }

    /// Whether it no longer changes.
    pub(super) fn is_sealed(&self) -> bool {
        self.bounds.get().is_some() && self.live.read().is_none()
    }

    /// How a reader opens it. A sealed one never changes: no locks, no files beside it.
    pub(super) fn read_options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(true)
            .immutable(self.is_sealed())
            .busy_timeout(BUSY)
            .pragma("cache_size", "-4096")
            .disable_statement_logging()
    }
}

/// Removes the files of a segment, as far as they are there; the segment file last, so that nothing is left without one.
pub(super) fn remove_files(path: &Path) -> std::io::Result<()> {
    for file in Segment::files(path).into_iter().rev() {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
