//! Which suites a device speaks, where, and whom it believes (osap-wire 13.3, 13.4).

use std::sync::Arc;

use osap::modern::client::Identity;
use osap::modern::login::BootId;
use osap::modern::slots::Slot;
use osap::{Code, DevId, Serial, Suite, SystemRandom};

use super::{Builder, StartError, check};
use crate::entrance::Entrance;
use crate::keyring::Keyring;
use crate::modern::{Anchor, Modern, Trust};
use crate::storage::Credentials;

/// What the program says of suites.
pub(super) struct Settings {
    anchors: Vec<Anchor>,
    first_use: bool,
    suites: Vec<Suite>,
    base: Option<(DevId, Slot)>,
    wants_certificate: bool,
    built_ms: i64,
    #[cfg(feature = "legacy")]
    legacy: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            anchors: Vec::new(),
            first_use: false,
            suites: vec![Suite::Tls],
            base: None,
            wants_certificate: false,
            built_ms: 0,
            #[cfg(feature = "legacy")]
            legacy: false,
        }
    }
}

/// Settings that go together: what a device is going to speak.
pub(crate) enum Speech {
    #[cfg(feature = "legacy")]
    Legacy(Code),
    Modern {
        code: Option<Code>,
        suites: Vec<Suite>,
        trust: Option<Trust>,
        base: Option<(DevId, Slot)>,
        wants_certificate: bool,
    },
}

impl Builder {
    /// What vouches for LBS and DAS: the CA of the platform, or the public key of its servers; up to two, so that one can be
    /// replaced. A device that comes in over TLS needs one, unless [`first_use`](Self::first_use) is wanted.
    #[must_use]
    pub fn anchors(mut self, anchors: impl IntoIterator<Item = Anchor>) -> Self {
        self.suites.anchors.extend(anchors);
        self
    }

    /// Believes the LBS that is met first, if it knows the code of the device, which has to have 64 bits or more (13 characters
    /// of base 32), and nobody else from then on: the key of its certificate is pinned in the storage. Of no effect with
    /// [`anchors`](Self::anchors), which are better: whoever answers first learns the serial, and can try codes.
    #[must_use]
    pub fn first_use(mut self) -> Self {
        self.suites.first_use = true;
        self
    }

    /// The suites the device may speak, the preferred one first; [`Suite::Tls`] alone unless set. That one is spoken with an LBS
    /// at `osaps://`, [`Suite::X25519`] and [`Suite::P384`] with one at `osap://`: over plain TCP, where serial, topics, sizes
    /// and times can be seen, and with a credential that the device was [`provisioned`](Self::provisioned) with. No server
    /// leads to any other.
    #[must_use]
    pub fn suites(mut self, suites: impl IntoIterator<Item = Suite>) -> Self {
        self.suites.suites = suites.into_iter().collect();
        self
    }

    /// A credential the device was given by a factory line or an operator (osap-wire 13.3 rule 8), unless the storage has one
    /// already. It is kept for ever, and tried last.
    #[must_use]
    pub fn provisioned(mut self, dev_id: DevId, slot: Slot) -> Self {
        self.suites.base = Some((dev_id, slot));
        self
    }

    /// Asks the LBS for a certificate of the device, with a key that the SDK makes, and comes in with it when tickets fail. It
    /// is kept in the storage, and asked for again when two thirds of its life are over. Over TLS alone.
    #[must_use]
    pub fn request_certificate(mut self) -> Self {
        self.suites.wants_certificate = true;
        self
    }

    /// When the program was built, in Unix milliseconds: while the clock shows less, it was not set, and certificates are judged
    /// by the latest time that is known.
    #[must_use]
    pub fn built_at(mut self, ms: i64) -> Self {
        self.suites.built_ms = ms;
        self
    }

    /// Speaks the legacy suite (protocol type 1), and no other. It is **not confidential**: its keys follow from the
    /// verification code.
    #[cfg(feature = "legacy")]
    #[must_use]
    pub fn legacy(mut self) -> Self {
        self.suites.legacy = true;
        self
    }
}

impl Settings {
    /// Puts them together with the address of the LBS, of which this is `host:port`, and the code.
    pub(super) fn build<'a>(self, lbs: &'a str, code: &str) -> Result<(&'a str, Speech), StartError> {
        let (plain, address) = match lbs.split_once("://") {
            None => (None, lbs),
            Some(("osap", address)) => (Some(true), address),
            Some(("osaps", address)) => (Some(false), address),
            Some(_) => return Err(StartError::LbsAddress),
        };
        #[cfg(feature = "legacy")]
        if self.legacy {
            return match plain {
                Some(false) => Err(StartError::Suites),
                _ => Ok((address, Speech::Legacy(Code::new(code.as_bytes())?))),
            };
        }
        let tls = plain != Some(true);
        let usable = |suite: &Suite| suite.is_modern() && (*suite == Suite::Tls) == tls;
        let suites: Vec<Suite> = self.suites.into_iter().filter(usable).collect();
        if suites.is_empty() {
            return Err(StartError::Suites);
        }
        // A device may have a ticket or a certificate instead.
        let code = if code.is_empty() { None } else { Some(Code::new(code.as_bytes())?) };
        let trust = if tls {
            if self.anchors.is_empty() {
                if !self.first_use {
                    return Err(StartError::NoAnchor);
                }
                let long = code.as_ref().is_some_and(Code::is_long);
                check(long, "first_use", "needs a code of 64 bits or more")?;
            }
            Some(Trust::new(self.anchors, self.first_use, self.built_ms)?)
        } else {
            None
        };
        let (base, wants_certificate) = (self.base, self.wants_certificate && tls);
        Ok((address, Speech::Modern { code, suites, trust, base, wants_certificate }))
    }
}

