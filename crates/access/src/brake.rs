//! The storm brake (osap-wire 9.3): legacy devices answer CONNACK 11 with a whole LBS round at once, 15 a second.
//! From the third 11 in a row the CONNACK is held back.

use std::time::Duration;

use crate::budget::Budget;

const FREE: u16 = 2;
const HOLD: Duration = Duration::from_secs(5);
/// Refusals further apart than this are no storm. A device that does not come back is forgotten.
const ROW_MS: i64 = 60_000;

/// From one look-up in the store to the next.
const LOOK_UP_MS: i64 = 1_000;

/// Refusals in a row. Serials that nobody has registered are held back like others, or strangers would learn which ones
/// exist (13.2.3).
pub(crate) struct Brake {
    in_a_row: Budget<str>,
    look_ups: Budget<str>,
}

impl Default for Brake {
    fn default() -> Self {
        Brake {
            in_a_row: Budget::new("connack_11", FREE, ROW_MS),
            look_ups: Budget::new("store_look_ups", 1, LOOK_UP_MS),
        }
    }
}

impl Brake {
    /// Another 11 for who says that he is this device; how long to hold it back.
    pub(crate) fn refused(&self, serial: &str, now: i64) -> Duration {
        if self.in_a_row.take(serial, now) {
            return Duration::ZERO;
        }
        self.in_a_row.failed(serial, now);
        metrics::counter!("vestibule_das_connacks_held_total").increment(1);
        HOLD
    }

    /// Whether the store may be asked before who says that he is this device is sent away: not at the pace of somebody who
    /// floods.
    pub(crate) fn may_look_up(&self, serial: &str, now: i64) -> bool {
        self.look_ups.take(serial, now)
    }

    /// The device is in, or gone.
    pub(crate) fn accepted(&self, serial: &str) {
        self.in_a_row.forget(serial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn osap_9_3_from_the_third_refusal_in_a_row_on_they_are_held_back() {
        let brake = Brake::default();
        let device = "A";
        let mut now = 1_000_000;
        for free in [true, true, false, false, false] {
            assert_eq!(brake.refused(device, now), if free { Duration::ZERO } else { HOLD });
            assert_eq!(brake.refused(&now.to_string(), now), Duration::ZERO, "another device");
            now += 5_000;
        }
        brake.accepted(device);
        assert_eq!(brake.refused(device, now), Duration::ZERO);
    }

    #[test]
    fn a_row_ends_when_nothing_comes_for_a_while() {
        let brake = Brake::default();
        let device = "A";
        let last = (0..5).map(|_| brake.refused(device, 0)).last();
        assert_eq!(last, Some(HOLD));
        assert_eq!(brake.refused(device, ROW_MS - 1), HOLD, "the last one counts");
        assert_eq!(brake.refused(device, 3 * ROW_MS), Duration::ZERO);
    }
}
