//! The storm brake (osap-wire 9.3): legacy devices answer CONNACK 11 with a whole LBS round at once, 15 a second.
//! From the third 11 in a row the CONNACK is held back.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use vestibule_platform::DeviceId;

const FREE: u32 = 2;
const HOLD: Duration = Duration::from_secs(5);

/// Refusals in a row, for registered devices only: what is counted cannot be made to grow by strangers.
#[derive(Default)]
pub(crate) struct Brake {
    in_a_row: Mutex<HashMap<DeviceId, u32>>,
}

impl Brake {
    /// Another 11 for the device; how long to hold it back.
    pub(crate) fn refused(&self, device: DeviceId) -> Duration {
        let mut in_a_row = self.in_a_row.lock();
        let count = in_a_row.entry(device).or_insert(0);
        *count = count.saturating_add(1);
        if *count > FREE { HOLD } else { Duration::ZERO }
    }

    /// The device is in.
    pub(crate) fn accepted(&self, device: DeviceId) {
        self.in_a_row.lock().remove(&device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn osap_9_3_the_third_refusal_in_a_row_is_held_back() {
        let brake = Brake::default();
        let device = DeviceId::mint();
        assert_eq!(brake.refused(device), Duration::ZERO);
        assert_eq!(brake.refused(device), Duration::ZERO);
        assert_eq!(brake.refused(device), HOLD);
        brake.accepted(device);
        assert_eq!(brake.refused(device), Duration::ZERO);
    }
}
