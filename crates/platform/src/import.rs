//! Import: many devices are registered at once, as a job.
//!
//! Rows are registered as they come, some hundred in a transaction, together with how far the job is. Nothing of what was sent
//! is kept but the devices themselves, their codes sealed as always: an import that ends in the middle is gone on with by
//! sending the same again. What is registered already, and is as its row says, is left as it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::json;
use vestibule_store::{DeviceRow, InsertError, Secret, StoreError};

use crate::caller::Caller;
use crate::device::Device;
use crate::enlist::Vetted;
use crate::job::{Job, JobKind, JobRefused, JobState, Tally, Trouble};
use crate::org::OrgPath;
use crate::platform::{Platform, to_the_end};
use crate::registration::{AddDeviceError, NewDevice};

/// The most rows of one import.
pub const MAX_IMPORT: u64 = 100_000;
/// Rows of one transaction.
const BATCH: usize = 500;

/// A device as a row of an import has it. What is `None` is not said of it.
pub struct ImportRow {
    /// Its own identity.
    pub serial: String,
    /// Its verification code; that of a device that is there is not looked at.
    pub code: Option<Secret>,
    /// Whether that enrols the device once only; of a device that is there it is not looked at.
    pub one_time: Option<bool>,
    /// Its product.
    pub product: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Id or serial of the hub it is reached through: one that is there, or in a row before.
    pub parent: Option<String>,
    /// Where it belongs.
    pub org: Option<OrgPath>,
    /// Its labels, all of them.
    pub labels: Option<BTreeMap<String, String>>,
    /// Whether it is shut out.
    pub disabled: Option<bool>,
}

/// A row that cannot be read.
pub struct RowWrong {
    /// Which field.
    pub field: Option<String>,
    /// What is wrong with it and what to do, for people; never what was sent.
    pub detail: String,
}

impl RowWrong {
    fn field(field: &str, detail: impl Into<String>) -> RowWrong {
        RowWrong { field: Some(field.to_owned()), detail: detail.into() }
    }
}

/// Why an import does not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportEnded {
    /// Somebody has cancelled it.
    Cancelled,
    /// It cannot go on; why and what to do, for people.
    Interrupted(String),
}

impl From<StoreError> for ImportEnded {
    fn from(error: StoreError) -> ImportEnded {
        tracing::warn!(%error, "an import ends in the middle");
        ImportEnded::Interrupted("The store does not answer. Send it once more when it does.".to_owned())
    }
}

/// An import that goes on. Rows are handed to it in their order; then it is ended.
pub struct Import {
    platform: Arc<Platform>,
    job: Arc<Job>,
    by: Caller,
    tally: Tally,
    /// Rows of the next transaction.
    pending: Vec<Pending>,
    /// Rows since the last one.
    fresh: usize,
    /// The serials that came before.
    came: HashMap<Box<str>, Came>,
}

struct Pending {
    line: u64,
    disabled: bool,
    vetted: Vetted,
}

/// A row that came before.
struct Came {
    line: u64,
    /// It is about to be registered, and may have sub-devices.
    is_hub: bool,
}

impl Platform {
    /// Begins an import. A dry run registers nothing and says what would be.
    ///
    /// # Errors
    /// [`JobRefused`].
    pub async fn begin_import(self: &Arc<Self>, dry_run: bool, by: &Caller) -> Result<Import, JobRefused> {
        let (platform, by) = (Arc::clone(self), by.clone());
        // Whoever goes away in the middle leaves an import that is dropped, and not a job that runs for ever.
        to_the_end(async move {
            let job = platform.begin_job(JobKind::Import, None, dry_run, &by).await?;
            let (tally, pending, came) = (Tally::default(), Vec::new(), HashMap::new());
            let import = Import { platform, job, by, tally, pending, fresh: 0, came };
            let (by, detail) = (&import.by, json!({"job": import.job.id, "dry_run": dry_run}));
            import.platform.auditor().note(by.name(), "devices.import", by.subtree(), detail, true).await;
            Ok(import)
        })
        .await
    }
}

