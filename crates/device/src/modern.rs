//! How a device comes in by the modern suites: types 4, 8 and 16 (osap-wire 13.3, 13.4).
//!
//! What is decided is in [`plan`], without socket and clock; [`lbs`] carries it out, [`trust`] says whom to believe, and
//! [`learn`] whom to believe from then on.

mod lbs;
mod learn;
mod plan;
mod tls;
mod trust;
mod web;

use std::sync::Arc;
use std::time::{Duration, Instant};

use osap::modern::Node;
use osap::modern::client::{Identity, Success};
use osap::modern::login::{BootId, EXPORTER_LABEL};
use osap::modern::message::Das;
use osap::modern::secret::Exporter;
use osap::{DevId, Random, Suite, SystemRandom};

pub use trust::{Anchor, InvalidAnchor};

pub(crate) use tls::secure;
pub(crate) use trust::Trust;
pub(crate) use web::Web;

use crate::keyring::Keyring;
use crate::link::{Channel, Entry, Secured};
use crate::session::{Access, Secret};
use crate::shared::Shared;
use crate::socket;
use crate::state::TlsFault;
use crate::stream::Stream;

/// A device that speaks the modern suites.
pub(crate) struct Modern {
    pub identity: Identity,
    pub keyring: Arc<Keyring>,
    /// Whom to believe over TLS; none of a device that speaks types 8 and 16.
    pub trust: Option<Trust>,
    /// Asks for a certificate.
    pub wants_certificate: bool,
    /// Of this start of the device.
    pub boot_id: BootId,
}

/// What a run at the LBS has given, for the DAS.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    node: Node,
    suite: Suite,
    /// The name the DAS has to prove, over TLS.
    domain: Option<Box<str>>,
    bind: bool,
    /// From here on another run is due.
    pub renew: Instant,
    /// From here on nothing else helps.
    pub expires: Instant,
}

impl Admission {
    /// The way to the DAS that the LBS has named at this time.
    ///
    /// # Errors
    /// [`TlsFault::Missing`]: the device came in over TLS, and the DAS has none.
    fn access(now: Instant, success: Success, random: &mut dyn Random) -> Result<Access, TlsFault> {
        let Success { slots, suite, das, node, .. } = success;
        let Das { info, tls_port, bind, expires_in } = das;
        let (port, domain) = match tls_port {
            // Where there is one, the other is never used.
            Some(port) => (port, Some(info.domain.into())),
            None if suite == Suite::Tls => return Err(TlsFault::Missing),
            None => (info.port, None),
        };
        let life = Duration::from_secs(expires_in.into());
        let admission = Self { node, suite, domain, bind, renew: now + renewal(life, random), expires: now + life };
        let dev_id = slots.dev_id.ok_or(TlsFault::Missing)?;
        Ok(Access { dev_id, secret: Secret::Modern(Box::new(admission)), address: info.address.into(), port })
    }
}

#[cfg(test)]
impl Admission {
    /// One that is renewed and ends at these times.
    pub(crate) fn ending(renew: Instant, expires: Instant) -> Self {
        let node = Node::from_bytes(&[7; 48]).expect("48 bytes");
        Self { node, suite: Suite::Tls, domain: None, bind: false, renew, expires }
    }
}

/// How long after its beginning a session is renewed: anywhere between 70 and 95 % of its life, so that a fleet does not
/// come at once.
fn renewal(life: Duration, random: &mut dyn Random) -> Duration {
    let mut draw = [0; 4];
    random.fill(&mut draw);
    let share = f64::from(u32::from_be_bytes(draw)) / f64::from(u32::MAX);
    life.mul_f64(0.7 + 0.25 * share)
}

/// A DAS that is there, and how to log in.
pub(crate) struct Opened {
    pub stream: Stream,
    pub channel: Channel,
}

/// Why a DAS is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    Unreachable(std::io::ErrorKind),
    Tls(TlsFault),
}

impl Modern {
    /// Whom to believe where pictures go; nobody, of a device without TLS.
    pub(crate) fn web(&self) -> Option<Box<Web>> {
        let trust = self.trust.clone()?;
        Some(Box::new(Web { trust, keyring: Arc::clone(&self.keyring) }))
    }

