//! A device made of the client machine of the modern suites, the envelope, and a socket with or without TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use osap::das::envelope::{self, General};
use osap::das::login::LoginRecord;
use osap::modern::client::{Attempt, Client, Failure, Identity, Output, Success};
use osap::modern::envelope::{Opened, Opener, Sealer};
use osap::modern::login::{self, BootId, Proof};
use osap::modern::message::{MAX_ANSWER, next_frame};
use osap::modern::seal::Direction;
use osap::modern::server::EXPORTER_LABEL;
use osap::modern::slots::{Slot, Way};
use osap::modern::{Exporter, Psk, Slots, TicketId};
use osap::{Code, DevId, Random as _, Serial, Suite, SystemRandom};
use vestibule_broker::codec::{Connect, Packet, PublishHead, QoS, Rules, decode, encode, frame_len};
use vestibule_platform::Provisioned;
use vestibule_tls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use vestibule_tls::rustls::time_provider::TimeProvider;
use vestibule_tls::rustls::{ClientConfig, ClientConnection, ServerConfig, StreamOwned};
use vestibule_tls::{
    Anchor, Authority, ClientTls, DeviceVerifier, Identity as TlsIdentity, Key, Purpose, Resolver, ServerTls,
    certificate_request, read_pem,
};

use crate::site::{NOW, PATIENCE, SERIAL, Site};

/// A code that nobody guesses.
pub const LONG_CODE: &str = "ABCDEFGHJKMNP";

#[derive(Debug)]
struct Noon;

impl TimeProvider for Noon {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(NOW as u64)))
    }
}

/// An authority, the configurations of LBS and DAS under it, and what devices trust.
pub struct House {
    roots: Vec<CertificateDer<'static>>,
    pub lbs: Arc<ServerConfig>,
    pub das: Arc<ServerConfig>,
}

fn authority(purpose: Purpose) -> Authority {
    let mut authority = Authority::new(purpose, []);
    let due = authority.due(NOW).expect("made");
    due.into_iter().for_each(|ca| authority.add(ca));
    authority
}

impl House {
    pub fn new() -> House {
        let devices = authority(Purpose::Devices);
        let verifier = DeviceVerifier::new(devices.anchors(NOW), []).expect("readable");
        let servers = authority(Purpose::Servers);
        let key = Key::generate().expect("a key");
        let names = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
        let chain = servers.server_certificate(&key, &names, NOW).expect("issued");
        let resolver = Resolver::new(&TlsIdentity::new(chain, &key).expect("a pair")).expect("a pair");
        let tls = ServerTls::new(resolver, Arc::new(Noon));
        House { lbs: tls.osap_lbs(&verifier), das: tls.osap_das(&verifier), roots: servers.anchors(NOW) }
    }

    /// The platform's own, with its authority.
    pub fn of(site: &Site) -> House {
        let certificates = site.platform.certificates();
        let roots = read_pem(site.block_on(certificates.anchors_pem(Purpose::Servers)).as_bytes()).expect("PEM");
        let (tls, verifier) = (certificates.server_tls(), certificates.verifier());
        House { lbs: tls.osap_lbs(verifier), das: tls.osap_das(verifier), roots }
    }

    pub fn client_das(&self) -> Arc<ClientConfig> {
        self.client().osap_das()
    }

    fn client(&self) -> ClientTls {
        ClientTls::new([Anchor::Ca(self.roots[0].clone())], Arc::new(Noon)).expect("anchors")
    }
}

