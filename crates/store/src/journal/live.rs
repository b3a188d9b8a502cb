//! What is where in a segment that is still written to, in memory.
//!
//! Secondary indexes would cost several times what the records do: with thousands of devices every record touches its own
//! page of each index, and the log carries whole pages. So a segment gets its indexes in one sorted pass when it ends, and
//! until then this stands for them. It is made from the file again after a restart.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{DeviceId, DevicePath, Order, Position, Scan};

/// The devices and events of one unsealed segment.
#[derive(Default)]
pub(super) struct Live {
    devices: HashMap<DeviceId, Device>,
    /// Position by event key. Two events of one key are told apart by the record itself.
    events: HashMap<u64, i64>,
    /// What attributes are called here.
    paths: HashMap<Arc<DevicePath>, u32>,
}

struct Device {
    /// Its newest one: it gets another when its serial changes.
    number: i64,
    serial: Arc<str>,
    /// Of its records, ascending.
    positions: Vec<i64>,
    /// Of the reports of each attribute, ascending.
    reports: HashMap<u32, Vec<i64>>,
}

impl Live {
    /// Adds a device, or its new serial, under its number in the segment.
    pub(super) fn add_device(&mut self, device: DeviceId, serial: Arc<str>, number: i64) {
        let device = self.devices.entry(device).or_insert_with(|| Device {
            number,
            serial: serial.clone(),
            positions: Vec::new(),
            reports: HashMap::new(),
        });
        (device.number, device.serial) = (number, serial);
    }

    /// Adds a record of a known device; positions ascend.
    pub(super) fn add(&mut self, device: &DeviceId, position: i64, key: Option<u64>) {
        if let Some(device) = self.devices.get_mut(device) {
            device.positions.push(position);
        }
        if let Some(key) = key {
            self.events.insert(key, position);
        }
    }

    /// Adds a record of a known device that reports this attribute, beside [`Live::add`].
    pub(super) fn add_report(&mut self, device: &DeviceId, path: &Arc<DevicePath>, position: i64) {
        let Some(device) = self.devices.get_mut(device) else { return };
        let next = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        let number = match self.paths.get(path) {
            Some(number) => *number,
            None => *self.paths.entry(path.clone()).or_insert(next),
        };
        device.reports.entry(number).or_default().push(position);
    }

    /// Where a device last reported an attribute, up to and with this position.
    pub(super) fn last_report(&self, device: &DeviceId, path: &DevicePath, until: i64) -> Option<i64> {
        let reports = self.devices.get(device)?.reports.get(self.paths.get(path)?)?;
        let end = reports.partition_point(|position| *position <= until);
        reports.get(end.checked_sub(1)?).copied()
    }

    /// How many records a device has.
    pub(super) fn count(&self, device: &DeviceId) -> usize {
        self.devices.get(device).map_or(0, |device| device.positions.len())
    }

    /// The number of a device with this serial in the segment.
    pub(super) fn number(&self, device: &DeviceId, serial: &str) -> Option<i64> {
        self.devices.get(device).filter(|device| &*device.serial == serial).map(|device| device.number)
    }

    /// Where an event with this key is.
    pub(super) fn event(&self, key: u64) -> Option<i64> {
        self.events.get(&key).copied()
    }

    /// The keys of all events.
    pub(super) fn keys(&self) -> Vec<u64> {
        self.events.keys().copied().collect()
    }

    /// The next positions of a device within the bounds of the scan and beyond `from`, in its order, at most `max`.
    pub(super) fn page(&self, device: &DeviceId, scan: &Scan, from: Option<i64>, max: usize) -> Vec<i64> {
        let Some(device) = self.devices.get(device) else { return Vec::new() };
        let positions = device.positions.as_slice();
        let (mut after, mut before) = (scan.after.get(), scan.before.map_or(i64::MAX, Position::get));
        match (scan.order, from) {
            (Order::Oldest, Some(from)) => after = after.max(from),
            (Order::Newest, Some(from)) => before = before.min(from),
            (_, None) => {}
        }
        let start = positions.partition_point(|position| *position <= after);
        let end = positions.partition_point(|position| *position < before).max(start);
        let within = &positions[start..end];
        match scan.order {
            Order::Oldest => within.iter().take(max).copied().collect(),
            Order::Newest => within.iter().rev().take(max).copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_walk_a_device_in_both_orders_within_bounds() {
        let (one, other) = (DeviceId::mint(), DeviceId::mint());
        let mut live = Live::default();
        live.add_device(one, "one".into(), 1);
        live.add_device(other, "other".into(), 2);
        for position in 1..=20 {
            live.add(if position % 2 == 0 { &one } else { &other }, position, Some(position as u64));
        }
        let mut scan = Scan { after: Position::new(4), before: Some(Position::new(16)), ..Scan::default() };
        assert_eq!(live.page(&one, &scan, None, 3), [6, 8, 10]);
        assert_eq!(live.page(&one, &scan, Some(10), 9), [12, 14]);
        assert!(live.page(&one, &scan, Some(14), 9).is_empty());
        scan.order = Order::Newest;
        assert_eq!(live.page(&one, &scan, None, 3), [14, 12, 10]);
        assert_eq!(live.page(&one, &scan, Some(10), 9), [8, 6]);
        (scan.after, scan.before) = (Position::new(16), Some(Position::new(4)));
        assert!(live.page(&one, &scan, None, 9).is_empty());
        assert!(live.page(&DeviceId::mint(), &Scan::default(), None, 9).is_empty());
        live.add_device(one, "renamed".into(), 3);
        assert_eq!(live.page(&one, &Scan::default(), None, 9).len(), 9);
        assert_eq!((live.number(&one, "renamed"), live.number(&one, "one")), (Some(3), None));
    }
}
