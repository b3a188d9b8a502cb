//! The notebook: writes presence and last failures behind the devices' backs.
//!
//! Neither is worth a commit per login. Devices whose note changed are collected and written in one
//! transaction, at most one a second; a device that changes twice meanwhile is written once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use vestibule_store::{Control, DeviceId, StoreError};

use crate::device::Device;

const PAUSE: Duration = Duration::from_secs(1);
/// Writes on their way at once: enough to share a commit, few enough to leave no mark in the heap.
const BATCH: usize = 128;

/// Devices with something to write. Bounded by the number of registered devices.
#[derive(Default)]
pub(crate) struct Notebook {
    changed: Mutex<HashMap<DeviceId, Arc<Device>>>,
    wake: Notify,
    /// Held by whoever writes: one write of a device must not overtake another.
    turn: tokio::sync::Mutex<()>,
}

impl Notebook {
    pub(crate) fn note(&self, device: &Arc<Device>) {
        self.changed.lock().insert(device.id, Arc::clone(device));
        self.wake.notify_one();
    }

    /// Writes until the task is dropped.
    pub(crate) async fn keep(self: Arc<Self>, control: Control) {
        loop {
            self.wake.notified().await;
            self.flush(&control).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes what has changed. What cannot be written is kept for the next time.
    pub(crate) async fn flush(&self, control: &Control) {
        let _turn = self.turn.lock().await;
        loop {
            let batch: Vec<Arc<Device>> = {
                let mut changed = self.changed.lock();
                let ids: Vec<DeviceId> = changed.keys().take(BATCH).copied().collect();
                ids.iter().filter_map(|id| changed.remove(id)).collect()
            };
            if batch.is_empty() {
                return;
            }
            let mut writes = JoinSet::new();
            for device in batch.into_iter().filter(|device| !device.is_removed()) {
                let control = control.clone();
                // All at once, so that the store's writer puts them into one transaction.
                writes.spawn(async move { write(&control, &device).await.map_err(|error| (device, error)) });
            }
            let mut failed = None;
            while let Some(written) = writes.join_next().await {
                if let Ok(Err((device, error))) = written
                    // Removed meanwhile: there is nothing to keep.
                    && !matches!(error, StoreError::UnknownDevice)
                {
                    self.changed.lock().entry(device.id).or_insert(device);
                    failed = Some(error);
                }
            }
            if let Some(error) = failed {
                tracing::warn!(%error, "presence could not be written; it is tried again");
                self.wake.notify_one();
                return;
            }
        }
    }
}

async fn write(control: &Control, device: &Device) -> Result<(), StoreError> {
    let presence = serde_json::to_string(&device.presence()).ok();
    let failure = device.last_failure().and_then(|fact| serde_json::to_string(&fact).ok());
    control.set_presence(device.id, presence.as_deref()).await?;
    match failure {
        Some(failure) => control.set_last_failure(device.id, Some(&failure)).await,
        None => Ok(()),
    }
}
