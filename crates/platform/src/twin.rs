//! The twin: what each attribute of a device was last reported as, and what somebody wishes it to be.
//!
//! Twins are in memory as a whole. A report changes the twin at the moment it enters the journal's queue, under the
//! same lock, so that a twin follows the order of the journal. Changed leaves are written about once a second together
//! with the journal's durable position at that time; at the start what the journal has beyond is applied again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};
use vestibule_store::{
    Control, DeviceId, DevicePath, Journal, LeafPart, LeafRow, Order, Position, Record, RecordKind, Scan, StoreError,
};

use crate::device::Device;
use crate::registry::Registry;

/// The most attributes of a device.
pub(crate) const MAX_LEAVES: usize = 4_096;
/// The longest value of an attribute, in bytes of JSON.
pub(crate) const MAX_VALUE: usize = 64 * 1024;
/// The most that all values of a device may have, in bytes of JSON.
const MAX_BYTES: usize = 4 * 1024 * 1024;
const PAUSE: Duration = Duration::from_secs(1);
/// How often the position is written that the twins contain.
const MARK: Duration = Duration::from_secs(60);
const REPLAY: usize = 1_000;

/// One attribute of a device.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Which attribute of which part.
    pub path: Arc<DevicePath>,
    /// Grows with every change of the two below.
    pub version: u64,
    /// What the device last reported.
    pub reported: Option<Reported>,
    /// What somebody wishes it to be.
    pub desired: Option<Desired>,
}

/// A reported value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reported {
    /// JSON text.
    pub value: Box<RawValue>,
    /// The device's time, or that of receipt where it sends none; milliseconds since 1970.
    pub time: i64,
    /// When it was received, milliseconds since 1970.
    pub received: i64,
    /// The attribute's version when it was reported.
    pub version: u64,
}

/// A desired value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Desired {
    /// JSON text.
    pub value: Box<RawValue>,
    /// When it was wished, milliseconds since 1970.
    pub time: i64,
    /// The attribute's version when it was wished.
    pub version: u64,
    /// Who wished it.
    pub by: Box<str>,
    /// The journal's end at that time: only a later report shows that the device has it.
    pub(crate) after: i64,
    /// When it is no longer wished, if nothing has become of it by then; milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// What has become of it.
    #[serde(flatten)]
    pub outcome: SetOutcome,
}

/// What has become of a desired value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum SetOutcome {
    /// The device has not said anything yet; it is told again when it comes back.
    Pending,
    /// The device has taken it, or reports it.
    Applied,
    /// The device does not take it.
    Refused {
        /// The device's own code.
        code: i64,
        /// Its words, where it sends some.
        message: Option<Box<str>>,
    },
    /// Another wish came before anything had become of it.
    Superseded,
    /// Its time was over before anything had become of it; the device is not told of it any more.
    Expired,
}

impl SetOutcome {
    /// The name for people and programs, snake case.
    pub fn as_str(&self) -> &'static str {
        match self {
            SetOutcome::Pending => "pending",
            SetOutcome::Applied => "applied",
            SetOutcome::Refused { .. } => "refused",
            SetOutcome::Superseded => "superseded",
            SetOutcome::Expired => "expired",
        }
    }
}

/// The attributes of one device. A leaf without a value keeps the place of a report under way.
#[derive(Default)]
pub(crate) struct Twin {
    leaves: BTreeMap<Arc<DevicePath>, Leaf>,
    /// Leaves changed since they were last written.
    changed: BTreeSet<Arc<DevicePath>>,
    /// Length of all values.
    bytes: usize,
    /// Held by whoever makes a wish durable: wishes of a device come one after the other.
    pub(crate) wishes: Arc<tokio::sync::Mutex<()>>,
    /// Told of every change, when somebody waits.
    waiters: Option<watch::Sender<()>>,
}

impl Twin {
    /// The leaf, if there is one or room for it.
    fn leaf(&mut self, path: &Arc<DevicePath>) -> Option<&mut Leaf> {
        if !self.leaves.contains_key(path) {
            if self.leaves.len() >= MAX_LEAVES {
                return None;
            }
            let leaf = Leaf { path: Arc::clone(path), version: 0, reported: None, desired: None };
            self.leaves.insert(Arc::clone(path), leaf);
        }
        self.leaves.get_mut(path)
    }

    /// Whether there would be room for a value of this length.
    pub(crate) fn may_take(&self, path: &Arc<DevicePath>, len: usize) -> bool {
        self.bytes + len <= MAX_BYTES && (self.leaves.len() < MAX_LEAVES || self.leaves.contains_key(path))
    }

    /// Whether a value of this length can be taken; a leaf it needs has its place then.
    pub(crate) fn has_room_for(&mut self, path: &Arc<DevicePath>, len: usize) -> bool {
        self.bytes + len <= MAX_BYTES && self.leaf(path).is_some()
    }

