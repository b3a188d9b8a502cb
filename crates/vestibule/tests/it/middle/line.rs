//! Somebody between a device and a service of the platform, who cuts what passes into packets and does with them as he likes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use osap::modern::message::next_frame;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use vestibule_mqtt_codec::{ConnAck, encode, frame_len};
use vestibule_tls::rustls::pki_types::ServerName;
use vestibule_tls::rustls::{ClientConfig, ServerConfig};

/// No packet of either protocol is longer here.
const LONGEST: usize = 64 * 1024;

/// The first byte of a CONNECT.
pub const CONNECT: u8 = 0x10;

/// Who has sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Device,
    Platform,
}

/// What passes on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// Frames of the LBS.
    Lbs,
    /// Packets of MQTT.
    Mqtt,
}

impl Speech {
    fn len(self, bytes: &[u8]) -> Option<usize> {
        let whole = match self {
            Speech::Lbs => next_frame(bytes, LONGEST).expect("frames of the LBS"),
            Speech::Mqtt => frame_len(bytes, LONGEST).expect("packets of MQTT"),
        };
        whole.filter(|len| bytes.len() >= *len)
    }
}

/// What is said in place of one packet.
#[derive(Default)]
pub struct Hands {
    to_device: Vec<u8>,
    to_platform: Vec<u8>,
    cut: bool,
}

impl Hands {
    /// Says these bytes to whom a packet from there would go.
    pub fn pass(&mut self, from: From, bytes: &[u8]) {
        match from {
            From::Device => self.to_platform.extend_from_slice(bytes),
            From::Platform => self.to_device.extend_from_slice(bytes),
        }
    }

    /// Says these bytes to who has sent the packet.
    pub fn answer(&mut self, from: From, bytes: &[u8]) {
        match from {
            From::Device => self.to_device.extend_from_slice(bytes),
            From::Platform => self.to_platform.extend_from_slice(bytes),
        }
    }

    /// Ends the connection after what was said.
    pub fn cut(&mut self) {
        self.cut = true;
    }
}

/// What somebody does with each packet of one connection. What he does not pass on is swallowed.
pub type Habit = Box<dyn FnMut(From, &[u8], &mut Hands) + Send>;

/// A habit for each connection; they are numbered from 0 since the habit is there.
type Habits = Arc<dyn Fn(usize) -> Habit + Send + Sync>;

/// TLS that is ended in between: what is shown to the device, and how the platform is met.
#[derive(Clone)]
pub struct Ended {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

/// One who stands between. He is gone when this is dropped.
pub struct Line {
    pub address: SocketAddr,
    /// Where he led when he came.
    pub target: SocketAddr,
    shared: Arc<Shared>,
    acceptor: AbortHandle,
}

struct Shared {
    target: Mutex<SocketAddr>,
    speech: Speech,
    ended: Option<Ended>,
    /// None: bytes pass as they are.
    habits: Mutex<Option<Habits>>,
    connections: AtomicUsize,
    /// A device whose platform has gone is kept company.
    holds: AtomicBool,
    seen: Mutex<Vec<(From, Vec<u8>)>>,
    open: Mutex<Vec<AbortHandle>>,
}

impl Line {
    /// Lets everything pass, for now; what is said, he hears.
    pub async fn start(target: SocketAddr, speech: Speech, ended: Option<Ended>) -> Line {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("a port");
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            speech,
            ended,
            habits: Mutex::default(),
            connections: AtomicUsize::new(0),
            holds: AtomicBool::new(false),
            seen: Mutex::default(),
            open: Mutex::default(),
        });
        let line = Arc::clone(&shared);
        let acceptor = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let serving = tokio::spawn(serve(near, Arc::clone(&line)));
                line.open.lock().push(serving.abort_handle());
            }
        });
        Line { address, target, shared, acceptor: acceptor.abort_handle() }
    }

    /// Takes this habit from the next connection on. Those that are open are cut.
    pub fn attack(&self, habits: impl Fn(usize) -> Habit + Send + Sync + 'static) {
        self.shared.connections.store(0, Ordering::Release);
        *self.shared.habits.lock() = Some(Arc::new(habits));
        self.cut();
    }

    /// Leads there from now on: a platform that was started anew has other ports.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// Lets a device not see that the platform has closed.
    pub fn hold(&self) {
        self.shared.holds.store(true, Ordering::Release);
    }

    /// Goes away: what comes now passes as it is.
    pub fn leave(&self) {
        *self.shared.habits.lock() = None;
        self.cut();
    }

    /// Cuts what is open.
    pub fn cut(&self) {
        self.shared.open.lock().drain(..).for_each(|connection| connection.abort());
    }

    /// Connections under the present habit.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// What was said under a habit, in order.
    pub fn seen(&self) -> Vec<(From, Vec<u8>)> {
        self.shared.seen.lock().clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.cut();
    }
}

/// An error is the end of the connection, which is all that anybody is to see of it.
async fn serve(mut near: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let target = *shared.target.lock();
    let mut far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let Some(habits) = shared.habits.lock().clone() else {
        tokio::io::copy_bidirectional(&mut near, &mut far).await?;
        return Ok(());
    };
    let habit = habits(shared.connections.fetch_add(1, Ordering::AcqRel));
    match shared.ended.clone() {
        None => relay(near, far, habit, &shared).await,
        Some(Ended { server, client }) => {
            let near = TlsAcceptor::from(server).accept(near).await?;
            let name = ServerName::from(target.ip());
            let far = TlsConnector::from(client).connect(name, far).await?;
            relay(near, far, habit, &shared).await
        }
    }
}

async fn relay<S, T>(mut near: S, mut far: T, mut habit: Habit, shared: &Shared) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let mut alone = false;
    loop {
        let (from, read) = tokio::select! {
            read = near.read_buf(&mut up) => (From::Device, read?),
            read = far.read_buf(&mut down), if !alone => (From::Platform, read.unwrap_or(0)),
        };
        if read == 0 {
            alone = from == From::Platform && shared.holds.load(Ordering::Acquire);
            if !alone {
                return Ok(());
            }
        }
        let buffer = if from == From::Device { &mut up } else { &mut down };
        let mut hands = Hands::default();
        while let Some(len) = shared.speech.len(buffer) {
            let packet: Vec<u8> = buffer.drain(..len).collect();
            shared.seen.lock().push((from, packet.clone()));
            habit(from, &packet, &mut hands);
        }
        near.write_all(&hands.to_device).await?;
        near.flush().await?;
        if !alone {
            far.write_all(&hands.to_platform).await?;
            far.flush().await?;
        }
        if hands.cut {
            return Ok(());
        }
    }
}

/// Everything passes, and is heard.
pub fn honest() -> Habit {
    Box::new(|from, packet, hands| hands.pass(from, packet))
}

/// Answers a login himself, with this code.
pub fn refusing(code: u8) -> Habit {
    Box::new(move |from, packet, hands| {
        if packet[0] == CONNECT {
            let mut answer = Vec::new();
            encode::connack(&ConnAck { session_present: false, code }, &mut answer);
            hands.answer(from, &answer);
            hands.cut();
        }
    })
}

/// Says that the session is unknown to whoever logs in: a device goes to its LBS for that.
pub fn session_unknown() -> Habit {
    refusing(11)
}
