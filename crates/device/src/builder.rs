//! Configuration of a device, checked before anything runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use osap::Serial;
use osap::das::ota::Upgrade;
use osap::das::topic::{GLOBAL, TopicError};
use osap::id::SerialError;
use osap::key::CodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::cache::{CacheError, EventCache, MIN_BYTES, Options};
use crate::child::{ChildBuilder, ChildError};
use crate::clock::{Clock, SystemClock};
use crate::device::Device;
use crate::dial::{Dial, TcpDial};
use crate::driver::now;
use crate::firmware::{Declared, UpgradeError, UpgradeProgress};
use crate::hub::Hub;
use crate::modern::InvalidAnchor;
use crate::operation::{OperationError, OperationPath, Operations};
use crate::outbox::Limits;
use crate::pass::PassThrough;
use crate::profile::Profile;
use crate::shared::Shared;
use crate::steering::{Hooks, PresenceChallenge};
use crate::storage::{Storage, StorageError};

mod suites;

pub(crate) use suites::Speech;

/// The shortest and the longest keep-alive, in seconds.
const KEEP_ALIVE: std::ops::RangeInclusive<u16> = 5..=3600;

/// The least bytes in memory of a device with a cache: four of the largest events.
const MIN_MEMORY: usize = 64 * 1024;

/// The longest time an event may be in memory only while there is a connection.
const MAX_GRACE: Duration = Duration::from_secs(10);

/// The longest text about the device in the login record, in bytes.
const MAX_TEXT: usize = 64;

/// Configures a [`Device`]. Made by [`Device::builder`].
pub struct Builder {
    serial: String,
    code: Zeroizing<String>,
    lbs: Option<String>,
    storage: Option<Arc<dyn Storage>>,
    clock: Arc<dyn Clock>,
    dial: Arc<dyn Dial>,
    keep_alive: u16,
    limits: Limits,
    firmware: String,
    device_type: String,
    mac: String,
    cache: Option<Box<dyn EventCache>>,
    cache_options: Options,
    operations: Operations,
    modules: Declared,
    hooks: Hooks,
    suites: suites::Settings,
    /// The device is a hub, and these are its children.
    children: Option<Vec<ChildBuilder>>,
}

