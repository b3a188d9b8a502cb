//! Both ends of one connection, and what they need.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};
use vestibule_tls::{Anchor, Authority, Ca, ClientTls, DeviceVerifier, Identity, Key, Purpose, Resolver, ServerTls};

/// 2027-01-15, Unix milliseconds.
pub(crate) const NOW: i64 = 1_800_000_000_000;
pub(crate) const DAY: i64 = 86_400_000;

/// A clock that the test sets.
#[derive(Debug)]
pub(crate) struct Clock(AtomicI64);

impl Clock {
    pub(crate) fn at(ms: i64) -> Arc<Clock> {
        Arc::new(Clock(AtomicI64::new(ms)))
    }

    pub(crate) fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms.try_into().expect("after 1970"))))
    }
}

/// An authority with what is due.
pub(crate) fn authority(purpose: Purpose, now: i64) -> Authority {
    let mut authority = Authority::new(purpose, []);
    renew(&mut authority, now);
    authority
}

pub(crate) fn renew(authority: &mut Authority, now: i64) -> usize {
    let due = authority.due(now).expect("made");
    let made = due.len();
    due.into_iter().for_each(|ca| authority.add(ca));
    made
}

pub(crate) fn again(purpose: Purpose, ca: &Ca) -> Ca {
    Ca::load(purpose, ca.rank(), ca.certificate().to_vec(), ca.key()).expect("it was kept")
}

/// A server of ours with its authority, and the authority of devices.
pub(crate) struct House {
    pub(crate) clock: Arc<Clock>,
    pub(crate) servers: Authority,
    pub(crate) devices: Authority,
    pub(crate) key: Key,
    pub(crate) tls: ServerTls,
    pub(crate) verifier: Arc<DeviceVerifier>,
}

pub(crate) fn names() -> Vec<String> {
    ["lbs.example.org", "localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec()
}

impl House {
    pub(crate) fn new() -> House {
        let clock = Clock::at(NOW);
        let servers = authority(Purpose::Servers, NOW);
        let devices = authority(Purpose::Devices, NOW);
        let key = Key::generate().expect("a key");
        let chain = servers.server_certificate(&key, &names(), NOW).expect("issued");
        let resolver = Resolver::new(&Identity::new(chain, &key).expect("a pair")).expect("a pair");
        let verifier = DeviceVerifier::new(devices.anchors(NOW), []).expect("readable");
        let time: Arc<dyn TimeProvider> = Arc::<Clock>::clone(&clock);
        House { tls: ServerTls::new(resolver, time), clock, servers, devices, key, verifier }
    }

    pub(crate) fn ca(&self) -> Anchor {
        Anchor::Ca(self.servers.anchors(NOW).remove(0))
    }

    /// A client that trusts these, by the house's clock.
    pub(crate) fn client(&self, anchors: impl IntoIterator<Item = Anchor>) -> ClientTls {
        let time: Arc<dyn TimeProvider> = Arc::<Clock>::clone(&self.clock);
        ClientTls::new(anchors, time).expect("anchors")
    }

    pub(crate) fn show(&self, chain: Vec<CertificateDer<'static>>) {
        self.tls.resolver().replace(&Identity::new(chain, &self.key).expect("a pair")).expect("a pair");
    }

    pub(crate) fn revoke(&self, chain: &[CertificateDer<'static>]) {
        let facts = vestibule_tls::CertificateFacts::read(&chain[0]).expect("ours");
        self.verifier.revoke([facts.serial]);
    }
}

/// A device with a key and a request for its certificate.
pub(crate) struct Device {
    pub(crate) key: KeyPair,
    pub(crate) request: CertificateSigningRequestDer<'static>,
}

impl Device {
    pub(crate) fn new() -> Device {
        Device::with_key(KeyPair::generate().expect("a key"))
    }

    pub(crate) fn with_key(key: KeyPair) -> Device {
        // It asks to be somebody: nobody listens.
        let params = CertificateParams::new(vec!["lbs.example.org".to_owned()]).expect("a name");
        let request = params.serialize_request(&key).expect("signed").der().clone();
        Device { key, request }
    }

    pub(crate) fn identity(&self, chain: &[CertificateDer<'static>]) -> Identity {
        Identity::from_pem(vestibule_tls::pem(chain).as_bytes(), self.key.serialize_pem().as_bytes()).expect("a pair")
    }
}

/// Both ends after a handshake that succeeded.
pub(crate) struct Pair {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
}

/// Which end gave up, and why.
#[derive(Debug)]
pub(crate) enum Failed {
    Client(Error),
    Server(Error),
}

pub(crate) fn connect(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Result<Pair, Failed> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let client = ClientConnection::new(Arc::clone(client), name).map_err(Failed::Client)?;
    let server = ServerConnection::new(Arc::clone(server)).map_err(Failed::Server)?;
    let mut pair = Pair { client, server };
    pair.settle()?;
    assert!(!pair.client.is_handshaking() && !pair.server.is_handshaking());
    Ok(pair)
}

impl Pair {
    /// Hands bytes over until nobody has any.
    pub(crate) fn settle(&mut self) -> Result<(), Failed> {
        while self.client.wants_write() || self.server.wants_write() {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).expect("memory");
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                self.server.read_tls(&mut rest).expect("memory");
                self.server.process_new_packets().map_err(Failed::Server)?;
            }
            let mut bytes = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).expect("memory");
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                self.client.read_tls(&mut rest).expect("memory");
                self.client.process_new_packets().map_err(Failed::Client)?;
            }
        }
        Ok(())
    }
}
