//! A device of the modern suites: what it keeps, and its runs at the LBS (osap-wire 13.3).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use osap::modern::client::{Advice, Attempt, Client, Failure, Identity, Output, Success};
use osap::modern::envelope::{Opener, Sealer};
use osap::modern::login::{self, BootId, Proof};
use osap::modern::message::{Das, MAX_ANSWER, next_frame};
use osap::modern::seal::Direction;
use osap::modern::server::EXPORTER_LABEL;
use osap::modern::slots::{Has, Slot, Way};
use osap::modern::{Node, Psk, Slots, TicketId};
use osap::{Code, DevId, Random as _, Serial, Suite, SystemRandom};
use tokio::net::TcpStream;

use super::channel::Secured;
use super::trouble::{Trouble, step};
use super::wire::Wire;
use crate::trust::{LBS_NAME, Trust};

/// How long the SDK waits for each frame of an LBS, and for a TLS handshake.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// And for each answer of a DAS.
const DAS_PATIENCE: Duration = Duration::from_secs(6);

/// What a device was given where it was made, in hexadecimal digits but for its identity.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Provisioned {
    dev_id: String,
    ticket: String,
    psk: String,
}

/// A device, as far as it is about suites.
pub(super) struct Modern {
    identity: Identity,
    suite: Suite,
    slots: Slots,
    boot: BootId,
    /// Whom to believe over TLS; nobody, where there is none.
    trust: Option<Trust>,
}

/// What a run at the LBS gave for the DAS.
pub(super) struct Session {
    suite: Suite,
    dev_id: DevId,
    node: Node,
    das: Das,
}

impl Modern {
    /// A device of type 4 that knows its code.
    pub(super) fn over_tls(serial: Serial, code: Code, trust: Trust) -> Modern {
        Modern::new(serial, Some(code), Suite::Tls, Slots::default(), Some(trust))
    }

    /// One that was given this, and runs the suite over plain TCP.
    pub(super) fn over_tcp(serial: Serial, suite: Suite, given: &Provisioned) -> anyhow::Result<Modern> {
        let ticket = unhex(&given.ticket)?.as_slice().try_into().context("a ticket")?;
        let slot = Slot { ticket: TicketId::new(ticket), psk: Psk::from_bytes(&unhex(&given.psk)?).context("a key")? };
        let dev_id = DevId::parse(given.dev_id.as_bytes()).context("a DevID")?;
        // What it was provisioned with is also what it comes in with first.
        let slots = Slots { dev_id: Some(dev_id), base: Some(slot.clone()), newest: Some(slot), older: None };
        Ok(Modern::new(serial, None, suite, slots, None))
    }

    fn new(serial: Serial, code: Option<Code>, suite: Suite, slots: Slots, trust: Option<Trust>) -> Modern {
        let boot = BootId::draw(&mut SystemRandom);
        Modern { identity: Identity { serial, code, suites: vec![suite] }, suite, slots, boot, trust }
    }

    pub(super) fn serial(&self) -> &Serial {
        &self.identity.serial
    }

    /// One run by the code, whatever the device has.
    pub(super) async fn enrol(&mut self, stream: TcpStream) -> Result<Session, Trouble> {
        self.attempt(stream, Way::Code).await?.map_err(|failure| refused(&failure))
    }

    /// One run by the newest ticket.
    pub(super) async fn come_back(&mut self, stream: TcpStream) -> Result<Session, Trouble> {
        self.attempt(stream, Way::Newest).await?.map_err(|failure| refused(&failure))
    }

    /// One way after the other, as devices do, until one leads in or it is better to wait; each with a connection of its
    /// own.
    pub(super) async fn come_back_somehow(
        &mut self,
        connect: impl AsyncFn() -> io::Result<TcpStream>,
    ) -> Result<Session, Trouble> {
        let has = Has { certificate: false, code: self.identity.code.is_some() };
        let (mut last, mut trouble) = (None, Trouble::new("LBS", "credential", "the device has none"));
        while let Some(way) = self.slots.next_way(last, has) {
            let stream = step(("LBS", "connect"), PATIENCE, connect()).await?;
            match self.attempt(stream, way).await? {
                Ok(session) => return Ok(session),
                Err(failure) => {
                    trouble = refused(&failure);
                    if failure.advice() != Advice::NextWay {
                        break;
                    }
                }
            }
            last = Some(way);
        }
        Err(trouble)
    }

    async fn attempt(&mut self, stream: TcpStream, way: Way) -> Result<Result<Session, Failure>, Trouble> {
        let mut wire = match &self.trust {
            None => Wire::from(stream),
            Some(trust) => step(("LBS", "TLS"), PATIENCE, Wire::secure(stream, &trust.lbs, LBS_NAME)).await?,
        };
        let attempt = Attempt { suite: self.suite, way, csr: None };
        let mut client = Client::new(self.identity.clone(), self.slots.clone(), attempt);
        let (mut received, mut said) = (Vec::new(), "AUTH-I");
        loop {
            match client.poll() {
                Output::Compute => client.compute(&mut SystemRandom),
                Output::Export => {
                    let exporter = wire.export(EXPORTER_LABEL, self.serial().as_str().as_bytes());
                    let exporter = exporter.ok_or_else(|| Trouble::new("LBS", "TLS", "it exports nothing"))?;
                    client.handle_exporter(&exporter);
                }
                Output::Send(bytes) => {
                    said = match bytes.first() {
                        Some(0x1A) => "AUTH-I",
                        Some(0x72 | 0x42) => "proof",
                        _ => "service",
                    };
                    step(("LBS", said), PATIENCE, wire.write(&bytes)).await?;
                }
                Output::Read => {
                    let len = step(("LBS", said), PATIENCE, next(&mut wire, &mut received)).await?;
                    client.handle_frame(received.get(..len).unwrap_or_default());
                    received.drain(..len);
                }
                Output::Store(slots) => {
                    self.slots = *slots;
                    client.handle_stored(true);
                }
                Output::Done(success) => {
                    // The platform closes too; what comes of it does not matter any more.
                    let _ = tokio::time::timeout(PATIENCE, wire.close()).await;
                    return Ok(Ok(Session::of(*success)?));
                }
                Output::Failed(failure) => {
                    let _ = tokio::time::timeout(PATIENCE, wire.close()).await;
                    return Ok(Err(failure));
                }
            }
        }
    }

