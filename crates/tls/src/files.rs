//! A certificate and key of the operator's own, in files.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::identity::{Identity, IdentityError};

/// The longest file that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// Why files give no certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FilesError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// They are no pair.
    #[error("{}: {source}", path.display())]
    Identity {
        /// The file of the certificate.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
}

/// Two files, the PEM texts of a chain and of its key, which somebody else renews.
pub struct OwnFiles {
    certificate: PathBuf,
    key: PathBuf,
    seen: Option<[Stamp; 2]>,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl OwnFiles {
    /// Looks at nothing yet.
    pub fn new(certificate: PathBuf, key: PathBuf) -> OwnFiles {
        OwnFiles { certificate, key, seen: None }
    }

    /// Reads both.
    ///
    /// # Errors
    /// One cannot be read, or they do not belong together, as they do not for a moment while they are renewed: what is
    /// used stays in use, and the next look tells.
    pub fn load(&mut self) -> Result<Identity, FilesError> {
        // Before the reading, so that a change in between is one that is seen.
        self.seen = self.stamps();
        let certificate = read(&self.certificate)?;
        let key = read(&self.key)?;
        Identity::from_pem(&certificate, &key)
            .map_err(|source| FilesError::Identity { path: self.certificate.clone(), source })
    }

    /// Whether a file is another than when they were read.
    pub fn changed(&self) -> bool {
        self.stamps() != self.seen
    }

    fn stamps(&self) -> Option<[Stamp; 2]> {
        Some([stamp(&self.certificate)?, stamp(&self.key)?])
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FilesError> {
    let failed = |source| FilesError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE {
        return Err(failed(io::Error::other(format!("it is longer than {MAX_FILE} bytes"))));
    }
    std::fs::read(path).map(Zeroizing::new).map_err(failed)
}
