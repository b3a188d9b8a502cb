//! The audit: who did what to which device and whether it worked, and what devices did that they may not.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;
use vestibule_store::{AuditQuery, AuditRow, Control, NewAudit, StoreError};

use crate::caller::Caller;
use crate::clock::Clock;
use crate::describe::DESCRIBE;
use crate::device::Device;
use crate::operation_log::LOGGED;
use crate::org::OrgPath;
use crate::permission::Permission;
use crate::platform::Platform;

/// Who is named where a device did something by itself.
pub(crate) const DEVICE: &str = "device";
/// A device that goes on doing what it may not is written down once in this time for each kind of thing.
const AGAIN: i64 = 60 * 60 * 1_000;
/// How often those that may be forgotten are looked for, when there is no room, in milliseconds.
const SWEEP: i64 = 60 * 1_000;
/// Devices and kinds remembered for that.
const REMEMBERED: usize = 16_384;

/// Something done, to be written down.
pub(crate) struct Deed<'a> {
    pub(crate) actor: &'a str,
    /// Noun and verb, `device.disable` for example.
    pub(crate) action: &'static str,
    pub(crate) device: Option<&'a Device>,
    /// An object; never a secret.
    pub(crate) detail: Value,
    pub(crate) ok: bool,
}

/// When a device, or somebody, was last written down for something it may not do.
#[derive(Default)]
pub(crate) struct Misdeeds(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    last: HashMap<(Uuid, &'static str), i64>,
    swept: i64,
}

impl Misdeeds {
    /// Whether it is to be written down now.
    fn is_due(&self, who: Uuid, what: &'static str, now: i64) -> bool {
        let mut remembered = self.0.lock();
        let Remembered { last, swept } = &mut *remembered;
        match last.get_mut(&(who, what)) {
            Some(at) if now.saturating_sub(*at) < AGAIN => return false,
            Some(at) => {
                *at = now;
                return true;
            }
            None => {}
        }
        if last.len() >= REMEMBERED && now.saturating_sub(*swept) >= SWEEP {
            *swept = now;
            last.retain(|_, at| now.saturating_sub(*at) < AGAIN);
        }
        // A flood by ever new devices is no reason to forget others; it is counted all the same.
        let has_room = last.len() < REMEMBERED;
        if has_room {
            last.insert((who, what), now);
        }
        has_room
    }
}

impl Platform {
    /// What was done, newest first, to what the caller sees: devices, tokens and people of its part of the organisation. Where
    /// a device came from is not told to who does not see that place.
    pub async fn audits(&self, query: &AuditQuery, by: &Caller) -> Result<Vec<AuditRow>, StoreError> {
        let subtree = (!by.subtree().is_root()).then(|| by.subtree().as_str().to_owned());
        let mut rows = self.control().audits(&AuditQuery { subtree, ..query.clone() }).await?;
        rows.iter_mut().filter(|row| row.action == DESCRIBE).for_each(|row| hide_origin(row, by));
        Ok(rows)
    }

    /// A device did something that it may not, such as to speak for another one. Written down once an hour for each
    /// kind of thing, counted every time. To be called within the platform's runtime.
    pub fn misdeed(&self, device: &Arc<Device>, action: &'static str, detail: Value) {
        metrics::counter!("vestibule_device_misdeeds_total", "action" => action).increment(1);
        if !self.misdeeds().is_due(device.id.into(), action, self.clock().now_ms()) {
            return;
        }
        let (auditor, device) = (self.auditor(), Arc::clone(device));
        self.runtime().spawn(async move {
            auditor.write(Deed { actor: DEVICE, action, device: Some(&device), detail, ok: false }).await;
        });
    }

    /// Somebody asked for what its role does not have. Written down once an hour for each permission, counted every time.
    /// To be called within the platform's runtime.
    pub fn denied(&self, by: &Caller, permission: Permission) {
        metrics::counter!("vestibule_denied_total", "permission" => permission.as_str()).increment(1);
        let is_due = |who| self.misdeeds().is_due(who, permission.as_str(), self.clock().now_ms());
        if !by.id().is_some_and(is_due) {
            return;
        }
        let (auditor, by) = (self.auditor(), by.clone());
        self.runtime().spawn(async move {
            let detail = json!({"permission": permission.as_str()});
            auditor.note(by.name(), "access.denied", by.subtree(), detail, false).await;
        });
    }

    /// Writes down what was asked of a device. A database that does not answer keeps nobody waiting for news of the
    /// device: it is written all the same then, when it does.
    pub(crate) async fn audited(
        &self,
        actor: &str,
        action: &'static str,
        device: &Arc<Device>,
        detail: Value,
        ok: bool,
    ) {
        let (auditor, actor, of) = (self.auditor(), actor.to_owned(), Arc::clone(device));
        let written = self.runtime().spawn(async move {
            auditor.write(Deed { actor: &actor, action, device: Some(&of), detail, ok }).await;
        });
        if timeout(LOGGED, written).await.is_err() {
            tracing::warn!(serial = %device.serial, action, "what was done is not in the audit yet");
        }
    }

    pub(crate) fn auditor(&self) -> Auditor {
        Auditor { control: self.control().clone(), clock: self.clock_handle() }
    }
}

/// Takes the place that a device was moved from out of a row, if the caller does not see it.
fn hide_origin(row: &mut AuditRow, by: &Caller) {
    let Ok(Value::Object(mut detail)) = serde_json::from_str(&row.detail) else { return };
    let from = detail.get("from").and_then(Value::as_str).map(OrgPath::parse);
    if from.is_some_and(|from| !from.is_ok_and(|from| by.subtree().covers(&from))) {
        detail.remove("from");
        row.detail = Value::Object(detail).to_string();
    }
}

/// Writes the audit.
#[derive(Clone)]
pub(crate) struct Auditor {
    control: Control,
    clock: Arc<dyn Clock>,
}

impl Auditor {
    /// Writes a deed down, durably when this returns. That one cannot be written down is said and counted, and fails
    /// nobody: what was done is done.
    pub(crate) async fn write(&self, deed: Deed<'_>) {
        let Deed { actor, action, device, detail, ok } = deed;
        self.add(actor, action, device, device.map(Device::org), detail, ok).await;
    }

    /// Writes down what was done to something that is no device and belongs to this place in the organisation.
    pub(crate) async fn note(&self, actor: &str, action: &'static str, org: &OrgPath, detail: Value, ok: bool) {
        self.add(actor, action, None, Some(org.clone()), detail, ok).await;
    }

    async fn add(
        &self,
        actor: &str,
        action: &'static str,
        device: Option<&Device>,
        org: Option<OrgPath>,
        detail: Value,
        ok: bool,
    ) {
        let row = NewAudit {
            time: self.clock.now_ms(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            device: device.map(|device| device.id),
            serial: device.map(|device| device.serial.to_string()),
            org: org.map(|org| org.as_str().to_owned()),
            detail: detail.to_string(),
            ok,
        };
        if let Err(error) = self.control.add_audit(row).await {
            metrics::counter!("vestibule_audit_lost_total").increment(1);
            tracing::error!(%error, actor, action, "what was done is not in the audit");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misdeed_is_written_down_once_an_hour_for_each_device_and_kind() {
        let (misdeeds, one, other) = (Misdeeds::default(), Uuid::now_v7(), Uuid::now_v7());
        assert!(misdeeds.is_due(one, "a", 0) && !misdeeds.is_due(one, "a", AGAIN - 1));
        assert!(misdeeds.is_due(one, "b", 5) && misdeeds.is_due(other, "a", 5));
        assert!(misdeeds.is_due(one, "a", AGAIN));
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_comes_back_to_it() {
        let misdeeds = Misdeeds::default();
        for _ in 0..REMEMBERED {
            assert!(misdeeds.is_due(Uuid::now_v7(), "a", 0));
        }
        assert!(!misdeeds.is_due(Uuid::now_v7(), "a", 1));
        assert!(misdeeds.is_due(Uuid::now_v7(), "a", AGAIN + 1));
        assert_eq!(misdeeds.0.lock().last.len(), 1);
    }
}
