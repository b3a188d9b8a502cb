//! How far an upgrade is, and how it ended: `progress/report` (osap-wire 10.3).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use osap::Serial;
use osap::das::ota::{self, Code, Progress, Status, Upgrade};
use osap::das::topic::GLOBAL;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{topic, unacceptable};
use crate::attribute::Message;
use crate::event::{InvalidEvent, ReportError};
use crate::shared::Shared;

/// Words of progress that is no failure, as known clients send them.
const NO_ERROR: &str = "success";

/// An upgrade failed. The platform is told the code and the words, for every module whose upgrade has not ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {:#010x})", code.number())]
pub struct UpgradeError {
    code: Code,
    message: String,
}

impl UpgradeError {
    /// A failure. [`Code::Success`] is none and becomes [`Code::Unknown`]; words of more than 256 bytes are not sent.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let code = match Code::from(code.number()) {
            Code::Success => Code::Unknown,
            code => code,
        };
        Self { code, message: message.into() }
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }
}

/// The message that says so.
pub(super) fn message(serial: &Serial, progress: &Progress) -> Result<Message, InvalidEvent> {
    let mut body = Vec::new();
    progress.write(&mut body)?;
    Ok(Message { topic: topic(serial, ota::PROGRESS, "report")?, body: body.into() })
}

/// A step that is no failure.
pub(super) fn step(module: &str, status: Status, percent: u8) -> Progress {
    Progress { module: module.to_owned(), status, percent, code: Code::Success, message: NO_ERROR.to_owned() }
}

/// A failure; words that are too long are left out.
pub(super) fn failure(module: &str, UpgradeError { code, message }: &UpgradeError) -> Progress {
    let failure = |message: &str| Progress {
        module: module.to_owned(),
        status: Status::Failed,
        percent: 0,
        code: *code,
        message: message.to_owned(),
    };
    let told = failure(message);
    if told.write(&mut Vec::new()).is_ok() { told } else { failure("") }
}

/// Says how far an upgrade is. Handed to the handler of [`Builder::on_upgrade`](crate::Builder::on_upgrade); clones mean
/// the same upgrade.
#[derive(Clone)]
pub struct UpgradeProgress {
    shared: Weak<Shared>,
    /// By module. Never locked while the firmware is.
    files: Arc<Mutex<BTreeMap<Box<str>, Step>>>,
}

/// How far the upgrade of a module is.
struct Step {
    /// The version it leads to.
    version: Box<str>,
    status: Option<Status>,
    /// Nothing more is said of it.
    ended: bool,
}

impl UpgradeProgress {
    /// Tells the platform that the upgrade of a module is at this step, with 0 to 100 percent of it done, and waits until
    /// the platform has stored it. The call may be dropped: what it says stays in the queue. [`Status::Succeeded`] and
    /// [`Status::Failed`] have places of their own there and find room always.
    ///
    /// With [`Status::Succeeded`] the module has the version of its file from then on, and the platform is told that, too.
    ///
    /// # Errors
    /// [`ReportError`]: [`ReportError::UpgradeEnded`] after the last report of the module, and after the handler has
    /// returned; [`ReportError::Invalid`] for a module that is not part of the upgrade, and for more than 100 percent.
    pub async fn report(&self, module: &str, status: Status, percent: u8) -> Result<(), ReportError> {
        self.send(&step(module, status, percent)).await
    }

    /// Tells the platform that the upgrade of a module has failed, and waits until the platform has stored it. The upgrade
    /// of other modules may go on.
    ///
    /// # Errors
    /// As [`report`](Self::report).
    pub async fn fail(&self, module: &str, error: &UpgradeError) -> Result<(), ReportError> {
        self.send(&failure(module, error)).await
    }

    async fn send(&self, progress: &Progress) -> Result<(), ReportError> {
        let shared = self.shared.upgrade().ok_or(ReportError::Stopped)?;
        let acknowledged = self.enqueue(&shared, progress)?;
        shared.outcome(acknowledged).await
    }

    fn enqueue(&self, shared: &Shared, said: &Progress) -> Result<oneshot::Receiver<()>, ReportError> {
        let mut files = self.files.lock();
        let file = files.get_mut(&*said.module).ok_or_else(|| unacceptable("module"))?;
        if file.ended {
            return Err(ReportError::UpgradeEnded);
        }
        let message = message(&shared.profile.serial, said)?;
        // Of a step that finds no room there will be another one, of the end there will not.
        let acknowledged =
            if said.status.is_final() { shared.enqueue_end(message)? } else { shared.enqueue(GLOBAL, message)? };
        (file.status, file.ended) = (Some(said.status), said.status.is_final());
        if said.status == Status::Succeeded
            && let Some(firmware) = &shared.firmware
        {
            // What finds no room is told when there is some.
            let _ = firmware.set_version(shared, &said.module, &file.version);
        }
        Ok(acknowledged)
    }

    /// Nothing more is said of the upgrade but what follows from how it ended.
    fn end(&self, shared: &Shared, outcome: &Result<(), UpgradeError>) {
        let files = self.files.lock();
        let open = files.iter().filter(|(_, file)| !file.ended).map(|(module, file)| (module.clone(), file.status));
        let open: Vec<_> = open.collect();
        drop(files);
        for (module, status) in open {
            let said = match outcome {
                Err(error) => failure(&module, error),
                // What runs after the restart knows how it went.
                Ok(()) if status == Some(Status::Rebooting) => continue,
                Ok(()) => step(&module, Status::Succeeded, 100),
            };
            if let Err(error) = self.enqueue(shared, &said) {
                tracing::warn!(serial = %shared.profile.serial, %module, %error, "the end of an upgrade is not told");
            }
        }
        self.files.lock().values_mut().for_each(|file| file.ended = true);
    }
}

impl fmt::Debug for UpgradeProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.lock();
        f.debug_map().entries(files.iter().map(|(module, file)| (module, file.status))).finish()
    }
}

/// The upgrade that is under way, until it is dropped.
pub(super) struct UnderWay {
    pub(super) progress: UpgradeProgress,
    /// Of the handler, unless it panicked.
    outcome: Option<Result<(), UpgradeError>>,
}

impl UnderWay {
    pub(super) fn new(shared: &Arc<Shared>, upgrade: &Upgrade) -> Self {
        let step = |version: &str| Step { version: version.into(), status: None, ended: false };
        let files = upgrade.files.iter().map(|file| (file.module.as_str().into(), step(&file.version))).collect();
        let progress = UpgradeProgress { shared: Arc::downgrade(shared), files: Arc::new(Mutex::new(files)) };
        Self { progress, outcome: None }
    }

    pub(super) fn end(mut self, outcome: Result<(), UpgradeError>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(shared) = self.progress.shared.upgrade() else { return };
        let crashed = || Err(UpgradeError::new(Code::Unknown, "the device's program failed"));
        self.progress.end(&shared, &self.outcome.take().unwrap_or_else(crashed));
        if let Some(firmware) = &shared.firmware {
            firmware.end();
        }
    }
}
