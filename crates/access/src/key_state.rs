//! What is remembered for each session key, or each start of a device that speaks a modern suite: which `Seq` were seen, which messages did not open, and whether the
//! key was given up.
//!
//! The window belongs to the key and not to the connection (osap-wire 13.2.6): a device goes on counting after a
//! reconnect, and starts at 1 again only with a process that has no session key. So do the errors (13.2.5): a
//! recorded CONNECT logs in again, and with a count of its own each connection would give the oracle nine answers.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use osap::das::seq::SeqWindow;
use osap::id::DevId;
use osap::key::SessionKey;
use osap::modern::login::BootId;
use osap::{Random as _, SystemRandom};
use parking_lot::Mutex;
use vestibule_platform::DeviceId;

use crate::window::{Span, Window};

/// How many messages that do not open end a key, and in which time (13.2.5).
const ERRORS: u32 = 10;
const ERROR_WINDOW: Span = Span::of_ms(60_000);

/// What a memory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    /// A session key of the legacy suites.
    Key(SessionKey),
    /// One start of a device that speaks a modern suite: with its numbers a message is known for ever (osap-wire 13.3).
    Boot(Box<(DevId, BootId)>),
}

impl Life {
    /// Of this start of this device.
    pub(crate) fn boot(dev_id: DevId, boot: BootId) -> Life {
        Life::Boot(Box::new((dev_id, boot)))
    }
}

/// The memory of one session key, or of one start. Every idle device has one: what the fewest need is by itself.
pub(crate) struct KeyState {
    life: Life,
    seen: Mutex<SeqWindow>,
    errors: Mutex<Window>,
    given_up: AtomicBool,
    ours: AtomicBool,
    shadow: AtomicBool,
    /// The same of sub-devices behind it.
    shadow_children: Mutex<BTreeSet<DeviceId>>,
    last_seq: AtomicU32,
}

impl KeyState {
    /// Whether the request with this `Seq` comes for the first time.
    pub(crate) fn is_new(&self, seq: u64) -> bool {
        self.seen.lock().accept(seq)
    }

    /// Counts a message that did not open. True when it was one too many: the key is given up, from now on no login
    /// under it is accepted (13.2.5).
    pub(crate) fn failed(&self, now: i64) -> bool {
        let mut errors = self.errors.lock();
        errors.add(ERROR_WINDOW, now);
        if errors.count(ERROR_WINDOW, now) < ERRORS {
            return false;
        }
        self.given_up.store(true, Ordering::Release);
        true
    }

    /// The number of our next request. Numbers count on over the connections of a key, because a device tells a
    /// repetition by its number; and they begin anywhere, because the platform may have been restarted meanwhile.
    /// 31 bits, never 0: the vendor's clients read a number as an `int`.
    pub(crate) fn next_seq(&self) -> u64 {
        loop {
            let seq = self.last_seq.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & 0x7fff_ffff;
            if seq != 0 {
                return seq.into();
            }
        }
    }

    /// The device is made with our SDK, which its full login says.
    pub(crate) fn set_ours(&self) {
        self.ours.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.ours.load(Ordering::Relaxed)
    }

    /// The device has spoken of its state through the shadow (osap-wire 10.2), so that is where it is told of it; also
    /// after a light login, which begins with neither reports nor a query.
    pub(crate) fn set_shadow(&self) {
        self.shadow.store(true, Ordering::Relaxed);
    }

    pub(crate) fn uses_shadow(&self) -> bool {
        self.shadow.load(Ordering::Relaxed)
    }

    /// The same of a sub-device; there are as many as the registry has of this hub.
    pub(crate) fn set_shadow_of(&self, child: DeviceId) {
        self.shadow_children.lock().insert(child);
    }

    pub(crate) fn uses_shadow_of(&self, child: DeviceId) -> bool {
        self.shadow_children.lock().contains(&child)
    }

    /// The session key; `None` under a modern suite, where each login has keys of its own.
    pub(crate) fn session_key(&self) -> Option<&SessionKey> {
        match &self.life {
            Life::Key(key) => Some(key),
            Life::Boot(_) => None,
        }
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

/// The present key of each device that has logged in; at most one for each registered device.
#[derive(Default)]
pub(crate) struct KeyStates {
    by_device: Mutex<HashMap<DeviceId, Arc<KeyState>>>,
}

impl KeyStates {
    /// The memory of this key, a fresh one when the device had another before; `None` when the key was given up.
    pub(crate) fn get(&self, device: DeviceId, life: &Life) -> Option<Arc<KeyState>> {
        let mut by_device = self.by_device.lock();
        if let Some(state) = by_device.get(&device)
            && state.life == *life
        {
            return (!state.is_given_up()).then(|| Arc::clone(state));
        }
        let state = Arc::new(KeyState::new(life.clone()));
        by_device.insert(device, Arc::clone(&state));
        Some(state)
    }

    pub(crate) fn forget(&self, device: DeviceId) {
        self.by_device.lock().remove(&device);
    }
}

impl KeyState {
    pub(crate) fn new(life: Life) -> KeyState {
        let mut start = [0; 4];
        SystemRandom.fill(&mut start);
        KeyState {
            life,
            seen: Mutex::new(SeqWindow::new()),
            errors: Mutex::default(),
            given_up: AtomicBool::new(false),
            ours: AtomicBool::new(false),
            shadow: AtomicBool::new(false),
            shadow_children: Mutex::default(),
            last_seq: AtomicU32::new(u32::from_be_bytes(start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Life {
        Life::Key(SessionKey::from_bytes(&[byte; 16]).expect("sixteen bytes"))
    }

    #[test]
    fn osap_13_2_6_the_window_outlives_a_reconnect_and_ends_with_the_key() {
        let states = KeyStates::default();
        let device = DeviceId::mint();
        assert!(states.get(device, &key(1)).expect("usable").is_new(5));
        assert!(!states.get(device, &key(1)).expect("usable").is_new(5));
        assert!(states.get(device, &key(2)).expect("usable").is_new(5));
    }

    #[test]
    fn osap_13_2_5_a_key_given_up_is_never_accepted_again() {
        let states = KeyStates::default();
        let device = DeviceId::mint();
        for n in 1..=10 {
            assert_eq!(states.get(device, &key(1)).expect("usable").failed(1_000), n == 10, "whatever the connection");
        }
        assert!(states.get(device, &key(1)).is_none());
        assert!(states.get(device, &key(2)).is_some());
    }

    #[test]
    fn osap_13_2_5_errors_of_more_than_a_minute_ago_do_not_count() {
        let states = KeyStates::default();
        let state = states.get(DeviceId::mint(), &key(1)).expect("usable");
        for minute in 0..5 {
            for _ in 0..9 {
                assert!(!state.failed(1_000_000 + minute * 67_000));
            }
        }
        // The end of one minute and the beginning of the next are a minute as well.
        let state = states.get(DeviceId::mint(), &key(1)).expect("usable");
        assert!((0..9).all(|_| !state.failed(1_059_999)));
        assert!(state.failed(1_060_001));
    }
}
