//! Desired values: durable first, then on their way to the device, with what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout, timeout_at};
use vestibule_store::{DevicePath, StoreError};

use crate::audit::Deed;
use crate::caller::Caller;
use crate::device::Device;
use crate::json::{depth, path_error};
use crate::link::{Answer, NotSent, Reply, SetAttribute};
use crate::platform::{Platform, to_the_end};
use crate::presence::live_link;
use crate::twin::{self, Desired, Leaf, MAX_VALUE, SetOutcome};

const MAX_DEPTH: usize = 32;
const LIFETIMES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3600);
/// How long a device's answer counts; after it the value is pending until the device comes again or reports it.
const ANSWER: Duration = Duration::from_secs(30);

/// A value that somebody wishes an attribute to have.
#[derive(Debug, Clone)]
pub struct Set<'a> {
    /// Which attribute of which part of the device.
    pub path: DevicePath,
    /// JSON text of one value, at most 64 KiB and 32 levels.
    pub value: &'a str,
    /// Only when the attribute is at this version still; 0: only when it does not exist.
    pub if_match: Option<u64>,
    /// How long to wait for what becomes of it, while the device is there.
    pub wait: Duration,
    /// For how long the wish holds, 1 s to 366 d; `None`: until it is fulfilled, refused or replaced.
    pub expires_in: Option<Duration>,
    /// Who wishes it.
    pub by: &'a Caller,
}

/// A wish on its way into the twin.
struct Wish {
    value: Box<RawValue>,
    if_match: Option<u64>,
    expires_in: Option<i64>,
}

