//! A simulated device: the client machines of the protocol on a socket, without the SDK around them, so that the
//! load generator stays cheaper than what it loads.

mod attribute;
mod event;
mod lbs;
mod link;
mod message;
mod request;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use osap::das::cipher::SessionCipher;
use osap::das::connack;
use osap::lbs::backoff;
use osap::lbs::client::{Identity, Stored, Success};
use osap::{Code, DevId, Serial};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

pub use attribute::{AREA, NAMES as ATTRIBUTES, PLACE};
pub use event::{EVENT_LEN, Plan};
use link::Link;
pub use request::OPERATION;

/// The verification code of every device.
pub const CODE: &str = "ABCDEF";

/// A device that is not in after so many tries is locked out.
const MAX_ATTEMPTS: u32 = 10;

/// For a connection to come about, and for each answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One device.
pub struct Device {
    number: usize,
    identity: Identity,
    /// Each has an address of its own on the loopback net, so that thousands of short connections do not run out of
    /// ports.
    address: Ipv4Addr,
    stored: Stored,
    session: Option<Session>,
    link: Option<Link>,
    last_event: Option<String>,
    /// Attributes it has reported so far, one after the other.
    reports: u64,
}

/// What the LBS gave for the DAS.
struct Session {
    cipher: SessionCipher,
    dev_id: DevId,
    das: SocketAddr,
    /// The number of the last request under this key.
    seq: u64,
}

impl Device {
    /// The device with this number, new from the factory.
    ///
    /// # Errors
    /// When the number makes no serial or address.
    pub fn new(number: usize) -> anyhow::Result<Device> {
        let serial = Serial::new(&serial(number)).context("a serial")?;
        let [high, low] = u16::try_from(number + 1).context("too many devices")?.to_be_bytes();
        Ok(Device {
            number,
            identity: Identity::new(serial, Code::new(CODE).context("a code")?),
            address: Ipv4Addr::new(127, 1, high, low),
            stored: Stored::Nothing,
            session: None,
            link: None,
            last_event: None,
            reports: 0,
        })
    }

    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What it sends first when it has no keys.
    ///
    /// # Errors
    /// Never: its machine begins with an AUTH-I.
    pub fn auth_i(&self) -> anyhow::Result<Vec<u8>> {
        lbs::auth_i(self.identity.clone())
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
        if self.stored == Stored::Nothing {
            self.authenticate(lbs).await?;
            self.first_connect().await?;
        }
        self.refresh(lbs).await?;
        self.log_in().await
    }

    /// Its serial.
    pub fn serial(&self) -> &str {
        self.identity.serial.as_str()
    }

    /// The id of the event that was acknowledged last.
    pub fn last_event(&self) -> Option<&str> {
        self.last_event.as_deref()
    }

    /// First authentication at the LBS, whatever the device has stored.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn authenticate(&mut self, lbs: SocketAddr) -> anyhow::Result<()> {
        self.run(lbs, Stored::Nothing).await
    }

    /// Refresh of the session key at the LBS.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn refresh(&mut self, lbs: SocketAddr) -> anyhow::Result<()> {
        self.run(lbs, self.stored.clone()).await
    }

    async fn run(&mut self, lbs: SocketAddr, stored: Stored) -> anyhow::Result<()> {
        let stream = connect(self.address, lbs).await?;
        let success = in_time(lbs::run(stream, self.identity.clone(), stored)).await;
        let Success { dev_id, master_key, session_key, das, .. } =
            success.with_context(|| format!("the LBS and {}", self.serial()))?;
        let das = SocketAddr::new(das.address.parse().context("the DAS has no numeric address")?, das.port);
        self.session = Some(Session { cipher: SessionCipher::new(session_key), dev_id, das, seq: 0 });
        self.stored = Stored::Both { dev_id, master_key };
        Ok(())
    }

    /// The CONNECT that follows a first authentication: it commits the credentials and is answered 11.
    ///
    /// # Errors
    /// When the answer is another.
    pub async fn first_connect(&mut self) -> anyhow::Result<()> {
        let (_, code) = self.connect().await?;
        if code != connack::SESSION_UNKNOWN {
            bail!("the first CONNECT of {} was answered {code} instead of 11", self.serial());
        }
        self.session = None;
        Ok(())
    }

    /// CONNECT at the DAS and both subscriptions; the connection stays.
    ///
    /// # Errors
    /// When the device is refused.
    pub async fn log_in(&mut self) -> anyhow::Result<()> {
        let (mut link, code) = self.connect().await?;
        if code != connack::ACCEPTED {
            bail!("the CONNECT of {} was answered {code}", self.serial());
        }
        let subscribed = in_time(link.subscribe(&self.identity.serial)).await;
        subscribed.with_context(|| format!("{} subscribes", self.serial()))?;
        self.link = Some(link);
        Ok(())
    }

    async fn connect(&mut self) -> anyhow::Result<(Link, u8)> {
        let serial = self.identity.serial.clone();
        let session = self.session.as_ref().with_context(|| format!("{serial} has no session key"))?;
        let stream = connect(self.address, session.das).await?;
        let opened = in_time(Link::open(stream, &serial, &session.dev_id, session.cipher.key())).await;
        opened.with_context(|| format!("{serial} connects to the DAS"))
    }

    /// Reports events until the plan is done and all are acknowledged.
    ///
    /// # Errors
    /// When one is not acknowledged in order and in time.
    pub async fn report(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let serial = self.identity.serial.clone();
        let (Some(link), Some(session)) = (&mut self.link, &mut self.session) else {
            bail!("{serial} is not logged in");
        };
        let mut writer = event::Writer::new(&serial, &session.cipher, &mut session.seq)?;
        let reported = link.report(plan, PATIENCE, |id, out| writer.publish(id, out)).await;
        reported.with_context(|| format!("{serial} reports"))?;
        self.last_event = writer.into_last_id().or(self.last_event.take());
        Ok(())
    }

    /// Reports attributes until the plan is done and all are acknowledged: each of [`ATTRIBUTES`] in turn, always with a
    /// value it has not had.
    ///
    /// # Errors
    /// When one is not acknowledged in order and in time.
    pub async fn report_attributes(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let serial = self.identity.serial.clone();
        let (Some(link), Some(session)) = (&mut self.link, &mut self.session) else {
            bail!("{serial} is not logged in");
        };
        let mut writer = attribute::Writer::new(&serial, &session.cipher, &mut session.seq, &mut self.reports)?;
        let reported = link.report(plan, PATIENCE, |id, out| writer.publish(id, out)).await;
        reported.with_context(|| format!("{serial} reports attributes"))
    }

    /// Carries out [`OPERATION`] and takes values, as often as it is asked to, until it is over.
    ///
    /// # Errors
    /// When it is asked for anything else, or the connection ends.
    pub async fn serve(&mut self, over: watch::Receiver<bool>) -> anyhow::Result<()> {
        let serial = self.identity.serial.clone();
        let (Some(link), Some(session)) = (&mut self.link, &mut self.session) else {
            bail!("{serial} is not logged in");
        };
        link.serve(&serial, &session.cipher, over).await.with_context(|| format!("{serial} serves"))
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

async fn connect(from: Ipv4Addr, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let connected = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        socket.set_nodelay(true)?;
        socket.connect(to).await
    };
    in_time(async { Ok(connected.await?) }).await.with_context(|| format!("from {from} to {to}"))
}

async fn in_time<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let outcome = tokio::time::timeout(PATIENCE, work).await;
    outcome.unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()))
}
