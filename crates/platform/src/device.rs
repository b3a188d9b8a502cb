//! A device: the one noun of the platform.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use vestibule_store::{CodeUse, DeviceId, DeviceRow, KnownBy, SealedCode};

use crate::clock::Clock;
use crate::credentials::Held;
use crate::describe::Description;
use crate::facts::{Fact, Facts};
use crate::org::OrgPath;
use crate::presence::{Presence, PresenceCell};
use crate::twin::Twin;

/// The longest window for enrolment.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// The family of protocols a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Family {
    /// Open Service Access Protocol.
    Osap,
}

impl Family {
    /// The family's name in the API and in storage.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::Osap => "osap",
        }
    }

    /// The family of this name.
    pub fn parse(name: &str) -> Option<Family> {
        (name == "osap").then_some(Family::Osap)
    }
}

/// A registered device and what is known of it right now.
pub struct Device {
    /// Our identity of the device; never changes.
    pub id: DeviceId,
    /// The device's own identity: for OSAP its serial.
    pub serial: Arc<str>,
    /// The protocol family it was registered for.
    pub family: Family,
    /// The product it is an instance of, when somebody said so.
    pub product: Option<String>,
    /// When it was registered, in milliseconds since 1970.
    pub created: i64,
    enrol_until: AtomicI64,
    /// The same by the steady clock, which is what counts.
    window_ends: AtomicI64,
    /// When it was opened, by the steady clock; long ago, if that was before the start.
    window_opened: AtomicI64,
    disabled: AtomicBool,
    modern: AtomicBool,
    tls_only: AtomicBool,
    code_use: Mutex<CodeUse>,
    certificate: Mutex<Option<bool>>,
    pardons: AtomicU32,
    /// What was noted of the roots it knows, as a digest; 0: nothing yet since the start.
    knows: AtomicU64,
    parent: Mutex<Option<DeviceId>>,
    description: Mutex<Arc<Description>>,
    removed: AtomicBool,
    pub(crate) presence: Mutex<PresenceCell>,
    pub(crate) facts: Mutex<Facts>,
    /// Most devices have attributes, some have none and own no memory for them.
    pub(crate) twin: Mutex<Option<Box<Twin>>>,
    /// Read through [`crate::Platform::secrets`]; the lock also orders changes of one device's credentials.
    pub(crate) secrets: Arc<tokio::sync::Mutex<Held>>,
}

impl Device {
    pub(crate) fn from_row(row: DeviceRow, new_code: Option<SealedCode>, clock: &dyn Clock) -> Option<Device> {
        let now = clock.now_ms();
        // What passed while the process was not there only the wall clock knows. However it was set, no window becomes longer
        // than one can be.
        let left = row.enrol_until.saturating_sub(now).clamp(0, LONGEST_WINDOW.as_millis() as i64);
        let description = Description {
            name: row.name,
            // What cannot be read is nobody's place but of those who see everything.
            org: OrgPath::parse(&row.org).unwrap_or_else(|_| OrgPath::root()),
            labels: serde_json::from_str(&row.labels).unwrap_or_default(),
            version: row.version,
        };
        Some(Device {
            id: row.id,
            serial: row.serial.into(),
            family: Family::parse(&row.family)?,
            product: row.product,
            created: row.created,
            enrol_until: AtomicI64::new(row.enrol_until),
            window_ends: AtomicI64::new(clock.steady_ms().saturating_add(left)),
            window_opened: AtomicI64::new(i64::MIN),
            disabled: AtomicBool::new(row.disabled),
            modern: AtomicBool::new(row.modern),
            tls_only: AtomicBool::new(row.tls_only),
            code_use: Mutex::new(row.code_use),
            certificate: Mutex::new(row.certificate),
            pardons: AtomicU32::new(0),
            knows: AtomicU64::new(0),
            parent: Mutex::new(row.parent),
            description: Mutex::new(Arc::new(description)),
            removed: AtomicBool::new(false),
            presence: Mutex::new(PresenceCell::restore(row.presence.as_deref(), now)),
            facts: Mutex::new(Facts::restore(row.last_failure.as_deref())),
            twin: Mutex::new(None),
            secrets: Arc::new(tokio::sync::Mutex::new(new_code.map_or(Held::Stored, Held::New))),
        })
    }

    /// Whether the device is there, since when, and why not.
    pub fn presence(&self) -> Presence {
        self.presence.lock().shown()
    }

    /// The last connection facts, oldest first.
    pub fn facts(&self) -> Vec<Fact> {
        self.facts.lock().recent()
    }

    /// The last refusal or failure; survives a restart.
    pub fn last_failure(&self) -> Option<Fact> {
        self.facts.lock().last_failure()
    }

    /// What people say of it: its name, where it belongs, labels.
    pub fn description(&self) -> Arc<Description> {
        Arc::clone(&self.description.lock())
    }

