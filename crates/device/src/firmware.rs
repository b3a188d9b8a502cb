//! Firmware: what a device has, and how it comes to other firmware (osap-wire 10.3).
//!
//! The platform is told of the modules after each login and when a version changes. An order to upgrade is answered at once
//! and then carried out by the program; however that ends, the platform hears of it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use osap::Serial;
use osap::das::BodyError;
use osap::das::ota::{self, Inform, MAX_MODULES, MAX_WORD, Module, Progress, Status, Upgrade, UpgradeReply};
use osap::das::topic::{GLOBAL, Topic, TopicError};
use parking_lot::Mutex;
use tokio::sync::oneshot::{self, error::TryRecvError};

use self::progress::{UnderWay, failure, message, step};
use crate::attribute::Message;
use crate::event::{InvalidEvent, MAX_EVENT, ReportError};
use crate::shared::Shared;

mod progress;

pub use self::progress::{UpgradeError, UpgradeProgress};

/// Carries an upgrade out.
type Upgrading = Pin<Box<dyn Future<Output = Result<(), UpgradeError>> + Send>>;
type Handler = dyn Fn(Upgrade, UpgradeProgress) -> Upgrading + Send + Sync;

/// What a program declares about firmware, before the device starts.
#[derive(Default)]
pub(crate) struct Declared {
    modules: Vec<Module>,
    handler: Option<Arc<Handler>>,
}

impl Declared {
    /// A module; one of the same name gets the version.
    pub(crate) fn module(&mut self, name: String, version: String) {
        match self.modules.iter_mut().find(|module| module.name == name) {
            Some(module) => module.version = version,
            // More than the protocol has room for are refused at the start.
            None => self.modules.push(Module { index: 0, name, version }),
        }
    }

    pub(crate) fn on_upgrade<F, Fut>(&mut self, handler: F)
    where
        F: Fn(Upgrade, UpgradeProgress) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), UpgradeError>> + Send + 'static,
    {
        self.handler = Some(Arc::new(move |upgrade, progress| Box::pin(handler(upgrade, progress))));
    }

    /// Checks it, for a device whose firmware as a whole has this version. On failure, the method of the builder and what
    /// is wrong with what it was given.
    pub(crate) fn build(mut self, whole: &str) -> Result<Option<Box<Firmware>>, (&'static str, &'static str)> {
        let Self { modules, handler } = &mut self;
        if modules.is_empty() && handler.is_some() {
            return Err(("on_upgrade", "needs the modules of the firmware"));
        }
        if modules.len() > MAX_MODULES {
            return Err(("firmware_module", "is called for up to 64 modules"));
        }
        for (index, module) in (0..).zip(&mut *modules) {
            module.index = index;
            if !is_name(&module.name) {
                return Err(("firmware_module", "has a name of 1 to 64 bytes without control characters, /, + and #"));
            }
            if module.version.len() > MAX_WORD {
                return Err(("firmware_module", "has a version of up to 64 bytes"));
            }
        }
        if inform(whole, modules).is_err() {
            return Err(("firmware_module", "has names and versions that fit into one message together"));
        }
        let Self { modules, handler } = self;
        if modules.is_empty() {
            return Ok(None);
        }
        let state = Mutex::new(State { modules, told: false, wanted: false, telling: None, busy: false });
        Ok(Some(Box::new(Firmware { handler, state })))
    }
}

/// Whether a module can be called so: the platform has what is said of it under this name.
fn is_name(name: &str) -> bool {
    let good = |letter: char| !letter.is_control() && !matches!(letter, '/' | '+' | '#');
    (1..=MAX_WORD).contains(&name.len()) && name.chars().all(good)
}

/// The firmware of a device.
pub(crate) struct Firmware {
    handler: Option<Arc<Handler>>,
    /// Never locked while the outbox is.
    state: Mutex<State>,
}

struct State {
    modules: Vec<Module>,
    /// The platform knows the versions, or will: the message is in the queue.
    told: bool,
    /// There was a login, or a version has changed: the platform is to know.
    wanted: bool,
    /// Until that message is acknowledged.
    telling: Option<oneshot::Receiver<()>>,
    /// An upgrade is under way.
    busy: bool,
}

