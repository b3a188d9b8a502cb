//! The load balancing service for the modern suites: type 4 over TLS, types 8 and 16 over plain TCP (osap-wire 13.3).

mod visit;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use osap::SystemRandom;
use osap::lbs::Decoy;
use osap::modern::message::Das;
use osap::modern::server::Policy;
use osap::suite::Suite;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::Acceptor;
use vestibule_broker::TlsListener;
use vestibule_platform::{DeviceId, Platform};

use self::visit::{Shown, Visit};
use super::RandomSource;
use super::connection::{Connection, Failure};
use crate::agreements::Agreements;
use crate::assignment::Assignment;
use crate::attempts::Attempts;
use crate::crowd::{Crowd, Limits};
use crate::epochs::Epochs;
use crate::nonces::Nonces;
use crate::origin::Origin;
use crate::window::{Span, Window};

/// The application protocol of an LBS over TLS.
const ALPN: &[u8] = b"osap-lbs";
/// Wrong short codes of an hour, over all serials, that close every window for them (osap-wire 13.3).
const SHORT_FAILURES: u32 = 100;
const HOUR: Span = Span::of_ms(3_600_000);

/// What an LBS for modern suites serves, and its limits.
#[derive(Clone)]
pub struct ModernLbsConfig {
    /// TLS, and then type 4 alone is served; without it, types 8 and 16.
    pub tls: Option<Arc<ServerConfig>>,
    /// How long a ticket is accepted, in seconds; 0: without end.
    pub ticket_lifetime_s: u32,
    /// The life of a session at the DAS, in seconds.
    pub expires_in: u32,
    /// Whether a login at the DAS is bound to its TLS connection; not behind a TLS terminator.
    pub bind: bool,
    /// The listener of the DAS, where it speaks TLS: from where a device was let in here, it does not come as a stranger there.
    pub das_tls: Option<TlsListener>,
    /// The name that the DAS's certificate has.
    pub das_domain: String,
    /// How long the certificates live that devices are given on request.
    pub certificate_life: Duration,
    /// Who has proven nothing is answered no sooner than this after what it has sent: what is read of a known serial, and not of
    /// an unknown one, does not show (osap-wire 13.7.8).
    pub stranger_pace: Duration,
    /// From one frame to the next.
    pub frame_timeout: Duration,
    /// From accept to 0xB2.
    pub run_timeout: Duration,
    /// Connections open at once.
    pub max_connections: usize,
    /// Connections open at once from one address, or one /64 of IPv6.
    pub max_per_address: usize,
    /// Connections open at once from one network (/24, or /48 of IPv6).
    pub max_per_network: usize,
    /// How often a code may be wrong: what is left of it here and at the other doors.
    pub attempts: Arc<Attempts>,
}

impl Default for ModernLbsConfig {
    fn default() -> Self {
        ModernLbsConfig {
            tls: None,
            ticket_lifetime_s: Policy::TICKET_LIFETIME_S,
            expires_in: 86_400,
            bind: true,
            das_tls: None,
            das_domain: "localhost".to_owned(),
            certificate_life: Duration::from_secs(90 * 86_400),
            stranger_pace: Duration::from_millis(25),
            frame_timeout: Duration::from_secs(10),
            run_timeout: Duration::from_secs(30),
            max_connections: 3_840,
            max_per_address: 1_024,
            max_per_network: 2_048,
            attempts: Arc::default(),
        }
    }
}

impl ModernLbsConfig {
    fn policy(&self) -> Policy {
        let suites = match self.tls {
            Some(_) => vec![Suite::Tls],
            None => Suite::MODERN.into_iter().filter(|suite| *suite != Suite::Tls).collect(),
        };
        Policy { suites, ticket_lifetime_s: self.ticket_lifetime_s }
    }
}

/// The load balancing service for the modern suites, on one transport.
pub struct ModernLbs {
    platform: Arc<Platform>,
    assignment: Arc<Assignment>,
    config: ModernLbsConfig,
    random: RandomSource,
    decoy: Decoy,
    short_failures: Mutex<Window>,
    crowd: Crowd,
    nonces: Nonces<DeviceId>,
    epochs: Arc<Epochs>,
}

