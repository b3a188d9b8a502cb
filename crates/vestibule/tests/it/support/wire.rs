//! A device packet by packet: what a test has to be able to get wrong.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General};
use osap::das::login::{FirstOrBreak, LoginRecord, will_topic};
use osap::lbs::client::{Client, Failure, Identity, MAX_FRAME, Output, Stored, Success};
use osap::lbs::frame;
use osap::{Code, CodeCase, Serial, SystemRandom};
use vestibule_mqtt_codec::{Connect, PublishHead, QoS, Rules, Will, decode, encode, frame_len, split_publish};

use super::platform::{Listener, Platform};

pub use vestibule_mqtt_codec::Packet;

/// No answer takes longer; the storm brake holds one back for five seconds (osap-wire 9.3).
const ANSWER: Duration = Duration::from_secs(20);

/// One run at the LBS.
pub fn authenticate(platform: &Platform, serial: &str, code: &str, stored: Stored) -> Result<Success, Failure> {
    let identity = Identity::new(Serial::new(serial).expect("a serial"), Code::new(code).expect("a code"));
    let mut client = Client::new(identity, stored, CodeCase::Upper);
    let mut stream = TcpStream::connect(platform.address(Listener::Lbs)).expect("the LBS listens");
    stream.set_read_timeout(Some(ANSWER)).expect("a socket");
    let mut received = Vec::new();
    loop {
        match client.poll() {
            Output::Compute => client.compute(&mut SystemRandom),
            Output::Send(bytes) => stream.write_all(&bytes).expect("the LBS reads"),
            Output::Read => {
                let len = loop {
                    match frame::frame_len(&received, MAX_FRAME).expect("the LBS sends frames") {
                        Some(len) if len <= received.len() => break len,
                        _ => assert!(read_some(&mut stream, &mut received), "the LBS closed instead of answering"),
                    }
                };
                let frame: Vec<u8> = received.drain(..len).collect();
                client.handle_frame(&frame);
            }
            Output::Done(success) => return Ok(success),
            Output::Failed(failure) => return Err(failure),
        }
    }
}

/// The whole way in of a new device: first authentication, a login that is answered 11, a refresh, a login.
#[track_caller]
pub fn enrol(platform: &Platform, serial: &str, code: &str) -> (Success, Das) {
    let first = authenticate(platform, serial, code, Stored::Nothing).expect("the code is right");
    let (answer, _) = connect(serial, &first);
    assert_eq!(answer, 11, "a session key that travelled under the reused nonce is not accepted");
    let stored = Stored::Both { dev_id: first.dev_id, master_key: first.master_key };
    let refreshed = authenticate(platform, serial, code, stored).expect("the master key is right");
    let (answer, das) = connect(serial, &refreshed);
    assert_eq!(answer, 0);
    (refreshed, das)
}

/// A login at the DAS: the code of the CONNACK, and the connection.
pub fn connect(serial: &str, access: &Success) -> (u8, Das) {
    let mut das = Das::dial(serial, access);
    let packet = das.login(serial, access);
    das.send(&packet);
    let answer = das.next().expect("a CONNACK");
    match decode(&answer, &Rules::OSAP_LEGACY).expect("a packet") {
        Packet::ConnAck(connack) => (connack.code, das),
        other => panic!("{other:?} instead of a CONNACK"),
    }
}

/// A connection to the DAS.
pub struct Das {
    stream: TcpStream,
    cipher: SessionCipher,
    received: Vec<u8>,
    packet_id: u16,
}

impl Das {
    fn dial(serial: &str, access: &Success) -> Das {
        let address = format!("{}:{}", access.das.address, access.das.port);
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("the DAS of {serial}: {error}"));
        stream.set_read_timeout(Some(ANSWER)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Das { stream, cipher: SessionCipher::new(access.session_key.clone()), received: Vec::new(), packet_id: 0 }
    }