impl Import {
    /// The job it is.
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// Whether it may go on: to be asked for whatever arrives.
    ///
    /// # Errors
    /// It was cancelled, or the rights of who asked for it have ended.
    pub fn check(&self) -> Result<(), ImportEnded> {
        if self.job.is_cancelled() {
            return Err(ImportEnded::Cancelled);
        }
        if !self.by.is_current(self.platform.clock().now_ms()) {
            return Err(ImportEnded::Interrupted("The rights of who asked for it have ended.".to_owned()));
        }
        Ok(())
    }

    /// The next row and the line it begins in. It may wait for the next that come.
    ///
    /// # Errors
    /// The import is over; [`end`](Self::end) is to be told why.
    pub async fn take(&mut self, line: u64, row: Result<ImportRow, RowWrong>) -> Result<(), ImportEnded> {
        self.check()?;
        if self.tally.seen >= MAX_IMPORT {
            let detail = format!("There are more than {MAX_IMPORT} rows. Send the others as another import.");
            return Err(ImportEnded::Interrupted(detail));
        }
        self.tally.seen += 1;
        self.fresh += 1;
        let done = match row {
            Ok(row) => self.row(line, row).await?,
            Err(wrong) => Err(wrong),
        };
        if let Err(RowWrong { field, detail }) = done {
            self.tally.fail(Trouble { line: Some(line), device: None, serial: None, field, detail });
        }
        if self.fresh >= BATCH { self.flush().await } else { Ok(()) }
    }

    /// The import has come to its end, or will not. What waited is registered in the first case.
    pub async fn end(mut self, how: Result<(), ImportEnded>) {
        let how = match how {
            Ok(()) => self.flush().await,
            over => over,
        };
        self.pending.clear();
        self.job.set_tally(self.tally.clone());
        let (state, reason) = match &how {
            Ok(()) => (JobState::Done, None),
            Err(ImportEnded::Cancelled) => (JobState::Cancelled, None),
            Err(ImportEnded::Interrupted(reason)) => (JobState::Interrupted, Some(reason.as_str())),
        };
        self.platform.end_job(&self.job, state, reason).await;
    }

    async fn row(&mut self, line: u64, row: ImportRow) -> Result<Result<(), RowWrong>, ImportEnded> {
        if let Some(before) = self.came.get(&*row.serial) {
            let detail = format!("serial is that of line {}, too. Leave one of them out.", before.line);
            return Ok(Err(RowWrong::field("serial", detail)));
        }
        // Longer ones are refused, and need not be remembered.
        if row.serial.len() <= crate::registration::MAX_SERIAL {
            self.came.insert(row.serial.as_str().into(), Came { line, is_hub: false });
        }
        if let Some(device) = self.platform.device_by_serial(&row.serial) {
            let known = self.compare(&device, &row);
            self.tally.unchanged += u64::from(known.is_ok());
            return Ok(known);
        }
        let Some(code) = row.code else {
            let detail = "code is missing: a device that is not registered yet needs its verification code.";
            return Ok(Err(RowWrong::field("code", detail)));
        };
        let parent = match row.parent.as_deref() {
            None => None,
            Some(key) => match self.parent(key).await? {
                Ok(parent) => parent,
                Err(wrong) => return Ok(Err(wrong)),
            },
        };
        let (serial, is_hub) = (row.serial.clone(), row.parent.is_none());
        let new = NewDevice {
            serial: row.serial,
            code,
            one_time: row.one_time.unwrap_or(false),
            product: row.product,
            name: row.name,
            parent,
            org: row.org,
            labels: row.labels.unwrap_or_default(),
        };
        let vetted = match self.platform.vet(new, self.pending.len(), &self.by) {
            Ok(vetted) => vetted,
            Err(error) => return Ok(Err(refusal(&error))),
        };
        if let Some(came) = self.came.get_mut(&*serial) {
            came.is_hub = is_hub;
        }
        self.pending.push(Pending { line, disabled: row.disabled.unwrap_or(false), vetted });
        Ok(Ok(()))
    }

