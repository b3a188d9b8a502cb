//! Places among the uploads that are received at once: so many in all, and an eighth of them for one device, so that none keeps
//! the others out.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vestibule_store::DeviceId;

/// One of so many places is for one device at most.
const SHARE: usize = 8;

/// The places, and which devices are at them or wait.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    of_each: usize,
    devices: Arc<Mutex<HashMap<DeviceId, OfDevice>>>,
}

struct OfDevice {
    users: usize,
    places: Arc<Semaphore>,
}

/// A place, until it is dropped.
pub(crate) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_device: OwnedSemaphorePermit,
    _entry: Entry,
}

/// Forgets the device with its last user.
struct Entry {
    device: DeviceId,
    devices: Arc<Mutex<HashMap<DeviceId, OfDevice>>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut devices = self.devices.lock();
        if let Some(of_device) = devices.get_mut(&self.device) {
            of_device.users -= 1;
            if of_device.users == 0 {
                devices.remove(&self.device);
            }
        }
    }
}

impl Places {
    pub(crate) fn new(all: usize) -> Places {
        Places {
            all: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            of_each: (all / SHARE).clamp(1, Semaphore::MAX_PERMITS),
            devices: Arc::default(),
        }
    }

    /// Waits for a place of the device's own share, and only then for one of all: who waits for the first keeps nobody from the
    /// second. `None` when there are none any more.
    pub(crate) async fn take(&self, device: DeviceId) -> Option<Place> {
        let (places, entry) = {
            let mut devices = self.devices.lock();
            let of_device = devices
                .entry(device)
                .or_insert_with(|| OfDevice { users: 0, places: Arc::new(Semaphore::new(self.of_each)) });
            of_device.users += 1;
            (Arc::clone(&of_device.places), Entry { device, devices: Arc::clone(&self.devices) })
        };
        let of_device = places.acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place { _of_all: of_all, _of_device: of_device, _entry: entry })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn no_device_keeps_the_others_out() {
        let places = Places::new(16);
        let (a, b) = (DeviceId::mint(), DeviceId::mint());
        let waits = async |device| timeout(Duration::ZERO, places.take(device)).await.is_err();
        let first = places.take(a).await.expect("a place");
        let _second = places.take(a).await.expect("a place");
        assert!(waits(a).await, "an eighth of them is taken");
        let other = places.take(b).await.expect("another device is not concerned");
        drop(first);
        let _third = places.take(a).await.expect("a place");
        drop(other);
        assert_eq!(places.devices.lock().len(), 1, "nobody is remembered who has none");
    }

    #[tokio::test]
    async fn there_are_no_more_than_so_many() {
        let places = Places::new(2);
        let (a, b, c) = (DeviceId::mint(), DeviceId::mint(), DeviceId::mint());
        let waits = async |device| timeout(Duration::ZERO, places.take(device)).await.is_err();
        let first = places.take(a).await.expect("one at least");
        assert!(waits(a).await);
        let _second = places.take(b).await.expect("a place");
        assert!(waits(c).await);
        drop(first);
        assert!(!waits(c).await);
    }
}
