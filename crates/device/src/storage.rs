//! What a device keeps over a restart: what it comes in with, and nothing else (osap-wire 2, 13.3).

mod document;
mod file;
mod memory;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use osap::modern::Slots;
use osap::{DevId, MasterKey, Serial};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use file::FileStorage;
pub use memory::MemoryStorage;

/// The credentials of one device. Keys of sessions are not among them: they live in RAM.
///
/// Legacy and modern ones stand beside each other: a device whose firmware changes its suite keeps what the other one left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// What the legacy suite left.
    pub legacy: Option<LegacyCredentials>,
    /// What the modern suites left.
    pub modern: Option<ModernCredentials>,
}

/// The credentials of the legacy suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyCredentials {
    /// Issued by the LBS at the first authentication.
    pub dev_id: DevId,
    /// Agreed with the LBS; a secret.
    pub master_key: MasterKey,
}

/// The credentials of the modern suites (osap-wire 13.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModernCredentials {
    /// DevID and tickets: the two latest, and what the device was provisioned with.
    pub slots: Slots,
    /// SHA-256 of the public key that a first use has pinned (osap-wire 13.4.3).
    pub pin: Option<[u8; 32]>,
    /// Certificates of CAs, DER, that the platform has told of beside those the program names; the newest first, two at most.
    pub anchors: Vec<Vec<u8>>,
    /// The certificate the platform has issued.
    pub certificate: Option<IssuedCertificate>,
    /// The latest time at which a server's certificate was good, Unix milliseconds: it is not earlier now.
    pub known_time_ms: Option<i64>,
}

/// A certificate that the platform has issued to the device, with its private key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct IssuedCertificate {
    /// DER, leaf first.
    #[zeroize(skip)]
    pub chain: Vec<Vec<u8>>,
    /// PKCS #8, DER; a secret.
    pub key: Vec<u8>,
}

impl fmt::Debug for IssuedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssuedCertificate(..)")
    }
}

impl PartialEq for IssuedCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain && verify_slices_are_equal(&self.key, &other.key).is_ok()
    }
}

impl Eq for IssuedCertificate {}

/// Keeps the credentials of devices.
///
/// Both methods may block; the SDK calls `store` on tokio's blocking pool, and `load` when the device starts, and after
/// each `store` of what a modern suite gave: the platform is told only of what was read back.
pub trait Storage: Send + Sync + 'static {
    /// The credentials stored last, `None` if there never were any.
    ///
    /// # Errors
    /// [`StorageError`]; [`StorageError::Damaged`] when there is something that cannot be used.
    fn load(&self, serial: &Serial) -> Result<Option<Credentials>, StorageError>;

    /// Replaces the credentials. When this returns they have to survive a power loss; until then
    /// the former ones have to. The SDK tells the platform that it has them, which makes the former ones worthless,
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
