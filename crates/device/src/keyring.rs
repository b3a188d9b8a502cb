//! The credentials of a running device, in memory and in its storage.

use std::sync::Arc;

use osap::modern::Slots;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use crate::profile::Profile;
use crate::storage::{Credentials, LegacyCredentials, ModernCredentials, Storage};

/// Holds what the storage holds, and changes both together.
pub(crate) struct Keyring {
    profile: Arc<Profile>,
    storage: Arc<dyn Storage>,
    /// Held while the storage is written, on the blocking pool alone.
    writing: Mutex<()>,
    /// Never locked for longer than a copy takes.
    kept: Mutex<Kept>,
}

struct Kept {
    legacy: Option<LegacyCredentials>,
    modern: Option<Box<ModernCredentials>>,
    /// The run at the LBS that may change them. One that was given up may still be at the storage.
    run: u64,
}

impl Keyring {
    /// Of a device whose storage holds these.
    pub(crate) fn new(profile: Arc<Profile>, storage: Arc<dyn Storage>, credentials: Credentials) -> Self {
        let Credentials { legacy, modern } = credentials;
        let kept = Kept { legacy, modern: modern.map(Box::new), run: 0 };
        Self { profile, storage, writing: Mutex::default(), kept: Mutex::new(kept) }
    }

    /// What the legacy suite left.
    #[cfg(feature = "legacy")]
    pub(crate) fn legacy(&self) -> Option<LegacyCredentials> {
        self.kept.lock().legacy.clone()
    }

    /// What the modern suites left.
    pub(crate) fn modern(&self) -> ModernCredentials {
        self.kept.lock().modern.as_deref().cloned().unwrap_or_default()
    }

    /// Begins a run under a modern suite. Only the latest may change what is kept.
    pub(crate) fn begin(&self) -> (Run, ModernCredentials) {
        let mut kept = self.kept.lock();
        kept.run += 1;
        (Run(kept.run), kept.modern.as_deref().cloned().unwrap_or_default())
    }

    /// Makes what the legacy suite gave durable. On failure everything is as it was.
    pub(crate) async fn store_legacy(self: &Arc<Self>, legacy: LegacyCredentials) -> bool {
        self.change(move |kept| {
            kept.legacy = Some(legacy);
            true
        })
        .await
    }

    /// Makes what a run has given durable, and reads it back (osap-wire 13.3, rule 3). `change` puts beside the new slots
    /// what came with them.
    pub(crate) async fn store_modern(
        self: &Arc<Self>,
        run: Run,
        slots: Slots,
        change: impl FnOnce(&mut ModernCredentials) + Send + 'static,
    ) -> bool {
        self.change(move |kept| {
            if kept.run != run.0 {
                return false;
            }
            let modern = kept.modern.get_or_insert_default();
            modern.slots = slots;
            change(modern);
            true
        })
        .await
    }

    /// Carries a change out on the blocking pool; `false` when it is refused, cannot be stored or does not come back.
    async fn change(self: &Arc<Self>, change: impl FnOnce(&mut Kept) -> bool + Send + 'static) -> bool {
        let keyring = Arc::clone(self);
        match spawn_blocking(move || keyring.write(change)).await {
            Ok(stored) => stored,
            Err(panic) => {
                tracing::error!(serial = %self.profile.serial, %panic, "the storage panicked");
                false
            }
        }
    }

    fn write(&self, change: impl FnOnce(&mut Kept) -> bool) -> bool {
        let _writing = self.writing.lock();
        let mut new = {
            let kept = self.kept.lock();
            Kept { legacy: kept.legacy.clone(), modern: kept.modern.clone(), run: kept.run }
        };
        if !change(&mut new) {
            return false;
        }
        let serial = &self.profile.serial;
        let credentials = Credentials { legacy: new.legacy, modern: new.modern.map(|modern| *modern) };
        let stored = self.storage.store(serial, &credentials).and_then(|()| self.storage.load(serial));
        match stored {
            Ok(back) if back.as_ref() == Some(&credentials) => {
                let mut kept = self.kept.lock();
                kept.legacy = credentials.legacy;
                kept.modern = credentials.modern.map(Box::new);
                true
            }
            Ok(_) => {
                tracing::warn!(%serial, "the storage does not give back what was stored");
                false
            }
            Err(error) => {
                tracing::warn!(%serial, %error, "the credentials cannot be stored");
                false
            }
        }
    }
}

/// A run under a modern suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run(u64);

#[cfg(test)]
mod tests {
    use osap::modern::slots::Slot;
    use osap::modern::{Psk, TicketId};
    use osap::{DevId, MasterKey, Serial};

    use super::*;
    use crate::storage::{MemoryStorage, StorageError};

    /// Says that it has stored something, and has not.
    struct Forgetful;

    impl Storage for Forgetful {
        fn load(&self, _: &Serial) -> Result<Option<Credentials>, StorageError> {
            Ok(None)
        }

        fn store(&self, _: &Serial, _: &Credentials) -> Result<(), StorageError> {
            Ok(())
        }
    }

    fn keyring(storage: Arc<dyn Storage>) -> Arc<Keyring> {
        Arc::new(Keyring::new(Arc::new(crate::profile::tests::profile()), storage, Credentials::default()))
    }

    fn slots(n: u8) -> Slots {
        let slot = Slot { ticket: TicketId::new([n; 16]), psk: Psk::from_bytes(&[n; 48]).unwrap() };
        Slots { newest: Some(slot), ..Slots::default() }
    }

    #[tokio::test]
    async fn osap_13_3_rule_3_what_does_not_come_back_is_not_stored() {
        let keyring = keyring(Arc::new(Forgetful));
        let (run, _) = keyring.begin();
        assert!(!keyring.store_modern(run, slots(1), |_| {}).await);
        assert_eq!(keyring.modern(), ModernCredentials::default());
    }

    #[tokio::test]
    async fn both_kinds_stand_beside_each_other_and_an_abandoned_run_changes_nothing() {
        let storage = Arc::new(MemoryStorage::new());
        let keyring = keyring(storage.clone());
        let legacy = LegacyCredentials {
            dev_id: DevId::parse(&[b'1'; 32]).unwrap(),
            master_key: MasterKey::from_bytes(&[b'A'; 16]).unwrap(),
        };
        assert!(keyring.store_legacy(legacy.clone()).await);
        let (abandoned, _) = keyring.begin();
        let (run, _) = keyring.begin();
        assert!(keyring.store_modern(run, slots(2), |modern| modern.pin = Some([7; 32])).await);
        assert!(!keyring.store_modern(abandoned, slots(1), |_| {}).await);
        let stored = storage.load(&Serial::new("SN0000001").unwrap()).unwrap().unwrap();
        assert_eq!(stored.legacy, Some(legacy));
        assert_eq!(stored.modern, Some(keyring.modern()));
        assert_eq!(keyring.begin().1, ModernCredentials { slots: slots(2), pin: Some([7; 32]), ..Default::default() });
    }
}