    /// Where it belongs in the organisation.
    pub fn org(&self) -> OrgPath {
        self.description.lock().org.clone()
    }

    /// To be called by the registry, which finds devices by their place.
    pub(crate) fn set_description(&self, description: Arc<Description>) {
        *self.description.lock() = description;
    }

    /// Drops the secrets from memory, unless they are being read or changed this very moment.
    pub(crate) fn forget_secrets(&self) {
        if let Ok(mut held) = self.secrets.try_lock() {
            *held = Held::Stored;
        }
    }

    /// Whether an operator has shut the device out.
    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Acquire)
    }

    /// Whether the device has come in by a modern suite: the legacy ones are closed to it (osap-wire 13.4).
    pub fn is_modern(&self) -> bool {
        self.modern.load(Ordering::Acquire)
    }

    /// Whether an operator lets the device in over TLS alone (osap-wire 13.4).
    pub fn is_tls_only(&self) -> bool {
        self.tls_only.load(Ordering::Acquire)
    }

    pub(crate) fn set_suites(&self, modern: bool, tls_only: bool) {
        self.modern.store(modern, Ordering::Release);
        self.tls_only.store(tls_only, Ordering::Release);
    }

    /// What has become of its code.
    pub fn code_use(&self) -> CodeUse {
        *self.code_use.lock()
    }

    pub(crate) fn set_code_use(&self, code_use: CodeUse) {
        *self.code_use.lock() = code_use;
    }

    /// Whether an operator has said that this device has to show a certificate, or has not; none: its product's rule counts,
    /// as [`crate::Platform::demands_certificate`] has it.
    pub fn certificate(&self) -> Option<bool> {
        *self.certificate.lock()
    }

    pub(crate) fn set_certificate(&self, demanded: Option<bool>) {
        *self.certificate.lock() = demanded;
    }

    /// How often somebody has let the device try anew since the start: enabled it, gave it another code, opened a window.
    /// Failures of before are not held against it.
    pub fn pardons(&self) -> u32 {
        self.pardons.load(Ordering::Acquire)
    }

    pub(crate) fn pardon(&self) {
        self.pardons.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether this is what was noted last of the roots it knows.
    pub(crate) fn knows_already(&self, known: &KnownBy) -> bool {
        self.knows.load(Ordering::Acquire) == digest(known)
    }

    pub(crate) fn set_knows(&self, known: &KnownBy) {
        self.knows.store(digest(known), Ordering::Release);
    }

    pub(crate) fn set_disabled(&self, disabled: bool) {
        self.disabled.store(disabled, Ordering::Release);
    }

    /// The hub or gateway it is reached through; [`crate::Platform::device_by_id`] has it.
    pub fn parent(&self) -> Option<DeviceId> {
        *self.parent.lock()
    }

    /// To be called by the registry, which keeps the way back.
    pub(crate) fn set_parent(&self, parent: Option<DeviceId>) {
        *self.parent.lock() = parent;
    }

    /// Whether a window is open in which the device may enrol again; `steady` is [`Clock::steady_ms`].
    pub fn may_enrol_again(&self, steady: i64) -> bool {
        self.enrol_until() != 0 && self.window_ends.load(Ordering::Acquire) > steady
    }

    /// Whether such a window is open that was opened at most so many milliseconds ago.
    pub fn may_enrol_shortly(&self, steady: i64, age: i64) -> bool {
        self.may_enrol_again(steady) && steady.saturating_sub(self.window_opened.load(Ordering::Acquire)) <= age
    }

    /// End of the window in which the device may enrol again, in milliseconds since 1970 by the wall clock as it was when it
    /// was opened; 0 when none was opened.
    pub fn enrol_until(&self) -> i64 {
        self.enrol_until.load(Ordering::Acquire)
    }

    /// Whether the device was taken out of the registry since this reference was obtained.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Opens a window: when it ends by the wall clock, and when it was opened and ends by the steady one.
    pub(crate) fn open_window(&self, until: i64, opened: i64, ends: i64) {
        self.window_opened.store(opened, Ordering::Release);
        self.window_ends.store(ends, Ordering::Release);
        self.enrol_until.store(until, Ordering::Release);
    }

    pub(crate) fn close_window(&self) {
        self.enrol_until.store(0, Ordering::Release);
    }

    pub(crate) fn mark_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }
}

/// Never 0. The name of a root is 64 random digits, of which the first 15 tell it from others of one platform.
fn digest(known: &KnownBy) -> u64 {
    match known {
        KnownBy::Untold => 1,
        KnownBy::Plain => 2,
        KnownBy::Root(root) => {
            root.get(..15).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0) | 1 << 63
        }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("id", &self.id).field("serial", &self.serial).finish_non_exhaustive()
    }
}
