//! Jobs: what is done to many devices at once, by whom, how far it is, and what went wrong.
//!
//! A job goes on in the process that began it. One whose process ended in the middle is `interrupted` from the next start on;
//! to begin it once more is safe, because what is done already is found to be so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;
use vestibule_store::{Control, JobRow, StoreError};

use crate::caller::Caller;
use crate::org::OrgPath;
use crate::platform::Platform;

/// Jobs that are kept; the oldest that has ended makes room.
const KEPT: usize = 200;
/// Jobs that go on at the same time.
const RUNNING: usize = 8;
/// And those of one part of the organisation.
const RUNNING_OF_A_PART: usize = 4;
/// Troubles of one job that are told one by one.
const TOLD: usize = 100;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Registers devices.
    Import,
    /// Changes devices.
    Bulk,
}

impl JobKind {
    /// The kind's name in the API and in storage.
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Import => "import",
            JobKind::Bulk => "bulk",
        }
    }

    fn parse(name: &str) -> Option<JobKind> {
        [JobKind::Import, JobKind::Bulk].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// How a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It goes on.
    Running,
    /// It has come to its end; some of it may have gone wrong.
    Done,
    /// Somebody has ended it.
    Cancelled,
    /// It ended in the middle, and what it had done stays done.
    Interrupted,
}

impl JobState {
    /// The state's name in the API and in storage.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Cancelled => "cancelled",
            JobState::Interrupted => "interrupted",
        }
    }

    fn parse(name: &str) -> Option<JobState> {
        let states = [JobState::Running, JobState::Done, JobState::Cancelled, JobState::Interrupted];
        states.into_iter().find(|state| state.as_str() == name)
    }
}

/// Something of a job that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The line of what was sent, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The id of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Uuid>,
    /// The device's own identity, where it is a device of the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Which field is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong and what to do, for people; never what was sent.
    pub detail: String,
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Rows or devices it has come to.
    pub seen: u64,
    /// How many it is about in all, where that is known before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// Those it did something to; for a dry run, would have.
    pub changed: u64,
    /// Those that were so already.
    pub unchanged: u64,
    /// Those it could not do.
    pub failed: u64,
    /// The first of these.
    pub troubles: Vec<Trouble>,
    /// Why it ended in the middle, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Tally {
    /// Counts something that was not done.
    pub(crate) fn fail(&mut self, trouble: Trouble) {
        self.failed += 1;
        if self.troubles.len() < TOLD {
            self.troubles.push(trouble);
        }
    }
}

/// A job.
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// What it does.
    pub kind: JobKind,
    /// Who asked for it.
    pub actor: Box<str>,
    /// The part of the organisation who asked for it is bound to.
    pub org: OrgPath,
    /// When it began, Unix milliseconds.
    pub created: i64,
    /// Whether it only says what it would do.
    pub dry_run: bool,
    progress: Mutex<Progress>,
    cancelled: AtomicBool,
}

#[derive(Clone)]
struct Progress {
    state: JobState,
    finished: Option<i64>,
    tally: Tally,
}

impl Job {
    fn from_row(row: JobRow) -> Option<Job> {
        let progress = Progress {
            state: JobState::parse(&row.state)?,
            finished: row.finished,
            tally: serde_json::from_str(&row.detail).ok()?,
        };
        Some(Job {
            id: row.id,
            kind: JobKind::parse(&row.kind)?,
            actor: row.actor.into(),
            org: OrgPath::parse(&row.org).ok()?,
            created: row.created,
            dry_run: row.dry_run,
            progress: Mutex::new(progress),
            cancelled: AtomicBool::new(false),
        })
    }

    /// The job as it is kept, with this tally.
    pub(crate) fn row_with(&self, tally: &Tally) -> JobRow {
        let Progress { state, finished, .. } = self.progress.lock().clone();
        JobRow {
            id: self.id,
            kind: self.kind.as_str().to_owned(),
            org: self.org.as_str().to_owned(),
            actor: self.actor.to_string(),
            created: self.created,
            finished,
            state: state.as_str().to_owned(),
            dry_run: self.dry_run,
            detail: json!(tally).to_string(),
        }
    }

    /// How it is doing.
    pub fn state(&self) -> JobState {
        self.progress.lock().state
    }

    /// When it ended, Unix milliseconds.
    pub fn finished(&self) -> Option<i64> {
        self.progress.lock().finished
    }

    /// How far it is.
    pub fn tally(&self) -> Tally {
        self.progress.lock().tally.clone()
    }

    pub(crate) fn set_tally(&self, tally: Tally) {
        self.progress.lock().tally = tally;
    }

    /// Whether somebody wants it to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Whatever did it is gone.
    pub(crate) fn abandon(&self, now: i64) {
        self.end(JobState::Interrupted, now, Some("It was given up. Begin it once more."));
    }

    /// It has ended so; false where it had ended before.
    fn end(&self, state: JobState, now: i64, reason: Option<&str>) -> bool {
        let mut progress = self.progress.lock();
        if progress.state != JobState::Running {
            return false;
        }
        progress.state = state;
        progress.finished = Some(now);
        progress.tally.reason = reason.map(str::to_owned);
        true
    }
}

