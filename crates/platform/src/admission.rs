//! Whether a device is let in: it is shut out, given another code, or may enrol again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use vestibule_store::{CodeUse, Secret, StoreError};

use crate::audit::Deed;
use crate::caller::Caller;
use crate::credentials::Held;
use crate::device::{Device, LONGEST_WINDOW};
use crate::platform::{Platform, to_the_end};
use crate::presence::{announce, close_link};
use crate::registration::{AddDeviceError, check_code};

impl Platform {
    /// Shuts a device out, durably, and ends its connection; or lets it in again. What is known of it stays.
    pub async fn set_disabled(&self, device: &Device, disabled: bool, by: &Caller) -> Result<(), StoreError> {
        let device = self.registry().by_id(device.id).ok_or(StoreError::UnknownDevice)?;
        let (control, changes) = (self.control().clone(), self.presence_sender().clone());
        let (registry, auditor, by) = (Arc::clone(self.registry()), self.auditor(), by.clone());
        to_the_end(async move {
            let turn = device.secrets.lock().await;
            by.still_sees(&device)?;
            control.set_disabled(device.id, disabled).await?;
            device.set_disabled(disabled);
            registry.catalogue().note(&device);
            announce(&changes, &device);
            if disabled {
                close_link(&device, "disabled");
            } else {
                device.pardon();
            }
            let action = if disabled { "device.disable" } else { "device.enable" };
            drop(turn);
            let (actor, device_of, detail) = (by.name(), Some(&*device), json!({}));
            auditor.write(Deed { actor, action, device: device_of, detail, ok: true }).await;
            Ok(())
        })
        .await
    }

    /// Gives a device another verification code, durably; one that enrols it once, if `one_time` says so. What was agreed with
    /// it is void and its connection ends: it comes back with the new code as if for the first time, and a sub-device is no
    /// hub's any more.
    ///
    /// # Errors
    /// [`AddDeviceError::Invalid`] for a code that is none, [`AddDeviceError::Store`].
    pub async fn rotate_device(
        &self,
        device: &Device,
        code: Secret,
        one_time: bool,
        by: &Caller,
    ) -> Result<(), AddDeviceError> {
        check_code(&code)?;
        let device = self.registry().by_id(device.id).ok_or(StoreError::UnknownDevice)?;
        let (control, auditor, by) = (self.control().clone(), self.auditor(), by.clone());
        let (registry, provisioner) = (Arc::clone(self.registry()), self.provisioner().get().cloned());
        to_the_end(async move {
            // Holding the credentials' lock keeps a running handshake from writing the old ones again.
            let mut secrets = device.secrets.lock().await;
            by.still_sees(&device)?;
            *secrets = Held::Stored;
            let tickets = match &provisioner {
                Some(provisioner) => {
                    let present = control.credentials(device.id).await?;
                    provisioner.void(device.id, &present, true).tickets
                }
                None => None,
            };
            control.rotate(device.id, &code, one_time, tickets).await?;
            device.set_code_use(if one_time { CodeUse::OneTime } else { CodeUse::Lasting });
            device.close_window();
            device.pardon();
            registry.set_parent(&device, None);
            close_link(&device, "rotated");
            drop(secrets);
            let (actor, device_of, detail) = (by.name(), Some(&*device), json!({"one_time": one_time}));
            auditor.write(Deed { actor, action: "device.rotate", device: device_of, detail, ok: true }).await;
            Ok(())
        })
        .await
    }

    /// Opens a window in which a device that has enrolled before may do so again with its code (osap-wire
    /// 13.2.4), for [`LONGEST_WINDOW`] at most. Returns its end in milliseconds since 1970. It lasts as long as was said
    /// whatever becomes of the wall clock, which only tells how much of it is left after a restart. With `rearm` a code that
    /// works once and is used up works once more.
    pub async fn open_enrolment(
        &self,
        device: &Device,
        window: Duration,
        rearm: bool,
        by: &Caller,
    ) -> Result<i64, StoreError> {
        let length = window.min(LONGEST_WINDOW).as_millis() as i64;
        let until = self.clock().now_ms().saturating_add(length);
        let opened = self.clock().steady_ms();
        let ends = opened.saturating_add(length);
        let device = self.registry().by_id(device.id).ok_or(StoreError::UnknownDevice)?;
        let (control, auditor, by) = (self.control().clone(), self.auditor(), by.clone());
        to_the_end(async move {
            let mut turn = device.secrets.lock().await;
            by.still_sees(&device)?;
            let rearmed = rearm && matches!(device.code_use(), CodeUse::Spent(_));
            if rearmed {
                *turn = Held::Stored;
                control.rearm(device.id).await?;
                device.set_code_use(CodeUse::OneTime);
            }
            let opens = control.set_enrol_until(device.id, until).await;
            if opens.is_ok() {
                device.open_window(until, opened, ends);
                device.pardon();
            }
            drop(turn);
            // Also of a code that was armed for a window that did not open.
            if opens.is_ok() || rearmed {
                let until = opens.is_ok().then_some(until);
                let (actor, device_of, detail) =
                    (by.name(), Some(&*device), json!({"until": until, "rearmed": rearmed}));
                auditor
                    .write(Deed { actor, action: "device.enrol", device: device_of, detail, ok: opens.is_ok() })
                    .await;
            }
            opens.map(|()| until)
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
}
