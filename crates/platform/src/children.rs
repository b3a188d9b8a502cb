//! Sub-devices: devices that are reached through another one, a hub or a gateway.

use std::sync::Arc;

use serde_json::json;
use vestibule_store::{DeviceId, Secret, StoreError};

use crate::audit::{DEVICE, Deed};
use crate::caller::Caller;
use crate::device::Device;
use crate::platform::{Platform, to_the_end};

/// Why a hub may not bring a sub-device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildRefused {
    /// It is not registered, or the hub does not know its code: to the hub both look alike.
    #[error("there is no such device, or its code is another one")]
    Unproven,
    /// It belongs to another hub, or has a connection of its own, or sub-devices.
    #[error("the device is in another place already")]
    Elsewhere,
    /// An operator has shut it out.
    #[error("the device is disabled")]
    Disabled,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ChildRefused {
    /// Short code for facts, counters and the audit.
    pub fn as_str(&self) -> &'static str {
        match self {
            ChildRefused::Unproven => "child_unproven",
            ChildRefused::Elsewhere => "child_elsewhere",
            ChildRefused::Disabled => "child_disabled",
            ChildRefused::Store(_) => "child_unavailable",
        }
    }
}

impl Platform {
    /// The sub-devices of a device that the caller sees, in the order of their registration.
    pub fn children_seen(&self, device: &Device, by: &Caller) -> Vec<Arc<Device>> {
        let mut children = self.children(device);
        children.retain(|child| by.sees(child));
        children
    }

    /// What a device is reached through, if the caller sees that.
    pub fn parent_seen(&self, device: &Device, by: &Caller) -> Option<DeviceId> {
        device.parent().filter(|parent| self.registry().is_seen(*parent, by))
    }

    /// The sub-devices of a device, in the order of their registration, for adapters.
    pub fn children(&self, device: &Device) -> Vec<Arc<Device>> {
        self.registry().children(device.id)
    }

    /// The device with this id.
    pub fn device_by_id(&self, id: DeviceId) -> Option<Arc<Device>> {
        self.registry().by_id(id)
    }

    /// A hub brings a device: `proves` says whether what the hub showed proves that it has this code. A device that had
    /// no parent is the hub's from now on, durably. The caller is the hub's adapter; it tells of the child's coming and
    /// going by [`Platform::connected`] and [`Platform::disconnected`].
    ///
    /// # Errors
    /// [`ChildRefused`]; that there are refusals, other than those of the store, is in the audit once an hour.
    pub async fn admit_child(
        self: &Arc<Self>,
        hub: &Arc<Device>,
        serial: &str,
        proves: impl FnOnce(&Secret) -> bool,
    ) -> Result<Arc<Device>, ChildRefused> {
        let refused = match self.judge_child(hub, serial, proves).await {
            Ok(child) => return Ok(child),
            Err(refused) => refused,
        };
        if !matches!(refused, ChildRefused::Store(_)) {
            self.misdeed(hub, "hub.child_refused", json!({"child": serial, "reason": refused.as_str()}));
        }
        Err(refused)
    }

    /// A sub-device has come in by itself: it is not reached through a hub any more.
    pub async fn leave_hub(&self, device: &Device) {
        let Some(device) = self.device_by_id(device.id) else { return };
        let (control, registry, auditor) = (self.control().clone(), Arc::clone(self.registry()), self.auditor());
        let adoptions = Arc::clone(self.adoptions());
        to_the_end(async move {
            let _turn = adoptions.lock().await;
            if device.parent().is_none() {
                return;
            }
            if let Err(error) = control.set_parent(device.id, None).await {
                return tracing::warn!(serial = %device.serial, %error, "a device stays a part of its hub");
            }
            registry.set_parent(&device, None);
            let (device, detail) = (Some(&*device), json!({"parent": null}));
            auditor.write(Deed { actor: DEVICE, action: "device.parent", device, detail, ok: true }).await;
        })
        .await;
    }

    async fn judge_child(
        self: &Arc<Self>,
        hub: &Arc<Device>,
        serial: &str,
        proves: impl FnOnce(&Secret) -> bool,
    ) -> Result<Arc<Device>, ChildRefused> {
        let child = self.device_by_serial(serial).filter(|child| child.id != hub.id).ok_or(ChildRefused::Unproven)?;
        let secrets = self.secrets(&child).await?;
        let proven = secrets.code.as_ref().is_some_and(proves);
        // The rest is told only to who knows the code.
        if !proven {
            return Err(ChildRefused::Unproven);
        }
        if child.is_disabled() {
            return Err(ChildRefused::Disabled);
        }
        if child.parent() == Some(hub.id) {
            return Ok(child);
        }
        let platform = Arc::clone(self);
        let hub = Arc::clone(hub);
        to_the_end(async move {
            // Two hubs may bring it at the same moment, or each other, or it comes in by itself: one comes first.
            let _turn = platform.adoptions().lock().await;
            if child.parent() == Some(hub.id) {
                return Ok(child);
            }
            let is_parent = !platform.children(&child).is_empty();
            // Whoever has read the label of a device that is in does not take it over: its code is to be exchanged first.
            let credentials = platform.secrets(&child).await?.credentials.clone();
            let is_in = platform.provisioner().get().is_some_and(|provisioner| provisioner.is_in(&credentials));
            let has_come_in = credentials.committed.is_some() || is_in;
            if child.parent().is_some() || is_parent || hub.parent().is_some() || has_come_in {
                return Err(ChildRefused::Elsewhere);
            }
            platform.control().set_parent(child.id, Some(hub.id)).await?;
            if !platform.registry().set_parent(&child, Some(hub.id)) {
                // The hub was removed in this moment, and the store knows.
                return Err(ChildRefused::Unproven);
            }
            let (device, detail) = (Some(&*child), json!({"parent": hub.serial}));
            let deed = Deed { actor: DEVICE, action: "device.parent", device, detail, ok: true };
            platform.auditor().write(deed).await;
            Ok(child)
        })
        .await
    }
}
