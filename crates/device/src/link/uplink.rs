//! What the device says of itself on a connection: its login, and messages of every kind.

use osap::das::envelope::General;
use osap::das::login::{self, FirstOrBreak, LoginRecord};
use osap::modern::login as modern;
use vestibule_mqtt_codec::{Connect, QoS, Rules, Will, encode};

use super::{Channel, Link, Note, Number, written};
use crate::outbox::{Outbox, Outgoing};
use crate::state::LinkFault;

impl Link {
    pub(super) fn connect(&self, out: &mut Vec<u8>) {
        let serial = &self.profile.serial;
        let cipher = match &self.channel {
            Channel::Legacy(cipher) => cipher,
            Channel::Modern(secured) => {
                let connect = Connect {
                    clean_session: true,
                    keep_alive: self.keep_alive.present,
                    client_id: self.dev_id.as_str(),
                    will: None,
                    user: Some(serial.as_str()),
                    password: Some(&secured.password()),
                };
                return written(encode::connect_under(&connect, &Rules::STRICT, out));
            }
        };
        let payload = self.record().seal(cipher.key());
        let which = if self.login.first { FirstOrBreak::First } else { FirstOrBreak::Break };
        let topic = login::will_topic(serial, which);
        let topic = std::str::from_utf8(&topic).expect("a will topic is ASCII and zero bytes");
        let connect = Connect {
            clean_session: self.login.full,
            keep_alive: self.keep_alive.present,
            client_id: "",
            will: Some(Will { topic, payload: &payload, qos: QoS::AtLeastOnce, retain: true }),
            user: Some(serial.as_str()),
            // A constant: the will is what proves the device.
            password: Some(login::PASSWORD),
        };
        written(encode::connect_under(&connect, &Rules::OSAP_LEGACY, out));
    }

    fn record(&self) -> LoginRecord {
        // A DAS that was started anew knows a modern session from the store, and nothing of what its device has said.
        if self.login.full || self.channel.is_modern() {
            self.profile.login_record(&self.dev_id, &self.lbs_host)
        } else {
            LoginRecord::short(&self.profile.serial, &self.dev_id)
        }
    }

    /// The first sealed message of a modern login: that its CONNECT was no recording.
    pub(super) fn report<T>(&mut self, outbox: &mut Outbox<T>, out: &mut Vec<u8>) -> Result<(), LinkFault> {
        let mut record = self.record();
        if let Channel::Modern(secured) = &self.channel {
            record.boot_id = Some(secured.boot_id().to_string());
        }
        let (packet_id, seq, dup) = (outbox.next_packet_id(), outbox.next_seq(), false);
        let topic = modern::topic(&self.profile.serial, "report");
        self.publish(&Outgoing { topic: &topic, body: &record.encode(), packet_id, seq, dup }, out).map(|_| ())
    }

    /// Writes a receipt if one is due; says whether it did.
    pub(super) fn receipt<T>(&mut self, outbox: &mut Outbox<T>, out: &mut Vec<u8>) -> Result<bool, LinkFault> {
        let Channel::Modern(secured) = &mut self.channel else { return Ok(false) };
        let Some(receipt) = secured.take_receipt() else { return Ok(false) };
        let topic = modern::topic(&self.profile.serial, "receipt");
        let general = General::bare(outbox.next_seq());
        self.channel.publish(&topic, (None, false), &general, &receipt.encode(), out).map(|_| true)
    }

    /// Commands go at QoS 0 (osap-wire 9.5).
    pub(super) fn publish_note<T>(
        &mut self,
        note: &Note,
        outbox: &mut Outbox<T>,
        out: &mut Vec<u8>,
    ) -> Result<u64, LinkFault> {
        let version = note.command.version();
        let general = match note.number {
            Number::Answer(seq) => General::response(seq, version),
            Number::Request(seq) => General::request(seq, version),
            Number::Next => General::request(outbox.next_seq(), version),
        };
        self.channel.publish(&note.command.uplink().to_string(), (None, false), &general, &note.body, out)
    }

    pub(super) fn publish(&mut self, event: &Outgoing<'_>, out: &mut Vec<u8>) -> Result<u64, LinkFault> {
        let Outgoing { topic, body, packet_id, seq, dup } = *event;
        self.channel.publish(topic, (Some(packet_id), dup), &General::bare(seq), body, out)
    }
}