/// A connection with or without TLS.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub fn plain(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).expect("the listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_nodelay(true).expect("set");
        Wire::Plain(stream)
    }

    pub fn tls(address: SocketAddr, config: Arc<ClientConfig>, name: &str) -> Wire {
        let Wire::Plain(mut stream) = Wire::plain(address) else { unreachable!("it is plain") };
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(config, name).expect("a configuration");
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).expect("a handshake");
        }
        Wire::Tls(Box::new(StreamOwned::new(connection, stream)))
    }

    fn export(&self, label: &[u8], context: &[u8]) -> Option<Exporter> {
        let Wire::Tls(tls) = self else { return None };
        let material = tls.conn.export_keying_material([0; 48], label, Some(context)).expect("exported");
        Some(Exporter::from_bytes(&material).expect("48 bytes"))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        match self {
            Wire::Plain(stream) => stream.write_all(bytes).expect("the peer takes bytes"),
            Wire::Tls(stream) => {
                stream.write_all(bytes).expect("the peer takes bytes");
                stream.flush().expect("the peer takes bytes");
            }
        }
    }

    /// What comes next; nothing at the end.
    pub fn read(&mut self, into: &mut Vec<u8>) -> usize {
        let mut chunk = [0; 4096];
        let count = match self {
            Wire::Plain(stream) => stream.read(&mut chunk),
            Wire::Tls(stream) => stream.read(&mut chunk),
        }
        .unwrap_or(0);
        into.extend_from_slice(&chunk[..count]);
        count
    }
}

/// A device: what it keeps, and where its services are.
pub struct Device<'a> {
    pub slots: Slots,
    pub code: Option<Code>,
    pub boot: BootId,
    house: Option<&'a House>,
    suite: Suite,
    more: Option<Suite>,
    /// It asks for a certificate in each run.
    pub asks: bool,
    /// The one that it shows.
    pub identity: Option<TlsIdentity>,
}

impl<'a> Device<'a> {
    /// A device that runs type 4 under what this house's servers show.
    pub fn over_tls(house: &'a House) -> Device<'a> {
        let code = Some(Code::new(LONG_CODE).expect("a code"));
        let boot = BootId::draw(&mut SystemRandom);
        Device {
            slots: Slots::default(),
            code,
            boot,
            house: Some(house),
            suite: Suite::Tls,
            more: None,
            asks: false,
            identity: None,
        }
    }

    /// One that was given this where it was made, and runs the suite over plain TCP.
    pub fn over_tcp(suite: Suite, given: &Provisioned) -> Device<'static> {
        let ticket = TicketId::new(given.ticket.as_slice().try_into().expect("sixteen bytes"));
        let psk = Psk::from_bytes(given.psk.expose()).expect("48 bytes");
        let dev_id = Some(DevId::parse(given.dev_id.as_bytes()).expect("a DevID"));
        let slots = Slots { dev_id, base: Some(Slot { ticket, psk }), ..Slots::default() };
        let boot = BootId::draw(&mut SystemRandom);
        Device { slots, code: None, boot, house: None, suite, more: None, asks: false, identity: None }
    }

    /// It would also run this suite.
    pub fn also(&mut self, suite: Suite) {
        self.more = Some(suite);
    }

    fn dial(&self, address: SocketAddr, lbs: bool) -> Wire {
        let Some(house) = self.house else { return Wire::plain(address) };
        let client = match &self.identity {
            Some(identity) => house.client().with_identity(identity).expect("a pair"),
            None => house.client(),
        };
        let config = if lbs { client.osap_lbs() } else { client.osap_das() };
        Wire::tls(address, config, "localhost")
    }

    /// One run at the LBS; what it gives is stored.
    pub fn run(&mut self, lbs: SocketAddr, way: Way) -> Result<Success, Failure> {
        self.run_with(lbs, way, |_| {})
    }

    /// The same with something that happens before a frame of this first byte is sent.
    pub fn run_with(&mut self, lbs: SocketAddr, way: Way, mut before: impl FnMut(u8)) -> Result<Success, Failure> {
        self.converse(lbs, way, &mut before, &mut |_| true).expect("it was not cut off")
    }

    /// A run that ends as the device has its credential, before it has stored it or said anything of it.
    pub fn lose(&mut self, lbs: SocketAddr, way: Way) {
        assert!(self.converse(lbs, way, &mut |_| {}, &mut |_| false).is_none(), "it had nothing to store");
    }