impl ModernLbs {
    /// A service over the platform; `epochs` is that of the DAS the devices are sent to.
    pub fn new(
        platform: Arc<Platform>,
        assignment: Arc<Assignment>,
        epochs: Arc<Epochs>,
        config: ModernLbsConfig,
    ) -> Arc<ModernLbs> {
        let ModernLbsConfig { max_connections: total, max_per_address: per_host, max_per_network: per_site, .. } =
            config;
        Arc::new(ModernLbs {
            platform,
            assignment,
            random: Arc::new(|| Box::new(SystemRandom)),
            decoy: Decoy::draw(&mut SystemRandom),
            short_failures: Mutex::default(),
            crowd: Crowd::new(Limits { total, per_host, per_site }),
            nonces: Nonces::default(),
            epochs,
            config,
        })
    }

    /// Serves one connection: one run of one device. Its key agreement is done by `agreements`, which are this thread's.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, agreements: Arc<Agreements>) {
        let origin = Origin::from(peer.ip());
        let Some((place, notice)) = self.crowd.enter(origin) else {
            metrics::counter!("vestibule_lbs_refused_total", "reason" => "crowd").increment(1);
            return;
        };
        let mut visit = Visit::new(&self, &place, origin, &agreements);
        let outcome = tokio::select! {
            run = tokio::time::timeout(self.config.run_timeout, self.visit(&mut visit, stream)) => {
                run.unwrap_or(Err(Failure::TimedOut))
            }
            () = notice.given() => {
                metrics::counter!("vestibule_lbs_made_room_total").increment(1);
                Err(Failure::MadeRoom)
            }
        };
        visit.note(outcome);
    }

    async fn visit(&self, visit: &mut Visit<'_>, stream: TcpStream) -> Result<(), Failure> {
        let Some(tls) = &self.config.tls else {
            return visit.run(&mut Connection::new(stream), None).await;
        };
        let failed = |error| {
            tracing::debug!(%error, "a TLS handshake at the LBS failed");
            Failure::Below("tls_handshake")
        };
        // What it costs is spent on the hello: from then on others make room first.
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(failed)?;
        visit.advance();
        // At once and not in turns: a storm of devices whose handshakes wait has connections accepted meanwhile that make room
        // for each other, and what was spent on them is lost.
        let stream = hello.into_stream(Arc::clone(tls)).await.map_err(failed)?;
        visit.advance();
        let session = stream.get_ref().1;
        // Read after the handshake: the library goes on without one when the peer offers none (13.3, TLS profile 3).
        if session.alpn_protocol() != Some(ALPN) {
            return Err(Failure::Below("alpn"));
        }
        let chain = session.peer_certificates().filter(|chain| !chain.is_empty());
        let shown = chain.map(|chain| {
            let serial = vestibule_tls::device_serial(&chain[0])?;
            Ok::<_, vestibule_tls::NotADevice>(Shown { serial, chain: chain.to_vec() })
        });
        let certificate = shown.transpose().map_err(|error| {
            tracing::debug!(%error, "a device certificate names no serial");
            Failure::Below("device_certificate")
        })?;
        let mut connection = Connection::new(stream);
        let outcome = visit.run(&mut connection, certificate).await;
        connection.close(self.config.frame_timeout).await;
        outcome
    }

    /// The DAS for a device that has reached us at this address.
    fn choose(&self, local: impl FnOnce() -> std::net::IpAddr) -> Option<Das> {
        let mut info = self.assignment.choose(local)?;
        let tls_port = self.config.tls.as_ref().map(|_| info.port);
        info.domain.clone_from(&self.config.das_domain);
        Some(Das { info, tls_port, bind: self.config.bind, expires_in: self.config.expires_in })
    }

    /// Whether short codes are looked at at all.
    fn takes_short_codes(&self, steady: i64) -> bool {
        self.short_failures.lock().count(HOUR, steady) < SHORT_FAILURES
    }

    /// A short code was wrong. True when it was the one that closes all windows.
    fn short_code_failed(&self, steady: i64) -> bool {
        let mut failures = self.short_failures.lock();
        failures.add(HOUR, steady);
        failures.count(HOUR, steady) == SHORT_FAILURES
    }
}
