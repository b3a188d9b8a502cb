//! A peer that speaks TLS, and the house whose certificate it knows.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use vestibule_broker::codec::frame_len;
use vestibule_tls::rustls::pki_types::{CertificateDer, UnixTime};
use vestibule_tls::rustls::time_provider::TimeProvider;
use vestibule_tls::rustls::{ClientConfig, ClientConnection, ServerConfig};
use vestibule_tls::{Anchor, Authority, ClientTls, DeviceVerifier, Identity, Key, Purpose, Resolver, ServerTls};

use crate::client::CONNACK_OK;
use crate::probe::PATIENCE;

#[derive(Debug)]
struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::now())
    }
}

/// Authorities and a server's certificate, made for one test.
pub struct House {
    pub tls: ServerTls,
    pub devices: Authority,
    verifier: Arc<DeviceVerifier>,
    anchor: Anchor,
}

impl House {
    pub fn new() -> House {
        let now = now();
        let servers = authority(Purpose::Servers, now);
        let devices = authority(Purpose::Devices, now);
        let key = Key::generate().expect("a key");
        let chain = servers.server_certificate(&key, &["localhost".to_owned()], now).expect("issued");
        let resolver = Resolver::new(&Identity::new(chain, &key).expect("a pair")).expect("a pair");
        House {
            tls: ServerTls::new(resolver, Arc::new(Now)),
            verifier: DeviceVerifier::new(devices.anchors(now), []).expect("readable"),
            anchor: Anchor::Ca(servers.anchors(now).remove(0)),
            devices,
        }
    }

    pub fn das(&self) -> Arc<ServerConfig> {
        self.tls.osap_das(&self.verifier)
    }

    pub fn client(&self) -> ClientTls {
        ClientTls::new([self.anchor.clone()], Arc::new(Now)).expect("an anchor")
    }

    /// A device's certificate, and what proves it.
    pub fn device(&self, serial: &str) -> (Identity, CertificateDer<'static>) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let request = rcgen::CertificateParams::default().serialize_request(&key).expect("signed");
        let life = 60 * 60 * 1_000;
        let chain = self.devices.device_certificate(request.der(), serial, life, now()).expect("issued");
        let leaf = chain[0].clone();
        let pem = vestibule_tls::pem(&chain);
        (Identity::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).expect("a pair"), leaf)
    }
}

fn authority(purpose: Purpose, now: i64) -> Authority {
    let mut authority = Authority::new(purpose, []);
    authority.due(now).expect("made").into_iter().for_each(|ca| authority.add(ca));
    authority
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the end of time")
}

pub struct TlsClient {
    pub stream: TcpStream,
    pub tls: ClientConnection,
    unread: Vec<u8>,
    /// The peer has said that it is done.
    pub said_goodbye: bool,
}

impl TlsClient {
    /// A connection with nothing said yet.
    pub fn dial(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsClient {
        TlsClient::over(TcpStream::connect(address).expect("the listener accepts"), config)
    }

    /// The same over a connection that is there.
    pub fn over(stream: TcpStream, config: &Arc<ClientConfig>) -> TlsClient {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("no delay");
        let name = "localhost".try_into().expect("a name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
        TlsClient { stream, tls, unread: Vec::new(), said_goodbye: false }
    }

    /// What TLS has to say now, unsent.
    pub fn unsent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).expect("memory");
        }
        bytes
    }

    /// Completes the handshake; `hand_over` sends what the client has to say.
    pub fn shake_hands(mut self, mut hand_over: impl FnMut(&mut TcpStream, &[u8])) -> TlsClient {
        loop {
            let bytes = self.unsent();
            hand_over(&mut self.stream, &bytes);
            if !self.tls.is_handshaking() {
                return self;
            }
            assert!(self.fill(), "the handshake ended early");
        }
    }

    /// Completes the handshake.
    pub fn finish(self) -> TlsClient {
        self.shake_hands(|stream, bytes| stream.write_all(bytes).expect("sent"))
    }

    pub fn log_in(self, id: &str) -> TlsClient {
        let mut client = if self.tls.is_handshaking() { self.finish() } else { self };
        client.send(&crate::client::connect(id));
        client.expect(&CONNACK_OK);
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.tls.writer().write(rest).expect("room");
            rest = &rest[taken..];
            let records = self.unsent();
            self.stream.write_all(&records).expect("the peer takes bytes");
        }
    }

    /// The next bytes are these.
    #[track_caller]
    pub fn expect(&mut self, bytes: &[u8]) {
        while self.unread.len() < bytes.len() && self.fill() {}
        let got = self.unread.len().min(bytes.len());
        assert_eq!(self.unread[..got], *bytes);
        self.unread.drain(..got);
    }

    /// The connection ends here, without another byte of MQTT.
    #[track_caller]
    pub fn expect_end(&mut self) {
        while self.fill() {}
        assert_eq!(self.unread, [] as [u8; 0], "bytes before the end");
    }

    /// The next whole packet; `None` at the end.
    #[track_caller]
    pub fn packet(&mut self) -> Option<Vec<u8>> {
        loop {
            match frame_len(&self.unread, 1 << 28).expect("the server speaks MQTT") {
                Some(len) if self.unread.len() >= len => return Some(self.unread.drain(..len).collect()),
                _ if self.fill() => {}
                _ => return None,
            }
        }
    }

    /// One read from the socket. False at the end.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut buffer = vec![0; 1 << 18];
        let n = match self.stream.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing came in time: {error}"),
        };
        let mut input = &buffer[..n];
        while !input.is_empty() && !self.said_goodbye {
            self.tls.read_tls(&mut input).expect("TLS");
            let state = self.tls.process_new_packets().expect("TLS");
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut plain).expect("it said so");
            self.unread.extend_from_slice(&plain);
            self.said_goodbye |= state.peer_has_closed();
        }
        n > 0 && !self.said_goodbye
    }

    /// Sends until the kernel takes no more for `pause`; returns how many bytes of MQTT it took whole.
    pub fn stuff(&mut self, bytes: &[u8], pause: Duration) -> usize {
        self.stream.set_write_timeout(Some(pause)).expect("a timeout can be set");
        let mut taken = 0;
        for part in bytes.chunks(16 * 1024) {
            self.tls.writer().write_all(part).expect("room");
            let records = self.unsent();
            let mut sent = 0;
            while sent < records.len() {
                match self.stream.write(&records[sent..]) {
                    Ok(n) => sent += n,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        return taken;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            taken += part.len();
        }
        taken
    }
}
