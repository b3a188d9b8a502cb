//! Whom a device believes over TLS, and what time it is for that (osap-wire 13.3, TLS profile; 13.4.3).

use std::sync::Arc;
use std::time::Duration;

use vestibule_tls::rustls::ClientConfig;
use vestibule_tls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use vestibule_tls::rustls::time_provider::TimeProvider;
use vestibule_tls::{ClientTls, Identity, first_use_lbs, read_pem};

use super::learn::Met;
use crate::state::TlsFault;
use crate::storage::ModernCredentials;

/// No certificate of this platform is older: 2025-01-01T00:00:00Z.
const SDK_TIME_MS: i64 = 1_735_689_600_000;

/// What vouches for a server. A device holds up to two, so that a root can be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// The certificate of a CA, DER: ordinary chain, dates and name.
    Certificate(Vec<u8>),
    /// SHA-256 of the SubjectPublicKeyInfo of the server's own certificate: that key decides, name and dates do not.
    PublicKey([u8; 32]),
}

/// A text is no PEM with certificates, or what is in it is no CA.
#[derive(Debug, thiserror::Error)]
#[error("not the certificate of a CA: {0}")]
pub struct InvalidAnchor(String);

impl Anchor {
    /// The certificates of a PEM text.
    ///
    /// # Errors
    /// [`InvalidAnchor`].
    pub fn from_pem(text: &[u8]) -> Result<Vec<Self>, InvalidAnchor> {
        let certificates = read_pem(text).map_err(|error| InvalidAnchor(error.to_string()))?;
        Ok(certificates.into_iter().map(|der| Self::Certificate(der.to_vec())).collect())
    }
}

/// Whom a device believes.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    anchors: Vec<Anchor>,
    first_use: bool,
    /// When the firmware was built, Unix milliseconds.
    built_ms: i64,
}

/// How an LBS is judged.
pub(crate) struct Judged {
    pub config: Arc<ClientConfig>,
    /// Nobody vouches for it: its key is pinned once it has proven that it knows the code.
    pub first_use: bool,
}

impl Trust {
    /// Believes these anchors; without any, whoever knows the device's code, once.
    ///
    /// # Errors
    /// [`InvalidAnchor`], also for more than two.
    pub(crate) fn new(anchors: Vec<Anchor>, first_use: bool, built_ms: i64) -> Result<Self, InvalidAnchor> {
        let trust = Self { anchors, first_use, built_ms };
        if !trust.anchors.is_empty() || !first_use {
            trust.client(&trust.anchors, 0, 0).map_err(|error| InvalidAnchor(error.to_string()))?;
        }
        Ok(trust)
    }

    /// Whether nobody is believed yet.
    pub(crate) fn is_first_use(&self, kept: &ModernCredentials) -> bool {
        self.first_use && self.anchors.is_empty() && kept.pin.is_none() && kept.anchors.is_empty()
    }

    /// For the LBS. `identity` is the certificate of the device.
    pub(crate) fn lbs(
        &self,
        kept: &ModernCredentials,
        now_ms: i64,
        identity: Option<&Identity>,
    ) -> Result<Judged, TlsFault> {
        if self.is_first_use(kept) {
            let time = Arc::new(At::latest(self.floor(kept), now_ms));
            return Ok(Judged { config: first_use_lbs(time), first_use: true });
        }
        let client = self.present(kept, now_ms)?;
        let client = match identity {
            Some(identity) => client.with_identity(identity).map_err(|_| TlsFault::Refused)?,
            None => client,
        };
        Ok(Judged { config: client.osap_lbs(), first_use: false })
    }

    /// For the DAS.
    pub(crate) fn das(&self, kept: &ModernCredentials, now_ms: i64) -> Result<Arc<ClientConfig>, TlsFault> {
        Ok(self.present(kept, now_ms)?.osap_das())
    }

    /// For places where pictures go.
    pub(crate) fn http(&self, kept: &ModernCredentials, now_ms: i64) -> Result<Arc<ClientConfig>, TlsFault> {
        Ok(self.present(kept, now_ms)?.http())
    }

    /// The time to be kept after a server was believed: none where a certificate's dates did not count.
    pub(crate) fn known_time_ms(&self, kept: &ModernCredentials, now_ms: i64) -> Option<i64> {
        let (own, learned) = self.believed(kept);
        let by_date = own.iter().chain(&learned).all(|anchor| matches!(anchor, Anchor::Certificate(_)));
        (by_date && !(own.is_empty() && learned.is_empty())).then_some(now_ms)
    }

    /// What the program names, or else what a first use has pinned; and what the platform has told of since.
    fn believed(&self, kept: &ModernCredentials) -> (Vec<Anchor>, Vec<Anchor>) {
        let mut learned: Vec<Anchor> = kept.anchors.iter().cloned().map(Anchor::Certificate).collect();
        if self.anchors.is_empty() && self.first_use {
            learned.extend(kept.pin.map(Anchor::PublicKey));
        }
        (self.anchors.clone(), learned)
    }

