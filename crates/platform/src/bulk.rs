//! Changes of many devices at once, as a job: each device is changed, and written down in the audit, as if it were by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use vestibule_store::{DeviceId, StoreError};

use crate::caller::Caller;
use crate::describe::{Describe, DescribeError, check_place};
use crate::device::Device;
use crate::find::{DeviceFilter, DeviceQuery};
use crate::job::{Job, JobKind, JobRefused, JobState, Tally, Trouble};
use crate::org::OrgPath;
use crate::permission::Permission;
use crate::platform::{Platform, to_the_end};
use crate::registration::AddDeviceError;

/// Devices that are changed at the same time, so that they share commits.
const AT_ONCE: usize = 64;
/// Devices looked for at once.
const PAGE: usize = 1_000;

/// What is done to each device.
#[derive(Debug, Clone)]
pub enum BulkAction {
    /// Labels are set, or taken off where there is no value.
    Label(BTreeMap<String, Option<String>>),
    /// It goes to another place in the organisation.
    Move(OrgPath),
    /// It is shut out.
    Disable,
    /// It is let in again.
    Enable,
    /// It is removed.
    Remove,
    /// A window is opened in which it may enrol again.
    Enrol(Duration),
}

impl BulkAction {
    /// The action's name in the API and in the audit.
    pub fn as_str(&self) -> &'static str {
        match self {
            BulkAction::Label(_) => "label",
            BulkAction::Move(_) => "move",
            BulkAction::Disable => "disable",
            BulkAction::Enable => "enable",
            BulkAction::Remove => "remove",
            BulkAction::Enrol(_) => "enrol",
        }
    }

    /// What its caller must be allowed to do, as for one device.
    pub fn permission(&self) -> Permission {
        match self {
            BulkAction::Label(_) | BulkAction::Move(_) | BulkAction::Remove => Permission::DevicesWrite,
            BulkAction::Disable | BulkAction::Enable | BulkAction::Enrol(_) => Permission::DevicesControl,
        }
    }
}

/// What became of one device.
enum Done {
    Changed,
    /// It was so already.
    Unchanged,
    Failed(String),
}

