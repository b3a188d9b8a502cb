//! The server's side of TLS handshakes, in memory.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use vestibule_tls::rustls::pki_types::ServerName;
use vestibule_tls::rustls::time_provider::DefaultTimeProvider;
use vestibule_tls::rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use vestibule_tls::{Anchor, Authority, DeviceVerifier, Identity, Key, Purpose, Resolver, ServerTls};

use super::{BATCH, thread_seconds};
use crate::trust::{LBS_NAME, Trust};

/// Whole TLS 1.3 handshakes with the configuration of the platform's own LBS, as its client of the same library has them:
/// a certificate under an intermediate is shown, one of the device asked for and not given. Only the server's share of the time
/// counts.
pub(super) struct Handshake {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    group: String,
}

impl Handshake {
    pub(super) fn new() -> anyhow::Result<Handshake> {
        let (client, server) = ends()?;
        Ok(Handshake { client, server, group: String::new() })
    }

    /// What it is, with the group that was negotiated.
    pub(super) fn what(&self) -> String {
        format!("TLS handshake, {}", self.group)
    }

    /// CPU time of a batch in seconds.
    pub(super) fn batch(&mut self) -> anyhow::Result<f64> {
        let mut pairs = (0..BATCH).map(|_| Pair::greet(&self.client)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut spent = 0.0;
        for part in [Pair::answer, Pair::finish] {
            let before = thread_seconds();
            pairs.iter_mut().try_for_each(|pair| part(pair, &self.server))?;
            spent += thread_seconds() - before;
            pairs.iter_mut().try_for_each(Pair::listen)?;
        }
        for Pair { client, server, .. } in &pairs {
            let server = server.as_ref().context("there was no handshake")?;
            ensure!(!client.is_handshaking() && !server.is_handshaking(), "the handshake was not finished");
            let negotiated = server.negotiated_key_exchange_group().context("no group was negotiated")?;
            self.group = format!("{:?}", negotiated.name());
        }
        Ok(spent)
    }
}

/// The configurations of a device and of an LBS that it trusts.
fn ends() -> anyhow::Result<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let now = Timestamp::now().as_millisecond();
    let authority = |purpose| -> anyhow::Result<Authority> {
        let mut authority = Authority::new(purpose, []);
        authority.due(now)?.into_iter().for_each(|ca| authority.add(ca));
        Ok(authority)
    };
    let (servers, devices) = (authority(Purpose::Servers)?, authority(Purpose::Devices)?);
    let key = Key::generate()?;
    let chain = servers.server_certificate(&key, &[LBS_NAME.to_owned()], now)?;
    let resolver = Resolver::new(&Identity::new(chain, &key)?)?;
    let verifier = DeviceVerifier::new(devices.anchors(now), [])?;
    let server = ServerTls::new(resolver, Arc::new(DefaultTimeProvider)).osap_lbs(&verifier);
    let trust = Trust::in_anchors(servers.anchors(now).into_iter().map(Anchor::Ca))?;
    Ok((trust.lbs, server))
}

/// Both ends, and what is on its way between them.
struct Pair {
    client: ClientConnection,
    server: Option<ServerConnection>,
    bytes: Vec<u8>,
}

impl Pair {
    /// A client that has said hello.
    fn greet(config: &Arc<ClientConfig>) -> anyhow::Result<Pair> {
        let mut client = ClientConnection::new(Arc::clone(config), ServerName::try_from(LBS_NAME)?)?;
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes)?;
        Ok(Pair { client, server: None, bytes })
    }

    /// The server hears that and says its part.
    fn answer(&mut self, config: &Arc<ServerConfig>) -> anyhow::Result<()> {
        self.server = Some(ServerConnection::new(Arc::clone(config))?);
        self.finish(config)
    }

    /// The server takes what has come.
    fn finish(&mut self, _: &Arc<ServerConfig>) -> anyhow::Result<()> {
        let server = self.server.as_mut().context("there is no server")?;
        let mut unread = &self.bytes[..];
        while !unread.is_empty() {
            server.read_tls(&mut unread)?;
            server.process_new_packets()?;
        }
        self.bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut self.bytes)?;
        }
        Ok(())
    }

    /// The client takes what has come, and answers.
    fn listen(&mut self) -> anyhow::Result<()> {
        let mut unread = &self.bytes[..];
        while !unread.is_empty() {
            self.client.read_tls(&mut unread)?;
            self.client.process_new_packets()?;
        }
        self.bytes.clear();
        while self.client.wants_write() {
            self.client.write_tls(&mut self.bytes)?;
        }
        Ok(())
    }
}
