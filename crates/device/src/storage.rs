//! What a device keeps over a restart: its DevID and its master key, nothing else (osap-wire 2).

mod file;
mod memory;

use std::path::PathBuf;
use std::sync::Arc;

use osap::{DevId, MasterKey, Serial};

pub use file::FileStorage;
pub use memory::MemoryStorage;

/// The credentials of one device. The session key is not among them: it lives in RAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Issued by the LBS at the first authentication.
    pub dev_id: DevId,
    /// Agreed with the LBS; a secret.
    pub master_key: MasterKey,
}

/// Keeps the credentials of devices.
///
/// Both methods may block; the SDK calls `store` on tokio's blocking pool, and `load` once, when
/// the device starts.
pub trait Storage: Send + Sync + 'static {
    /// The credentials stored last, `None` if there never were any.
    ///
    /// # Errors
    /// [`StorageError`]; [`StorageError::Damaged`] when there is something that cannot be used.
    fn load(&self, serial: &Serial) -> Result<Option<Credentials>, StorageError>;

    /// Replaces the credentials. When this returns they have to survive a power loss; until then
    /// the former ones have to. The SDK logs in at the DAS, which makes the former ones worthless,
    /// only after that.
    ///
    /// # Errors
    /// [`StorageError`]; the former credentials are still there then.
    fn store(&self, serial: &Serial, credentials: &Credentials) -> Result<(), StorageError>;
}

impl<S: Storage + ?Sized> Storage for Arc<S> {
    fn load(&self, serial: &Serial) -> Result<Option<Credentials>, StorageError> {
        (**self).load(serial)
    }

    fn store(&self, serial: &Serial, credentials: &Credentials) -> Result<(), StorageError> {
        (**self).store(serial, credentials)
    }
}

/// Why credentials could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
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
    /// There is a file, but not one this SDK wrote completely.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never quotes its content.
        reason: &'static str,
    },
    /// An implementation of [`Storage`] outside this crate failed.
    #[error("the storage failed")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}
