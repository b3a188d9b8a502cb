//! A device's connection to the DAS.

use osap::Serial;
use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General};
use osap::das::login::{FirstOrBreak, PASSWORD, will_topic};
use osap::key::SessionKey;
use vestibule_broker::codec::{Connect, Packet, PublishHead, QoS, Rules, Will, decode, encode, frame_len};

use crate::device::Wire;
use crate::site::Site;

/// Where the tests' events are published.
pub const SMOKE: &str = "/iot/SN0000001/global/0-Lamp/model/event/report/Alarm/Smoke";

pub struct Mqtt {
    pub wire: Wire,
}

impl Mqtt {
    /// CONNECTs; the will is the login record. Returns the code of the CONNACK.
    #[track_caller]
    pub fn log_in(site: &Site, serial: &str, will: Option<&[u8]>) -> (u8, Mqtt) {
        let topic = will_topic(&Serial::new(serial).expect("a serial"), FirstOrBreak::Break);
        let topic = std::str::from_utf8(&topic).expect("ASCII");
        let connect = Connect {
            clean_session: false,
            keep_alive: 30,
            client_id: "",
            will: will.map(|payload| Will { topic, payload, qos: QoS::AtLeastOnce, retain: true }),
            user: Some(serial),
            password: Some(PASSWORD),
        };
        let mut packet = Vec::new();
        encode::connect_under(&connect, &Rules::OSAP_LEGACY, &mut packet).expect("a CONNECT");
        let mut mqtt = Mqtt { wire: Wire::dial(site.das) };
        mqtt.wire.send(&packet);
        (mqtt.connack(), mqtt)
    }

    /// The code of the CONNACK.
    #[track_caller]
    pub fn connack(&mut self) -> u8 {
        let frame = self.frame().expect("a CONNACK");
        match decode(&frame, &Rules::STRICT) {
            Ok(Packet::ConnAck(connack)) => connack.code,
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    /// The next packet; `None` at the end.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        self.wire.frame(|unread| frame_len(unread, 1 << 20).expect("the DAS speaks MQTT"))
    }

    /// Publishes a sealed message with QoS 1, without waiting for its PUBACK.
    #[track_caller]
    pub fn publish(&mut self, key: &SessionKey, topic: &str, id: u16, seq: u64, body: &[u8]) {
        let mut payload = Vec::new();
        envelope::seal(&SessionCipher::new(key.clone()), &General::bare(seq), body, &mut payload).expect("it fits");
        self.publish_raw(topic, QoS::AtLeastOnce, id, &payload);
    }

    #[track_caller]
    pub fn publish_raw(&mut self, topic: &str, qos: QoS, id: u16, payload: &[u8]) {
        let packet_id = (qos != QoS::AtMostOnce).then_some(id);
        let mut packet = Vec::new();
        let head = PublishHead { dup: false, qos, retain: true, topic, packet_id };
        encode::publish(&head, payload, &mut packet).expect("a PUBLISH");
        self.wire.send(&packet);
    }

    #[track_caller]
    pub fn expect_puback(&mut self, id: u16) {
        let mut puback = Vec::new();
        encode::puback(id, &mut puback);
        assert_eq!(self.frame(), Some(puback), "PUBACK of {id}");
    }

    #[track_caller]
    pub fn puback(&mut self, id: u16) {
        let mut puback = Vec::new();
        encode::puback(id, &mut puback);
        // What is acknowledged may have been a goodbye: the other end may be gone.
        self.wire.try_send(&puback);
    }

    /// Asks for a filter; the code of the SUBACK.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str) -> u8 {
        let mut packet = Vec::new();
        encode::subscribe(1, [(filter, QoS::AtLeastOnce)], &mut packet).expect("a SUBSCRIBE");
        self.wire.send(&packet);
        match self.frame().expect("a SUBACK")[..] {
            [0x90, 3, 0, 1, code] => code,
            ref other => panic!("no SUBACK: {other:?}"),
        }
    }

    /// Whether the connection answers a ping.
    pub fn is_alive(&mut self) -> bool {
        let mut ping = Vec::new();
        encode::pingreq(&mut ping);
        // A connection that is closed already may refuse the bytes.
        self.wire.try_send(&ping) && self.frame().is_some()
    }
}
