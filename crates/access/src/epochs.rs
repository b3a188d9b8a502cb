//! Which session of each device is its newest, for whoever has to know without waiting for the store.

use std::collections::HashMap;

use parking_lot::Mutex;
use vestibule_platform::DeviceId;

/// The epoch of the session that the LBS opened last for each device, as far as this process has seen one. Shared by the
/// LBS, which raises it, and the DAS, which lets no older session take the place of a newer one (osap-wire 13.3).
#[derive(Default)]
pub struct Epochs(Mutex<HashMap<DeviceId, u64>>);

impl Epochs {
    /// The device has a session of this epoch.
    pub(crate) fn raise(&self, device: DeviceId, epoch: u64) {
        let mut epochs = self.0.lock();
        let held = epochs.entry(device).or_default();
        *held = epoch.max(*held);
    }

    /// Whether none is newer.
    pub(crate) fn is_newest(&self, device: DeviceId, epoch: u64) -> bool {
        self.0.lock().get(&device).is_none_or(|newest| epoch >= *newest)
    }

    pub(crate) fn forget(&self, device: DeviceId) {
        self.0.lock().remove(&device);
    }
}