/// Why a device cannot start. All but [`StartError::Storage`] are the caller's to put right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The serial is not one.
    #[error("the serial is not valid")]
    Serial(#[from] SerialError),
    /// The verification code is not one.
    #[error("the verification code is not valid")]
    Code(#[from] CodeError),
    /// No LBS was named, or not as `host:port`, `osaps://host:port` or `osap://host:port`.
    #[error("the address of the LBS has to be osaps://host:port or osap://host:port")]
    LbsAddress,
    /// The device speaks no suite that could be spoken at that address.
    #[error("none of the suites of the device is spoken at that address: type 4 at osaps://, the others at osap://")]
    Suites,
    /// Nothing vouches for the server: a device does not come in over TLS without an anchor.
    #[error("the device has no anchor: nothing tells a server of its platform from any other")]
    NoAnchor,
    /// An anchor is none, or there are more than two.
    #[error("the anchors cannot be used")]
    Anchor(#[from] InvalidAnchor),
    /// Over plain TCP a device comes in with a ticket alone, and it has none; over TLS it has no code either.
    #[error("the device has no ticket, certificate or code to come in with")]
    NoCredential,
    /// No storage was named. A device that forgets its DevID cannot come back by itself.
    #[error("the device needs a storage for its credentials")]
    NoStorage,
    /// A number or text is outside of what the protocol allows.
    #[error("{name} {rule}")]
    Setting {
        /// The method of the builder.
        name: &'static str,
        /// What it has to be.
        rule: &'static str,
    },
    /// The resource, area or name of an operation or attribute does not fit into a topic.
    #[error("the operation or attribute {name} cannot be addressed")]
    Operation {
        /// `resource/index/area/name`.
        name: String,
        /// What is wrong with it.
        source: TopicError,
    },
    /// A child is not one, or cannot be added.
    #[error("the child {serial} cannot be added")]
    Child {
        /// Its serial.
        serial: String,
        /// What is wrong with it.
        source: ChildError,
    },
    /// The storage cannot be read.
    #[error("the stored credentials cannot be read")]
    Storage(#[source] StorageError),
    /// The cache belongs to another device or a newer program, or is in use. One that cannot be read for now is no error:
    /// see [`Device::cache_status`].
    #[error("the cache of events cannot be used")]
    Cache(#[source] CacheError),
    /// Called outside of a tokio runtime.
    #[error("a device starts inside of a tokio runtime")]
    NoRuntime,
}

impl Builder {
    pub(crate) fn new(serial: &str, code: &str) -> Self {
        Self {
            serial: serial.to_owned(),
            code: Zeroizing::new(code.to_owned()),
            lbs: None,
            storage: None,
            clock: Arc::new(SystemClock),
            dial: Arc::new(TcpDial),
            keep_alive: 30,
            limits: Limits { events: 1024, bytes: 1024 * 1024, window: 16 },
            firmware: "0.0.0".to_owned(),
            device_type: "device".to_owned(),
            mac: String::new(),
            cache: None,
            cache_options: Options {
                events: 10_000,
                bytes: 16 * 1024 * 1024,
                age: Duration::from_secs(7 * 24 * 60 * 60),
                grace: Duration::from_millis(250),
                unwritten: (0, 0),
                ahead: (0, 0),
            },
            operations: Operations::default(),
            modules: Declared::default(),
            hooks: Hooks::default(),
            suites: suites::Settings::default(),
            children: None,
        }
    }

    /// The LBS, as `osaps://host:port` (TLS; also without a scheme) or `osap://host:port` (plain TCP); an IPv6 address in
    /// brackets. Required.
    #[must_use]
    pub fn lbs(mut self, address: impl Into<String>) -> Self {
        self.lbs = Some(address.into());
        self
    }

    /// Where DevID and tickets are kept. Required.
    #[must_use]
    pub fn storage(mut self, storage: impl Storage) -> Self {
        self.storage = Some(Arc::new(storage));
        self
    }

    /// The clock for the time of events; [`SystemClock`] unless set.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How connections are opened; [`TcpDial`] unless set.
    #[must_use]
    pub fn dial(mut self, dial: impl Dial) -> Self {
        self.dial = Arc::new(dial);
        self
    }

    /// Seconds between two signs of life, 5 to 3600; 30 unless set. A dead connection is noticed
    /// after twice that.
    #[must_use]
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// Bounds of the queue of unacknowledged events, in events and in bytes of topics and bodies;
    /// 1,024 and 1 MiB unless set.
    #[must_use]
    pub fn queue(mut self, events: usize, bytes: usize) -> Self {
        self.limits.events = events;
        self.limits.bytes = bytes;
        self
    }

    /// Where events outlive the program and a loss of power until the platform has acknowledged them; nowhere unless set.
    /// The queue then bounds what is in memory only, and has to hold 64 KiB.
    #[must_use]
    pub fn cache(mut self, cache: impl EventCache) -> Self {
        self.cache = Some(Box::new(cache));
        self
    }

    /// Bounds of the cache: events, bytes on the medium (at least 256 KiB; acknowledged events count until their segment
    /// is taken away) and age. 10,000 events, 16 MiB and 7 days unless set. What is beyond is dropped, the oldest first,
    /// and the platform is told how many with the event `global/0/sdk/events_dropped`. The place of each event, about 60
    /// bytes, is kept in memory.
    ///
    /// The age should be less than the retention of the platform, which tells repetitions by it. It counts what passes while
    /// the program runs, whatever is done to the wall clock; and of the time it does not run what the wall clock says, up
    /// to a day for each stop, if that shows a time after 2020 before and after and has not gone back.
    #[must_use]
    pub fn cache_bounds(mut self, events: usize, bytes: u64, age: Duration) -> Self {
        (self.cache_options.events, self.cache_options.bytes, self.cache_options.age) = (events, bytes, age);
        self
    }

    /// How long an event may wait for its acknowledgement before it is written to the cache, up to 10 seconds; 250 ms
    /// unless set. Without a connection it is written at once. What is acknowledged in time costs no write.
    #[must_use]
    pub fn cache_grace(mut self, grace: Duration) -> Self {
        self.cache_options.grace = grace;
        self
    }

    /// Events on the wire at the same time, 1 to 128; 16 unless set.
    #[must_use]
    pub fn window(mut self, events: usize) -> Self {
        self.limits.window = events;
        self
    }

    /// The firmware version the platform is told, up to 64 bytes: that of the whole, where there are modules.
    #[must_use]
    pub fn firmware(mut self, version: impl Into<String>) -> Self {
        self.firmware = version.into();
        self
    }

    /// A module of the firmware with the version it has (osap-wire 10.3), up to 64. The platform is told after each login, and
    /// when the version changes. A name has 1 to 64 bytes without control characters, `/`, `+` and `#`, a version up to 64
    /// bytes. A module of the same name gets the new version.
    #[must_use]
    pub fn firmware_module(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.modules.module(name.into(), version.into());
        self
    }

    /// Carries out orders of the platform to fetch other firmware (osap-wire 10.3), of one or more of the modules of
    /// [`firmware_module`](Self::firmware_module). A second handler replaces the first; without one, orders are refused.
    ///
    /// The SDK answers the order, and says how the upgrade ended. All between is the program's: to fetch the files, which are
    /// named without a scheme, to compare size and digest, to write them, to restart. It says how far it is with the
    /// [`UpgradeProgress`] it is given. An order is carried out once, also when it is sent twice, and one at a time: another
    /// one is refused meanwhile, and so is one that is not as 10.3 says or names a module the device has not.
    ///
    /// When the handler returns `Ok`, modules that have not ended have succeeded, but for those whose last step was
    /// [`Rebooting`](crate::UpgradeStatus::Rebooting): of these the program says so after the restart, with
    /// [`Device::firmware_module`]. With an error, and when the handler panics, they have failed.
    #[must_use]
    pub fn on_upgrade<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(Upgrade, UpgradeProgress) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), UpgradeError>> + Send + 'static,
    {
        self.modules.on_upgrade(handler);
        self
    }

    /// The product the device is one of, up to 64 bytes.
    #[must_use]
    pub fn device_type(mut self, device_type: impl Into<String>) -> Self {
        self.device_type = device_type.into();
        self
    }

    /// The MAC address the platform is told, up to 64 bytes; none unless set.
    #[must_use]
    pub fn mac(mut self, mac: impl Into<String>) -> Self {
        self.mac = mac.into();
        self
    }

    /// Carries out an operation of this device when the platform asks for it: `handler` is given the input and answers
    /// with the output, both JSON through serde. `()` and `Option` take an operation without input; an input of
    /// another type is refused before the handler sees it.
    ///
    /// An operation is carried out once, also when it is sent twice. Up to 8 run at the same time and 32 wait; more
    /// are refused. One that waited longer than its sender does is dropped. The answer is sent on the connection the
    /// operation came in on; when that is lost, the handler goes on and the platform calls the outcome unknown. A
    /// handler that panics is answered as a failure. A second handler for the same operation replaces the first.
    #[must_use]
    pub fn operation<In, Out, F, Fut>(mut self, resource: &str, index: u16, area: &str, name: &str, handler: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Fn(In) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Out, OperationError>> + Send + 'static,
    {
        let path = OperationPath::new(GLOBAL, resource, index, area, name);
        self.operations.add(path, handler);
        self
    }

    /// Lets the platform set an attribute of this device: `handler` is given the value and takes or refuses it. A value
    /// that was taken is reported by itself. What the platform wished while the device was away arrives after the
    /// login. A second handler for the same attribute replaces the first. Bounds and repetitions are as for operations.
    #[must_use]
    pub fn attribute<In, F, Fut>(mut self, resource: &str, index: u16, area: &str, name: &str, handler: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        F: Fn(In) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), OperationError>> + Send + 'static,
    {
        let path = OperationPath::new(GLOBAL, resource, index, area, name);
        self.operations.add_attribute(path, handler);
        self
    }

    /// Takes what an application sends to this device, bytes that the platform does not read. `handler` is called on the
    /// device's own task and must not block; a message that is sent twice reaches it once. A second handler replaces the
    /// first.
    #[must_use]
    pub fn on_pass(mut self, handler: impl Fn(PassThrough) + Send + Sync + 'static) -> Self {
        self.operations.set_pass(handler);
        self
    }

    /// Is told whose the device is from now on; `None` when it was unbound. Called on the device's own task, it must not
    /// block.
    #[must_use]
    pub fn on_binding(mut self, hook: impl Fn(Option<&str>) + Send + Sync + 'static) -> Self {
        self.hooks.binding = Some(Box::new(hook));
        self
    }

    /// Is told that somebody has to prove that they are at the device; see [`PresenceChallenge`]. Called on the device's
    /// own task, it must not block. Without it a challenge is answered as a failure.
    #[must_use]
    pub fn on_challenge(mut self, hook: impl Fn(PresenceChallenge) + Send + Sync + 'static) -> Self {
        self.hooks.challenge = Some(Box::new(hook));
        self
    }

    /// A hub, with or without children so far.
    #[must_use]
    pub fn hub(mut self) -> Self {
        self.children.get_or_insert_default();
        self
    }

    /// A child the device speaks for from the start; more may come and go with [`Device::add_child`] and
    /// [`Device::remove_child`]. The device then is a hub.
    #[must_use]
    pub fn child(mut self, child: ChildBuilder) -> Self {
        self.children.get_or_insert_default().push(child);
        self
    }

    /// Starts the device on the tokio runtime this is called in. From here on it works on its own;
    /// nothing has been sent yet when this returns.
    ///
    /// # Errors
    /// [`StartError`]. A storage whose content is damaged is none: the device then starts as a new
    /// one and [`Device::storage_damage`] says so.
    pub fn start(self) -> Result<Device, StartError> {
        let serial = Serial::new(&self.serial)?;
        let (address, speech) = self.suites.build(self.lbs.as_deref().ok_or(StartError::LbsAddress)?, &self.code)?;
        let (lbs_host, lbs_port) = split_address(address).ok_or(StartError::LbsAddress)?;
        let storage = self.storage.ok_or(StartError::NoStorage)?;
        let limits = self.limits;
        check(KEEP_ALIVE.contains(&self.keep_alive), "keep_alive", "is 5 to 3600 seconds")?;
        check(limits.events > 0 && limits.bytes > 0, "queue", "has room for something")?;
        check((1..=128).contains(&limits.window), "window", "is 1 to 128 events")?;
        let cache = self.cache.map(|cache| (cache, self.cache_options));
        let cache = match cache {
            Some((cache, options)) => {
                check(limits.bytes >= MIN_MEMORY, "queue", "has at least 64 KiB beside a cache")?;
                let good = options.events > 0 && options.bytes >= MIN_BYTES && !options.age.is_zero();
                check(good, "cache_bounds", "has room for something, and at least 256 KiB")?;
                check(options.grace <= MAX_GRACE, "cache_grace", "is up to 10 seconds")?;
                let unwritten = (limits.events, limits.bytes);
                // Enough to fill the wire while more is read; others share the queue.
                let ahead = ((4 * limits.window).min(limits.events.div_ceil(2)), limits.bytes / 2);
                Some((cache, Options { unwritten, ahead, ..options }))
            }
            None => None,
        };
        for (name, text) in [("firmware", &self.firmware), ("device_type", &self.device_type), ("mac", &self.mac)] {
            check(text.len() <= MAX_TEXT, name, "has up to 64 bytes")?;
        }
        let profile = Profile {
            serial,
            lbs_host: lbs_host.into(),
            lbs_port,
            keep_alive: self.keep_alive,
            firmware: self.firmware.into(),
            device_type: self.device_type.into(),
            mac: self.mac.into(),
        };
        for path in self.operations.paths() {
            path.check(&profile.serial).map_err(|source| StartError::Operation {
                name: format!("{}/{}/{}/{}", path.resource, path.index, path.area, path.name),
                source,
            })?;
        }
        let firmware = self.modules.build(&profile.firmware);
        let firmware = firmware.map_err(|(name, rule)| StartError::Setting { name, rule })?;
        let mut shared = Shared::new(profile, self.clock, Arc::new(self.operations), limits);
        shared.dial = self.dial;
        shared.hooks = self.hooks;
        shared.firmware = firmware;
        if let Some(children) = self.children {
            let mut hub = Box::<Hub>::default();
            for child in children {
                let serial = child.serial().to_owned();
                let added =
                    child.build(&shared.profile.serial).and_then(|(serial, entry)| hub.add(now(), serial, entry));
                added.map_err(|source| StartError::Child { serial, source })?;
            }
            *shared.hub.get_mut() = Some(hub);
        }
        Device::start(shared, speech, storage, cache)
    }
}

fn check(good: bool, name: &'static str, rule: &'static str) -> Result<(), StartError> {
    if good { Ok(()) } else { Err(StartError::Setting { name, rule }) }
}

/// `host:port`, `[v6]:port`. The host is at most as long as a DNS name.
fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(host) => host,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|&port| port != 0)?;
    (!host.is_empty() && host.len() <= 253).then_some((host, port))
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("serial", &self.serial).field("lbs", &self.lbs).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
