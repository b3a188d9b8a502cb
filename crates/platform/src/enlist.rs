//! A device on its way into the registry: what it must be like, and how it gets there.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule_store::{CodeUse, DeviceId, DeviceRow, NewAudit, SealedCode, Secret};

use crate::caller::Caller;
use crate::describe::{check_labels, check_place};
use crate::device::{Device, Family};
use crate::platform::Platform;
use crate::registration::{AddDeviceError, MAX_SERIAL, NewDevice, check_code, check_identity, check_label};

/// A device that may be registered.
pub(crate) struct Vetted {
    pub(crate) row: DeviceRow,
    pub(crate) code: Secret,
}

impl Vetted {
    /// What the audit says of it.
    pub(crate) fn detail(&self) -> Value {
        let row = &self.row;
        let labels: Value = serde_json::from_str(&row.labels).unwrap_or_default();
        json!({"product": row.product, "name": row.name, "parent": row.parent.map(Uuid::from), "org": row.org, "labels": labels})
    }

    /// The row of the audit, for a device that is written in one piece with it.
    pub(crate) fn audit(&self, actor: &str) -> NewAudit {
        NewAudit {
            time: self.row.created,
            actor: actor.to_owned(),
            action: "device.add".to_owned(),
            device: Some(self.row.id),
            serial: Some(self.row.serial.clone()),
            org: Some(self.row.org.clone()),
            detail: self.detail().to_string(),
            ok: true,
        }
    }
}

impl Platform {
    /// Checks all that can be checked of a new device before the store is asked; `more` are about to be registered before
    /// it.
    pub(crate) fn vet(&self, new: NewDevice, more: usize, by: &Caller) -> Result<Vetted, AddDeviceError> {
        check_identity("serial", new.serial.as_bytes(), MAX_SERIAL)?;
        if new.serial.bytes().any(|byte| matches!(byte, b'/' | b'+' | b'#')) {
            return Err(AddDeviceError::Invalid { field: "serial", reason: "must not contain '/', '+' or '#'" });
        }
        check_code(&new.code)?;
        check_label("product", new.product.as_deref())?;
        check_label("name", new.name.as_deref())?;
        check_labels(&new.labels)?;
        let org = new.org.or_else(|| new.parent.as_ref().map(|parent| parent.org()));
        let org = org.unwrap_or_else(|| by.subtree().clone());
        check_place(&org, by)?;
        if new.parent.as_ref().is_some_and(|parent| parent.parent().is_some()) {
            return Err(AddDeviceError::Invalid { field: "parent", reason: "is a sub-device itself" });
        }
        if new.one_time && new.parent.is_some() {
            let reason = "is for devices that come in by themselves: a hub shows the code of a sub-device each time it brings it";
            return Err(AddDeviceError::Invalid { field: "one_time", reason });
        }
        if self.registry().len().saturating_add(more) >= self.config().max_devices {
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
            modern: false,
            tls_only: false,
            code_use: if new.one_time { CodeUse::OneTime } else { CodeUse::Lasting },
            certificate: None,
            parent: new.parent.map(|parent| parent.id),
            last_failure: None,
            presence: None,
        };
        Ok(Vetted { row, code: new.code })
    }

    /// A device that the store has taken comes into the registry.
    pub(crate) fn admit(&self, row: DeviceRow, code: SealedCode) -> Result<Arc<Device>, AddDeviceError> {
        let Some(device) = Device::from_row(row, Some(code), self.clock()).map(Arc::new) else {
            return Err(AddDeviceError::Invalid { field: "family", reason: "is not known" });
        };
        self.registry().insert(&device);
        crate::presence::announce(self.presence_sender(), &device);
        Ok(device)
    }
}
