//! What is done to many devices at once: how far it is.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use vestibule_platform::{Job, JobKind, JobRefused, Tally, Trouble};

use crate::api::Shared;
use crate::extract::TheCaller;
use crate::problem::{Kind, Problem};
use crate::shapes::rfc3339;

/// A job in a path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct JobInPath {
    /// Id of the job.
    #[param(format = Uuid)]
    id: String,
}

/// The job of a kind, [`IMPORT`] or [`BULK`], that `{id}` of the path names.
pub(crate) struct TheJob<const KIND: bool>(pub(crate) Arc<Job>);

pub(crate) const IMPORT: bool = false;
pub(crate) const BULK: bool = true;

/// The kind behind the constants.
pub(crate) const fn kind(kind: bool) -> JobKind {
    if kind { JobKind::Bulk } else { JobKind::Import }
}

impl<const KIND: bool> FromRequestParts<Arc<Shared>> for TheJob<KIND> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let unknown =
            || Problem::new(Kind::UnknownJob, "There is no such job, or it was so long ago that it is forgotten.");
        let path = Path::<JobInPath>::from_request_parts(parts, shared).await;
        let id = path.ok().and_then(|Path(JobInPath { id })| id.parse::<Uuid>().ok()).ok_or_else(unknown)?;
        let TheCaller(caller) = TheCaller::from_request_parts(parts, shared).await?;
        shared.platform.job(kind(KIND), id, &caller).map(TheJob).ok_or_else(unknown)
    }
}

impl From<JobRefused> for Problem {
    fn from(error: JobRefused) -> Problem {
        match error {
            JobRefused::TooMany(most) => {
                let detail = format!("{most} jobs are running, as many as may. Wait until one has ended.");
                Problem::new(Kind::TooManyJobs, detail)
            }
            JobRefused::Store(error) => error.into(),
            _ => Problem::new(Kind::StoreUnavailable, "The job was not begun."),
        }
    }
}

/// Something that was not done.
#[derive(Serialize, ToSchema)]
#[schema(as = JobError)]
pub(crate) struct TroubleShape {
    /// The line of the file it begins in, from 1.
    #[schema(required = true, minimum = 1)]
    line: Option<u64>,
    /// Id of the device.
    #[schema(required = true, format = Uuid)]
    device: Option<String>,
    /// The device's own identity, where it is registered.
    #[schema(required = true)]
    serial: Option<String>,
    /// Which field is wrong.
    #[schema(required = true, example = "parent")]
    field: Option<String>,
    /// What is wrong and what to do.
    detail: String,
}

impl From<Trouble> for TroubleShape {
    fn from(trouble: Trouble) -> TroubleShape {
        let Trouble { line, device, serial, field, detail } = trouble;
        TroubleShape { line, device: device.map(|id| id.to_string()), serial, field, detail }
    }
}

/// An import and how far it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Import)]
pub(crate) struct ImportShape {
    /// Its id.
    #[schema(format = Uuid)]
    id: String,
    /// `running`; `done`: all rows were come to; `cancelled`; `interrupted`: `reason` says why. What was registered stays so.
    #[schema(pattern = "^(running|done|cancelled|interrupted)$", example = "done")]
    state: &'static str,
    /// Why it was interrupted and what to do.
    #[schema(required = true)]
    reason: Option<String>,
    /// Whether it only says what it would do.
    dry_run: bool,
    /// Who asked for it.
    created_by: String,
    /// When it began.
    #[schema(format = DateTime)]
    created: String,
    /// When it ended; null while it goes on.
    #[schema(required = true, format = DateTime)]
    finished: Option<String>,
    /// Rows it has come to.
    #[schema(minimum = 0)]
    rows: u64,
    /// Devices it has registered; in a dry run, would have.
    #[schema(minimum = 0)]
    added: u64,
    /// Rows of devices that were registered and are as the row says.
    #[schema(minimum = 0)]
    unchanged: u64,
    /// Rows that were not taken.
    #[schema(minimum = 0)]
    failed: u64,
    /// The first hundred of these.
    errors: Vec<TroubleShape>,
}

impl From<&Job> for ImportShape {
    fn from(job: &Job) -> ImportShape {
        let Tally { seen, of: _, changed, unchanged, failed, troubles, reason } = job.tally();
        ImportShape {
            id: job.id.to_string(),
            state: job.state().as_str(),
            reason,
            dry_run: job.dry_run,
            created_by: job.actor.to_string(),
            created: rfc3339(job.created),
            finished: job.finished().map(rfc3339),
            rows: seen,
            added: changed,
            unchanged,
            failed,
            errors: troubles.into_iter().map(TroubleShape::from).collect(),
        }
    }
}

/// A change of many devices and how far it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Bulk)]
pub(crate) struct BulkShape {
    /// Its id.
    #[schema(format = Uuid)]
    id: String,
    /// `running`; `done`: all devices were come to; `cancelled`; `interrupted`: `reason` says why. What was changed stays so.
    #[schema(pattern = "^(running|done|cancelled|interrupted)$", example = "done")]
    state: &'static str,
    /// Why it was interrupted and what to do.
    #[schema(required = true)]
    reason: Option<String>,
    /// Who asked for it.
    created_by: String,
    /// When it began.
    #[schema(format = DateTime)]
    created: String,
    /// When it ended; null while it goes on.
    #[schema(required = true, format = DateTime)]
    finished: Option<String>,
    /// How many devices it is about.
    #[schema(minimum = 0)]
    devices: u64,
    /// How many of them it has come to.
    #[schema(minimum = 0)]
    seen: u64,
    /// Those that were changed.
    #[schema(minimum = 0)]
    changed: u64,
    /// Those that were so already.
    #[schema(minimum = 0)]
    unchanged: u64,
    /// Those that were not changed.
    #[schema(minimum = 0)]
    failed: u64,
    /// The first hundred of these.
    errors: Vec<TroubleShape>,
}

impl From<&Job> for BulkShape {
    fn from(job: &Job) -> BulkShape {
        let Tally { seen, of, changed, unchanged, failed, troubles, reason } = job.tally();
        BulkShape {
            id: job.id.to_string(),
            state: job.state().as_str(),
            reason,
            created_by: job.actor.to_string(),
            created: rfc3339(job.created),
            finished: job.finished().map(rfc3339),
            devices: of.unwrap_or(seen),
            seen,
            changed,
            unchanged,
            failed,
            errors: troubles.into_iter().map(TroubleShape::from).collect(),
        }
    }
}

/// The imports that are remembered, newest first; 200 jobs are.
#[derive(Serialize, ToSchema)]
pub(crate) struct ImportList {
    /// The imports.
    pub(crate) items: Vec<ImportShape>,
    /// Null: there is one page.
    #[schema(required = true)]
    pub(crate) next: Option<String>,
}

/// The changes of many devices that are remembered, newest first; 200 jobs are.
#[derive(Serialize, ToSchema)]
pub(crate) struct BulkList {
    /// The changes.
    pub(crate) items: Vec<BulkShape>,
    /// Null: there is one page.
    #[schema(required = true)]
    pub(crate) next: Option<String>,
}