    pub(crate) fn get(&self, path: &DevicePath) -> Option<Leaf> {
        self.leaves.get(path).filter(|leaf| leaf.version > 0).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Leaf> {
        self.leaves.values().filter(|leaf| leaf.version > 0).cloned().collect()
    }

    /// Changes a leaf: `change` gets it with its new version.
    pub(crate) fn change(&mut self, path: &Arc<DevicePath>, change: impl FnOnce(&mut Leaf)) -> Option<Leaf> {
        let leaf = self.leaf(path)?;
        let before = leaf.bytes();
        leaf.version += 1;
        change(leaf);
        let leaf = leaf.clone();
        self.bytes = self.bytes + leaf.bytes() - before;
        self.changed.insert(Arc::clone(path));
        if let Some(waiters) = &self.waiters {
            waiters.send_replace(());
        }
        Some(leaf)
    }

    /// The device reports a value. One that was desired is applied with it, whoever made it so.
    pub(crate) fn report(
        &mut self,
        path: &Arc<DevicePath>,
        at: Position,
        value: Box<RawValue>,
        time: i64,
        received: i64,
    ) {
        self.change(path, |leaf| {
            let version = leaf.version;
            if let Some(desired) = &mut leaf.desired
                && desired.outcome == SetOutcome::Pending
                && at.get() > desired.after
                && same(desired.value.get(), value.get())
            {
                desired.outcome = SetOutcome::Applied;
            }
            leaf.reported = Some(Reported { value, time, received, version });
        });
    }

    /// Is told of every change from now on.
    pub(crate) fn watch(&mut self) -> watch::Receiver<()> {
        self.waiters.get_or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    fn take_changed(&mut self, device: DeviceId) -> Vec<LeafRow> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|path| self.leaves.get(path)).map(|leaf| row(device, leaf)).collect()
    }

    fn restore(&mut self, row: LeafRow) {
        let path = Arc::new(row.path);
        let leaf = Leaf {
            path: Arc::clone(&path),
            version: u64::try_from(row.version).unwrap_or(0),
            reported: row.reported.and_then(|part| read(&part)),
            desired: row.desired.and_then(|part| read(&part)),
        };
        self.bytes += leaf.bytes();
        self.leaves.insert(path, leaf);
    }
}

impl Leaf {
    /// Shows a wish whose time is over as such. It stays as it is in the twin: a device that was told of it in time may
    /// still report the value, and then it has it.
    pub(crate) fn settle(&mut self, now: i64) {
        if let Some(desired) = &mut self.desired
            && desired.outcome == SetOutcome::Pending
            && desired.expires.is_some_and(|expires| expires <= now)
        {
            desired.outcome = SetOutcome::Expired;
        }
    }

    fn bytes(&self) -> usize {
        let value = |value: &RawValue| value.get().len();
        self.reported.as_ref().map_or(0, |reported| value(&reported.value))
            + self.desired.as_ref().map_or(0, |desired| value(&desired.value))
    }
}

fn read<T: DeserializeOwned>(part: &LeafPart) -> Option<T> {
    let read = serde_json::from_str(&part.json);
    read.inspect_err(|error| {
        metrics::counter!("vestibule_twin_damaged_total").increment(1);
        tracing::error!(%error, "a stored attribute cannot be read and is left out");
    })
    .ok()
}

/// The leaf as it is stored.
pub(crate) fn row(device: DeviceId, leaf: &Leaf) -> LeafRow {
    fn part(version: u64, part: &impl Serialize) -> LeafPart {
        let json = serde_json::to_string(part).expect("raw JSON, text and numbers are JSON");
        LeafPart { version: i64::try_from(version).unwrap_or(i64::MAX), json }
    }
    LeafRow {
        device,
        path: (*leaf.path).clone(),
        version: i64::try_from(leaf.version).unwrap_or(i64::MAX),
        reported: leaf.reported.as_ref().map(|reported| part(reported.version, reported)),
        desired: leaf.desired.as_ref().map(|desired| part(desired.version, desired)),
    }
}

/// Whether two JSON texts are the same value. Numbers are, however they are written: a device that is given 21 may say
/// 21.0.
fn same(a: &str, b: &str) -> bool {
    fn equal(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
            (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
            (Value::Object(x), Value::Object(y)) => {
                x.len() == y.len() && x.iter().all(|(name, x)| y.get(name).is_some_and(|y| equal(x, y)))
            }
            _ => a == b,
        }
    }
    let value = |text| serde_json::from_str::<Value>(text).ok();
    a == b || value(a).zip(value(b)).is_some_and(|(a, b)| equal(&a, &b))
}

/// Devices whose twin has changed, and the task that writes them.
#[derive(Default)]
pub(crate) struct Twins {
    changed: Mutex<HashMap<DeviceId, Arc<Device>>>,
    wake: Notify,
    turn: tokio::sync::Mutex<()>,
}

impl Twins {
    /// To be called with the device's twin locked, before what changes it enters the journal: so a flush that comes
    /// between finds the device, waits for the lock and then sees the change.
    pub(crate) fn note(&self, device: &Arc<Device>) {
        self.changed.lock().entry(device.id).or_insert_with(|| Arc::clone(device));
        self.wake.notify_one();
    }