impl Firmware {
    /// A login is complete: the platform is told, unless the message still waits in the queue.
    pub(crate) fn handle_login(&self, shared: &Shared) {
        let mut state = self.state.lock();
        let waits = |telling: &mut oneshot::Receiver<()>| telling.try_recv() == Err(TryRecvError::Empty);
        if !state.told || !state.telling.as_mut().is_some_and(waits) {
            state.wanted = true;
            // What finds no room is told when there is some.
            let _ = state.tell(shared);
        }
    }

    /// Something left the queue: what found no room may have some now.
    pub(crate) fn handle_room(&self, shared: &Shared) {
        let mut state = self.state.lock();
        if state.wanted && !state.told {
            let _ = state.tell(shared);
        }
    }

    fn version(&self, name: &str) -> Option<String> {
        self.state.lock().modules.iter().find(|module| module.name == name).map(|module| module.version.clone())
    }

    /// A module has this version from now on.
    fn set_version(&self, shared: &Shared, name: &str, version: &str) -> Result<(), ReportError> {
        let mut state = self.state.lock();
        let module =
            state.modules.iter_mut().find(|module| module.name == name).ok_or_else(|| unacceptable("module"))?;
        if module.version == version {
            return if state.told { Ok(()) } else { state.tell(shared) };
        }
        let before = std::mem::replace(&mut module.version, version.to_owned());
        state.wanted = true;
        let told = state.tell(shared);
        if matches!(told, Err(ReportError::Invalid(_)))
            && let Some(module) = state.modules.iter_mut().find(|module| module.name == name)
        {
            module.version = before;
        }
        told
    }

    fn has(&self, name: &str) -> bool {
        self.state.lock().modules.iter().any(|module| module.name == name)
    }

    /// Lets the only upgrade there may be begin, if the queue has a place for the end of each module, whatever else is
    /// reported meanwhile.
    fn begin(&self, shared: &Shared) -> Result<(), &'static str> {
        let mut state = self.state.lock();
        match shared.outbox.lock().has_reserve() {
            _ if state.busy => Err("another upgrade is under way"),
            false => Err("the end of another upgrade is not told yet"),
            true => {
                state.busy = true;
                Ok(())
            }
        }
    }

    /// Queues the end of an upgrade that this run of the program was not asked for. The places of one that is under way are
    /// left to that.
    fn enqueue_end(&self, shared: &Shared, message: Message) -> Result<oneshot::Receiver<()>, ReportError> {
        let state = self.state.lock();
        if state.busy { shared.enqueue(GLOBAL, message) } else { shared.enqueue_end(message) }
    }

    fn end(&self) {
        self.state.lock().busy = false;
    }
}

impl State {
    fn tell(&mut self, shared: &Shared) -> Result<(), ReportError> {
        let body = inform(&shared.profile.firmware, &self.modules)?;
        self.told = false;
        let topic = topic(&shared.profile.serial, ota::INFORM, "report").map_err(InvalidEvent::from)?;
        self.telling = Some(shared.enqueue(GLOBAL, Message { topic, body })?);
        self.told = true;
        Ok(())
    }
}

fn inform(whole: &str, modules: &[Module]) -> Result<Box<[u8]>, InvalidEvent> {
    let mut body = Vec::new();
    Inform { modules: modules.to_vec(), version: whole.to_owned() }.write(&mut body)?;
    if body.len() > MAX_EVENT {
        return Err(InvalidEvent::TooLarge(body.len()));
    }
    Ok(body.into())
}

/// The topic of a message about firmware.
pub(crate) fn topic(serial: &Serial, method: &str, msg_type: &str) -> Result<Box<str>, TopicError> {
    let (serial, module) = (serial.as_str(), ota::MODULE);
    Topic::Module { serial, sub: GLOBAL, index: "0", resource: GLOBAL, module, method, msg_type }
        .encode()
        .map(Into::into)
}

fn unacceptable(member: &'static str) -> ReportError {
    InvalidEvent::Body(BodyError::Unacceptable(member)).into()
}

