//! One segment file of the journal on SQLite, as readers see it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use super::live::Live;
use crate::Record;
use crate::db::BUSY;

/// What is true of every record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) rows: i64,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    /// The newest time of receipt; `i64::MIN` for a segment without a record.
    pub(super) received: i64,
}

impl Bounds {
    pub(super) const EMPTY: Bounds = Bounds { rows: 0, min_time: i64::MAX, max_time: i64::MIN, received: i64::MIN };

    pub(super) fn include(&mut self, record: &Record) {
        self.rows += 1;
        self.min_time = self.min_time.min(record.time);
        self.max_time = self.max_time.max(record.time);
        self.received = self.received.max(record.received);
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
        }
    }

    /// Its file and the two beside it.
    pub(super) fn files(path: &Path) -> [PathBuf; 3] {
        ["", "-wal", "-shm"].map(|suffix| {
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

    /// How a reader opens it. A sealed one whose log is empty never changes: no locks, no files beside it.
    pub(super) fn read_options(&self) -> SqliteConnectOptions {
        let [_, log, _] = Segment::files(&self.path);
        let sealed = self.bounds.get().is_some() && self.live.read().is_none();
        let settled = sealed && std::fs::metadata(log).map_or(true, |metadata| metadata.len() == 0);
        SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(true)
            .immutable(settled)
            .busy_timeout(BUSY)
            .pragma("cache_size", "-4096")
            .disable_statement_logging()
    }
}

/// Removes the files of a segment, as far as they are there.
pub(super) fn remove_files(path: &Path) -> std::io::Result<()> {
    for file in Segment::files(path) {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
