//! A platform for one device, which says what it sees.

use std::net::SocketAddr;
use std::sync::Arc;

use osap::modern::login::BootId;
use osap::modern::server::Record;
use osap::modern::ticket::Used;
use osap::modern::{Node, Tickets};
use osap::{Code, Suite};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use vestibule_device::{Builder, Device, Storage};

use super::house::{At, House, NOW};
use super::{das, lbs};

pub const SERIAL: &str = "SN0000001";
pub const CODE: &str = "ABCDEFGHJKMNP";
pub const EVENT: &str = "/iot/SN0000001/global/0-Camera/model/event/report/Detection/Motion";

/// What the peer saw, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A run that went through, and what proved the device.
    Run(Used),
    /// A refusal, sealed or not.
    Refused(u8),
    /// An LBS connection ended before its end.
    Cut,
    /// A CONNECT, and the code of its answer.
    Connect(u8),
    Report(BootId),
    Subscribe(String),
    Event(Event),
    Receipt(u64),
    PubAck,
    Disconnect,
    /// A DAS connection that did not say goodbye.
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub topic: String,
    /// `Seq` of its general part.
    pub seq: u64,
    /// Its number in the login.
    pub number: u64,
    pub body: String,
}

/// Where the LBS hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// AUTH-I has come.
    Hello,
    /// The new ticket is about to be stored.
    Unstored,
    /// It is stored, and not sent.
    Unsent,
    /// It is sent, and what the device says to that is not read.
    Unread,
    /// 0x92 has come, and 0xB2 is not sent.
    Unanswered,
}

/// What the DAS proves itself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello {
    Right,
    Missing,
    Wrong,
}

pub struct World {
    pub record: Record,
    pub cut: Option<Cut>,
    pub hello: Hello,
    /// CONNACK codes to be sent instead of 0.
    pub connacks: Vec<u8>,
    pub expires_in: u32,
    pub bind: bool,
    /// Events whose PUBACK does not come.
    pub swallow: usize,
    /// The DAS sends receipts.
    pub receipts: bool,
    /// Where the DAS says it is; the TLS port when there is one.
    pub das: SocketAddr,
    pub tls: bool,
    pub domain: String,
    pub node: Option<Node>,
    pub suite: Option<Suite>,
    /// Into the present connection.
    pub down: Option<mpsc::UnboundedSender<Down>>,
    /// The types that are usable here.
    pub suites: Vec<Suite>,
    /// Device certificates are issued.
    pub certificates: usize,
    /// CA certificates that devices are told of.
    pub anchors: Vec<Vec<u8>>,
    /// What devices have said that they know this platform by, run by run.
    pub known_by: Vec<Vec<[u8; 32]>>,
}

/// What the DAS does to its connection.
#[derive(Debug, Clone)]
pub enum Down {
    /// Sends this, sealed as the next one, at QoS 1.
    Send { topic: String, seq: u64, body: String },
    /// The same twice.
    Twice { topic: String, seq: u64, body: String },
    /// Leaves a number out before this one.
    Gap { topic: String, seq: u64, body: String },
    /// Changes a byte of this one.
    Spoil { topic: String, seq: u64, body: String },
    /// A receipt for everything that has come.
    Receipt,
}

#[derive(Clone)]
pub struct Site {
    pub world: Arc<Mutex<World>>,
    pub house: House,
    pub seen: mpsc::UnboundedSender<Seen>,
    /// Breaks the DAS connection.
    pub kill: Arc<Notify>,
}

pub struct Peer {
    pub lbs: SocketAddr,
    pub site: Site,
    seen: mpsc::UnboundedReceiver<Seen>,
}

