//! The registry: which devices exist.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde_json::json;
use uuid::Uuid;
use vestibule_store::{Control, DeviceId, DeviceRow, InsertError, Secret, StoreError};

use crate::audit::Deed;
use crate::caller::Caller;
use crate::clock::Clock;
use crate::credentials::Held;
use crate::describe::{Description, check_labels, check_place};
use crate::device::{Device, Family, LONGEST_WINDOW};
use crate::facts::Fact;
use crate::org::OrgPath;
use crate::platform::{OpenError, Platform, to_the_end};
use crate::presence::{announce, close_link};

const LOAD_PAGE: i64 = 1_000;
const MAX_SERIAL: usize = 71;
const MAX_CODE: usize = 47;
const MAX_LABEL: usize = 128;

/// A device to be registered.
pub struct NewDevice {
    /// The device's own identity: 1 to 71 printable ASCII characters without `/`, `+`, `#` (osap-wire 2).
    pub serial: String,
    /// Its verification code: 1 to 47 printable ASCII characters.
    pub code: Secret,
    /// The product it is an instance of; at most 128 bytes.
    pub product: Option<String>,
    /// A name for people; at most 128 bytes.
    pub name: Option<String>,
    /// The hub or gateway it is reached through, one that is no part of another itself.
    pub parent: Option<Arc<Device>>,
    /// Where it belongs in the organisation; none: where its hub belongs, or else where the caller is bound to.
    pub org: Option<OrgPath>,
    /// What people write on it: at most 32 texts of 256 bytes, by names of 64.
    pub labels: BTreeMap<String, String>,
}

/// Why a device cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum AddDeviceError {
    /// The caller sent something that cannot be right.
    #[error("{field} {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is a device with this serial.
    #[error("a device with this serial is registered already")]
    SerialTaken,
    /// The registry is full.
    #[error("the registry holds its limit of {0} devices")]
    Full(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All devices by both their identities. A device is in both maps or in none.
#[derive(Default)]
pub(crate) struct Registry {
    index: RwLock<Index>,
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

    fn remove(&mut self, device: &Device) {
        if self.by_id.remove(&device.id).is_some() {
            self.leave_org(device);
        }
        self.by_serial.remove(&device.serial);
        self.set_parent(device, None);
        for child in self.children.remove(&device.id).unwrap_or_default() {
            if let Some(child) = self.by_id.get(&child) {
                child.set_parent(None);
            }
        }
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
        let mut index = Index::default();
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
                index.insert(Arc::new(device));
            }
        }
        metrics::gauge!("vestibule_devices").set(index.by_id.len() as f64);
        Ok(Registry { index: RwLock::new(index) })
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
        if index.by_id.contains_key(&device.id) {
            index.by_org.entry(device.org()).or_default().insert(device.id);
        }
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
        self.index.write().set_parent(device, parent)
    }

    fn change(&self, change: impl FnOnce(&mut Index)) {
        let mut index = self.index.write();
        change(&mut index);
        metrics::gauge!("vestibule_devices").set(index.by_id.len() as f64);
    }
}

impl Platform {
    /// Registers a device. It is durable when this returns.
    pub async fn add_device(&self, new: NewDevice, by: &Caller) -> Result<Arc<Device>, AddDeviceError> {
        check_identity("serial", new.serial.as_bytes(), MAX_SERIAL)?;
        if new.serial.bytes().any(|byte| matches!(byte, b'/' | b'+' | b'#')) {
            return Err(AddDeviceError::Invalid { field: "serial", reason: "must not contain '/', '+' or '#'" });
        }
        check_identity("code", new.code.expose(), MAX_CODE)?;
        check_label("product", new.product.as_deref())?;
        check_label("name", new.name.as_deref())?;
        check_labels(&new.labels)?;
        let org = new.org.or_else(|| new.parent.as_ref().map(|parent| parent.org()));
        let org = org.unwrap_or_else(|| by.subtree().clone());
        check_place(&org, by)?;
        let parent = new.parent.as_ref().map(|parent| parent.id);
        if new.parent.as_ref().is_some_and(|parent| parent.parent().is_some()) {
            return Err(AddDeviceError::Invalid { field: "parent", reason: "is a sub-device itself" });
        }
        if self.registry().index.read().by_id.len() >= self.config().max_devices {
            return Err(AddDeviceError::Full(self.config().max_devices));
        }
        let row = DeviceRow {
            id: DeviceId::mint(),
            serial: new.serial,
            family: Family::Osap.as_str().to_owned(),
            product: new.product,
            name: new.name,
            org: org.as_str().to_owned(),
            labels: json!(new.labels).to_string(),
            version: 1,
            created: self.clock().now_ms(),
            enrol_until: 0,
            disabled: false,
            parent,
            last_failure: None,
            presence: None,
        };
        let (registry, control, clock) = (Arc::clone(self.registry()), self.control().clone(), self.clock_handle());
        let (changes, auditor, actor) = (self.presence_sender().clone(), self.auditor(), by.name().to_owned());
        to_the_end(async move {
            let code = control.insert_device(&row, &new.code).await.map_err(|error| match error {
                InsertError::SerialTaken => AddDeviceError::SerialTaken,
                InsertError::Store(error) => AddDeviceError::Store(error),
                _ => AddDeviceError::Store(StoreError::Closed),
            })?;
            let Some(device) = Device::from_row(row, Some(code), &*clock).map(Arc::new) else {
                return Err(AddDeviceError::Invalid { field: "family", reason: "is not known" });
            };
            registry.change(|index| {
                if device.parent().is_some_and(|parent| !index.by_id.contains_key(&parent)) {
                    // Removed in this moment; the store has forgotten it, too.
                    device.set_parent(None);
                }
                index.insert(Arc::clone(&device));
            });
            announce(&changes, &device);
            let Description { name, org, labels, .. } = &*device.description();
            let mut detail = json!({"product": device.product, "name": name, "parent": parent.map(Uuid::from)});
            detail["org"] = org.as_str().into();
            detail["labels"] = json!(labels);
            let (actor, device_of) = (&*actor, Some(&*device));
            auditor.write(Deed { actor, action: "device.add", device: device_of, detail, ok: true }).await;
            Ok(device)
        })
        .await
    }

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

