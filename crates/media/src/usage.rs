//! How many bytes there are, of each device and of all, and who may have more.

use std::collections::HashMap;

use parking_lot::Mutex;
use vestibule_store::{DeviceId, MEDIA_LEAST};

/// Counts what objects that are here take, and what those under way may take, each [`MEDIA_LEAST`] at least: a row and a file
/// cost something however short they are, so that a limit of bytes also is one of objects.
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

/// What an object of so many bytes counts as.
fn charge(bytes: u64) -> u64 {
    bytes.max(MEDIA_LEAST.unsigned_abs())
}

impl Usage {
    /// With what the objects of each device count as.
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

    /// Whether a device could have an object of so many bytes more.
    pub(crate) fn has_room(&self, device: DeviceId, bytes: u64) -> bool {
        let taken = self.taken.lock();
        self.fits(&taken, device, charge(bytes))
    }

    /// Whether less than a twentieth of all is left.
    pub(crate) fn is_short(&self) -> bool {
        self.taken.lock().all > self.most - self.most / 20
    }

    fn fits(&self, taken: &Taken, device: DeviceId, bytes: u64) -> bool {
        let of_device = taken.devices.get(&device).copied().unwrap_or(0);
        taken.all.saturating_add(bytes) <= self.most && of_device.saturating_add(bytes) <= self.most_of_device
    }

    /// Takes what an object of so many bytes counts as for a device, if there is room.
    pub(crate) fn take(&self, device: DeviceId, bytes: u64) -> bool {
        let mut taken = self.taken.lock();
        let counts = charge(bytes);
        let fits = self.fits(&taken, device, counts);
        if fits {
            taken.all += counts;
            *taken.devices.entry(device).or_default() += counts;
        }
        drop(taken);
        self.show();
        fits
    }

    /// Gives back an object of so many bytes of a device.
    pub(crate) fn give_back(&self, device: DeviceId, bytes: u64) {
        self.less(device, charge(bytes));
    }

    /// Gives back what an object does not need that has become shorter than what was taken for it.
    pub(crate) fn shrink(&self, device: DeviceId, from: u64, to: u64) {
        self.less(device, charge(from).saturating_sub(charge(to)));
    }

    fn less(&self, device: DeviceId, counts: u64) {
        let mut taken = self.taken.lock();
        taken.all = taken.all.saturating_sub(counts);
        if let Some(of_device) = taken.devices.get_mut(&device) {
            *of_device = of_device.saturating_sub(counts);
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

    const LEAST: u64 = MEDIA_LEAST.unsigned_abs();

    #[test]
    fn neither_a_device_nor_all_take_more_than_there_is() {
        let (a, b) = (DeviceId::mint(), DeviceId::mint());
        let usage = Usage::new(100 * LEAST, 60 * LEAST, [(a, 50 * MEDIA_LEAST)]);
        assert!(!usage.take(a, 10 * LEAST + 1), "more than the device may");
        assert!(usage.take(a, 10 * LEAST));
        assert!(!usage.take(b, 40 * LEAST + 1), "more than there is");
        assert!(usage.has_room(b, 40 * LEAST) && usage.take(b, 40 * LEAST));
        assert!(!usage.has_room(b, 1));
        usage.give_back(a, 60 * LEAST);
        assert!(usage.take(b, 20 * LEAST));
        assert!(!usage.take(b, u64::MAX));
    }

    #[test]
    fn the_shortest_counts_as_well() {
        let device = DeviceId::mint();
        let usage = Usage::new(10 * LEAST, 3 * LEAST, []);
        assert!(usage.take(device, 0) && usage.take(device, 1) && usage.take(device, LEAST));
        assert!(!usage.take(device, 0));
        usage.give_back(device, 1);
        assert!(!usage.has_room(device, LEAST + 1));
        usage.give_back(device, 0);
        assert!(usage.take(device, 2 * LEAST));
        usage.shrink(device, 2 * LEAST, 1);
        assert!(usage.has_room(device, LEAST) && !usage.has_room(device, LEAST + 1));
    }
}