/// Takes an order to upgrade. Gives what carries it out, if it is accepted, and the body of the answer.
pub(crate) fn take(
    shared: &Arc<Shared>,
    body: &[u8],
) -> (Option<impl Future<Output = Box<[u8]>> + Send + use<>>, Box<[u8]>) {
    let (upgrading, reply) = match accept(shared, body) {
        Ok(upgrading) => (Some(upgrading), UpgradeReply::accepted()),
        Err(reason) => (None, UpgradeReply::refused(reason)),
    };
    let accepted = upgrading.is_some();
    shared.count(|count| if accepted { &count.upgrades } else { &count.upgrades_refused });
    let mut body = Vec::new();
    reply.write(&mut body).expect("a reason is a short sentence");
    (upgrading, body.into())
}

fn accept(shared: &Arc<Shared>, body: &[u8]) -> Result<impl Future<Output = Box<[u8]>> + Send + use<>, String> {
    let able = shared.firmware.as_ref().and_then(|firmware| Some((firmware, firmware.handler.clone()?)));
    let (firmware, handler) = able.ok_or("the device takes no upgrades")?;
    let upgrade = Upgrade::parse(body).map_err(|error| format!("the order is wrong: {error}"))?;
    if upgrade.files.is_empty() {
        return Err("the order names no file".to_owned());
    }
    if !upgrade.files.iter().all(|file| firmware.has(&file.module)) {
        return Err("the device has no such module".to_owned());
    }
    firmware.begin(shared)?;
    let under_way = UnderWay::new(shared, &upgrade);
    Ok(async move {
        let outcome = handler(upgrade, under_way.progress.clone()).await;
        under_way.end(outcome);
        // The answer went out before.
        Box::default()
    })
}

/// A module of a device's firmware. Made by [`Device::firmware_module`](crate::Device::firmware_module).
#[derive(Clone)]
pub struct FirmwareModule<'a> {
    shared: &'a Shared,
    firmware: &'a Firmware,
    name: Box<str>,
}

impl<'a> FirmwareModule<'a> {
    pub(crate) fn of(shared: &'a Shared, name: &str) -> Option<Self> {
        let firmware = shared.firmware.as_ref().filter(|firmware| firmware.has(name))?;
        Some(Self { shared, firmware, name: name.into() })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version it has.
    #[must_use]
    pub fn version(&self) -> String {
        // No module goes away.
        self.firmware.version(&self.name).unwrap_or_default()
    }

    /// It has this version from now on, up to 64 bytes. The platform is told by itself.
    ///
    /// # Errors
    /// [`ReportError::Invalid`]: the version is too long, and the former one stays. [`ReportError::Full`]: the platform is
    /// told once there is room. [`ReportError::Stopped`].
    pub fn set_version(&self, version: &str) -> Result<(), ReportError> {
        self.firmware.set_version(self.shared, &self.name, version)
    }

    /// Tells the platform how far an upgrade is that this run of the program was not asked for, and waits until the platform
    /// has stored it: after a restart, that the new firmware runs ([`Status::Succeeded`], 100).
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn report(&self, status: Status, percent: u8) -> Result<(), ReportError> {
        self.send(&step(&self.name, status, percent)).await
    }

    /// Tells the platform that such an upgrade has failed: after a restart, that the device went back to its old firmware
    /// ([`UpgradeCode::Recovered`](crate::UpgradeCode::Recovered)).
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn fail(&self, error: &UpgradeError) -> Result<(), ReportError> {
        self.send(&failure(&self.name, error)).await
    }

    async fn send(&self, said: &Progress) -> Result<(), ReportError> {
        let message = message(&self.shared.profile.serial, said)?;
        let acknowledged = match said.status.is_final() {
            true => self.firmware.enqueue_end(self.shared, message)?,
            false => self.shared.enqueue(GLOBAL, message)?,
        };
        self.shared.outcome(acknowledged).await
    }
}

impl fmt::Debug for FirmwareModule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirmwareModule").field("name", &self.name).field("version", &self.version()).finish()
    }
}

#[cfg(test)]
mod tests;
