//! A platform in one process: an LBS and a DAS for one device, which say what they see.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General, MsgType};
use osap::das::event::EventBody;
use osap::das::login::{self, FirstOrBreak};
use osap::lbs::frame::frame_len as lbs_frame_len;
use osap::lbs::server::{Output, Server as Lbs, ServerPolicy};
use osap::lbs::{DasInfo, Record, Run, Slot};
use osap::{Code, SystemRandom};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use vestibule_mqtt_codec as mqtt;
use vestibule_mqtt_codec::{ConnAck, Packet, PublishHead, QoS, Rules, encode};

pub const SERIAL: &str = "SN0000001";
pub const CODE: &str = "ABCDEF";

/// What the server saw, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An LBS run that went through.
    Run(Run),
    /// An LBS run that was refused with this result.
    Refused(u8),
    /// A CONNECT and its answer.
    Connect {
        full: bool,
        which: FirstOrBreak,
        code: u8,
    },
    Subscribe(String),
    Event(Event),
    /// A command, which comes at QoS 0.
    Command(Command),
    /// Any other message, which comes at QoS 1.
    Message {
        topic: String,
        body: String,
    },
    Ping,
    /// The PUBACK of a downlink.
    PubAck(u16),
    Unsubscribe(String),
    Disconnect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub topic: String,
    pub version: String,
    pub seq: u64,
    pub answers: bool,
    pub body: String,
}

/// A message to the device, with packet id 78.
#[derive(Debug)]
struct Down {
    topic: String,
    seq: u64,
    body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub topic: String,
    pub id: String,
    pub json: String,
    pub seq: u64,
    pub packet_id: u16,
    pub dup: bool,
}

pub struct World {
    pub record: Record,
    /// CONNACK codes to be sent instead of the right ones.
    pub connacks: VecDeque<u8>,
    /// Events that are not acknowledged.
    pub swallow: usize,
    /// Every byte is written on its own.
    pub trickle: bool,
    /// The connection ends with the next message to the device.
    pub hang_up: bool,
    /// Of the CONNECTs.
    pub keep_alives: Vec<u16>,
    /// The LBS that the device named at its last full login.
    pub lbs_domain: String,
    /// Into the present connection.
    down: Option<mpsc::UnboundedSender<Down>>,
}

pub struct Server {
    pub lbs: SocketAddr,
    pub world: Arc<Mutex<World>>,
    /// Breaks the DAS connection of the device.
    pub kill: Arc<Notify>,
    /// Sends the device a message with packet id 77.
    pub downlink: Arc<Notify>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

#[derive(Clone)]
struct Shared {
    das: SocketAddr,
    world: Arc<Mutex<World>>,
    kill: Arc<Notify>,
    downlink: Arc<Notify>,
    seen: mpsc::UnboundedSender<Seen>,
}

impl Server {
    pub async fn start() -> Self {
        let lbs = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let das = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let record = Record { code: Some(Code::new(CODE).unwrap()), ..Record::default() };
        let world = World {
            record,
            connacks: VecDeque::new(),
            swallow: 0,
            trickle: false,
            hang_up: false,
            keep_alives: Vec::new(),
            lbs_domain: String::new(),
            down: None,
        };
        let (sender, seen) = mpsc::unbounded_channel();
        let shared = Shared {
            das: das.local_addr().unwrap(),
            world: Arc::new(Mutex::new(world)),
            kill: Arc::default(),
            downlink: Arc::default(),
            seen: sender,
        };
        let server = Self {
            lbs: lbs.local_addr().unwrap(),
            world: Arc::clone(&shared.world),
            kill: Arc::clone(&shared.kill),
            downlink: Arc::clone(&shared.downlink),
            seen,
        };
        let for_das = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = lbs.accept().await {
                tokio::spawn(serve_lbs(stream, shared.clone()));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = das.accept().await {
                tokio::spawn(Das::serve(stream, for_das.clone()));
            }
        });
        server
    }

    /// Sends the device a message and waits until it is acknowledged.
    pub async fn send(&mut self, topic: &str, seq: u64, body: impl AsRef<[u8]>) {
        self.send_unseen(topic, seq, body);
        self.expect([Seen::PubAck(78)]).await;
    }

    /// Sends the device a message.
    pub fn send_unseen(&self, topic: &str, seq: u64, body: impl AsRef<[u8]>) {
        let down = Down { topic: topic.to_owned(), seq, body: body.as_ref().to_vec() };
        self.world.lock().down.as_ref().unwrap().send(down).unwrap();
    }