impl Platform {
    /// All devices that a filter finds and the caller sees, in the order of their registration.
    pub async fn select_devices(&self, filter: &DeviceFilter, by: &Caller) -> Vec<Arc<Device>> {
        let query = DeviceQuery { filter: filter.clone(), ..DeviceQuery::default() };
        let (mut devices, mut cursor) = (Vec::new(), None);
        loop {
            // A cursor of the same query is always one of it.
            let Ok(page) = self.find_devices(&query, cursor.as_deref(), PAGE, by).await else { return devices };
            devices.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                return devices;
            }
        }
    }

    /// Begins to do the same to each of these devices. The caller must have the action's permission.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn begin_bulk(
        self: &Arc<Self>,
        action: BulkAction,
        devices: Vec<DeviceId>,
        by: &Caller,
    ) -> Result<Arc<Job>, BulkError> {
        if let BulkAction::Move(org) = &action {
            check_place(org, by).map_err(BulkError::from)?;
        }
        let (platform, by) = (Arc::clone(self), by.clone());
        // Whoever goes away in the middle does not leave a job that nobody works at.
        to_the_end(async move {
            let job = platform.begin_job(JobKind::Bulk, Some(devices.len() as u64), false, &by).await?;
            let detail = json!({"job": job.id, "do": action.as_str(), "devices": devices.len()});
            platform.auditor().note(by.name(), "devices.bulk", by.subtree(), detail, true).await;
            let (runtime, going) = (platform.runtime().clone(), Arc::clone(&job));
            runtime.spawn(async move { platform.go_through(&going, &action, &devices, &by).await });
            Ok(job)
        })
        .await
    }

    async fn go_through(self: Arc<Self>, job: &Arc<Job>, action: &BulkAction, devices: &[DeviceId], by: &Caller) {
        let action = Arc::new(action.clone());
        let mut tally = job.tally();
        for some in devices.chunks(AT_ONCE) {
            if job.is_cancelled() {
                return self.end_job(job, JobState::Cancelled, None).await;
            }
            if !by.is_current(self.clock().now_ms()) {
                let reason = "The rights of who asked for it have ended.";
                return self.end_job(job, JobState::Interrupted, Some(reason)).await;
            }
            let mut changes = JoinSet::new();
            for id in some {
                let (platform, action, by, id) = (Arc::clone(&self), Arc::clone(&action), by.clone(), *id);
                changes.spawn(async move { platform.do_to(id, &action, &by).await });
            }
            let mut store = None;
            while let Some(changed) = changes.join_next().await {
                match changed {
                    Ok(Ok((_, Done::Changed))) => tally.changed += 1,
                    Ok(Ok((_, Done::Unchanged))) => tally.unchanged += 1,
                    Ok(Ok((trouble, Done::Failed(detail)))) => tally.fail(Trouble { detail, ..trouble }),
                    Ok(Err(error)) => store = Some(error),
                    Err(error) => {
                        tracing::error!(%error, job = %job.id, "a change of a device panicked");
                        let detail = "It went wrong within the platform; the log says how.".to_owned();
                        tally.fail(Trouble { line: None, device: None, serial: None, field: None, detail });
                    }
                }
            }
            tally.seen += some.len() as u64;
            if let Some(error) = store {
                tracing::warn!(%error, job = %job.id, "a change of many devices ends in the middle");
                job.set_tally(tally);
                let reason = "The store does not answer. Begin it once more when it does.";
                return self.end_job(job, JobState::Interrupted, Some(reason)).await;
            }
            self.note_job(job, &tally).await;
        }
        self.end_job(job, JobState::Done, None).await;
    }

    /// Keeps how far a job is. Where that fails, the next time does.
    async fn note_job(&self, job: &Job, tally: &Tally) {
        job.set_tally(tally.clone());
        if let Err(error) = self.control().put_job(job.row_with(tally)).await {
            tracing::warn!(%error, job = %job.id, "how far a job is is not written down yet");
        }
    }

    async fn do_to(
        self: &Arc<Self>,
        id: DeviceId,
        action: &BulkAction,
        by: &Caller,
    ) -> Result<(Trouble, Done), StoreError> {
        let mut trouble =
            Trouble { line: None, device: Some(id.into()), serial: None, field: None, detail: String::new() };
        let Some(device) = self.device_by_id(id).filter(|device| by.sees(device)) else {
            return Ok((trouble, Done::Failed("It is not there any more.".to_owned())));
        };
        trouble.serial = Some(device.serial.to_string());
        let done = match self.change_one(&device, action, by).await {
            Err(StoreError::UnknownDevice) => Done::Failed("It was removed in this moment.".to_owned()),
            done => done?,
        };
        Ok((trouble, done))
    }

    async fn change_one(
        self: &Arc<Self>,
        device: &Arc<Device>,
        action: &BulkAction,
        by: &Caller,
    ) -> Result<Done, StoreError> {
        let described = match action {
            BulkAction::Disable | BulkAction::Enable => {
                let disabled = matches!(action, BulkAction::Disable);
                if device.is_disabled() == disabled {
                    return Ok(Done::Unchanged);
                }
                self.set_disabled(device, disabled, by).await?;
                return Ok(Done::Changed);
            }
            BulkAction::Remove => {
                self.remove_device(device, by).await?;
                return Ok(Done::Changed);
            }
            BulkAction::Enrol(window) => {
                self.open_enrolment(device, *window, false, by).await?;
                return Ok(Done::Changed);
            }
            BulkAction::Label(labels) => {
                let description = device.description();
                if labels.iter().all(|(name, value)| description.labels.get(name) == value.as_ref()) {
                    return Ok(Done::Unchanged);
                }
                self.describe_device(device, Describe { labels: labels.clone(), ..Describe::default() }, by).await
            }
            BulkAction::Move(org) => {
                if device.org() == *org {
                    return Ok(Done::Unchanged);
                }
                self.describe_device(device, Describe { org: Some(org.clone()), ..Describe::default() }, by).await
            }
        };
        match described {
            Ok(_) => Ok(Done::Changed),
            Err(DescribeError::Store(error)) => Err(error),
            Err(refused) => Ok(Done::Failed(format!("{refused}."))),
        }
    }
}

/// Why many devices are not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BulkError {
    /// The caller sent something that cannot be right.
    #[error("{field} {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The job is not begun.
    #[error(transparent)]
    Refused(#[from] JobRefused),
}

impl From<AddDeviceError> for BulkError {
    fn from(error: AddDeviceError) -> BulkError {
        match error {
            AddDeviceError::Invalid { field, reason } => BulkError::Invalid { field, reason },
            AddDeviceError::Store(error) => BulkError::Refused(JobRefused::Store(error)),
            _ => BulkError::Refused(JobRefused::Store(StoreError::Closed)),
        }
    }
}
