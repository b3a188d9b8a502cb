//! What is remembered for each session key: which `Seq` were seen, and whether the key was given up.
//!
//! The window belongs to the key and not to the connection (osap-wire 13.2.6): a device goes on counting after a
//! reconnect, and starts at 1 again only with a process that has no session key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use osap::das::seq::SeqWindow;
use osap::key::SessionKey;
use parking_lot::Mutex;
use vestibule_platform::DeviceId;

/// The memory of one session key.
pub(crate) struct KeyState {
    key: SessionKey,
    seen: Mutex<SeqWindow>,
    given_up: AtomicBool,
}

impl KeyState {
    /// Whether the request with this `Seq` comes for the first time.
    pub(crate) fn is_new(&self, seq: u64) -> bool {
        self.seen.lock().accept(seq)
    }

    /// From now on no login under this key is accepted (13.2.5).
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    pub(crate) fn key(&self) -> &SessionKey {
        &self.key
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
    pub(crate) fn get(&self, device: DeviceId, key: &SessionKey) -> Option<Arc<KeyState>> {
        let mut by_device = self.by_device.lock();
        if let Some(state) = by_device.get(&device)
            && state.key == *key
        {
            return (!state.is_given_up()).then(|| Arc::clone(state));
        }
        let state = Arc::new(KeyState {
            key: key.clone(),
            seen: Mutex::new(SeqWindow::new()),
            given_up: AtomicBool::new(false),
        });
        by_device.insert(device, Arc::clone(&state));
        Some(state)
    }

    pub(crate) fn forget(&self, device: DeviceId) {
        self.by_device.lock().remove(&device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SessionKey {
        SessionKey::from_bytes(&[byte; 16]).expect("sixteen bytes")
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
        states.get(device, &key(1)).expect("usable").give_up();
        assert!(states.get(device, &key(1)).is_none());
        assert!(states.get(device, &key(2)).is_some());
    }
}
