//! A simulated device: the client machines of the protocol on a socket, without the SDK around them, so that the
//! load generator stays cheaper than what it loads.

mod attribute;
mod channel;
mod event;
mod lbs;
mod link;
mod modern;
mod request;
mod trouble;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use osap::das::cipher::SessionCipher;
use osap::das::connack;
use osap::lbs::backoff;
use osap::lbs::client::{Identity, Stored, Success};
use osap::{Code, DevId, Serial, Suite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::trust::Trust;
pub use attribute::{AREA, NAMES as ATTRIBUTES, PLACE};
pub use event::{EVENT_LEN, Plan};
use link::Link;
use modern::Modern;
pub use modern::Provisioned;
pub use request::OPERATION;
pub use trouble::Trouble;

/// The verification code of every device of the legacy suite.
pub const CODE: &str = "ABCDEF";
/// That of every device of the modern suites: 64 bits, so that it needs no window to enrol with.
pub const LONG_CODE: &str = "ABCDEFGHJKMNP";

/// A device that is not in after so many tries is locked out.
const MAX_ATTEMPTS: u32 = 10;

/// For a connection to come about, and for each answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One device.
pub struct Device {
    number: usize,
    /// Each has an address of its own on the loopback net, so that thousands of short connections do not run out of
    /// ports.
    address: Ipv4Addr,
    entrance: Entrance,
    link: Option<Link>,
    /// The number of its last request.
    seq: u64,
    last_event: Option<String>,
    /// Attributes it has reported so far, one after the other.
    reports: u64,
}

/// How it comes in.
enum Entrance {
    Legacy { identity: Identity, stored: Stored, session: Option<Session> },
    Modern { device: Box<Modern>, session: Option<Box<modern::Session>> },
}

/// What the LBS gave for the DAS under the legacy suite.
struct Session {
    cipher: Rc<SessionCipher>,
    dev_id: DevId,
    das: SocketAddr,
}

impl Device {
    /// The device with this number, new from the factory, of the legacy suite.
    ///
    /// # Errors
    /// When the number makes no serial or address.
    pub fn new(number: usize) -> anyhow::Result<Device> {
        let identity = Identity::new(serial_of(number)?, Code::new(CODE).context("a code")?);
        Device::entering(number, Entrance::Legacy { identity, stored: Stored::Nothing, session: None })
    }

    /// One of type 4.
    ///
    /// # Errors
    /// As above.
    pub fn over_tls(number: usize, trust: &Trust) -> anyhow::Result<Device> {
        let code = Code::new(LONG_CODE).context("a code")?;
        let device = Box::new(Modern::over_tls(serial_of(number)?, code, trust.clone()));
        Device::entering(number, Entrance::Modern { device, session: None })
    }

    /// One of type 8 or 16 that was provisioned with this.
    ///
    /// # Errors
    /// As above, and when what it was given is malformed.
    pub fn over_tcp(number: usize, suite: Suite, given: &Provisioned) -> anyhow::Result<Device> {
        let device = Box::new(Modern::over_tcp(serial_of(number)?, suite, given)?);
        Device::entering(number, Entrance::Modern { device, session: None })
    }

    fn entering(number: usize, entrance: Entrance) -> anyhow::Result<Device> {
        let [high, low] = u16::try_from(number + 1).context("too many devices")?.to_be_bytes();
        let address = Ipv4Addr::new(127, 1, high, low);
        Ok(Device { number, address, entrance, link: None, seq: 0, last_event: None, reports: 0 })
    }

    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What it sends first when it has no keys.
    ///
    /// # Errors
    /// When it is none of the legacy suite.
    pub fn auth_i(&self) -> anyhow::Result<Vec<u8>> {
        match &self.entrance {
            Entrance::Legacy { identity, .. } => lbs::auth_i(identity.clone()),
            Entrance::Modern { .. } => bail!("{} is none of the legacy suite", self.serial()),
        }
    }

    /// Comes in with what it has, and tries again as devices do (osap-wire 5.12) until it is in; how often it had to
    /// try.
    ///
    /// # Errors
    /// When it is not in after so many tries that it is locked out.
    pub async fn come_in(&mut self, lbs: SocketAddr) -> anyhow::Result<u32> {
        let mut attempt = 1;
        loop {
            let begun = tokio::time::Instant::now();
            match self.try_to_come_in(lbs).await {
                Ok(()) => return Ok(attempt),
                Err(error) if attempt >= MAX_ATTEMPTS => return Err(error.context(format!("{attempt} attempts"))),
                Err(_) => tokio::time::sleep_until(begun + backoff::delay(backoff::Trouble::Failed, attempt)).await,
            }
            attempt += 1;
        }
    }

    async fn try_to_come_in(&mut self, lbs: SocketAddr) -> anyhow::Result<()> {
        if matches!(self.entrance, Entrance::Legacy { stored: Stored::Nothing, .. }) {
            self.authenticate(lbs).await?;
            self.first_connect().await?;
        }
        self.refresh(lbs).await?;
        self.log_in().await
    }

    /// Its serial.
    pub fn serial(&self) -> &str {
        self.name().as_str()
    }

    fn name(&self) -> &Serial {
        match &self.entrance {
            Entrance::Legacy { identity, .. } => &identity.serial,
            Entrance::Modern { device, .. } => device.serial(),
        }
    }

    /// The id of the event that was acknowledged last.
    pub fn last_event(&self) -> Option<&str> {
        self.last_event.as_deref()
    }

    /// First authentication at the LBS by the code, whatever the device has stored.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn authenticate(&mut self, lbs: SocketAddr) -> anyhow::Result<()> {
        let stream = connect(self.address, lbs).await?;
        match &mut self.entrance {
            Entrance::Legacy { .. } => self.run(stream, Stored::Nothing).await,
            Entrance::Modern { device, session } => {
                *session = Some(Box::new(in_time(async { Ok(device.enrol(stream).await?) }).await?));
                Ok(())
            }
        }
    }

    /// The way back in at the LBS: the stored key is refreshed, or the newest ticket used.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn refresh(&mut self, lbs: SocketAddr) -> anyhow::Result<()> {
        let stream = connect(self.address, lbs).await?;
        match &mut self.entrance {
            Entrance::Legacy { stored, .. } => {
                let stored = stored.clone();
                self.run(stream, stored).await
            }
            Entrance::Modern { device, session } => {
                *session = Some(Box::new(in_time(async { Ok(device.come_back(stream).await?) }).await?));
                Ok(())
            }
        }
    }

    async fn run(&mut self, stream: TcpStream, from: Stored) -> anyhow::Result<()> {
        let Entrance::Legacy { identity, stored, session } = &mut self.entrance else {
            bail!("a device of another suite");
        };
        let success = in_time(lbs::run(stream, identity.clone(), from)).await;
        let Success { dev_id, master_key, session_key, das, .. } =
            success.with_context(|| format!("the LBS and {}", identity.serial))?;
        let das = SocketAddr::new(das.address.parse().context("the DAS has no numeric address")?, das.port);
        *session = Some(Session { cipher: Rc::new(SessionCipher::new(session_key)), dev_id, das });
        *stored = Stored::Both { dev_id, master_key };
        self.seq = 0;
        Ok(())
    }

    /// One row of attempts at the LBS, as a device makes them that was switched on: by each ticket, then by the code.
    ///
    /// # Errors
    /// Why it was not let in; the device then waits.
    pub async fn try_lbs(&mut self, lbs: SocketAddr) -> Result<(), Trouble> {
        let Entrance::Modern { device, session } = &mut self.entrance else {
            return Err(Trouble::new("LBS", "credential", "the device has no tickets"));
        };
        let address = self.address;
        *session = Some(Box::new(device.come_back_somehow(async || dial(address, lbs).await).await?));
        Ok(())
    }

    /// One attempt at the DAS, subscriptions included; the connection stays.
    ///
    /// # Errors
    /// Why it was not let in.
    pub async fn try_das(&mut self) -> Result<(), Trouble> {
        let Entrance::Modern { device, session: Some(session) } = &self.entrance else {
            return Err(Trouble::new("DAS", "credential", "the device has no session"));
        };
        let das = session.das().map_err(|error| Trouble::new("DAS", "address", error))?;
        let stream = trouble::step(("DAS", "connect"), modern::PATIENCE, dial(self.address, das)).await?;
        self.seq += 1;
        let mut link = Link::log_in(stream, device, session, self.seq).await?;
        let subscribed = link.subscribe(device.serial());
        match tokio::time::timeout(PATIENCE, subscribed).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Trouble::new("DAS", "subscribe", "refused")),
            Err(_) => return Err(Trouble::new("DAS", "subscribe", "no answer")),
        }
        self.link = Some(link);
        Ok(())
    }

    /// It was switched off: its connection is gone, and what it had in memory, too, unless it keeps its session.
    pub fn fall_silent(&mut self, keeps_session: bool) {
        self.link = None;
        match &mut self.entrance {
            Entrance::Legacy { session, .. } if !keeps_session => *session = None,
            Entrance::Modern { session, .. } if !keeps_session => *session = None,
            _ => {}
        }
    }

    /// The CONNECT that follows a first authentication under the legacy suite: it commits the credentials and is answered
    /// 11.
    ///
    /// # Errors
    /// When the answer is another.
    pub async fn first_connect(&mut self) -> anyhow::Result<()> {
        let (_, code) = self.connect().await?;
        if code != connack::SESSION_UNKNOWN {
            bail!("the first CONNECT of {} was answered {code} instead of 11", self.serial());
        }
        if let Entrance::Legacy { session, .. } = &mut self.entrance {
            *session = None;
        }
        Ok(())
    }

    /// CONNECT at the DAS and both subscriptions; the connection stays.
    ///
    /// # Errors
    /// When the device is refused.
    pub async fn log_in(&mut self) -> anyhow::Result<()> {
        if let Entrance::Modern { .. } = &self.entrance {
            let tried = in_time(async { Ok(self.try_das().await?) }).await;
            return tried.with_context(|| format!("{} logs in", self.serial()));
        }
        let (mut link, code) = self.connect().await?;
        if code != connack::ACCEPTED {
            bail!("the CONNECT of {} was answered {code}", self.serial());
        }
        let subscribed = in_time(link.subscribe(self.name())).await;
        subscribed.with_context(|| format!("{} subscribes", self.serial()))?;
        self.link = Some(link);
        Ok(())
    }

    async fn connect(&mut self) -> anyhow::Result<(Link, u8)> {
        let Entrance::Legacy { identity: Identity { serial, .. }, session: Some(session), .. } = &self.entrance else {
            bail!("{} has no session key", self.serial());
        };
        let stream = connect(self.address, session.das).await?;
        let opened = in_time(Link::open(stream, serial, &session.dev_id, &session.cipher)).await;
        opened.with_context(|| format!("{serial} connects to the DAS"))
    }

    /// Reports events until the plan is done and all are acknowledged.
    ///
    /// # Errors
    /// When one is not acknowledged in order and in time.
    pub async fn report(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let serial = self.name().clone();
        let Some(link) = &mut self.link else { bail!("{serial} is not logged in") };
        let mut writer = event::Writer::new(&serial, &mut self.seq)?;
        let reported = link.report(plan, PATIENCE, |channel, id, out| writer.publish(channel, id, out)).await;
        reported.with_context(|| format!("{serial} reports"))?;
        self.last_event = writer.into_last_id().or(self.last_event.take());
        Ok(())
    }

    /// Waits until receipts say that everything it sent is durable, as they do over plain TCP.
    ///
    /// # Errors
    /// When none comes.
    pub async fn await_receipt(&mut self) -> anyhow::Result<()> {
        let serial = self.name().clone();
        let Some(link) = &mut self.link else { bail!("{serial} is not logged in") };
        in_time(link.await_receipt()).await.with_context(|| format!("{serial} waits for a receipt"))
    }

    /// Reports attributes until the plan is done and all are acknowledged: each of [`ATTRIBUTES`] in turn, always with a
    /// value it has not had.
    ///
    /// # Errors
    /// When one is not acknowledged in order and in time.
    pub async fn report_attributes(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let serial = self.name().clone();
        let Some(link) = &mut self.link else { bail!("{serial} is not logged in") };
        let mut writer = attribute::Writer::new(&serial, &mut self.seq, &mut self.reports)?;
        let reported = link.report(plan, PATIENCE, |channel, id, out| writer.publish(channel, id, out)).await;
        reported.with_context(|| format!("{serial} reports attributes"))
    }

    /// Carries out [`OPERATION`] and takes values, as often as it is asked to, until it is over.
    ///
    /// # Errors
    /// When it is asked for anything else, or the connection ends.
    pub async fn serve(&mut self, over: watch::Receiver<bool>) -> anyhow::Result<()> {
        let serial = self.name().clone();
        let Some(link) = &mut self.link else { bail!("{serial} is not logged in") };
        link.serve(&serial, over).await.with_context(|| format!("{serial} serves"))
    }

    /// DISCONNECT, and the end of the connection.
    ///
    /// # Errors
    /// When the platform does not close it.
    pub async fn leave(&mut self) -> anyhow::Result<()> {
        let Some(link) = self.link.take() else { return Ok(()) };
        in_time(link.leave()).await.with_context(|| format!("{} leaves", self.serial()))
    }
}

/// The serial of the device with this number.
pub fn serial(number: usize) -> String {
    format!("BENCH{number:05}")
}

fn serial_of(number: usize) -> anyhow::Result<Serial> {
    Serial::new(&serial(number)).context("a serial")
}

async fn dial(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.set_nodelay(true)?;
    socket.connect(to).await
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> anyhow::Result<TcpStream> {
    in_time(async { Ok(dial(from, to).await?) }).await.with_context(|| format!("from {from} to {to}"))
}

async fn in_time<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let outcome = tokio::time::timeout(PATIENCE, work).await;
    outcome.unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()))
}