    /// Makes a connection to the DAS what the session wants it to be.
    pub(super) async fn secure(&self, stream: TcpStream, session: &Session) -> Result<Wire, Trouble> {
        match &self.trust {
            None => Ok(Wire::from(stream)),
            Some(trust) => {
                step(("DAS", "TLS"), PATIENCE, Wire::secure(stream, &trust.das, &session.das.info.domain)).await
            }
        }
    }

    /// The number of this start of the device.
    pub(super) fn boot(&self) -> BootId {
        self.boot
    }
}

impl Session {
    fn of(success: Success) -> Result<Session, Trouble> {
        let Success { slots, suite, das, node, .. } = success;
        let dev_id = slots.dev_id.ok_or_else(|| Trouble::new("LBS", "service", "it gave no DevID"))?;
        Ok(Session { suite, dev_id, node, das })
    }

    pub(super) fn dev_id(&self) -> &DevId {
        &self.dev_id
    }

    /// Where the DAS is. Where there is TLS, the other port is never used.
    pub(super) fn das(&self) -> anyhow::Result<SocketAddr> {
        let address = self.das.info.address.parse().context("the DAS has no numeric address")?;
        Ok(SocketAddr::new(address, self.das.tls_port.unwrap_or(self.das.info.port)))
    }
}

/// A login under way: the CONNECT proves the device, and the hello that answers it the DAS.
pub(super) struct Challenge<'a> {
    session: &'a Session,
    hash: [u8; 48],
    password: [u8; login::PROOF_LEN],
}

impl<'a> Challenge<'a> {
    /// A new one, for this connection.
    pub(super) fn draw(session: &'a Session, wire: &Wire) -> Result<Challenge<'a>, Trouble> {
        let bind = match session.das.bind {
            false => None,
            true => {
                let exporter = wire.export(login::EXPORTER_LABEL, &[]);
                Some(exporter.ok_or_else(|| Trouble::new("DAS", "TLS", "it exports nothing"))?)
            }
        };
        let mut nonce = [0; 32];
        SystemRandom.fill(&mut nonce);
        let hash = login::login_hash(bind.as_ref(), &session.dev_id, &nonce);
        let password = login::password(&session.node, &hash, nonce).encode();
        Ok(Challenge { session, hash, password })
    }

    pub(super) fn password(&self) -> &[u8] {
        &self.password
    }

    /// The keys of the login, if it was the DAS that answered.
    pub(super) fn meet(&self, hello: &[u8]) -> Option<Secured> {
        let Session { suite, node, .. } = self.session;
        let hello = Proof::decode(hello).filter(|hello| login::proves_das(node, &self.hash, hello))?;
        let hello = login::hello_hash(&self.hash, &hello.nonce);
        let key = |direction| login::record_key(node, &hello, direction);
        Some(Secured {
            sealer: Sealer::new(*suite, Direction::Up, key(Direction::Up)),
            opener: Opener::new(*suite, Direction::Down, key(Direction::Down)),
        })
    }
}

/// Does a step of a login in the time that the SDK gives it.
pub(super) async fn das_step<T>(name: &'static str, work: impl Future<Output = io::Result<T>>) -> Result<T, Trouble> {
    step(("DAS", name), DAS_PATIENCE, work).await
}

/// Reads until a frame stands at the front; its length.
async fn next(wire: &mut Wire, received: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        let len = next_frame(received, MAX_ANSWER).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        match len {
            Some(len) => return Ok(len),
            None if wire.read(received).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    }
}

fn refused(failure: &Failure) -> Trouble {
    Trouble::new("LBS", "refused", &failure.trouble)
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits = |at: usize| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    (0..text.len()).step_by(2).map(digits).collect::<Option<_>>().context("digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_provisioned_is_what_a_device_comes_in_with() {
        let given = Provisioned { dev_id: "d".repeat(32), ticket: "0a".repeat(16), psk: "ff".repeat(48) };
        let serial = Serial::new("BENCH00001").expect("a serial");
        let device = Modern::over_tcp(serial.clone(), Suite::P384, &given).expect("a device");
        let slot = device.slots.slot(Way::Newest).expect("a ticket");
        assert_eq!(slot.ticket.as_bytes(), &[10; 16]);
        assert_eq!(device.slots.slot(Way::Base), Some(slot));
        let short = Provisioned { ticket: "0a".repeat(15), ..given };
        assert!(Modern::over_tcp(serial, Suite::P384, &short).is_err());
    }
}
