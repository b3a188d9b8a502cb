//! What can go wrong, by who can mend it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another store of this one, has the directory.
    #[error("the data directory {} is in use by another process{}", dir.display(), holder.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who has it, as that process wrote down.
        holder: Option<String>,
    },
    /// A restore into the directory was interrupted.
    #[error("the data directory {} was restored in part only: empty it and restore the backup again", dir.display())]
    HalfRestored {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process copies its journal to this PostgreSQL database.
    #[error("another process copies its journal to this PostgreSQL database")]
    JournalInUse,
    /// The directory or database was written by a later release.
    #[error("{what} has format {found}, this release reads up to {known}: use a later release")]
    Newer {
        /// What was found.
        what: String,
        /// Its format.
        found: i64,
        /// The last format known here.
        known: i64,
    },
    /// The directory was written before the first release.
    #[error("the data directory {} has format {found} of a time before the first release, this release reads {known}: start with an empty directory", dir.display())]
    Older {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: i64,
        /// The format known here.
        known: i64,
    },
    /// The `VERSION` file does not hold a number.
    #[error("{} is not a version file of this platform", path.display())]
    Version {
        /// The file.
        path: PathBuf,
    },
    /// The envelope key may be read by others.
    #[error("the key file {} may be read by others (mode {mode:o}): chmod 600 it, and consider the secrets under it known", path.display())]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The envelope key is gone while there are secrets sealed under it.
    #[error("the key file {} is missing and the data directory was in use before: restore it, the secrets cannot be read without", path.display())]
    KeyMissing {
        /// The file.
        path: PathBuf,
    },
    /// What should be an envelope key is none.
    #[error("{origin} holds no key: expected 32 bytes, or as text 64 hexadecimal digits or base64 of 32 bytes")]
    KeyText {
        /// In words, where it is from.
        origin: String,
    },
    /// The data directory is new, and the database is not.
    #[error(
        "the data directory is new, and the secrets in the database are sealed under the key {needed}: put that one into {}, or give it with store.envelope_key_file; nothing was changed", path.display()
    )]
    KeyNeeded {
        /// Where it is looked for.
        path: PathBuf,
        /// Its id.
        needed: String,
    },
    /// The secrets are sealed under another envelope key.
    #[error(
        "the envelope key from {origin} is {given}, and the secrets are sealed under the key {needed}: bring that one; nothing was changed"
    )]
    WrongKey {
        /// In words, where the key is from.
        origin: String,
        /// Its id.
        given: String,
        /// The id of the key that is needed.
        needed: String,
    },
    /// A file or directory could not be made, read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A segment of the journal cannot be read.
    #[error("cannot open the journal segment {}", path.display())]
    Segment {
        /// The file.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// A schema migration failed.
    #[error("cannot bring {what} to the current schema")]
    Migrate {
        /// Which database.
        what: &'static str,
        /// What the database said.
        #[source]
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// The database cannot be reached or opened.
    #[error("cannot open {what}")]
    Database {
        /// Which database.
        what: &'static str,
        /// What the database said.
        #[source]
        source: Box<sqlx::Error>,
    },
}

/// Why a read or write did not happen.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such device (any more).
    #[error("there is no such device")]
    UnknownDevice,
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// A stored value is not one this release writes.
    #[error("a stored {0} cannot be understood")]
    Corrupt(&'static str),
    /// A segment of the journal is damaged or cannot be read, and what is readable of it cannot be written elsewhere now.
    #[error("the journal segment {} is damaged or cannot be read, and cannot be set aside now", file.display())]
    Damaged {
        /// The segment.
        file: PathBuf,
    },
    /// A stored secret was sealed under a key that is not here.
    #[error("a stored secret was sealed under the envelope key {key}, which is not the present one")]
    UnknownKey {
        /// The id of that key.
        key: String,
    },
    /// A stored secret was changed or moved after it was sealed.
    #[error("a stored secret does not open: it was changed or moved")]
    SealBroken,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        match error {
            sqlx::Error::PoolClosed => StoreError::Closed,
            other => StoreError::Database(Arc::new(other)),
        }
    }
}

/// Why a device was not inserted.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InsertError {
    /// A device with this serial is registered already.
    #[error("a device with this serial is registered already")]
    SerialTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