impl Speech {
    /// Puts what the device was provisioned with beside what its storage holds.
    pub(crate) fn provision(&self, credentials: &mut Credentials) {
        if let Self::Modern { base: Some((dev_id, slot)), .. } = self {
            let slots = &mut credentials.modern.get_or_insert_default().slots;
            if slots.base.is_none() {
                slots.dev_id.get_or_insert(*dev_id);
                slots.base = Some(slot.clone());
            }
        }
    }

    /// How the device comes in.
    ///
    /// # Errors
    /// [`StartError::NoCredential`].
    pub(crate) fn entrance(self, serial: &Serial, keyring: Arc<Keyring>) -> Result<Entrance, StartError> {
        match self {
            #[cfg(feature = "legacy")]
            Self::Legacy(code) => {
                let identity = osap::lbs::client::Identity::new(serial.clone(), code);
                Ok(Entrance::Legacy { identity, keyring })
            }
            Self::Modern { code, suites, trust, wants_certificate, .. } => {
                let kept = keyring.modern();
                let by_ticket =
                    [&kept.slots.newest, &kept.slots.older, &kept.slots.base].iter().any(|slot| slot.is_some());
                let over_tls = trust.is_some() && (code.is_some() || kept.certificate.is_some());
                if !by_ticket && !over_tls {
                    return Err(StartError::NoCredential);
                }
                let identity = Identity { serial: serial.clone(), code, suites };
                let boot_id = BootId::draw(&mut SystemRandom);
                Ok(Entrance::Modern(Modern { identity, keyring, trust, wants_certificate, boot_id }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use osap::modern::client::provision;

    use super::*;
    use crate::{Device, MemoryStorage};

    fn builder(lbs: &str) -> Builder {
        Device::builder("SN0000001", "ABCDEFGHJKMNP").lbs(lbs).storage(MemoryStorage::new())
    }

    fn pin() -> [Anchor; 1] {
        [Anchor::PublicKey([7; 32])]
    }

    #[tokio::test]
    async fn a_device_comes_in_over_tls_with_an_anchor_or_not_at_all() {
        assert!(matches!(builder("osaps://127.0.0.1:9").start(), Err(StartError::NoAnchor)));
        assert!(matches!(builder("127.0.0.1:9").start(), Err(StartError::NoAnchor)));
        assert!(builder("osaps://127.0.0.1:9").anchors(pin()).start().is_ok());
        assert!(builder("osaps://127.0.0.1:9").first_use().start().is_ok());
        let short = Device::builder("SN0000001", "ABCDEF").lbs("127.0.0.1:9").storage(MemoryStorage::new());
        assert!(matches!(short.first_use().start(), Err(StartError::Setting { name: "first_use", .. })));
        let three = builder("127.0.0.1:9").anchors(pin()).anchors(pin()).anchors(pin());
        assert!(matches!(three.start(), Err(StartError::Anchor(_))));
    }

    #[tokio::test]
    async fn osap_13_4_2_each_suite_has_its_transport() {
        let plain = || builder("osap://127.0.0.1:9");
        assert!(matches!(plain().anchors(pin()).start(), Err(StartError::Suites)));
        let both = plain().suites([Suite::X25519, Suite::Tls]);
        assert!(matches!(both.start(), Err(StartError::NoCredential)), "a code is not shown there");
        let (dev_id, slot) = provision(&mut SystemRandom);
        assert!(plain().suites([Suite::P384]).provisioned(dev_id, slot).start().is_ok());
        let over_tls = builder("osaps://127.0.0.1:9").anchors(pin()).suites([Suite::P384]);
        assert!(matches!(over_tls.start(), Err(StartError::Suites)));
        let legacy = builder("osap://127.0.0.1:9").suites([Suite::Legacy]);
        assert!(matches!(legacy.start(), Err(StartError::Suites)));
        assert!(matches!(builder("https://127.0.0.1:9").start(), Err(StartError::LbsAddress)));
    }

    #[cfg(feature = "legacy")]
    #[tokio::test]
    async fn the_legacy_suite_is_asked_for() {
        assert!(builder("osap://127.0.0.1:9").legacy().start().is_ok());
        assert!(builder("127.0.0.1:9").legacy().start().is_ok());
        assert!(matches!(builder("osaps://127.0.0.1:9").legacy().start(), Err(StartError::Suites)));
    }

    #[test]
    fn a_credential_from_the_factory_stands_beside_what_there_is() {
        let (dev_id, slot) = provision(&mut SystemRandom);
        let speech = |base| Speech::Modern {
            code: None,
            suites: Vec::new(),
            trust: None,
            base: Some(base),
            wants_certificate: false,
        };
        let mut credentials = Credentials::default();
        speech((dev_id, slot.clone())).provision(&mut credentials);
        let other = provision(&mut SystemRandom);
        speech(other).provision(&mut credentials);
        let slots = credentials.modern.unwrap().slots;
        assert_eq!((slots.dev_id, slots.base), (Some(dev_id), Some(slot)));
    }
}