    /// Opens a connection to the DAS.
    pub(crate) async fn open(
        &self,
        shared: &Shared,
        (address, port): (&str, u16),
        dev_id: DevId,
        admission: &Admission,
    ) -> Result<Opened, Closed> {
        let tcp = socket::connect(&*shared.dial, address, port).await.map_err(Closed::Unreachable)?;
        let entry = Entry { node: admission.node.clone(), suite: admission.suite, dev_id, boot_id: self.boot_id };
        let now = crate::driver::now();
        let Some(domain) = &admission.domain else {
            let secured = Secured::new(now, entry, None, true, &mut SystemRandom);
            return Ok(Opened { stream: tcp.into(), channel: Channel::Modern(Box::new(secured)) });
        };
        // A device that has no anchor has nobody to believe.
        let trust = self.trust.as_ref().ok_or(Closed::Tls(TlsFault::Untrusted))?;
        let config = trust.das(&self.keyring.modern(), shared.clock.now_ms()).map_err(Closed::Tls)?;
        let stream = secure(tcp, config, domain, vestibule_tls::ALPN_DAS).await.map_err(|end| match end {
            tls::End::Io(kind) => Closed::Unreachable(kind),
            tls::End::Tls(fault) => Closed::Tls(fault),
        })?;
        let (tcp, tls) = stream.into_inner();
        let bind = admission.bind.then(|| tls::export(&tls, EXPORTER_LABEL, &[])).transpose();
        let bind: Option<Exporter> = bind.map_err(Closed::Tls)?;
        let secured = Secured::new(now, entry, bind.as_ref(), false, &mut SystemRandom);
        let stream = Stream::secured(tcp, tls).map_err(|error| Closed::Unreachable(error.kind()))?;
        Ok(Opened { stream, channel: Channel::Modern(Box::new(secured)) })
    }
}

#[cfg(test)]
mod tests {
    use osap::lbs::das_info::DasInfo;
    use osap::modern::Slots;

    use super::*;

    struct Draw(u8);

    impl Random for Draw {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }

    fn success(suite: Suite, tls_port: Option<u16>) -> Success {
        let info = DasInfo {
            address: "192.0.2.1".into(),
            port: 8668,
            udp_port: 8668,
            domain: "das.example".into(),
            server_id: "das1".into(),
        };
        Success {
            slots: Slots { dev_id: Some(DevId::parse(&[b'd'; 32]).unwrap()), ..Slots::default() },
            suite,
            das: Das { info, tls_port, bind: true, expires_in: 1000 },
            node: Node::from_bytes(&[7; 48]).unwrap(),
            certificate: Vec::new(),
        }
    }

    #[test]
    fn osap_13_4_2_a_das_with_tls_is_never_met_without() {
        let now = Instant::now();
        for suite in Suite::MODERN {
            let access = Admission::access(now, success(suite, Some(8667)), &mut Draw(0)).unwrap();
            let Secret::Modern(admission) = access.secret else { panic!() };
            assert_eq!((access.port, admission.domain.as_deref()), (8667, Some("das.example")));
        }
        let access = Admission::access(now, success(Suite::X25519, None), &mut Draw(0)).unwrap();
        assert_eq!(access.port, 8668);
        let refused = Admission::access(now, success(Suite::Tls, None), &mut Draw(0));
        assert_eq!(refused.err(), Some(TlsFault::Missing));
    }

    #[test]
    fn osap_13_3_a_session_is_renewed_between_70_and_95_percent_of_its_life() {
        let now = Instant::now();
        for (draw, seconds) in [(0, 700.0), (0xFF, 950.0)] {
            let access = Admission::access(now, success(Suite::Tls, Some(1)), &mut Draw(draw)).unwrap();
            let Secret::Modern(admission) = access.secret else { panic!() };
            assert!(((admission.renew - now).as_secs_f64() - seconds).abs() < 0.001, "{admission:?}");
            assert_eq!(admission.expires - now, Duration::from_secs(1000));
        }
    }
}