    /// A run after which the device has its credential, and the platform was not told.
    pub fn half_run(&mut self, lbs: SocketAddr, way: Way) {
        let mut kept = None;
        let ended = self.converse(lbs, way, &mut |_| {}, &mut |slots| {
            kept = Some(slots);
            false
        });
        assert!(ended.is_none(), "it had nothing to store");
        self.slots = kept.expect("it had something to store");
    }

    /// Goes on behind what is to be stored if `stores` says so.
    fn converse(
        &mut self,
        lbs: SocketAddr,
        way: Way,
        before: &mut dyn FnMut(u8),
        stores: &mut dyn FnMut(Slots) -> bool,
    ) -> Option<Result<Success, Failure>> {
        let mut wire = self.dial(lbs, true);
        let serial = Serial::new(SERIAL).expect("a serial");
        let identity =
            Identity { serial, code: self.code.clone(), suites: [self.suite].into_iter().chain(self.more).collect() };
        let key = self.asks.then(|| Key::generate().expect("a key"));
        let csr = key.as_ref().map(|key| certificate_request(key).expect("a request"));
        let attempt = Attempt { suite: self.suite, way, csr };
        let mut client = Client::new(identity, self.slots.clone(), attempt);
        let mut unread = Vec::new();
        loop {
            match client.poll() {
                Output::Compute => client.compute(&mut SystemRandom),
                Output::Export => {
                    let exporter = wire.export(EXPORTER_LABEL, SERIAL.as_bytes());
                    client.handle_exporter(&exporter.expect("over TLS"));
                }
                Output::Send(bytes) => {
                    before(bytes[0]);
                    wire.send(&bytes);
                }
                Output::Read => {
                    let len = loop {
                        if let Some(len) = next_frame(&unread, MAX_ANSWER).expect("the LBS speaks OSAP") {
                            break len;
                        }
                        assert!(wire.read(&mut unread) > 0, "the LBS has closed without an answer");
                    };
                    let frame: Vec<u8> = unread.drain(..len).collect();
                    client.handle_frame(&frame);
                }
                Output::Store(slots) => {
                    if !stores((*slots).clone()) {
                        return None;
                    }
                    self.slots = *slots;
                    client.handle_stored(true);
                }
                Output::Done(success) => {
                    if let Some(key) = key.filter(|_| !success.certificate.is_empty()) {
                        let chain = success.certificate.iter().map(|der| CertificateDer::from(der.clone())).collect();
                        self.identity = Some(TlsIdentity::new(chain, &key).expect("a pair"));
                    }
                    return Some(Ok(*success));
                }
                Output::Failed(failure) => return Some(Err(failure)),
            }
        }
    }

    /// CONNECTs to the DAS; the code of the CONNACK, and the connection with the hello still to be read.
    pub fn connect(&self, das: SocketAddr, success: &Success) -> (u8, Talk) {
        let mut wire = self.dial(das, false);
        let dev_id = success.slots.dev_id.expect("it has enrolled");
        let mut nonce = [0; 32];
        SystemRandom.fill(&mut nonce);
        let bind = if success.das.bind { wire.export(login::EXPORTER_LABEL, &[]) } else { None };
        let challenge = login::login_hash(bind.as_ref(), &dev_id, &nonce);
        let password = login::password(&success.node, &challenge, nonce).encode();
        let connect = Connect {
            clean_session: true,
            keep_alive: 30,
            client_id: dev_id.as_str(),
            will: None,
            user: Some(SERIAL),
            password: Some(&password),
        };
        let mut packet = Vec::new();
        encode::connect_under(&connect, &Rules::STRICT, &mut packet).expect("a CONNECT");
        wire.send(&packet);
        let mut talk = Talk { wire, unread: Vec::new(), connect: packet, keys: None };
        let frame = talk.frame().expect("a CONNACK");
        let Ok(Packet::ConnAck(connack)) = decode(&frame, &Rules::STRICT) else { panic!("no CONNACK") };
        if connack.code == 0 {
            let (topic, hello) = talk.message().expect("a hello");
            assert_eq!(topic, login::topic(&Serial::new(SERIAL).expect("a serial"), "hello"));
            let hello = Proof::decode(&hello).expect("eighty bytes");
            assert!(login::proves_das(&success.node, &challenge, &hello));
            let lh = login::hello_hash(&challenge, &hello.nonce);
            let key = |direction| login::record_key(&success.node, &lh, direction);
            let sealer = Sealer::new(self.suite, Direction::Up, key(Direction::Up));
            let opener = Opener::new(self.suite, Direction::Down, key(Direction::Down));
            talk.keys = Some((sealer, opener));
        }
        (connack.code, talk)
    }

