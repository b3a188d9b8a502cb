//! A peer made of bytes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use vestibule_broker::codec::{Connect, Packet, PublishHead, QoS, Rules, Will, decode, encode, frame_len};

use crate::probe::PATIENCE;

pub const CONNACK_OK: [u8; 4] = [0x20, 2, 0, 0];
pub const PINGREQ: [u8; 2] = [0xc0, 0];
pub const PINGRESP: [u8; 2] = [0xd0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub fn dial(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("no delay");
        Client { stream, unread: Vec::new() }
    }

    #[track_caller]
    pub fn log_in(mut self, id: &str) -> Client {
        self.send(&connect(id));
        self.expect(&CONNACK_OK);
        self
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the peer takes bytes");
    }

    /// The next bytes are these.
    #[track_caller]
    pub fn expect(&mut self, bytes: &[u8]) {
        while self.unread.len() < bytes.len() && self.fill() {}
        let got = self.unread.len().min(bytes.len());
        assert_eq!(self.unread[..got], *bytes);
        self.unread.drain(..got);
    }

    /// The connection ends here, without another byte.
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

    /// The next packet is a message; its topic, payload and id. A message of QoS 1 is not acknowledged.
    #[track_caller]
    pub fn message(&mut self) -> Message {
        let frame = self.packet().expect("a message, not the end");
        let Ok(Packet::Publish(publish)) = decode(&frame, &Rules::STRICT) else { panic!("no message: {frame:?}") };
        Message {
            topic: publish.head.topic.into(),
            payload: publish.payload.into(),
            packet_id: publish.head.packet_id,
            retain: publish.head.retain,
        }
    }

    /// Everything the server had to say until now has been said.
    #[track_caller]
    pub fn expect_silence(&mut self) {
        self.send(&PINGREQ);
        self.expect(&PINGRESP);
    }

    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.send(&subscribe(7, &[(filter, qos)]));
        self.expect(&[0x90, 3, 0, 7, qos.value()]);
    }

    /// One read from the socket, as the kernel hands it out. False at the end.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let bytes = self.read_once();
        self.unread.extend_from_slice(&bytes);
        !bytes.is_empty()
    }

    /// What one read gives; empty at the end.
    #[track_caller]
    pub fn read_once(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 20];
        match self.stream.read(&mut buffer) {
            Ok(n) => buffer[..n].to_vec(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Vec::new(),
            Err(error) => panic!("nothing came in time: {error}"),
        }
    }

    /// Sends until the kernel takes no more for `pause`; returns how many bytes it took.
    pub fn stuff(&mut self, bytes: &[u8], pause: Duration) -> usize {
        self.stream.set_write_timeout(Some(pause)).expect("a timeout can be set");
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        sent
    }

    /// Goes away without DISCONNECT.
    pub fn hang_up(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub packet_id: Option<u16>,
    pub retain: bool,
}

pub fn connect(id: &str) -> Vec<u8> {
    connect_with(id, 0, None, None)
}

pub fn connect_with(id: &str, keep_alive: u16, user: Option<&str>, will: Option<Will<'_>>) -> Vec<u8> {
    let mut out = Vec::new();
    let connect = Connect { clean_session: true, keep_alive, client_id: id, will, user, password: None };
    encode::connect(&connect, &mut out).expect("a CONNECT");
    out
}

pub fn subscribe(packet_id: u16, filters: &[(&str, QoS)]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::subscribe(packet_id, filters.iter().copied(), &mut out).expect("a SUBSCRIBE");
    out
}

/// A PUBLISH of QoS 1 with an id, of QoS 0 without.
pub fn publish(topic: &str, packet_id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let qos = if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    publish_with(PublishHead { dup: false, qos, retain: false, topic, packet_id }, payload)
}

pub fn publish_with(head: PublishHead<'_>, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::publish(&head, payload, &mut out).expect("a PUBLISH");
    out
}

pub fn puback(packet_id: u16) -> Vec<u8> {
    let mut out = Vec::new();
    encode::puback(packet_id, &mut out);
    out
}
