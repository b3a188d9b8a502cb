//! Messages that are passed through: sent once, and delivered when the device says that it has them.

use std::time::Instant;

use osap::das::envelope::General;
use osap::das::pass::{self, Pass};
use osap::das::pending::Take;
use vestibule_platform::{Answer, DevicePath, NotSent, PassMessage};

use super::requests::{GRACE, Kind, OPERATIONS, Operations, Waiting};
use super::{CMD_VER, OsapLink, Sent, UNADDRESSABLE};

/// Deliveries are looked up beside replies, whose numbers have 31 bits: by the id of a packet, or from here on by the number
/// that a message was sealed under.
const SEALED: u64 = 1 << 48;

fn by_packet(id: u16) -> u64 {
    1 << 32 | u64::from(id)
}

impl OsapLink {
    /// Sends a message that is passed through. Where a PUBACK is authentic, that says that it has arrived; over plain TCP it is
    /// a receipt of the device that covers its number (osap-wire 13.3, "Receipts").
    pub(super) fn deliver(&self, message: PassMessage<'_>) -> Result<(), NotSent> {
        let (serial, sub) = self.names();
        let DevicePath { resource, index, area, name } = message.path;
        let place = pass::Place { serial, sub, index, resource, area, name, msg_type: pass::DELIVER };
        let topic = place.topic().map_err(|_| UNADDRESSABLE)?;
        let mut body = Vec::new();
        let written = Pass { media_type: message.media_type, bytes: message.body }.write(&mut body);
        written.map_err(|_| NotSent::TooLarge)?;
        let (kind, path) = (Kind::Delivery, message.path.clone());
        let waiting = Waiting { kind, path, input: None, reply: message.reply };
        // Held while it is sent: the acknowledgement comes on another thread, and may be faster than we are.
        let mut operations = self.operations.lock();
        let pending = operations.open()?;
        if pending.len() >= OPERATIONS {
            return Err(NotSent::Busy);
        }
        let general = General::request(self.key.next_seq(), CMD_VER);
        let Sent { packet_id, number } = self.send(&topic, &general, &body)?;
        let number = match number.filter(|_| self.sealing.has_receipts()) {
            Some(number) => SEALED | number,
            None => by_packet(packet_id.ok_or(NotSent::Unsupported)?),
        };
        pending.enter(number, Instant::now() + message.ttl + GRACE, waiting).map_err(|_| NotSent::Busy)
    }

    /// The device has acknowledged a message.
    pub(in crate::das) fn delivered(&self, packet_id: u16) {
        if let Take::Found(waiting) = self.take(by_packet(packet_id), |waiting| waiting.kind == Kind::Delivery) {
            waiting.answer(Answer::Done(None));
        }
    }

    /// The device has everything up to this number, as a receipt of it says.
    pub(in crate::das) fn received(&self, number: u64) {
        let here = match &mut *self.operations.lock() {
            Operations::Some(pending) => {
                // Those who waited for these have given up.
                drop(pending.expire(Instant::now()));
                pending.take_through(SEALED, SEALED | number.min(SEALED - 1))
            }
            Operations::None | Operations::Closed => return,
        };
        for waiting in here {
            waiting.answer(Answer::Done(None));
        }
    }
}
