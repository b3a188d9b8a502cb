//! The DAS of the peer.

use osap::SystemRandom;
use osap::das::envelope::{self, General};
use osap::das::login::LoginRecord;
use osap::modern::Exporter;
use osap::modern::envelope::{Opened, Opener, Sealer};
use osap::modern::login::{self, BootId, EXPORTER_LABEL, Proof};
use osap::modern::receipt::Receipt;
use osap::modern::seal::Direction;
use osap::{Random as _, Serial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use vestibule_mqtt_codec::{ConnAck, Packet, PublishHead, QoS, Rules, decode, encode, frame_len, split_publish};
use vestibule_tls::rustls::ServerConnection;

use super::peer::{Down, Event, Hello, Io, SERIAL, Seen, Site};

pub fn exporter(tls: &ServerConnection) -> Exporter {
    let material = tls.export_keying_material([0; 48], EXPORTER_LABEL, Some(&[])).unwrap();
    Exporter::from_bytes(&material).unwrap()
}

pub async fn serve(mut stream: Box<dyn Io>, bind: Option<Exporter>, site: Site) {
    let (sender, mut downs) = mpsc::unbounded_channel();
    let kill = site.kill.clone();
    let mut das = Das { site, bind, keys: None, out: Vec::new(), sender: Some(sender), reported: false };
    let mut buffer = Vec::new();
    loop {
        while let Ok(Some(len)) = frame_len(&buffer, 65_536)
            && len <= buffer.len()
        {
            let mut frame: Vec<u8> = buffer.drain(..len).collect();
            if !das.packet(&mut frame) {
                let _ = stream.write_all(&das.out).await;
                let _ = stream.shutdown().await;
                return;
            }
        }
        let out = std::mem::take(&mut das.out);
        if stream.write_all(&out).await.is_err() || stream.flush().await.is_err() {
            return das.site.see(Seen::Gone);
        }
        tokio::select! {
            read = stream.read_buf(&mut buffer) => if read.unwrap_or(0) == 0 {
                return das.site.see(Seen::Gone);
            },
            () = kill.notified() => return das.site.see(Seen::Gone),
            Some(down) = downs.recv() => das.send(down),
        }
    }
}

struct Das {
    site: Site,
    bind: Option<Exporter>,
    keys: Option<(Opener, Sealer)>,
    out: Vec<u8>,
    sender: Option<mpsc::UnboundedSender<Down>>,
    reported: bool,
}

fn topic(what: &str) -> String {
    login::topic(&Serial::new(SERIAL).unwrap(), what)
}

impl Das {
    /// Takes a packet; `false` ends the connection.
    fn packet(&mut self, frame: &mut [u8]) -> bool {
        let seen = match decode(frame, &Rules::STRICT).unwrap() {
            Packet::Connect(connect) => {
                assert!(connect.clean_session && connect.will.is_none());
                assert_eq!(connect.user, Some(SERIAL));
                let (password, id) = (connect.password.unwrap().to_vec(), connect.client_id.to_owned());
                let code = self.connect(&password, &id);
                self.site.see(Seen::Connect(code));
                return code == 0;
            }
            Packet::Publish(publish) => {
                let (name, id) = (publish.head.topic.to_owned(), publish.head.packet_id);
                return self.published(&name, id, frame);
            }
            Packet::Subscribe(subscribe) => {
                let (filter, _) = { subscribe.filters }.next().unwrap();
                encode::suback(subscribe.packet_id, &[1], &mut self.out).unwrap();
                Seen::Subscribe(filter.to_owned())
            }
            Packet::Unsubscribe(unsubscribe) => {
                encode::unsuback(unsubscribe.packet_id, &mut self.out);
                return true;
            }
            Packet::PubAck(_) => Seen::PubAck,
            Packet::PingReq => {
                encode::pingresp(&mut self.out);
                if self.bind.is_none() && self.site.world.lock().receipts {
                    self.send(Down::Receipt);
                }
                return true;
            }
            Packet::Disconnect => {
                self.site.see(Seen::Disconnect);
                return false;
            }
            other => panic!("{other:?}"),
        };
        self.site.see(seen);
        true
    }

    fn connect(&mut self, password: &[u8], id: &str) -> u8 {
        let mut world = self.site.world.lock();
        let forced = world.connacks.pop();
        let bind = self.bind.as_ref().filter(|_| world.bind);
        let answer = (|| {
            let (node, dev_id, suite) = (world.node.clone()?, world.record.tickets.dev_id?, world.suite?);
            let proof = Proof::decode(password)?;
            let hash = login::login_hash(bind, &dev_id, &proof.nonce);
            (id == dev_id.as_str() && login::proves_device(&node, &hash, &proof)).then_some((node, hash, suite))
        })();
        let code = forced.unwrap_or(if answer.is_some() { 0 } else { 11 });
        encode::connack(&ConnAck { session_present: false, code }, &mut self.out);
        let Some((node, hash, suite)) = answer.filter(|_| code == 0) else { return code };
        world.down = self.sender.take();
        let mut nonce = [0; 32];
        SystemRandom.fill(&mut nonce);
        let hello_hash = login::hello_hash(&hash, &nonce);
        let key = |direction| login::record_key(&node, &hello_hash, direction);
        let opener = Opener::new(suite, Direction::Up, key(Direction::Up));
        self.keys = Some((opener, Sealer::new(suite, Direction::Down, key(Direction::Down))));
        let mut hello = login::hello(&node, &hello_hash, nonce).encode();
        match world.hello {
            Hello::Missing => return code,
            Hello::Wrong => hello[40] ^= 1,
            Hello::Right => {}
        }
        let topic = topic("hello");
        let head = PublishHead { dup: false, qos: QoS::AtMostOnce, retain: false, topic: &topic, packet_id: None };
        encode::publish(&head, &hello, &mut self.out).unwrap();
        code
    }

    fn published(&mut self, name: &str, packet_id: Option<u16>, frame: &mut [u8]) -> bool {
        let (_, payload) = split_publish(frame, &Rules::STRICT).unwrap();
        let (opener, _) = self.keys.as_mut().unwrap();
        let Ok(Opened::Next(text)) = opener.open(name, payload) else { panic!("{name} does not open") };
        let opened = envelope::read(text).unwrap();
        let (seq, body) = (opened.general.seq, opened.application.to_vec());
        let number = opener.seq();
        if name == topic("report") {
            assert_eq!((number, self.reported), (1, false), "the report comes first, and once");
            self.reported = true;
            encode::puback(packet_id.unwrap(), &mut self.out);
            let record = LoginRecord::decode(&body).unwrap();
            assert_eq!(record.sub_serial, SERIAL);
            self.site.see(Seen::Report(BootId::parse(&record.boot_id.unwrap()).unwrap()));
            return true;
        }
        assert!(self.reported, "{name} before the report");
        if name == topic("receipt") {
            assert_eq!((packet_id, self.bind.is_none()), (None, true));
            self.site.see(Seen::Receipt(Receipt::decode(&body).unwrap().up));
            return true;
        }
        let mut world = self.site.world.lock();
        match world.swallow.checked_sub(1) {
            Some(left) => world.swallow = left,
            None => packet_id.iter().for_each(|&id| encode::puback(id, &mut self.out)),
        }
        drop(world);
        let body = String::from_utf8(body).unwrap();
        self.site.see(Seen::Event(Event { topic: name.to_owned(), seq, number, body }));
        true
    }

    fn send(&mut self, down: Down) {
        let (opener, sealer) = self.keys.as_mut().unwrap();
        let mut seal = |topic: &str, seq: u64, body: &[u8]| {
            let mut payload = Vec::new();
            envelope::write(&General::request(seq, "v3.0.0"), body, &mut payload).unwrap();
            sealer.seal_tail(topic, &mut payload, 0).unwrap();
            payload
        };
        let (topic, payload, times) = match down {
            Down::Send { topic, seq, body } => {
                let payload = seal(&topic, seq, body.as_bytes());
                (topic, payload, 1)
            }
            Down::Twice { topic, seq, body } => {
                let payload = seal(&topic, seq, body.as_bytes());
                (topic, payload, 2)
            }
            Down::Gap { topic, seq, body } => {
                seal(&topic, seq, body.as_bytes());
                let payload = seal(&topic, seq, body.as_bytes());
                (topic, payload, 1)
            }
            Down::Spoil { topic, seq, body } => {
                let mut payload = seal(&topic, seq, body.as_bytes());
                payload[12] ^= 1;
                (topic, payload, 1)
            }
            Down::Receipt => {
                let topic = topic("receipt");
                let receipt = Receipt { up: opener.seq(), down: 0 };
                let payload = seal(&topic, 1, &receipt.encode());
                let head =
                    PublishHead { dup: false, qos: QoS::AtMostOnce, retain: false, topic: &topic, packet_id: None };
                return encode::publish(&head, &payload, &mut self.out).unwrap();
            }
        };
        for _ in 0..times {
            let head =
                PublishHead { dup: false, qos: QoS::AtLeastOnce, retain: false, topic: &topic, packet_id: Some(78) };
            encode::publish(&head, &payload, &mut self.out).unwrap();
        }
    }
}
