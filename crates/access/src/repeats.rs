//! Key pairs that a device has shown before (osap-wire 13.1, W4).

use std::hash::{BuildHasher as _, RandomState};

use parking_lot::Mutex;
use vestibule_platform::DeviceId;

/// Devices remembered, a power of two, and the keys of each.
const DEVICES: usize = 65_536;
const KEYS: usize = 2;

/// The public keys that devices showed last, as hashes under a secret of the process. Of two devices in one place the
/// later one is remembered: an alarm that is missed at times is one all the same.
pub(crate) struct Repeats {
    hasher: RandomState,
    /// 1 MiB of zero pages, taken as devices come.
    shown: Mutex<Vec<[u64; KEYS]>>,
}

impl Default for Repeats {
    fn default() -> Self {
        Repeats { hasher: RandomState::new(), shown: Mutex::new(vec![[0; KEYS]; DEVICES]) }
    }
}

impl Repeats {
    /// Whether the device has shown this key at one of its last authentications.
    pub(crate) fn has_shown(&self, device: DeviceId, key: &[u8]) -> bool {
        let place = self.hasher.hash_one(device) as usize % DEVICES;
        let mark = self.hasher.hash_one((device, key));
        let mut shown = self.shown.lock();
        let marks = &mut shown[place];
        let known = marks.contains(&mark);
        if !known {
            marks.rotate_right(1);
            marks[0] = mark;
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn osap_13_1_w4_a_key_shown_before_is_noticed_also_when_two_alternate() {
        let (repeats, device) = (Repeats::default(), DeviceId::mint());
        assert!(!repeats.has_shown(device, b"one") && !repeats.has_shown(device, b"two"));
        assert!(repeats.has_shown(device, b"one") && repeats.has_shown(device, b"two"));
        assert!(!repeats.has_shown(device, b"three"));
        assert!(!repeats.has_shown(DeviceId::mint(), b"three"), "another device");
    }
}
