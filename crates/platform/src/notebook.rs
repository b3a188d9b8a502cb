//! The notebook: writes presence and last failures behind the devices' backs.
//!
//! Neither is worth a commit per login. Devices whose note changed are collected and written together, once a second at
//! most; a device that changes twice meanwhile is written once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use vestibule_store::{Control, DeviceId, Note};

use crate::device::Device;

const PAUSE: Duration = Duration::from_secs(1);
/// Devices whose notes are on their way at once: enough to share a commit, few enough to leave no mark in the heap.
const BATCH: usize = Note::TOGETHER;

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
            // Of one that is removed meanwhile there is nothing to keep.
            let notes = batch.iter().filter(|device| !device.is_removed()).filter_map(|device| note(device)).collect();
            if let Err(error) = control.put_notes(notes).await {
                tracing::warn!(%error, "presence could not be written; it is tried again");
                let mut changed = self.changed.lock();
                for device in batch {
                    changed.entry(device.id).or_insert(device);
                }
                drop(changed);
                self.wake.notify_one();
                return;
            }
        }
    }
}

fn note(device: &Device) -> Option<Note> {
    Some(Note {
        device: device.id,
        presence: serde_json::to_string(&device.presence()).ok()?,
        last_failure: device.last_failure().and_then(|fact| serde_json::to_string(&fact).ok()),
    })
}
