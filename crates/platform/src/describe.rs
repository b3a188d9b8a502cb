//! What people say of a device: its name, its place in the organisation, labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use vestibule_store::StoreError;

use crate::audit::Deed;
use crate::caller::Caller;
use crate::device::Device;
use crate::org::OrgPath;
use crate::platform::{Platform, to_the_end};
use crate::presence::announce;
use crate::registration::{AddDeviceError, check_label};

/// How the audit calls it.
pub(crate) const DESCRIBE: &str = "device.describe";
const MAX_LABELS: usize = 32;
const MAX_LABEL_NAME: usize = 64;
const MAX_LABEL_VALUE: usize = 256;

/// What people say of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// A name for people.
    pub name: Option<String>,
    /// Where it belongs in the organisation.
    pub org: OrgPath,
    /// What people wrote on it.
    pub labels: BTreeMap<String, String>,
    /// Grows with every change.
    pub version: i64,
}

/// A change of the description; what is none stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Describe {
    /// Another name; none inside: no name.
    pub name: Option<Option<String>>,
    /// Another place, that the caller sees.
    pub org: Option<OrgPath>,
    /// Whether all labels are taken off first.
    pub clear_labels: bool,
    /// Labels to be set, or taken off where there is no value.
    pub labels: BTreeMap<String, Option<String>>,
    /// Only when the description is at this version still.
    pub if_match: Option<u64>,
}

/// Why a device is not described so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// The caller sent something that cannot be right.
    #[error("{field} {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The description has been changed since.
    #[error("the description is at version {version} by now")]
    Stale {
        /// Its version now.
        version: i64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AddDeviceError> for DescribeError {
    fn from(error: AddDeviceError) -> DescribeError {
        match error {
            AddDeviceError::Invalid { field, reason } => DescribeError::Invalid { field, reason },
            AddDeviceError::Store(error) => DescribeError::Store(error),
            _ => DescribeError::Store(StoreError::Closed),
        }
    }
}

impl Platform {
    /// Changes what is said of a device, durably. Where it goes to another place its sub-devices stay where they are.
    ///
    /// # Errors
    /// [`DescribeError`].
    pub async fn describe_device(
        &self,
        device: &Device,
        change: Describe,
        by: &Caller,
    ) -> Result<Arc<Description>, DescribeError> {
        if let Some(name) = &change.name {
            check_label("name", name.as_deref())?;
        }
        if let Some(org) = &change.org {
            check_place(org, by)?;
        }
        let device = self.registry().by_id(device.id).ok_or(StoreError::UnknownDevice)?;
        let (registry, control, auditor) = (Arc::clone(self.registry()), self.control().clone(), self.auditor());
        let (changes, moves, by) = (self.presence_sender().clone(), self.moves().clone(), by.clone());
        to_the_end(async move {
            // One change of a device at a time, and none of one that is being removed.
            let _turn = device.secrets.lock().await;
            if device.is_removed() {
                return Err(StoreError::UnknownDevice.into());
            }
            by.still_sees(&device)?;
            let before = device.description();
            if change.if_match.is_some_and(|version| i64::try_from(version) != Ok(before.version)) {
                return Err(DescribeError::Stale { version: before.version });
            }
            let mut after = Description { version: before.version + 1, ..Description::clone(&before) };
            if let Some(name) = change.name {
                after.name = name;
            }
            if let Some(org) = change.org {
                after.org = org;
            }
            if change.clear_labels {
                after.labels.clear();
            }
            for (name, value) in change.labels {
                match value {
                    Some(value) => drop(after.labels.insert(name, value)),
                    None => drop(after.labels.remove(&name)),
                }
            }
            check_labels(&after.labels)?;
            let (name, labels) = (after.name.as_deref(), json!(after.labels).to_string());
            control.describe(device.id, name, after.org.as_str(), &labels, after.version).await?;
            let after = Arc::new(after);
            registry.describe(&device, Arc::clone(&after));
            if after.org != before.org {
                // An error only says that nobody listens.
                let _ = moves.send((Arc::clone(&device), before.org.clone()));
            }
            announce(&changes, &device);
            let mut detail = json!({"name": after.name, "org": after.org.as_str(), "labels": after.labels});
            if after.org != before.org {
                detail["from"] = before.org.as_str().into();
            }
            let (actor, device_of) = (by.name(), Some(&*device));
            auditor.write(Deed { actor, action: DESCRIBE, device: device_of, detail, ok: true }).await;
            Ok(after)
        })
        .await
    }
}

/// Nobody puts a device out of sight of themselves.
pub(crate) fn check_place(org: &OrgPath, by: &Caller) -> Result<(), AddDeviceError> {
    if by.subtree().covers(org) {
        return Ok(());
    }
    Err(AddDeviceError::Invalid { field: "org", reason: "must be at or below the place that you are bound to" })
}

pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), AddDeviceError> {
    let invalid = |reason| Err(AddDeviceError::Invalid { field: "labels", reason });
    if labels.len() > MAX_LABELS {
        return invalid("are more than 32");
    }
    if labels.keys().any(|name| name.is_empty() || name.len() > MAX_LABEL_NAME) {
        return invalid("must have names of 1 to 64 bytes");
    }
    if labels.values().any(|value| value.len() > MAX_LABEL_VALUE) {
        return invalid("must have values of at most 256 bytes");
    }
    let has_control = |text: &String| text.chars().any(char::is_control);
    if labels.iter().any(|(name, value)| has_control(name) || has_control(value)) {
        return invalid("must not contain control characters");
    }
    Ok(())
}
