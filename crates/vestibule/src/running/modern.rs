//! The listeners for devices of the modern suites: over TLS, and over plain TCP where somebody asks for that.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;
use vestibule_access::{
    Assignment, Das, DasNode, Epochs, ModernLbs, ModernLbsConfig, Provisioner, modern_das_listener,
};
use vestibule_broker::{ListenerConfig, TlsListener};

use super::{Running, not_listening};
use crate::config::Config;

/// The name in the certificate that a device looks for where no other is told: every certificate of the platform's own has
/// it.
const LOCALHOST: &str = "localhost";

impl Running {
    /// Opens what is on: a DAS before the LBS that sends devices there.
    pub(super) fn listen_modern(&mut self, config: &Config) -> anyhow::Result<()> {
        // One for both transports: a device has one newest session.
        let epochs = Arc::new(Epochs::default());
        self.platform.set_provisioner(Arc::new(Provisioner::new(Arc::clone(&epochs))));
        let certificates = self.platform.certificates();
        let das_tls = TlsListener::new(certificates.server_tls().osap_das(certificates.verifier()));
        self.listeners.das = self.modern_das(config, Some(&das_tls), &epochs)?;
        self.listeners.lbs = self.modern_lbs(config, Some(&das_tls), self.listeners.das, &epochs)?;
        self.listeners.das_plain = self.modern_das(config, None, &epochs)?;
        self.listeners.lbs_plain = self.modern_lbs(config, None, self.listeners.das_plain, &epochs)?;
        Ok(())
    }

    fn modern_das(
        &self,
        config: &Config,
        tls: Option<&TlsListener>,
        epochs: &Arc<Epochs>,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let das = &config.das;
        let over_tls = tls.is_some();
        let (key, name, address) = match over_tls {
            true => ("das.listen", "das", das.listen),
            false => ("das.plain_listen", "das_plain", das.plain_listen),
        };
        let Some(address) = address else { return Ok(None) };
        let listener = ListenerConfig {
            tls: tls.cloned(),
            max_connections: das.max_connections,
            max_frame: das.max_frame_bytes,
            max_out: das.max_queue_bytes,
            ..modern_das_listener(name)
        };
        let (platform, handle) = (Arc::clone(&self.platform), Handle::current());
        let service = Das::modern(platform, handle, das.time(), over_tls, Arc::clone(epochs));
        let bound = self.broker.listen(address, listener, service);
        bound.map(Some).map_err(|error| not_listening(key, address, error))
    }

    fn modern_lbs(
        &self,
        config: &Config,
        das_tls: Option<&TlsListener>,
        das: Option<SocketAddr>,
        epochs: &Arc<Epochs>,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let lbs = &config.lbs;
        let over_tls = das_tls.is_some();
        let (key, name, address) = match over_tls {
            true => ("lbs.listen", "lbs", lbs.listen),
            false => ("lbs.plain_listen", "lbs_plain", lbs.plain_listen),
        };
        let Some(address) = address else { return Ok(None) };
        let assignment = das.map_or_else(Assignment::none, |bound| Assignment::single(node(config, bound)));
        let certificates = self.platform.certificates();
        let places = lbs.max_connections;
        let limits = ModernLbsConfig {
            tls: over_tls.then(|| certificates.server_tls().osap_lbs(certificates.verifier())),
            das_tls: das_tls.cloned(),
            ticket_lifetime_s: u32::try_from(lbs.ticket_lifetime.as_secs()).unwrap_or(u32::MAX),
            expires_in: u32::try_from(config.das.session_life.as_secs()).unwrap_or(u32::MAX),
            certificate_life: lbs.certificate_life,
            bind: config.das.bind,
            das_domain: config.das.advertise.as_ref().map_or(LOCALHOST, |told| told.host()).to_owned(),
            run_timeout: lbs.run_timeout,
            // Shares as at the legacy listener.
            max_connections: (places - places / 16).min(places.saturating_sub(1)).max(1),
            max_per_address: (places / 4).max(1),
            max_per_network: (places / 2).max(1),
            attempts: Arc::clone(&self.attempts),
            ..ModernLbsConfig::default()
        };
        let platform = Arc::clone(&self.platform);
        let service = ModernLbs::new(platform, Arc::new(assignment), Arc::clone(epochs), limits);
        let serve = move |stream, peer, agreements| Arc::clone(&service).serve(stream, peer, agreements);
        let bound = self.lbs.listen(address, places, name, serve);
        bound.map(Some).map_err(|error| not_listening(key, address, error))
    }
}

/// The node devices are sent to: the advertised host, else the listener's address, else the one they reached the LBS at. The
/// port is the listener's: an advertised one is that of the legacy listener.
fn node(config: &Config, bound: SocketAddr) -> DasNode {
    let host = match &config.das.advertise {
        Some(told) => Some(told.host().to_owned()),
        None => (!bound.ip().is_unspecified()).then(|| bound.ip().to_string()),
    };
    DasNode { host, port: bound.port(), server_id: "das1".to_owned() }
}
