//! A device made of OSAP's client machine and a socket.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use osap::das::login::LoginRecord;
use osap::key::{Code, SessionKey};
use osap::lbs::client::{Client, Failure, Identity, MAX_FRAME, Output, Stored, Success};
use osap::lbs::frame::frame_len;
use osap::{CodeCase, Random, ResultCode, Serial, SystemRandom};
use socket2::{Domain, Socket, Type};

use crate::mqtt::Mqtt;
use crate::site::{CODE, PATIENCE, SERIAL, Site};

/// Sends to a socket, one frame at a time.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    pub fn dial(address: SocketAddr) -> Wire {
        Wire::over(TcpStream::connect(address).expect("the listener accepts"))
    }

    /// The same from an address of the loopback net.
    pub fn dial_from(from: Ipv4Addr, address: SocketAddr) -> Wire {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of this machine");
        socket.connect(&address.into()).expect("the listener accepts");
        Wire::over(socket.into())
    }

    fn over(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_nodelay(true).expect("set");
        Wire { stream, unread: Vec::new() }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the peer takes bytes");
    }

    /// Whether the bytes could be sent.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Whether the peer has ended the connection, on which it has said nothing.
    pub fn has_ended(&self) -> bool {
        self.stream.set_nonblocking(true).expect("set");
        let ended = match self.stream.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        self.stream.set_nonblocking(false).expect("set");
        ended
    }

    /// As the real client sends: each part by itself.
    #[track_caller]
    pub fn send_in_parts(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.send(part);
        }
    }

    /// The next whole frame, cut by `len`; `None` at the end.
    #[track_caller]
    pub fn frame(&mut self, len: impl Fn(&[u8]) -> Option<usize>) -> Option<Vec<u8>> {
        loop {
            if let Some(len) = len(&self.unread)
                && self.unread.len() >= len
            {
                return Some(self.unread.drain(..len).collect());
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.unread.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came in time: {error}"),
            }
        }
    }

    /// The next frame of the LBS.
    #[track_caller]
    pub fn lbs_frame(&mut self) -> Option<Vec<u8>> {
        self.frame(|unread| frame_len(unread, MAX_FRAME).expect("an LBS speaks frames"))
    }

    /// The connection ends here, without another byte.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.frame(|unread| (!unread.is_empty()).then_some(1)), None, "a byte before the end");
    }
}

/// A device and what it has stored.
#[derive(Clone)]
pub struct TestDevice {
    pub serial: String,
    pub code: String,
    pub stored: Stored,
}

impl TestDevice {
    pub fn new() -> TestDevice {
        TestDevice::of(SERIAL)
    }

    /// A device with another serial and the code that all have.
    pub fn of(serial: &str) -> TestDevice {
        TestDevice { serial: serial.into(), code: CODE.into(), stored: Stored::Nothing }
    }

    fn keep(&mut self, success: &Success) {
        self.stored = Stored::Both { dev_id: success.dev_id, master_key: success.master_key.clone() };
    }

    /// Forgets its master key, as after result 10.
    pub fn forget_master_key(&mut self) {
        let Stored::Both { dev_id, .. } = &self.stored else { panic!("nothing to forget") };
        self.stored = Stored::DevId(*dev_id);
    }

    /// One visit at the LBS, not begun yet.
    pub fn visit(&self, site: &Site) -> Visit {
        self.visit_in(CodeCase::Upper, Wire::dial(site.lbs))
    }

    /// The same from an address of the loopback net.
    pub fn visit_from(&self, from: Ipv4Addr, site: &Site) -> Visit {
        self.visit_in(CodeCase::Upper, Wire::dial_from(from, site.lbs))
    }

    /// The same by a device that hashes its code in lower case.
    pub fn visit_in_lower_case(&self, site: &Site) -> Visit {
        self.visit_in(CodeCase::Lower, Wire::dial(site.lbs))
    }

    fn visit_in(&self, case: CodeCase, wire: Wire) -> Visit {
        let identity =
            Identity::new(Serial::new(&self.serial).expect("a serial"), Code::new(&self.code).expect("a code"));
        let client = Client::new(identity, self.stored.clone(), case);
        Visit { wire, client, held: None, random: Box::new(SystemRandom) }
    }