    pub(crate) async fn keep(self: Arc<Self>, control: Control, journal: Journal) {
        loop {
            // Now and then without a change, so that a start has little of the journal to look through.
            let _ = tokio::time::timeout(MARK, self.wake.notified()).await;
            self.flush(&control, &journal).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes what has changed. What cannot be written is kept for the next time.
    pub(crate) async fn flush(&self, control: &Control, journal: &Journal) {
        let _turn = self.turn.lock().await;
        // Before the devices are looked at: every report up to here is in a twin by then.
        let applied = journal.durable();
        let devices = std::mem::take(&mut *self.changed.lock());
        let mut rows = Vec::new();
        for device in devices.values().filter(|device| !device.is_removed()) {
            rows.extend(device.twin.lock().as_mut().map(|twin| twin.take_changed(device.id)).unwrap_or_default());
        }
        let paths: Vec<(DeviceId, DevicePath)> = rows.iter().map(|row| (row.device, row.path.clone())).collect();
        if let Err(error) = control.put_leaves(rows, Some(applied)).await {
            tracing::warn!(%error, "attributes are not written yet");
            for (device, path) in paths {
                let Some(device) = devices.get(&device) else { continue };
                if let Some(twin) = device.twin.lock().as_mut() {
                    twin.changed.insert(Arc::new(path));
                }
                self.note(device);
            }
        }
    }

    /// Loads every twin, and applies what the journal has beyond them.
    pub(crate) async fn load(
        &self,
        registry: &Registry,
        control: &Control,
        journal: &Journal,
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let rows = control.leaves(after.take()).await?;
            let Some(last) = rows.last() else { break };
            after = Some((last.device, last.path.clone()));
            for row in rows {
                if let Some(device) = registry.by_id(row.device) {
                    device.twin.lock().get_or_insert_default().restore(row);
                }
            }
        }
        let mut position = control.twin_applied().await?;
        loop {
            let scan = Scan {
                kind: Some(RecordKind::Attribute),
                after: position,
                order: Order::Oldest,
                limit: REPLAY,
                ..Scan::default()
            };
            let records = journal.scan(&scan).await?;
            let Some(last) = records.last() else { break };
            position = last.position;
            for record in &records {
                self.apply(registry, record);
            }
        }
        Ok(())
    }

    fn apply(&self, registry: &Registry, record: &Record) {
        let Some(device) = registry.by_id(record.device) else { return };
        let Ok(value) = RawValue::from_string(record.data.to_string()) else { return };
        let mut twin = device.twin.lock();
        self.note(&device);
        twin.get_or_insert_default().report(&record.path, record.position, value, record.time, record.received);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Arc<DevicePath> {
        let (resource, index, area, name) = ("Lamp".into(), "0".into(), "Light".into(), name.into());
        Arc::new(DevicePath { resource, index, area, name })
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("JSON")
    }

    #[test]
    fn a_leaf_survives_storage() {
        let mut twin = Twin::default();
        twin.report(&path("Power"), Position::new(1), raw("1.50"), 1, 2);
        let refused = SetOutcome::Refused { code: 7, message: Some("no".into()) };
        let leaf = twin.change(&path("Power"), |leaf| {
            let version = leaf.version;
            leaf.desired = Some(Desired {
                value: raw("2"),
                time: 3,
                version,
                by: "x".into(),
                after: 0,
                expires: Some(9),
                outcome: refused.clone(),
            });
        });
        let stored = row(DeviceId::mint(), &leaf.expect("room"));
        let mut read = Twin::default();
        read.restore(stored);
        let leaf = read.get(&path("Power")).expect("a leaf");
        let reported = leaf.reported.expect("reported");
        assert_eq!((reported.value.get(), reported.time, reported.received, reported.version), ("1.50", 1, 2, 1));
        let desired = leaf.desired.expect("desired");
        assert_eq!((desired.value.get(), desired.time, desired.version, desired.outcome), ("2", 3, 2, refused));
        assert_eq!(leaf.version, 2);
    }

    #[test]
    fn a_twin_has_room_for_so_many_and_keeps_what_it_has() {
        let mut twin = Twin::default();
        for n in 0..MAX_LEAVES {
            assert!(twin.has_room_for(&path(&n.to_string()), 1));
        }
        assert!(!twin.has_room_for(&path("more"), 1) && twin.has_room_for(&path("7"), 1));
        assert!(
            !twin.may_take(&path("more"), 1)
                && twin.may_take(&path("7"), 1)
                && !twin.may_take(&path("7"), MAX_BYTES + 1)
        );
        assert_eq!(twin.all().len(), 0, "places without a value do not show");
        twin.report(&path("7"), Position::new(1), raw("1"), 0, 0);
        assert_eq!(twin.all().len(), 1);
        assert!(!twin.has_room_for(&path("7"), MAX_BYTES));
    }

    #[test]
    fn equal_values_need_not_be_written_alike() {
        assert!(same("[1, {\"a\":2,\"b\":3}]", "[1,{\"b\":3,\"a\":2}]"));
        assert!(same("21", "21.0") && same("[2e1]", "[20]"));
        assert!(!same("1", "\"1\"") && !same("1", "2") && !same("{\"a\":1}", "{\"b\":1}"));
    }
}
