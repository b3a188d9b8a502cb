//! Devices come into the registry, and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::broadcast;
use vestibule_store::{DeviceId, InsertError, Secret, StoreError};

use crate::audit::Deed;
use crate::caller::Caller;
use crate::certificates::CertificatesError;
use crate::credentials::Held;
use crate::device::Device;
use crate::org::OrgPath;
use crate::platform::{Platform, to_the_end};
use crate::presence::{announce, close_link};

pub(crate) const MAX_SERIAL: usize = 71;
const MAX_CODE: usize = 47;
const MAX_LABEL: usize = 128;

/// A device to be registered.
pub struct NewDevice {
    /// The device's own identity: 1 to 71 printable ASCII characters without `/`, `+`, `#` (osap-wire 2).
    pub serial: String,
    /// Its verification code: 1 to 47 printable ASCII characters.
    pub code: Secret,
    /// Whether it enrols the device once only; not of one with a parent, whose code lasts, as the hub shows it each time.
    pub one_time: bool,
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

impl Platform {
    /// Registers a device. It is durable when this returns.
    pub async fn add_device(self: &Arc<Self>, new: NewDevice, by: &Caller) -> Result<Arc<Device>, AddDeviceError> {
        let vetted = self.vet(new, 0, by)?;
        let (platform, actor) = (Arc::clone(self), by.name().to_owned());
        to_the_end(async move {
            let detail = vetted.detail();
            let inserted = platform.control().insert_device(&vetted.row, &vetted.code).await;
            let code = inserted.map_err(|error| match error {
                InsertError::SerialTaken => AddDeviceError::SerialTaken,
                InsertError::Store(error) => AddDeviceError::Store(error),
                _ => AddDeviceError::Store(StoreError::Closed),
            })?;
            let device = platform.admit(vetted.row, code)?;
            let (actor, device_of) = (&*actor, Some(&*device));
            platform.auditor().write(Deed { actor, action: "device.add", device: device_of, detail, ok: true }).await;
            Ok(device)
        })
        .await
    }

    /// Every device that is removed from now on, for adapters, which remember something of each. A receiver that lags loses
    /// the oldest; the registry has the truth.
    pub fn removals(&self) -> broadcast::Receiver<DeviceId> {
        self.removal_sender().subscribe()
    }

    /// Removes a device with its credentials and ends its connection. What it reported stays until retention; its
    /// sub-devices stay, without a parent.
    pub async fn remove_device(self: &Arc<Self>, device: &Device, by: &Caller) -> Result<(), StoreError> {
        let Some(device) = self.registry().by_id(device.id) else { return Ok(()) };
        let platform = Arc::clone(self);
        let (registry, control) = (Arc::clone(self.registry()), self.control().clone());
        let (changes, removals) = (self.presence_sender().clone(), self.removal_sender().clone());
        let (auditor, by) = (self.auditor(), by.clone());
        to_the_end(async move {
            // Holding the credentials' lock keeps a running handshake from writing them again behind the removal.
            let mut secrets = device.secrets.lock().await;
            if device.is_removed() {
                return Ok(());
            }
            by.still_sees(&device)?;
            // Before it is gone: another device that is given its serial is not to be known by them.
            platform.certificates().revoke(&device.serial, None).await.map_err(not_revoked)?;
            control.remove_device(device.id).await?;
            device.mark_removed();
            *secrets = Held::Stored;
            registry.remove(&device);
            announce(&changes, &device);
            // An error only says that nobody listens.
            let _ = removals.send(device.id);
            close_link(&device, "removed");
            platform.end_all_waiting(&device);
            let (actor, device_of, detail) = (by.name(), Some(&*device), json!({}));
            auditor.write(Deed { actor, action: "device.remove", device: device_of, detail, ok: true }).await;
            Ok(())
        })
        .await
    }
}

fn not_revoked(error: CertificatesError) -> StoreError {
    match error {
        CertificatesError::Store(error) => error,
        other => {
            tracing::error!(error = %other, "a device's certificates could not be revoked");
            StoreError::Corrupt("certificate")
        }
    }
}

pub(crate) fn check_code(code: &Secret) -> Result<(), AddDeviceError> {
    check_identity("code", code.expose(), MAX_CODE)
}

pub(crate) fn check_identity(field: &'static str, value: &[u8], longest: usize) -> Result<(), AddDeviceError> {
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
