//! Serials that have asked to be let in and that nobody has registered: whoever installs a device finds it here, and claims it
//! by registering it with its code.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use serde::Serialize;

use crate::platform::Platform;

/// How many are remembered. Anybody can ask by any serial, so the one that has not asked for the longest time makes room.
const MAX: usize = 256;

/// A serial that nobody has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stranger {
    /// The serial, which may be made up.
    pub serial: String,
    /// From where it asked last.
    pub address: IpAddr,
    /// The suite it asked by last.
    pub suite: &'static str,
    /// When it asked first and last, in milliseconds since 1970.
    pub first: i64,
    /// See `first`.
    pub last: i64,
    /// How often it has asked since.
    pub count: u64,
}

/// Those who asked last. They live in memory: a device that wants in asks again.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<HashMap<String, Stranger>>);

impl Strangers {
    fn asked(&self, serial: &str, address: IpAddr, suite: &'static str, now: i64) {
        let mut strangers = self.0.lock();
        if let Some(known) = strangers.get_mut(serial) {
            (known.address, known.suite, known.last) = (address, suite, now);
            known.count = known.count.saturating_add(1);
            return;
        }
        if strangers.len() >= MAX
            && let Some(oldest) =
                strangers.values().min_by_key(|stranger| stranger.last).map(|stranger| stranger.serial.clone())
        {
            strangers.remove(&oldest);
            metrics::counter!("vestibule_strangers_forgotten_total").increment(1);
        }
        let stranger = Stranger { serial: serial.to_owned(), address, suite, first: now, last: now, count: 1 };
        strangers.insert(serial.to_owned(), stranger);
    }
}

impl Platform {
    /// A serial that nobody has registered has asked to be let in.
    pub fn stranger_asked(&self, serial: &str, address: IpAddr, suite: &'static str) {
        self.strangers_kept().asked(serial, address, suite, self.clock().now_ms());
    }

    /// Those who have asked lately and are not registered, the last one first.
    pub fn strangers(&self) -> Vec<Stranger> {
        let mut strangers: Vec<Stranger> = {
            let mut kept = self.strangers_kept().0.lock();
            // Registered since.
            kept.retain(|serial, _| self.device_by_serial(serial).is_none());
            kept.values().cloned().collect()
        };
        strangers.sort_by(|a, b| b.last.cmp(&a.last).then_with(|| a.serial.cmp(&b.serial)));
        strangers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_has_not_asked_for_the_longest_makes_room() {
        let strangers = Strangers::default();
        let from = IpAddr::from([192, 0, 2, 7]);
        for n in 0..MAX as i64 {
            strangers.asked(&format!("S-{n}"), from, "tls", n);
        }
        strangers.asked("S-0", from, "legacy", 1_000);
        strangers.asked("NEW", from, "tls", 1_001);
        let kept = strangers.0.lock();
        assert_eq!(kept.len(), MAX);
        assert!(kept.contains_key("S-0") && kept.contains_key("NEW") && !kept.contains_key("S-1"));
        assert_eq!((kept["S-0"].count, kept["S-0"].suite, kept["S-0"].first), (2, "legacy", 0));
    }
}
