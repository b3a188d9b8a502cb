//! An authority with the certificates of an LBS and a DAS.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vestibule_device::{Anchor, Clock};
use vestibule_tls::rustls::ServerConfig;
use vestibule_tls::rustls::pki_types::{CertificateDer, UnixTime};
use vestibule_tls::rustls::time_provider::TimeProvider;
use vestibule_tls::{Authority, DeviceVerifier, Identity, Key, Purpose, Resolver, ServerTls, spki_sha256};

/// 2026-11-20T21:31:22.110Z.
pub const NOW: i64 = 1_795_210_282_110;

/// It is always [`NOW`], or some other time.
#[derive(Debug, Clone, Copy)]
pub struct At(pub i64);

impl Clock for At {
    fn now_ms(&self) -> i64 {
        self.0
    }
}

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.try_into().unwrap())))
    }
}

#[derive(Clone)]
pub struct House {
    pub lbs: Arc<ServerConfig>,
    pub das: Arc<ServerConfig>,
    pub web: Arc<ServerConfig>,
    pub root: CertificateDer<'static>,
    /// SHA-256 of the public key of both servers.
    pub pin: [u8; 32],
    pub devices: Arc<Authority>,
    tls: Arc<ServerTls>,
    roots: Arc<Mutex<Roots>>,
}

/// The authority of the servers, and what they show.
struct Roots {
    servers: Authority,
    key: Key,
    names: Vec<String>,
}

fn authority(purpose: Purpose) -> Authority {
    let mut authority = Authority::new(purpose, []);
    let due = authority.due(NOW).unwrap();
    due.into_iter().for_each(|ca| authority.add(ca));
    authority
}

fn verifier(devices: &Authority) -> Arc<DeviceVerifier> {
    DeviceVerifier::new(devices.anchors(NOW), []).unwrap()
}

impl House {
    /// The same, which does not know the devices of before by their certificates.
    pub fn with_other_devices(&self) -> Self {
        let devices = authority(Purpose::Devices);
        Self { lbs: self.tls.osap_lbs(&verifier(&devices)), devices: Arc::new(devices), ..self.clone() }
    }

    /// With certificates for these names.
    pub fn of(names: &[&str]) -> Self {
        let (servers, devices) = (authority(Purpose::Servers), authority(Purpose::Devices));
        let key = Key::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let chain = servers.server_certificate(&key, &names, NOW).unwrap();
        let pin = spki_sha256(&chain[0]).unwrap();
        let resolver = Resolver::new(&Identity::new(chain, &key).unwrap()).unwrap();
        let verifier = verifier(&devices);
        let tls = ServerTls::new(resolver, Arc::new(At(NOW)));
        Self {
            lbs: tls.osap_lbs(&verifier),
            das: tls.osap_das(&verifier),
            web: tls.http(),
            root: servers.anchors(NOW).remove(0),
            pin,
            devices: Arc::new(devices),
            tls: Arc::new(tls),
            roots: Arc::new(Mutex::new(Roots { servers, key, names })),
        }
    }

    pub fn new() -> Self {
        Self::of(&["127.0.0.1", "das.example"])
    }

    /// A new root, which the older one vouches for in what the servers show. Its certificate.
    pub fn roll(&self) -> Vec<u8> {
        let mut roots = self.roots.lock();
        let made = roots.servers.roll(NOW).unwrap();
        made.into_iter().for_each(|ca| roots.servers.add(ca));
        self.show(&roots)
    }

    /// Takes the older roots away.
    pub fn retire(&self) {
        let mut roots = self.roots.lock();
        let retiring = roots.servers.retiring();
        roots.servers.remove(&retiring);
        self.show(&roots);
    }

    /// Another key for the servers.
    pub fn rekey(&self) {
        let mut roots = self.roots.lock();
        roots.key = Key::generate().unwrap();
        self.show(&roots);
    }

    fn show(&self, roots: &Roots) -> Vec<u8> {
        let chain = roots.servers.server_certificate(&roots.key, &roots.names, NOW).unwrap();
        self.tls.resolver().replace(&Identity::new(chain, &roots.key).unwrap()).unwrap();
        roots.servers.anchors(NOW).remove(0).to_vec()
    }

    pub fn anchor(&self) -> Anchor {
        Anchor::Certificate(self.root.to_vec())
    }
}