    /// A CONNECT with the short login record.
    pub fn login(&self, serial: &str, access: &Success) -> Vec<u8> {
        let name = Serial::new(serial).expect("a serial");
        let topic = will_topic(&name, FirstOrBreak::First);
        let record = LoginRecord::short(&name, &access.dev_id).seal(&access.session_key);
        let connect = Connect {
            clean_session: true,
            keep_alive: 30,
            client_id: "",
            will: Some(Will {
                topic: std::str::from_utf8(&topic).expect("ASCII"),
                payload: &record,
                qos: QoS::AtLeastOnce,
                retain: true,
            }),
            user: Some(serial),
            password: Some(b"test"),
        };
        let mut out = Vec::new();
        encode::connect_under(&connect, &Rules::OSAP_LEGACY, &mut out).expect("it fits");
        out
    }

    /// Where the connection comes from.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("a socket")
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the DAS reads");
    }

    /// Publishes an application body and answers with the packet id, which comes round again after the last one.
    pub fn publish(&mut self, topic: &str, seq: u64, qos: QoS, body: impl AsRef<[u8]>) -> u16 {
        let mut payload = Vec::new();
        envelope::seal(&self.cipher, &General::bare(seq), body.as_ref(), &mut payload).expect("it fits");
        self.publish_raw(topic, qos, &payload)
    }

    /// Appends a message without an acknowledgement to what [`send`](Self::send) is to send at once.
    pub fn append(&self, topic: &str, seq: u64, body: impl AsRef<[u8]>, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        envelope::seal(&self.cipher, &General::bare(seq), body.as_ref(), &mut payload).expect("it fits");
        let head = PublishHead { dup: false, qos: QoS::AtMostOnce, retain: true, topic, packet_id: None };
        encode::publish(&head, &payload, out).expect("it fits");
    }

    /// Publishes a payload as it is and answers with the packet id.
    pub fn publish_raw(&mut self, topic: &str, qos: QoS, payload: &[u8]) -> u16 {
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
        let packet_id = (qos != QoS::AtMostOnce).then_some(self.packet_id);
        let head = PublishHead { dup: false, qos, retain: true, topic, packet_id };
        let mut out = Vec::new();
        encode::publish(&head, payload, &mut out).expect("it fits");
        self.send(&out);
        self.packet_id
    }

    /// The next packet; `None` when the DAS has closed the connection.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(len) = frame_len(&self.received, 1 << 20).expect("the DAS sends packets")
                && len <= self.received.len()
            {
                return Some(self.received.drain(..len).collect());
            }
            if !read_some(&mut self.stream, &mut self.received) {
                return None;
            }
        }
    }

    /// Waits for a message of the platform, which has to come next, and acknowledges it.
    #[track_caller]
    pub fn heard(&mut self) -> Heard {
        let mut packet = self.next().expect("a message, and not the end of the connection");
        let (head, payload) = split_publish(&mut packet, &Rules::STRICT).expect("a message");
        let topic = head.topic.to_owned();
        let mut answer = Vec::new();
        if let Some(id) = head.packet_id {
            encode::puback(id, &mut answer);
        }
        let opened = envelope::open(&self.cipher, payload).expect("sealed under the session key");
        let heard = Heard { topic, seq: opened.general.seq, body: opened.application.to_vec() };
        self.send(&answer);
        heard
    }

    /// Waits for the acknowledgement of this message, which has to come next.
    #[track_caller]
    pub fn acknowledged(&mut self, packet_id: u16) {
        let packet = self.next().expect("a PUBACK, and not the end of the connection");
        assert_eq!(decode(&packet, &Rules::STRICT).expect("a packet"), Packet::PubAck(packet_id));
    }

    /// Waits for the end of the connection and answers with what came before it.
    pub fn drained(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// A message of the platform.
#[derive(Debug)]
pub struct Heard {
    pub topic: String,
    pub seq: u64,
    pub body: Vec<u8>,
}

/// Appends what has come; false at the end of the connection. Silence is a failure.
fn read_some(stream: &mut TcpStream, into: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    match stream.read(&mut chunk) {
        Ok(0) => false,
        Ok(count) => {
            into.extend_from_slice(&chunk[..count]);
            true
        }
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            panic!("the platform neither answered nor closed within {} s", ANSWER.as_secs())
        }
        Err(_) => false,
    }
}