    pub async fn command(&mut self) -> Command {
        match self.next().await {
            Seen::Command(command) => command,
            other => panic!("{other:?}"),
        }
    }

    pub async fn next(&mut self) -> Seen {
        crate::soon(self.seen.recv()).await.unwrap()
    }

    /// Takes these, in this order.
    pub async fn expect(&mut self, expected: impl IntoIterator<Item = Seen>) {
        for expected in expected {
            assert_eq!(self.next().await, expected);
        }
    }

    pub async fn event(&mut self) -> Event {
        match self.next().await {
            Seen::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }
}

async fn serve_lbs(mut stream: TcpStream, shared: Shared) {
    let mut lbs = Lbs::new(ServerPolicy::legacy());
    let mut buffer = Vec::new();
    loop {
        match lbs.poll() {
            Output::Read => {
                let len = loop {
                    match lbs_frame_len(&buffer, lbs.max_frame()).unwrap() {
                        Some(len) if len <= buffer.len() => break len,
                        _ if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 => return,
                        _ => {}
                    }
                };
                lbs.handle_frame(&buffer[..len]);
                buffer.drain(..len);
            }
            Output::Lookup(serial) => {
                assert_eq!(serial.as_str(), SERIAL);
                let record = shared.world.lock().record.clone();
                lbs.handle_record(record, &mut SystemRandom);
            }
            Output::Compute => lbs.compute(&mut SystemRandom),
            Output::Assign => lbs.handle_das(Some(DasInfo {
                address: shared.das.ip().to_string(),
                port: shared.das.port(),
                udp_port: shared.das.port(),
                domain: "das.example".into(),
                server_id: "das1".into(),
            })),
            Output::Stage(stage) => {
                assert!(shared.world.lock().record.apply(stage));
                let _ = shared.seen.send(Seen::Run(lbs.run().unwrap()));
                lbs.handle_staged();
            }
            Output::Send(bytes) => {
                if let Some(result) = lbs.refusal() {
                    let _ = shared.seen.send(Seen::Refused(result.into()));
                }
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Output::Done | Output::Close(_) => return,
        }
    }
}

/// One DAS connection.
struct Das {
    shared: Shared,
    cipher: Option<SessionCipher>,
    out: Vec<u8>,
    /// Given to the world with the login.
    down: Option<mpsc::UnboundedSender<Down>>,
}

impl Das {
    async fn serve(mut stream: TcpStream, shared: Shared) {
        let (down, mut downs) = mpsc::unbounded_channel();
        let mut das = Das { shared: shared.clone(), cipher: None, out: Vec::new(), down: Some(down) };
        let mut buffer = Vec::new();
        stream.set_nodelay(true).unwrap();
        loop {
            while let Ok(Some(len)) = mqtt::frame_len(&buffer, 65_536)
                && len <= buffer.len()
            {
                let mut frame: Vec<u8> = buffer.drain(..len).collect();
                if !das.packet(&mut frame) {
                    let _ = stream.write_all(&das.out).await;
                    return;
                }
            }
            let out = std::mem::take(&mut das.out);
            let piece = if shared.world.lock().trickle { 1 } else { out.len().max(1) };
            for piece in out.chunks(piece) {
                if stream.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            tokio::select! {
                read = stream.read_buf(&mut buffer) => if read.unwrap_or(0) == 0 { return },
                () = shared.kill.notified() => return,
                Some(down) = downs.recv() => {
                    das.send(&down);
                    if shared.world.lock().hang_up {
                        let _ = stream.write_all(&das.out).await;
                        return;
                    }
                }
                () = shared.downlink.notified() => {
                    let head = PublishHead {
                        dup: false,
                        qos: QoS::AtLeastOnce,
                        retain: false,
                        topic: "/SN0000001/1000/1",
                        packet_id: Some(77),
                    };
                    encode::publish(&head, b"sixteen bytes...", &mut das.out).unwrap();
                }
            }
        }
    }

    fn send(&mut self, down: &Down) {
        let Down { topic, seq, body } = down;
        let head = PublishHead { dup: false, qos: QoS::AtLeastOnce, retain: false, topic, packet_id: Some(78) };
        let version = if topic.starts_with("/iot/") { "v3.0.0" } else { "v2.0.0" };
        let mut payload = Vec::new();
        let general = General::request(*seq, version);
        envelope::seal(self.cipher.as_ref().unwrap(), &general, body, &mut payload).unwrap();
        encode::publish(&head, &payload, &mut self.out).unwrap();
    }

    /// Takes a packet; `false` ends the connection.
    fn packet(&mut self, frame: &mut [u8]) -> bool {
        let seen = match mqtt::decode(frame, &Rules::OSAP_LEGACY).unwrap() {
            Packet::Connect(connect) => {
                let will = connect.will.unwrap();
                self.shared.world.lock().keep_alives.push(connect.keep_alive);
                let code = self.login(connect.user.unwrap(), will.payload);
                let (serial, which) = login::read_will_topic(will.topic.as_bytes()).unwrap();
                assert_eq!(serial.as_str(), SERIAL);
                encode::connack(&ConnAck { session_present: false, code }, &mut self.out);
                self.see(Seen::Connect { full: connect.clean_session, which, code });
                return code == 0;
            }
            Packet::Publish(publish) => {
                let head = publish.head;
                let (topic, packet_id, dup) = (head.topic.to_owned(), head.packet_id, head.dup);
                let (_, payload) = mqtt::split_publish(frame, &Rules::OSAP_LEGACY).unwrap();
                let opened = envelope::open(self.cipher.as_ref().unwrap(), payload).unwrap();
                let text = String::from_utf8_lossy(opened.application).into_owned();
                let Some(packet_id) = packet_id else {
                    let General { seq, cmd_ver, msg_type } = opened.general;
                    let (version, answers) = (cmd_ver.unwrap().into_owned(), msg_type == Some(MsgType::Response));
                    self.see(Seen::Command(Command { topic, version, seq, answers, body: text }));
                    return true;
                };
                if !topic.contains("/model/event/") {
                    encode::puback(packet_id, &mut self.out);
                    self.see(Seen::Message { topic, body: text });
                    return true;
                }
                let body = EventBody::parse(opened.application).unwrap();
                let event = Event {
                    topic,
                    id: body.uuid.unwrap().to_owned(),
                    json: body.json.to_owned(),
                    seq: opened.general.seq,
                    packet_id,
                    dup,
                };
                let mut world = self.shared.world.lock();
                match world.swallow.checked_sub(1) {
                    Some(left) => world.swallow = left,
                    None => encode::puback(packet_id, &mut self.out),
                }
                drop(world);
                Seen::Event(event)
            }
            Packet::Subscribe(subscribe) => {
                let (filter, _) = { subscribe.filters }.next().unwrap();
                encode::suback(subscribe.packet_id, &[1], &mut self.out).unwrap();
                Seen::Subscribe(filter.to_owned())
            }
            Packet::Unsubscribe(unsubscribe) => {
                let filter = { unsubscribe.filters }.next().unwrap();
                encode::unsuback(unsubscribe.packet_id, &mut self.out);
                Seen::Unsubscribe(filter.to_owned())
            }
            Packet::PubAck(id) => Seen::PubAck(id),
            Packet::PingReq => {
                encode::pingresp(&mut self.out);
                Seen::Ping
            }
            Packet::Disconnect => {
                self.see(Seen::Disconnect);
                return false;
            }
            other => panic!("{other:?}"),
        };
        self.see(seen);
        true
    }

    /// The login check of a platform, with the rule that a first session key is used once
    /// (osap-wire 5.5 and 13.2.2).
    fn login(&mut self, user: &str, will: &[u8]) -> u8 {
        let mut world = self.shared.world.lock();
        world.down = self.down.take();
        let forced = world.connacks.pop_front();
        for slot in Slot::BOTH {
            let Some(credential) = world.record.credential(slot).cloned() else { continue };
            let Some(key) = credential.session_key else { continue };
            let Ok(record) = login::check(user, will, &key, &credential.dev_id) else { continue };
            if let Some(details) = record.details {
                world.lbs_domain = details.lbs_domain;
            }
            if slot == Slot::Candidate {
                world.record.commit_candidate();
                world.record.committed.as_mut().unwrap().session_key = None;
                return forced.unwrap_or(11);
            }
            self.cipher = Some(SessionCipher::new(key));
            return forced.unwrap_or(0);
        }
        forced.unwrap_or(11)
    }

    fn see(&self, seen: Seen) {
        // The test may be over.
        let _ = self.shared.seen.send(seen);
    }
}