/// All jobs.
#[derive(Default)]
pub(crate) struct Jobs(RwLock<BTreeMap<Uuid, Arc<Job>>>);

/// Why a job is not begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobRefused {
    /// So many go on already.
    #[error("{0} jobs are running already")]
    TooMany(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Jobs {
    /// Reads what is kept; what was running when the last process ended is interrupted.
    pub(crate) async fn load(control: &Control, now: i64) -> Result<Jobs, StoreError> {
        let mut jobs = BTreeMap::new();
        for row in control.jobs().await? {
            let id = row.id;
            let Some(job) = Job::from_row(row) else {
                tracing::error!(%id, "a job that this version does not understand is left out");
                continue;
            };
            if job.end(JobState::Interrupted, now, Some("The platform ended in the middle of it. Begin it once more."))
            {
                control.put_job(job.row_with(&job.tally())).await?;
            }
            jobs.insert(job.id, Arc::new(job));
        }
        Ok(Jobs(RwLock::new(jobs)))
    }
}

impl Platform {
    /// The jobs of a kind that the caller sees, newest first; there are 200 at most. Somebody sees the jobs of those who
    /// are bound to the same part of the organisation, or to one below.
    pub fn jobs(&self, kind: JobKind, by: &Caller) -> Vec<Arc<Job>> {
        let jobs = self.jobs_kept().0.read();
        let seen = jobs.values().rev().filter(|job| job.kind == kind && by.subtree().covers(&job.org));
        seen.map(Arc::clone).collect()
    }

    /// The job of this kind with this id, if the caller sees it.
    pub fn job(&self, kind: JobKind, id: Uuid, by: &Caller) -> Option<Arc<Job>> {
        let job = self.jobs_kept().0.read().get(&id).map(Arc::clone);
        job.filter(|job| job.kind == kind && by.subtree().covers(&job.org))
    }

    /// Has a job end before its time: what it does this moment is done, nothing after that. One that has ended stays as it
    /// is.
    pub async fn cancel_job(&self, job: &Job, by: &Caller) {
        if job.state() == JobState::Running && !job.cancelled.swap(true, Ordering::AcqRel) {
            let detail = json!({"job": job.id, "kind": job.kind.as_str()});
            self.auditor().note(by.name(), "job.cancel", by.subtree(), detail, true).await;
        }
    }

    /// Begins a job, durably: one about `of` things in all, where that is known.
    pub(crate) async fn begin_job(
        &self,
        kind: JobKind,
        of: Option<u64>,
        dry_run: bool,
        by: &Caller,
    ) -> Result<Arc<Job>, JobRefused> {
        let progress = Progress { state: JobState::Running, finished: None, tally: Tally { of, ..Tally::default() } };
        let job = Arc::new(Job {
            id: Uuid::now_v7(),
            kind,
            actor: by.name().into(),
            org: by.subtree().clone(),
            created: self.clock().now_ms(),
            dry_run,
            progress: Mutex::new(progress),
            cancelled: AtomicBool::new(false),
        });
        let room = {
            let mut jobs = self.jobs_kept().0.write();
            let running = || jobs.values().filter(|job| job.state() == JobState::Running);
            if running().count() >= RUNNING {
                return Err(JobRefused::TooMany(RUNNING));
            }
            // A part of the organisation leaves some for the others.
            let org = by.subtree();
            if !org.is_root() && running().filter(|job| org.covers(&job.org)).count() >= RUNNING_OF_A_PART {
                return Err(JobRefused::TooMany(RUNNING_OF_A_PART));
            }
            let mut ended = jobs.values().filter(|job| job.state() != JobState::Running);
            let oldest = ended.clone().find(|job| job.org == *org).or_else(|| ended.next()).map(|job| job.id);
            let room = oldest.filter(|_| jobs.len() >= KEPT);
            if let Some(id) = room {
                jobs.remove(&id);
            }
            jobs.insert(job.id, Arc::clone(&job));
            room
        };
        let kept = async {
            if let Some(id) = room {
                self.control().remove_job(id).await?;
            }
            self.control().put_job(job.row_with(&job.tally())).await
        };
        if let Err(error) = kept.await {
            self.jobs_kept().0.write().remove(&job.id);
            return Err(error.into());
        }
        Ok(job)
    }

    /// A job has ended, for a reason where it was in the middle.
    pub(crate) async fn end_job(&self, job: &Job, state: JobState, reason: Option<&str>) {
        if !job.end(state, self.clock().now_ms(), reason) {
            return;
        }
        let (kind, tally) = (job.kind.as_str(), job.tally());
        metrics::counter!("vestibule_jobs_total", "kind" => kind, "state" => state.as_str()).increment(1);
        for (outcome, count) in [("changed", tally.changed), ("unchanged", tally.unchanged), ("failed", tally.failed)] {
            metrics::counter!("vestibule_job_items_total", "kind" => kind, "outcome" => outcome).increment(count);
        }
        if let Err(error) = self.control().put_job(job.row_with(&job.tally())).await {
            // The next start finds it running, and calls it interrupted.
            tracing::warn!(%error, job = %job.id, "how a job ended is not written down");
        }
    }
}