    /// The same with the report: the session is the live one when its PUBACK has come.
    pub fn log_in(&self, das: SocketAddr, success: &Success) -> Talk {
        let (code, mut talk) = self.connect(das, success);
        assert_eq!(code, 0);
        talk.report(self, success);
        assert_eq!(talk.frame(), Some(vec![0x40, 2, 0, 1]), "the report is acknowledged");
        talk
    }
}

/// A connection to the DAS.
pub struct Talk {
    pub wire: Wire,
    unread: Vec<u8>,
    /// The CONNECT as it was sent.
    pub connect: Vec<u8>,
    pub keys: Option<(Sealer, Opener)>,
}

impl Talk {
    pub fn over(wire: Wire) -> Talk {
        Talk { wire, unread: Vec::new(), connect: Vec::new(), keys: None }
    }

    /// Sends the report of a device, without waiting for its PUBACK.
    pub fn report(&mut self, device: &Device<'_>, success: &Success) {
        let serial = Serial::new(SERIAL).expect("a serial");
        let record = LoginRecord {
            boot_id: Some(device.boot.to_string()),
            ..LoginRecord::short(&serial, &success.slots.dev_id.expect("it has enrolled"))
        };
        self.publish(&login::topic(&serial, "report"), 1, 1, &record.encode());
    }

    /// The next packet; `None` at the end.
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        loop {
            let len = frame_len(&self.unread, 1 << 20).expect("the DAS speaks MQTT");
            if let Some(len) = len.filter(|len| *len <= self.unread.len()) {
                return Some(self.unread.drain(..len).collect());
            }
            if self.wire.read(&mut self.unread) == 0 {
                return None;
            }
        }
    }

    /// The next PUBLISH.
    pub fn message(&mut self) -> Option<(String, Vec<u8>)> {
        let frame = self.frame()?;
        match decode(&frame, &Rules::STRICT) {
            Ok(Packet::Publish(publish)) => Some((publish.head.topic.to_owned(), publish.payload.to_vec())),
            other => panic!("no PUBLISH: {other:?}"),
        }
    }

    /// The next message, opened: its topic, its general and its application part.
    pub fn opened(&mut self) -> Option<(String, u64, Vec<u8>)> {
        let (topic, mut payload) = self.message()?;
        let (_, opener) = self.keys.as_mut().expect("logged in");
        let Ok(Opened::Next(text)) = opener.open(&topic, &mut payload) else { panic!("it does not open") };
        let opened = envelope::read(text).expect("a message");
        Some((topic, opened.general.seq, opened.application.to_vec()))
    }

    /// The payload of a message with this number of its own.
    pub fn sealed(&mut self, topic: &str, seq: u64, application: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        envelope::write(&General::bare(seq), application, &mut payload).expect("it fits");
        let (sealer, _) = self.keys.as_mut().expect("logged in");
        sealer.seal_tail(topic, &mut payload, 0).expect("it is not exhausted");
        payload
    }

    /// Publishes a sealed message with QoS 1, without waiting for its PUBACK.
    pub fn publish(&mut self, topic: &str, id: u16, seq: u64, application: &[u8]) {
        let payload = self.sealed(topic, seq, application);
        self.publish_raw(topic, id, &payload);
    }

    pub fn publish_raw(&mut self, topic: &str, id: u16, payload: &[u8]) {
        let head = PublishHead { dup: false, qos: QoS::AtLeastOnce, retain: false, topic, packet_id: Some(id) };
        let mut packet = Vec::new();
        encode::publish(&head, payload, &mut packet).expect("a PUBLISH");
        self.wire.send(&packet);
    }
}
