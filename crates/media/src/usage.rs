//! How many bytes there are, of each device and of all, and who may have more.

use std::collections::HashMap;

use parking_lot::Mutex;
use vestibule_store::DeviceId;

/// Counts what objects that are here take, and what those under way may take.
pub(crate) struct Usage {
    most: u64,
    most_of_device: u64,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: u64,
    devices: HashMap<DeviceId, u64>,
}

impl Usage {
    pub(crate) fn new(most: u64, most_of_device: u64, stored: impl IntoIterator<Item = (DeviceId, i64)>) -> Usage {
        let mut taken = Taken::default();
        for (device, bytes) in stored {
            let bytes = u64::try_from(bytes).unwrap_or(0);
            taken.all += bytes;
            taken.devices.insert(device, bytes);
        }
        let usage = Usage { most, most_of_device, taken: Mutex::new(taken) };
        usage.show();
        usage
    }

    /// Whether a device could have so many more.
    pub(crate) fn has_room(&self, device: DeviceId, bytes: u64) -> bool {
        let taken = self.taken.lock();
        self.fits(&taken, device, bytes)
    }

    /// Whether less than a twentieth of all is left.
    pub(crate) fn is_short(&self) -> bool {
        self.taken.lock().all > self.most - self.most / 20
    }

    fn fits(&self, taken: &Taken, device: DeviceId, bytes: u64) -> bool {
        let of_device = taken.devices.get(&device).copied().unwrap_or(0);
        taken.all.saturating_add(bytes) <= self.most && of_device.saturating_add(bytes) <= self.most_of_device
    }

    /// Takes so many for a device, if there is room.
    pub(crate) fn take(&self, device: DeviceId, bytes: u64) -> bool {
        let mut taken = self.taken.lock();
        let fits = self.fits(&taken, device, bytes);
        if fits {
            taken.all += bytes;
            *taken.devices.entry(device).or_default() += bytes;
        }
        drop(taken);
        self.show();
        fits
    }

    /// Gives back so many of a device.
    pub(crate) fn give_back(&self, device: DeviceId, bytes: u64) {
        let mut taken = self.taken.lock();
        taken.all = taken.all.saturating_sub(bytes);
        if let Some(of_device) = taken.devices.get_mut(&device) {
            *of_device = of_device.saturating_sub(bytes);
            if *of_device == 0 {
                taken.devices.remove(&device);
            }
        }
        drop(taken);
        self.show();
    }

    fn show(&self) {
        metrics::gauge!("vestibule_media_bytes").set(self.taken.lock().all as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_device_nor_all_take_more_than_there_is() {
        let (a, b) = (DeviceId::mint(), DeviceId::mint());
        let usage = Usage::new(100, 60, [(a, 50)]);
        assert!(!usage.take(a, 11), "more than the device may");
        assert!(usage.take(a, 10));
        assert!(!usage.take(b, 41), "more than there is");
        assert!(usage.has_room(b, 40) && usage.take(b, 40));
        assert!(!usage.has_room(b, 1));
        usage.give_back(a, 60);
        assert!(usage.take(b, 20));
        assert!(!usage.take(b, u64::MAX));
    }
}