/// A connection with or without TLS.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Peer {
    /// With TLS.
    pub async fn tls() -> Self {
        Self::start(House::new(), true).await
    }

    pub async fn start(house: House, tls: bool) -> Self {
        let lbs = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let das = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let code = Some(Code::new(CODE).unwrap());
        let world = World {
            record: Record { code, tickets: Tickets::default(), may_enrol_again: true, ..Record::default() },
            cut: None,
            hello: Hello::Right,
            connacks: Vec::new(),
            expires_in: 86_400,
            bind: true,
            swallow: 0,
            receipts: true,
            das: das.local_addr().unwrap(),
            tls,
            domain: "das.example".into(),
            node: None,
            suite: None,
            down: None,
            suites: if tls { vec![Suite::Tls] } else { vec![Suite::X25519, Suite::P384] },
            certificates: 0,
            anchors: Vec::new(),
            known_by: Vec::new(),
        };
        let site = Site { world: Arc::new(Mutex::new(world)), house, seen: sender, kill: Arc::default() };
        let peer = Self { lbs: lbs.local_addr().unwrap(), site: site.clone(), seen };
        let for_das = site.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = lbs.accept().await {
                let site = site.clone();
                tokio::spawn(async move {
                    if !tls {
                        return lbs::serve(Box::new(tcp), None, None, site).await;
                    }
                    let acceptor = TlsAcceptor::from(Arc::clone(&site.house.lbs));
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let exporter = lbs::exporter(stream.get_ref().1);
                    let owner = stream
                        .get_ref()
                        .1
                        .peer_certificates()
                        .map(|chain| vestibule_tls::device_serial(&chain[0]).unwrap());
                    lbs::serve(Box::new(stream), Some(exporter), owner, site).await;
                });
            }
        });
        tokio::spawn(async move {
            while let Ok((tcp, _)) = das.accept().await {
                let site = for_das.clone();
                tokio::spawn(async move {
                    tcp.set_nodelay(true).unwrap();
                    if !tls {
                        return das::serve(Box::new(tcp), None, site).await;
                    }
                    let acceptor = TlsAcceptor::from(Arc::clone(&site.house.das));
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let bind = das::exporter(stream.get_ref().1);
                    das::serve(Box::new(stream), Some(bind), site).await;
                });
            }
        });
        peer
    }

    /// A device of this platform.
    pub fn builder(&self, storage: impl Storage) -> Builder {
        let scheme = if self.site.world.lock().tls { "osaps" } else { "osap" };
        Device::builder(SERIAL, CODE).lbs(format!("{scheme}://{}", self.lbs)).storage(storage).clock(At(NOW))
    }

    /// A device that trusts this platform.
    pub fn device(&self, storage: impl Storage) -> Device {
        self.builder(storage).anchors([self.site.house.anchor()]).start().unwrap()
    }

    pub fn world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.site.world.lock())
    }

    pub fn down(&self, down: Down) {
        self.world(|world| world.down.as_ref().unwrap().send(down).unwrap());
    }

    pub async fn next(&mut self) -> Seen {
        crate::soon(self.seen.recv()).await.unwrap()
    }

    /// Takes these, in this order.
    #[track_caller]
    pub fn expect(&mut self, expected: impl IntoIterator<Item = Seen>) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            for expected in expected {
                assert_eq!(self.next().await, expected, "{at}");
            }
        }
    }

    /// A login, from its CONNECT to the last subscription.
    pub async fn login(&mut self) -> BootId {
        assert_eq!(self.next().await, Seen::Connect(0));
        let Seen::Report(boot) = self.next().await else { panic!("no report") };
        for filter in ["/iot/SN0000001/#", "/SN0000001/#"] {
            assert_eq!(self.next().await, Seen::Subscribe(filter.into()));
        }
        boot
    }

    pub async fn event(&mut self) -> Event {
        loop {
            match self.next().await {
                Seen::Event(event) => return event,
                Seen::Receipt(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether nothing was seen that was not expected.
    pub fn is_quiet(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }
}

impl Site {
    /// The test may be over.
    pub fn see(&self, seen: Seen) {
        let _ = self.seen.send(seen);
    }
}
