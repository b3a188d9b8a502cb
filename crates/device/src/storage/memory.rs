//! Credentials that end with the process.

use std::collections::HashMap;

use osap::Serial;
use parking_lot::Mutex;

use super::{Credentials, Storage, StorageError};

/// Keeps credentials in RAM: for simulators and tests. A device that restarts with it has to be
/// allowed to enrol again.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    devices: Mutex<HashMap<Serial, Credentials>>,
}

impl MemoryStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Storage for MemoryStorage {
    fn load(&self, serial: &Serial) -> Result<Option<Credentials>, StorageError> {
        Ok(self.devices.lock().get(serial).cloned())
    }

    fn store(&self, serial: &Serial, credentials: &Credentials) -> Result<(), StorageError> {
        self.devices.lock().insert(serial.clone(), credentials.clone());
        Ok(())
    }
}