    fn present(&self, kept: &ModernCredentials, now_ms: i64) -> Result<ClientTls, TlsFault> {
        let (own, learned) = self.believed(kept);
        // One of them has to be the first.
        let (own, learned) = if own.is_empty() { learned.split_at(learned.len().min(1)) } else { (&*own, &*learned) };
        let client = self.client(own, self.floor(kept), now_ms);
        let client = client.and_then(|client| client.with_learned(learned.iter().map(of_tls)));
        client.map_err(|_| TlsFault::Untrusted)
    }

    /// Who has answered, judged by each anchor of the device.
    pub(crate) fn meet(
        &self,
        kept: &ModernCredentials,
        chain: &[CertificateDer<'static>],
        host: &str,
        now_ms: i64,
    ) -> Option<Met> {
        let name = ServerName::try_from(host.to_owned()).ok()?;
        let judge = Judge { trust: self.clone(), floor: self.floor(kept), now_ms, chain: chain.to_vec(), name };
        Some(Met::new(judge, &self.anchors, &kept.anchors))
    }

    /// It is not earlier than this, whatever the clock says.
    fn floor(&self, kept: &ModernCredentials) -> i64 {
        self.built_ms.max(SDK_TIME_MS).max(kept.known_time_ms.unwrap_or(0))
    }

    fn client(&self, anchors: &[Anchor], floor: i64, now_ms: i64) -> Result<ClientTls, vestibule_tls::ClientError> {
        let client = ClientTls::new(anchors.iter().map(of_tls), Arc::new(At::latest(floor, now_ms)))?;
        // A clock that shows a time that is over was not set.
        Ok(if now_ms < floor { client.with_unset_clock() } else { client })
    }
}

fn of_tls(anchor: &Anchor) -> vestibule_tls::Anchor {
    match anchor {
        Anchor::Certificate(der) => vestibule_tls::Anchor::Ca(CertificateDer::from(der.clone())),
        Anchor::PublicKey(pin) => vestibule_tls::Anchor::Pin(*pin),
    }
}

/// A server as it was met: what it has shown, and when.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    trust: Trust,
    floor: i64,
    now_ms: i64,
    chain: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
}

impl Judge {
    /// Whether this CA alone vouches for the server.
    pub(crate) fn by(&self, ca: &[u8]) -> bool {
        let client = self.trust.client(&[Anchor::Certificate(ca.to_vec())], self.floor, self.now_ms);
        client.is_ok_and(|client| client.vouches_for(&self.chain, &self.name))
    }
}

/// One moment, for one handshake.
#[derive(Debug)]
struct At(UnixTime);

impl At {
    fn latest(floor: i64, now_ms: i64) -> Self {
        let ms = u64::try_from(floor.max(now_ms)).unwrap_or(0);
        Self(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin() -> Anchor {
        Anchor::PublicKey([7; 32])
    }

    #[test]
    fn one_or_two_anchors_are_held() {
        assert!(Trust::new(vec![pin()], false, 0).is_ok());
        assert!(Trust::new(vec![pin(), pin()], false, 0).is_ok());
        assert!(Trust::new(vec![pin(), pin(), pin()], false, 0).is_err());
        assert!(Trust::new(Vec::new(), false, 0).is_err());
        assert!(Trust::new(Vec::new(), true, 0).is_ok());
        assert!(Trust::new(vec![Anchor::Certificate(vec![1, 2, 3])], false, 0).is_err());
        assert!(Anchor::from_pem(b"nothing").is_err());
    }

    #[test]
    fn osap_13_4_3_a_first_use_is_the_first() {
        let trust = Trust::new(Vec::new(), true, 0).unwrap();
        let mut kept = ModernCredentials::default();
        assert!(trust.lbs(&kept, 0, None).unwrap().first_use);
        assert_eq!(trust.das(&kept, 0).err(), Some(TlsFault::Untrusted), "no DAS is believed before");
        kept.pin = Some([1; 32]);
        assert!(!trust.lbs(&kept, 0, None).unwrap().first_use);
        assert!(trust.das(&kept, 0).is_ok());
        let anchored = Trust::new(vec![pin()], true, 0).unwrap();
        assert!(!anchored.lbs(&ModernCredentials::default(), 0, None).unwrap().first_use);
    }

    #[test]
    fn the_time_is_the_latest_that_is_known() {
        let trust = Trust::new(vec![pin()], false, SDK_TIME_MS + 5).unwrap();
        let mut kept = ModernCredentials::default();
        assert_eq!(trust.floor(&kept), SDK_TIME_MS + 5);
        kept.known_time_ms = Some(SDK_TIME_MS + 9);
        assert_eq!(trust.floor(&kept), SDK_TIME_MS + 9);
        let at = |floor, now| At::latest(floor, now).current_time().unwrap().as_secs();
        assert_eq!((at(5_000, 9_000), at(9_000, 5_000), at(-1, -5)), (9, 9, 0));
        assert_eq!(trust.known_time_ms(&kept, 1), None, "a pin looks at no date");
    }
}
