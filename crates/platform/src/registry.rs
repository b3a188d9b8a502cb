//! The registry: which devices exist.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use vestibule_store::{Control, DeviceId};

use crate::caller::Caller;
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::describe::Description;
use crate::device::Device;
use crate::org::OrgPath;
use crate::platform::{OpenError, Platform};

const LOAD_PAGE: i64 = 1_000;

/// All devices by both their identities. A device is in both maps or in none.
#[derive(Default)]
pub(crate) struct Registry {
    index: RwLock<Index>,
    catalogue: Catalogue,
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<DeviceId, Arc<Device>>,
    by_serial: HashMap<Arc<str>, Arc<Device>>,
    /// The sub-devices of those that have some.
    children: HashMap<DeviceId, BTreeSet<DeviceId>>,
    /// The devices of each place in the organisation that has some.
    by_org: BTreeMap<OrgPath, BTreeSet<DeviceId>>,
}

impl Index {
    fn insert(&mut self, device: Arc<Device>) {
        self.by_serial.insert(Arc::clone(&device.serial), Arc::clone(&device));
        if let Some(parent) = device.parent() {
            self.children.entry(parent).or_default().insert(device.id);
        }
        self.by_org.entry(device.org()).or_default().insert(device.id);
        self.by_id.insert(device.id, device);
    }

    fn leave_org(&mut self, device: &Device) {
        let org = device.org();
        if let Some(devices) = self.by_org.get_mut(&org) {
            devices.remove(&device.id);
            if devices.is_empty() {
                self.by_org.remove(&org);
            }
        }
    }

    /// The devices of this place, and of each below it.
    fn below(&self, org: &OrgPath) -> impl Iterator<Item = &BTreeSet<DeviceId>> {
        let after = self.by_org.range((Bound::Excluded(org), Bound::Unbounded));
        // What begins like the place but is not below it lies between, as "/a-1" does between "/a" and "/a/b".
        let like = after.take_while(|(path, _)| path.as_str().starts_with(org.as_str()));
        let below = like.filter(|(path, _)| org.covers(path)).map(|(_, devices)| devices);
        self.by_org.get(org).into_iter().chain(below)
    }

    /// Gives back those that have no parent any more.
    fn remove(&mut self, device: &Device) -> Vec<Arc<Device>> {
        if self.by_id.remove(&device.id).is_some() {
            self.leave_org(device);
        }
        self.by_serial.remove(&device.serial);
        self.set_parent(device, None);
        let children = self.children.remove(&device.id).unwrap_or_default();
        let orphans: Vec<_> = children.iter().filter_map(|child| self.by_id.get(child)).map(Arc::clone).collect();
        orphans.iter().for_each(|orphan| orphan.set_parent(None));
        orphans
    }

    /// False when there is no such parent (any more); then it has none.
    fn set_parent(&mut self, device: &Device, parent: Option<DeviceId>) -> bool {
        let known = parent.filter(|parent| self.by_id.contains_key(parent));
        if let Some(former) = device.parent()
            && let Entry::Occupied(mut siblings) = self.children.entry(former)
        {
            siblings.get_mut().remove(&device.id);
            if siblings.get().is_empty() {
                siblings.remove();
            }
        }
        device.set_parent(known);
        if let Some(parent) = known {
            self.children.entry(parent).or_default().insert(device.id);
        }
        known == parent
    }
}