/// Why a value was not taken. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// A value is not acceptable.
    #[error("{field} {reason}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The attribute has changed meanwhile.
    #[error("the attribute is at version {version} by now")]
    Stale {
        /// Its version; 0 when it does not exist.
        version: u64,
    },
    /// The device has as many attributes, or as much in them, as it may have.
    #[error("the device has its limit of 4096 attributes or 4 MiB of values")]
    Full,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Platform {
    /// Every attribute of the device, by path.
    pub fn attributes(&self, device: &Device) -> Vec<Leaf> {
        let mut leaves = device.twin.lock().as_ref().map(|twin| twin.all()).unwrap_or_default();
        let now = self.clock().now_ms();
        leaves.iter_mut().for_each(|leaf| leaf.settle(now));
        leaves
    }

    /// One attribute of the device.
    pub fn attribute(&self, device: &Device, path: &DevicePath) -> Option<Leaf> {
        let mut leaf = device.twin.lock().as_ref().and_then(|twin| twin.get(path))?;
        leaf.settle(self.clock().now_ms());
        Some(leaf)
    }

    /// Wishes an attribute to have a value. The wish is durable before it is sent; a device that is away is told when
    /// it comes back, and a newer wish replaces an older one. Returns the attribute as it is when the outcome is known,
    /// the device is away, or the wait is over.
    ///
    /// # Errors
    /// [`SetError`]: nothing has changed.
    pub async fn set(self: &Arc<Self>, device: &Arc<Device>, set: Set<'_>) -> Result<Leaf, SetError> {
        let value = check(&set)?;
        let until = Instant::now() + set.wait;
        let path = Arc::new(set.path);
        let (platform, target, at) = (Arc::clone(self), Arc::clone(device), Arc::clone(&path));
        let (if_match, by) = (set.if_match, set.by.clone());
        let expires_in = set.expires_in.map(|length| i64::try_from(length.as_millis()).unwrap_or(i64::MAX));
        let (wished, sent, mut changes) = to_the_end(async move {
            let changes = target.twin.lock().get_or_insert_default().watch();
            let wish = Wish { value, if_match, expires_in };
            let wished = platform.wish(&target, &at, wish, &by).await?;
            let sent = platform.send_desired(&target, &wished);
            let DevicePath { resource, index, area, name } = &*at;
            let detail = json!({"resource": resource, "index": index, "area": area, "name": name});
            let device = Some(&*target);
            platform
                .auditor()
                .write(Deed { actor: by.name(), action: "attribute.set", device, detail, ok: true })
                .await;
            Ok::<_, SetError>((wished, sent, changes))
        })
        .await?;
        loop {
            let leaf = self.attribute(device, &path).unwrap_or_else(|| wished.clone());
            let version = leaf.desired.as_ref().map_or(0, |desired| desired.version);
            if version != wished.version {
                // Somebody wished for something else meanwhile: what has become of that is another's business.
                let mut mine = Leaf { desired: wished.desired, ..leaf };
                if let Some(desired) = &mut mine.desired {
                    desired.outcome = SetOutcome::Superseded;
                }
                return Ok(mine);
            }
            let is_pending = leaf.desired.as_ref().is_some_and(|desired| desired.outcome == SetOutcome::Pending);
            if !sent || !is_pending || !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
                return Ok(leaf);
            }
        }
    }

    /// What the device has not been told yet, or has not answered.
    pub fn desired(&self, device: &Device) -> Vec<Leaf> {
        let mut leaves = self.attributes(device);
        leaves.retain(|leaf| leaf.desired.as_ref().is_some_and(|desired| desired.outcome == SetOutcome::Pending));
        leaves
    }

    /// Sends everything that is pending to a device that has come back and does not ask for it by itself.
    pub fn send_pending(self: &Arc<Self>, device: &Arc<Device>) {
        for leaf in self.desired(device) {
            self.send_desired(device, &leaf);
        }
    }

    async fn wish(
        &self,
        device: &Arc<Device>,
        path: &Arc<DevicePath>,
        wish: Wish,
        by: &Caller,
    ) -> Result<Leaf, SetError> {
        let Wish { value, if_match, expires_in } = wish;
        let wishes = Arc::clone(&device.twin.lock().get_or_insert_default().wishes);
        // One after the other, and in the twin only once it is durable: nobody sees, and no device is sent, what may be
        // gone after a power cut.
        let _turn = wishes.lock().await;
        if device.is_removed() {
            return Err(StoreError::UnknownDevice.into());
        }
        by.still_sees(device)?;
        let time = self.clock().now_ms();
        let mut wished = {
            let mut twin = device.twin.lock();
            let twin = twin.get_or_insert_default();
            let present = twin.get(path);
            let version = present.as_ref().map_or(0, |leaf| leaf.version);
            if if_match.is_some_and(|expected| expected != version) {
                return Err(SetError::Stale { version });
            }
            if !twin.has_room_for(path, value.get().len()) {
                return Err(SetError::Full);
            }
            let (version, after) = (version + 1, self.journal().appended().get());
            let expires = expires_in.map(|length| time.saturating_add(length));
            let by = by.name().into();
            let desired = Some(Desired { value, time, version, by, after, expires, outcome: SetOutcome::Pending });
            Leaf { path: Arc::clone(path), version, reported: None, desired }
        };
        self.control().put_leaves(vec![twin::row(device.id, &wished)], None).await?;
        let leaf = {
            let mut twin = device.twin.lock();
            self.twins().note(device);
            twin.get_or_insert_default().change(path, |leaf| {
                if let Some(desired) = &mut wished.desired {
                    // A report may have come meanwhile.
                    desired.version = leaf.version;
                }
                leaf.desired = wished.desired.take();
            })
        }
        .ok_or(SetError::Full)?;
        metrics::counter!("vestibule_desired_total").increment(1);
        Ok(leaf)
    }

    /// Whether it was sent, so that an answer may come.
    fn send_desired(self: &Arc<Self>, device: &Arc<Device>, leaf: &Leaf) -> bool {
        let (Some(link), Some(desired)) = (live_link(device), &leaf.desired) else { return false };
        let (reply, answer) = Reply::new();
        let set =
            SetAttribute { path: &leaf.path, value: desired.value.get(), version: desired.version, ttl: ANSWER, reply };
        match link.set(set) {
            Ok(()) => {}
            Err(NotSent::NotAddressable(reason) | NotSent::Unacceptable(reason)) => {
                let refused = Answer::Failed { code: -1, message: Some(reason.into()) };
                self.desired_answered(device, &leaf.path, desired.version, refused);
                return false;
            }
            Err(NotSent::Unsupported) => {
                let message = Some("the device's protocol cannot set attributes".into());
                self.desired_answered(device, &leaf.path, desired.version, Answer::Failed { code: -1, message });
                return false;
            }
            Err(NotSent::TooLarge) => {
                let message = Some("the value is larger than the device can take".into());
                self.desired_answered(device, &leaf.path, desired.version, Answer::Failed { code: -1, message });
                return false;
            }
            // The device is told when it comes back.
            Err(NotSent::Ending | NotSent::Busy) => return false,
        }
        let (platform, device) = (Arc::clone(self), Arc::clone(device));
        let (path, version) = (Arc::clone(&leaf.path), desired.version);
        tokio::spawn(async move {
            // Without an answer it stays pending: setting is no operation, and may be repeated (osap-wire 9.5).
            if let Ok(Ok(answer)) = timeout(ANSWER, answer).await {
                platform.desired_answered(&device, &path, version, answer);
            }
        });
        true
    }

    fn desired_answered(&self, device: &Arc<Device>, path: &Arc<DevicePath>, version: u64, answer: Answer) {
        let outcome = match answer {
            Answer::Done(_) => SetOutcome::Applied,
            Answer::Failed { code, message } => SetOutcome::Refused { code, message },
        };
        let mut twin = device.twin.lock();
        let Some(twin) = twin.as_mut() else { return };
        let waits = |desired: &Desired| desired.version == version && desired.outcome == SetOutcome::Pending;
        if twin.get(path).and_then(|leaf| leaf.desired).is_some_and(|desired| waits(&desired)) {
            self.twins().note(device);
            twin.change(path, |leaf| {
                if let Some(desired) = &mut leaf.desired {
                    desired.outcome = outcome;
                }
            });
        }
    }
}

fn check(set: &Set<'_>) -> Result<Box<RawValue>, SetError> {
    let invalid = |field, reason| Err(SetError::Invalid { field, reason });
    if let Some((field, reason)) = path_error(&set.path) {
        return invalid(field, reason);
    }
    if set.expires_in.is_some_and(|length| !LIFETIMES.contains(&length)) {
        return invalid("expires_in", "must be between 1 and 31622400 seconds");
    }
    if set.value.len() > MAX_VALUE {
        return invalid("value", "is longer than 65536 bytes");
    }
    if depth(set.value.as_bytes()) > MAX_DEPTH {
        return invalid("value", "is nested more than 32 levels deep");
    }
    match serde_json::from_str(set.value) {
        Ok(value) => Ok(value),
        Err(_) => invalid("value", "must be one JSON value"),
    }
}