    /// Whether a device that is there is as its row says.
    fn compare(&self, device: &Device, row: &ImportRow) -> Result<(), RowWrong> {
        if !self.by.sees(device) {
            return Err(RowWrong::field("serial", "serial is that of a device that is registered already."));
        }
        let description = device.description();
        let parent = row.parent.as_deref().map(|key| self.platform.device(key, &self.by).map(|parent| parent.id));
        let differs = [
            ("product", row.product.is_some() && row.product != device.product),
            ("name", row.name.is_some() && row.name != description.name),
            ("parent", parent.is_some_and(|parent| parent.is_none() || parent != device.parent())),
            ("org", row.org.as_ref().is_some_and(|org| *org != description.org)),
            ("labels", row.labels.as_ref().is_some_and(|labels| *labels != description.labels)),
            ("disabled", row.disabled.is_some_and(|disabled| disabled != device.is_disabled())),
        ];
        match differs.into_iter().find(|(_, differs)| *differs) {
            None => Ok(()),
            Some((field, _)) => {
                let detail = format!(
                    "{field} is not what the registry has: the device is registered already. An import changes none; \
                     change it there, or leave {field} out of the row."
                );
                Err(RowWrong::field(field, detail))
            }
        }
    }

    /// The hub with this id or serial: one that is there, or comes with this import. In a dry run the latter is none.
    async fn parent(&mut self, key: &str) -> Result<Result<Option<Arc<Device>>, RowWrong>, ImportEnded> {
        if let Some(parent) = self.platform.device(key, &self.by) {
            return Ok(Ok(Some(parent)));
        }
        let wrong = |detail: &str| Ok(Err(RowWrong::field("parent", detail)));
        match self.came.get(key) {
            Some(came) if came.is_hub && self.job.dry_run => return Ok(Ok(None)),
            Some(came) if came.is_hub => self.flush().await?,
            Some(_) => return wrong("parent is a row that is not registered, or a sub-device itself."),
            None => {}
        }
        match self.platform.device(key, &self.by) {
            Some(parent) => Ok(Ok(Some(parent))),
            None => wrong("parent is no device that you see. Put hubs into rows before those of their sub-devices."),
        }
    }

    /// Registers what waits.
    async fn flush(&mut self) -> Result<(), ImportEnded> {
        self.check()?;
        let pending = std::mem::take(&mut self.pending);
        self.fresh = 0;
        let count = pending.len() as u64;
        if self.job.dry_run {
            self.tally.changed += count;
            self.job.set_tally(self.tally.clone());
            return Ok(());
        }
        let mut reached = self.tally.clone();
        reached.changed += count;
        let (platform, job, by) = (Arc::clone(&self.platform), Arc::clone(&self.job), self.by.clone());
        let mut tally = self.tally.clone();
        let (tally, done) = to_the_end(async move {
            let (lines, devices): (Vec<u64>, Vec<_>) = pending.into_iter().map(Pending::into_vetted).unzip();
            let audits = devices.iter().map(|vetted| vetted.audit(by.name())).collect();
            let devices: Vec<_> = devices.into_iter().map(|vetted| (vetted.row, vetted.code)).collect();
            // No hub becomes a part of another until those that are to be reached through it are registered.
            let turn = platform.adoptions().lock().await;
            let enlisted = match devices.iter().try_for_each(|(row, _)| hub_of(&platform, row, &by)) {
                Ok(()) => platform.control().enlist(&devices, audits, Some(job.row_with(&reached))).await.ok(),
                Err(_) => None,
            };
            if let Some(codes) = enlisted {
                for ((row, _), code) in devices.into_iter().zip(codes) {
                    // Its family is one we have just given it.
                    let _ = platform.admit(row, code);
                }
                return (reached, Ok(()));
            }
            drop(turn);
            tracing::info!("some devices are registered one by one");
            let rows = devices.into_iter().map(|(row, code)| Vetted { row, code });
            let done = one_by_one(&platform, &job, &by, lines.into_iter().zip(rows), &mut tally).await;
            (tally, done)
        })
        .await;
        self.tally = tally;
        self.job.set_tally(self.tally.clone());
        done.map_err(ImportEnded::from)
    }
}