    /// A whole visit that gets through.
    #[track_caller]
    pub fn authenticate(&mut self, site: &Site) -> Success {
        let success = self.visit(site).finish().expect("the LBS lets the device in");
        self.keep(&success);
        success
    }

    /// A whole visit that is refused.
    #[track_caller]
    pub fn refused(&self, site: &Site) -> ResultCode {
        self.visit(site).finish().expect_err("the LBS refuses").result().expect("with a result")
    }

    /// Everything up to 0xA0 is done, and 0xB0 is lost on its way.
    #[track_caller]
    pub fn lose_answer(&self, site: &Site) {
        let mut visit = self.visit(site);
        visit.hold_before(0xA0);
        visit.release();
        assert_eq!(visit.wire.lbs_frame().expect("0xB0")[0], 0xB0);
    }

    /// A login under this key, with a short record.
    #[track_caller]
    pub fn log_in(&self, site: &Site, session: &Success) -> (u8, Mqtt) {
        let serial = Serial::new(&self.serial).expect("a serial");
        let will = LoginRecord::short(&serial, &session.dev_id).seal(&session.session_key);
        Mqtt::log_in(site, &self.serial, Some(&will))
    }

    /// The whole way in: authentication, the one CONNACK 11, refresh, login.
    #[track_caller]
    pub fn come_in(&mut self, site: &Site) -> (Mqtt, Success) {
        let first = self.authenticate(site);
        assert_eq!(self.log_in(site, &first).0, 11);
        let session = self.authenticate(site);
        let (code, mqtt) = self.log_in(site, &session);
        assert_eq!(code, 0);
        (mqtt, session)
    }
}

/// One connection to the LBS.
pub struct Visit {
    pub wire: Wire,
    client: Client,
    held: Option<Vec<u8>>,
    random: Box<dyn Random + Send>,
}

impl Visit {
    /// Goes on until the frame that begins with this byte is about to be sent.
    #[track_caller]
    pub fn hold_before(&mut self, first: u8) {
        loop {
            match self.client.poll() {
                Output::Send(frame) if frame[0] == first => {
                    self.held = Some(frame);
                    return;
                }
                other => assert!(self.step(other).is_none(), "the visit ended before {first:#x}"),
            }
        }
    }

    /// Sends the frame that was held.
    #[track_caller]
    pub fn release(&mut self) {
        let frame = self.held.take().expect("a frame is held");
        self.wire.send(&frame);
    }

    /// The same with keys from another source.
    pub fn with_random(self, random: impl Random + Send + 'static) -> Visit {
        Visit { random: Box::new(random), ..self }
    }

    /// The AUTH-I that would be sent.
    pub fn auth_i(mut self) -> Vec<u8> {
        self.hold_before(0x1A);
        self.held.expect("it is held")
    }

    /// Sends AUTH-I and gives the frame that answers it.
    #[track_caller]
    pub fn answer(&mut self) -> Vec<u8> {
        loop {
            match self.client.poll() {
                Output::Read => return self.wire.lbs_frame().expect("an answer, not the end of the connection"),
                other => assert!(self.step(other).is_none(), "the visit ended before it began"),
            }
        }
    }

    /// Goes on to the end.
    #[track_caller]
    pub fn finish(mut self) -> Result<Success, Failure> {
        if self.held.is_some() {
            self.release();
        }
        loop {
            let output = self.client.poll();
            if let Some(end) = self.step(output) {
                return end;
            }
        }
    }

    #[track_caller]
    fn step(&mut self, output: Output) -> Option<Result<Success, Failure>> {
        match output {
            Output::Compute => self.client.compute(&mut *self.random),
            Output::Send(frame) => self.wire.send(&frame),
            Output::Read => {
                let frame = self.wire.lbs_frame().expect("an answer, not the end of the connection");
                self.client.handle_frame(&frame);
            }
            Output::Done(success) => return Some(Ok(success)),
            Output::Failed(failure) => return Some(Err(failure)),
        }
        None
    }
}

/// Another key than the right one.
pub fn wrong_key() -> SessionKey {
    SessionKey::from_bytes(&[0x5A; 16]).expect("sixteen bytes")
}