    /// At most `limit` devices at or below a place that the caller sees, whose id is greater than `after`, in the order of
    /// their ids (which is the order of their registration).
    pub fn devices(&self, org: &OrgPath, after: Option<DeviceId>, limit: usize, by: &Caller) -> Vec<Arc<Device>> {
        let org = match (by.subtree().covers(org), org.covers(by.subtree())) {
            (true, _) => org,
            (false, true) => by.subtree(),
            (false, false) => return Vec::new(),
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let index = self.registry().index.read();
        if org.is_root() {
            return index
                .by_id
                .range((from, Bound::Unbounded))
                .take(limit)
                .map(|(_, device)| Arc::clone(device))
                .collect();
        }
        let each = index.below(org).flat_map(|devices| devices.range((from, Bound::Unbounded)).take(limit));
        let mut ids: Vec<_> = each.copied().collect();
        ids.sort_unstable();
        ids.truncate(limit);
        ids.iter().filter_map(|id| index.by_id.get(id)).map(Arc::clone).collect()
    }

    /// Removes a device with its credentials and ends its connection. What it reported stays until retention; its
    /// sub-devices stay, without a parent.
    pub async fn remove_device(self: &Arc<Self>, device: &Device, by: &Caller) -> Result<(), StoreError> {
        let Some(device) = self.registry().by_id(device.id) else { return Ok(()) };
        let platform = Arc::clone(self);
        let (registry, control) = (Arc::clone(self.registry()), self.control().clone());
        let (changes, auditor, actor) = (self.presence_sender().clone(), self.auditor(), by.name().to_owned());
        to_the_end(async move {
            // Holding the credentials' lock keeps a running handshake from writing them again behind the removal.
            let mut secrets = device.secrets.lock().await;
            if device.is_removed() {
                return Ok(());
            }
            control.remove_device(device.id).await?;
            device.mark_removed();
            *secrets = Held::Stored;
            registry.change(|index| index.remove(&device));
            announce(&changes, &device);
            close_link(&device, "removed");
            platform.end_all_waiting(&device);
            let (actor, device_of) = (&*actor, Some(&*device));
            auditor
                .write(Deed { actor, action: "device.remove", device: device_of, detail: json!({}), ok: true })
                .await;
            Ok(())
        })
        .await
    }

    /// Shuts a device out, durably, and ends its connection; or lets it in again. What is known of it stays.
    pub async fn set_disabled(&self, device: &Device, disabled: bool, by: &Caller) -> Result<(), StoreError> {
        let device = self.registry().by_id(device.id).ok_or(StoreError::UnknownDevice)?;
        let (control, changes) = (self.control().clone(), self.presence_sender().clone());
        let (auditor, actor) = (self.auditor(), by.name().to_owned());
        to_the_end(async move {
            control.set_disabled(device.id, disabled).await?;
            device.set_disabled(disabled);
            announce(&changes, &device);
            if disabled {
                close_link(&device, "disabled");
            } else {
                device.pardon();
            }
            let action = if disabled { "device.disable" } else { "device.enable" };
            let (actor, device_of) = (&*actor, Some(&*device));
            auditor.write(Deed { actor, action, device: device_of, detail: json!({}), ok: true }).await;
            Ok(())
        })
        .await
    }

    /// Gives a device another verification code, durably. What was agreed with it is void and its connection ends: it
    /// comes back with the new code as if for the first time, and a sub-device is no hub's any more.
    ///
    /// # Errors
    /// [`AddDeviceError::Invalid`] for a code that is none, [`AddDeviceError::Store`].
    pub async fn rotate_device(&self, device: &Device, code: Secret, by: &Caller) -> Result<(), AddDeviceError> {
        check_identity("code", code.expose(), MAX_CODE)?;
        let device = self.registry().by_id(device.id).ok_or(StoreError::UnknownDevice)?;
        let (control, auditor, actor) = (self.control().clone(), self.auditor(), by.name().to_owned());
        let registry = Arc::clone(self.registry());
        to_the_end(async move {
            // Holding the credentials' lock keeps a running handshake from writing the old ones again.
            let mut secrets = device.secrets.lock().await;
            *secrets = Held::Stored;
            control.rotate(device.id, &code).await?;
            device.close_window();
            device.pardon();
            registry.set_parent(&device, None);
            close_link(&device, "rotated");
            drop(secrets);
            let (actor, device_of) = (&*actor, Some(&*device));
            auditor
                .write(Deed { actor, action: "device.rotate", device: device_of, detail: json!({}), ok: true })
                .await;
            Ok(())
        })
        .await
    }

    /// Opens a window in which a device that has enrolled before may do so again with its code (osap-wire
    /// 13.2.4), for [`LONGEST_WINDOW`] at most. Returns its end in milliseconds since 1970. It lasts as long as was said
    /// whatever becomes of the wall clock, which only tells how much of it is left after a restart.
    pub async fn open_enrolment(&self, device: &Device, window: Duration, by: &Caller) -> Result<i64, StoreError> {
        let length = window.min(LONGEST_WINDOW).as_millis() as i64;
        let until = self.clock().now_ms().saturating_add(length);
        let ends = self.clock().steady_ms().saturating_add(length);
        let device = self.registry().by_id(device.id).ok_or(StoreError::UnknownDevice)?;
        let (control, auditor, actor) = (self.control().clone(), self.auditor(), by.name().to_owned());
        to_the_end(async move {
            control.set_enrol_until(device.id, until).await?;
            device.open_window(until, ends);
            device.pardon();
            let (actor, device_of, detail) = (&*actor, Some(&*device), json!({"until": until}));
            auditor.write(Deed { actor, action: "device.enrol", device: device_of, detail, ok: true }).await;
            Ok(until)
        })
        .await
    }

    /// The device has enrolled by itself: the window closes, and a sub-device is no hub's any more. When the store fails
    /// both stay as they are, the window until its end.
    pub async fn enrolled(&self, device: &Device) {
        self.leave_hub(device).await;
        if device.enrol_until() == 0 {
            return;
        }
        match self.control().set_enrol_until(device.id, 0).await {
            Ok(()) => device.close_window(),
            Err(error) => tracing::warn!(serial = %device.serial, %error, "the enrolment window stays open"),
        }
    }

    /// Adds a fact to the device's ring, stamped with the present time. A failure is kept durably as well.
    pub fn fact(&self, device: &Arc<Device>, mut fact: Fact) {
        fact.at = self.clock().now_ms();
        let failed = !fact.ok;
        device.facts.lock().push(fact);
        if failed {
            self.notebook().note(device);
        }
    }
}

fn check_identity(field: &'static str, value: &[u8], longest: usize) -> Result<(), AddDeviceError> {
    if value.is_empty() {
        return Err(AddDeviceError::Invalid { field, reason: "must not be empty" });
    }
    if value.len() > longest {
        let reason = if longest == MAX_SERIAL { "is longer than 71 bytes" } else { "is longer than 47 bytes" };
        return Err(AddDeviceError::Invalid { field, reason });
    }
    if !value.iter().all(u8::is_ascii_graphic) {
        return Err(AddDeviceError::Invalid { field, reason: "must be printable ASCII without spaces" });
    }
    Ok(())
}

pub(crate) fn check_label(field: &'static str, value: Option<&str>) -> Result<(), AddDeviceError> {
    match value {
        Some(text) if text.len() > MAX_LABEL => {
            Err(AddDeviceError::Invalid { field, reason: "is longer than 128 bytes" })
        }
        Some(text) if text.chars().any(char::is_control) => {
            Err(AddDeviceError::Invalid { field, reason: "must not contain control characters" })
        }
        _ => Ok(()),
    }
}
