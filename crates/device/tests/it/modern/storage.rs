//! A storage that fails when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use vestibule_device::{Credentials, MemoryStorage, ModernCredentials, Serial, Storage, StorageError};

use super::peer::SERIAL;

#[derive(Default)]
pub struct Fickle {
    memory: MemoryStorage,
    /// How often it fails from now on.
    pub failures: AtomicUsize,
    /// How often it says that it has stored something, and has not.
    pub lies: AtomicUsize,
}

impl Fickle {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn modern(&self) -> ModernCredentials {
        self.credentials().and_then(|credentials| credentials.modern).unwrap_or_default()
    }

    pub fn credentials(&self) -> Option<Credentials> {
        self.memory.load(&Serial::new(SERIAL).unwrap()).unwrap()
    }
}

fn take(count: &AtomicUsize) -> bool {
    count.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Storage for Fickle {
    fn load(&self, serial: &Serial) -> Result<Option<Credentials>, StorageError> {
        self.memory.load(serial)
    }

    fn store(&self, serial: &Serial, credentials: &Credentials) -> Result<(), StorageError> {
        if take(&self.failures) {
            return Err(StorageError::Other("no room".into()));
        }
        if take(&self.lies) {
            return Ok(());
        }
        self.memory.store(serial, credentials)
    }
}