impl Pending {
    fn into_vetted(mut self) -> (u64, Vetted) {
        self.vetted.row.disabled = self.disabled;
        (self.line, self.vetted)
    }
}

impl Drop for Import {
    /// An import that nobody ends, because its task is gone, does not go on for ever.
    fn drop(&mut self) {
        if self.job.state() == JobState::Running {
            self.job.abandon(self.platform.clock().now_ms());
        }
    }
}

/// The hub of a device that is about to be registered, looked at under the lock that changes who is whose: since its row was
/// read it may have gone, out of sight or altogether, or have become a part of another.
fn hub_of(platform: &Platform, row: &DeviceRow, by: &Caller) -> Result<(), RowWrong> {
    let Some(hub) = row.parent else { return Ok(()) };
    match platform.device_by_id(hub).filter(|hub| by.sees(hub)) {
        None => Err(RowWrong::field("parent", "parent was removed in this moment.")),
        Some(hub) if hub.parent().is_some() => {
            Err(RowWrong::field("parent", "parent has become a sub-device itself in this moment."))
        }
        Some(_) => Ok(()),
    }
}

/// Registers devices of which not all can be: somebody was faster, or took a hub away. Each is one transaction with what the audit
/// says of it and how far the job is.
async fn one_by_one(
    platform: &Arc<Platform>,
    job: &Job,
    by: &Caller,
    rows: impl Iterator<Item = (u64, Vetted)>,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    for (line, vetted) in rows {
        let _turn = platform.adoptions().lock().await;
        let wrong = match hub_of(platform, &vetted.row, by) {
            Err(wrong) => wrong,
            Ok(()) => {
                let mut reached = tally.clone();
                reached.changed += 1;
                let audit = vetted.audit(by.name());
                let device = [(vetted.row, vetted.code)];
                match platform.control().enlist(&device, vec![audit], Some(job.row_with(&reached))).await {
                    Ok(codes) => {
                        *tally = reached;
                        let [(row, _)] = device;
                        for code in codes {
                            // Its family is one we have just given it.
                            let _ = platform.admit(row.clone(), code);
                        }
                        continue;
                    }
                    Err(InsertError::SerialTaken) => refusal(&AddDeviceError::SerialTaken),
                    Err(InsertError::Store(StoreError::UnknownDevice)) => {
                        RowWrong::field("parent", "parent was removed in this moment.")
                    }
                    Err(InsertError::Store(error)) => return Err(error),
                    Err(_) => return Err(StoreError::Closed),
                }
            }
        };
        let RowWrong { field, detail } = wrong;
        tally.fail(Trouble { line: Some(line), device: None, serial: None, field, detail });
    }
    Ok(())
}

/// What a row is told whose device cannot be registered.
fn refusal(error: &AddDeviceError) -> RowWrong {
    match error {
        AddDeviceError::Invalid { field, reason } => RowWrong::field(field, format!("{field} {reason}.")),
        AddDeviceError::SerialTaken => {
            RowWrong::field("serial", "serial is that of a device that is registered already.")
        }
        AddDeviceError::Full(limit) => RowWrong {
            field: None,
            detail: format!("The registry holds its limit of {limit} devices; registry.max_devices says how many."),
        },
        AddDeviceError::Store(_) => RowWrong { field: None, detail: "The store does not answer.".to_owned() },
    }
}