impl Registry {
    pub(crate) async fn load(control: &Control, clock: &dyn Clock) -> Result<Registry, OpenError> {
        let (mut index, catalogue) = (Index::default(), Catalogue::default());
        let mut new_codes: HashMap<_, _> = control.new_codes().await?.into_iter().collect();
        let mut after = None;
        loop {
            let rows = control.devices(after, LOAD_PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            for row in rows {
                let (id, serial, family) = (row.id, row.serial.clone(), row.family.clone());
                let device = Device::from_row(row, new_codes.remove(&id), clock)
                    .ok_or(OpenError::UnknownFamily { serial, family })?;
                let device = Arc::new(device);
                catalogue.note(&device);
                index.insert(device);
            }
        }
        metrics::gauge!("vestibule_devices").set(index.by_id.len() as f64);
        Ok(Registry { index: RwLock::new(index), catalogue })
    }

    /// The devices by what they are looked for by.
    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    pub(crate) fn for_each(&self, visit: impl FnMut(&Arc<Device>)) {
        self.index.read().by_id.values().for_each(visit);
    }

    /// Whether there is a device with this id that the caller sees.
    pub(crate) fn is_seen(&self, id: DeviceId, by: &Caller) -> bool {
        self.index.read().by_id.get(&id).is_some_and(|device| by.sees(device))
    }

    /// The devices of this place and below it; none when they are more than `most`.
    pub(crate) fn few_below(&self, org: &OrgPath, most: usize) -> Option<Vec<DeviceId>> {
        let index = self.index.read();
        let few: Vec<_> = index.below(org).flatten().copied().take(most + 1).collect();
        (few.len() <= most).then_some(few)
    }

    /// Sets what is said of a device.
    pub(crate) fn describe(&self, device: &Device, description: Arc<Description>) {
        let mut index = self.index.write();
        index.leave_org(device);
        device.set_description(description);
        let Some(device) = index.by_id.get(&device.id).map(Arc::clone) else { return };
        index.by_org.entry(device.org()).or_default().insert(device.id);
        drop(index);
        self.catalogue.note(&device);
    }

    pub(crate) fn by_id(&self, id: DeviceId) -> Option<Arc<Device>> {
        self.index.read().by_id.get(&id).map(Arc::clone)
    }

    /// Sub-devices of this one, in the order of their registration.
    pub(crate) fn children(&self, parent: DeviceId) -> Vec<Arc<Device>> {
        let index = self.index.read();
        let ids = index.children.get(&parent).into_iter().flatten();
        ids.filter_map(|id| index.by_id.get(id)).map(Arc::clone).collect()
    }

    /// False when there is no such parent (any more); then the device has none.
    pub(crate) fn set_parent(&self, device: &Device, parent: Option<DeviceId>) -> bool {
        let mut index = self.index.write();
        let is_known = index.set_parent(device, parent);
        let noted = index.by_id.get(&device.id).map(Arc::clone);
        drop(index);
        if let Some(device) = noted {
            self.catalogue.note(&device);
        }
        is_known
    }

    /// How many devices there are.
    pub(crate) fn len(&self) -> usize {
        self.index.read().by_id.len()
    }

    /// Enters a device; when its parent was removed in this moment it has none, as the store has it, too.
    pub(crate) fn insert(&self, device: &Arc<Device>) {
        self.change(|index| {
            if device.parent().is_some_and(|parent| !index.by_id.contains_key(&parent)) {
                device.set_parent(None);
            }
            index.insert(Arc::clone(device));
        });
        self.catalogue.note(device);
    }

    pub(crate) fn remove(&self, device: &Arc<Device>) {
        let mut orphans = Vec::new();
        self.change(|index| orphans = index.remove(device));
        [device].into_iter().chain(&orphans).for_each(|changed| self.catalogue.note(changed));
    }

    fn change(&self, change: impl FnOnce(&mut Index)) {
        let mut index = self.index.write();
        change(&mut index);
        metrics::gauge!("vestibule_devices").set(index.by_id.len() as f64);
    }
}

impl Platform {
    /// The device with this id or, failing that, this serial, if the caller sees it: the way to devices for people and
    /// their programs.
    pub fn device(&self, key: &str, by: &Caller) -> Option<Arc<Device>> {
        let index = self.registry().index.read();
        let by_id = key.parse::<DeviceId>().ok().and_then(|id| index.by_id.get(&id));
        by_id.or_else(|| index.by_serial.get(key)).filter(|device| by.sees(device)).map(Arc::clone)
    }

    /// The device with this serial, for adapters.
    pub fn device_by_serial(&self, serial: &str) -> Option<Arc<Device>> {
        self.registry().index.read().by_serial.get(serial).map(Arc::clone)
    }
}
