//! The events that devices report, and how many.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use osap::Serial;
use osap::das::event;
use osap::das::topic::{self, Topic};
use uuid::Uuid;

use super::channel::Channel;

/// Bytes of an event: the JSON in the envelope, `basic` with its UUID and time included.
pub const EVENT_LEN: usize = 256;

/// What a fleet reports together.
#[derive(Debug)]
pub struct Plan {
    left: Cell<u64>,
    acknowledged: Cell<u64>,
    until: Instant,
    window: u64,
}

impl Plan {
    /// So many events, or as many as fit into the time; each device has at most `window` unacknowledged ones.
    pub fn new(events: u64, time: Duration, window: u64) -> Plan {
        Plan { left: Cell::new(events), acknowledged: Cell::new(0), until: Instant::now() + time, window }
    }

    /// How many events were acknowledged. When the fleet is done, these are all that were sent.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.get()
    }

    /// Unacknowledged messages of each device.
    pub fn window(&self) -> u64 {
        self.window
    }

    pub(super) fn count_acknowledged(&self, more: u64) {
        self.acknowledged.set(self.acknowledged.get() + more);
    }

    /// How many events of `want` a device may send now.
    pub(super) fn take(&self, want: u64) -> u64 {
        if Instant::now() >= self.until {
            self.left.set(0);
        }
        let taken = want.min(self.left.get());
        self.left.set(self.left.get() - taken);
        taken
    }
}

/// Writes the events of one device.
pub(super) struct Writer<'a> {
    topic: String,
    /// The event without `basic`, padded so that the whole has its length.
    object: String,
    seq: &'a mut u64,
    body: Vec<u8>,
    last_id: Option<String>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(serial: &Serial, seq: &'a mut u64) -> anyhow::Result<Writer<'a>> {
        let topic = Topic::Model {
            serial: serial.as_str(),
            sub: topic::GLOBAL,
            index: "0",
            resource: "Camera",
            method: topic::method::EVENT,
            msg_type: "report",
            area: "Detection",
            name: "objectAppeared",
        };
        let topic = topic.encode().context("the topic")?;
        Ok(Writer { topic, object: object(EVENT_LEN)?, seq, body: Vec::new(), last_id: None })
    }

    /// Appends a PUBLISH with a fresh event.
    pub(super) fn publish(&mut self, channel: &mut Channel, packet_id: u16, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let id = Uuid::now_v7().simple().to_string();
        self.body.clear();
        event::write(&self.object, &id, Timestamp::now().as_millisecond(), &mut self.body)?;
        self.last_id = Some(id);
        *self.seq += 1;
        channel.publish(&self.topic, packet_id, *self.seq, &self.body, out)
    }

    /// The id of the event written last.
    pub(super) fn into_last_id(self) -> Option<String> {
        self.last_id
    }
}

/// The object that becomes an event of `len` bytes.
fn object(len: usize) -> anyhow::Result<String> {
    let with = |note: &str| {
        format!(r#"{{"targetType":"human","confidence":0.93,"region":[0.1,0.2,0.5,0.9],"channel":1,"note":"{note}"}}"#)
    };
    let mut shortest = Vec::new();
    event::write(&with(""), &Uuid::nil().simple().to_string(), 0, &mut shortest)?;
    let room = len.checked_sub(shortest.len()).context("the event has no room for what it carries")?;
    Ok(with(&"x".repeat(room)))
}

#[cfg(test)]
mod tests {
    use osap::Suite;
    use osap::das::event::EventBody;
    use vestibule_mqtt_codec::split_publish;

    use super::super::channel::tests::pair;
    use super::*;

    #[test]
    fn an_event_has_its_length_identity_and_time() {
        let (mut device, mut platform) = pair(Suite::Tls);
        let (mut seq, mut frame) = (4, Vec::new());
        let serial = Serial::new("BENCH00001").expect("a serial");
        let mut writer = Writer::new(&serial, &mut seq).expect("a writer");
        writer.publish(&mut device, 9, &mut frame).expect("a packet");
        let id = writer.into_last_id().expect("an id");

        let (head, payload) = split_publish(&mut frame, platform.rules()).expect("a PUBLISH");
        assert_eq!(head.packet_id, Some(9));
        let opened = platform.open(head.topic, payload).expect("it opens");
        assert_eq!((opened.general.seq, seq, opened.application.len()), (5, 5, EVENT_LEN));
        let body = EventBody::parse(opened.application).expect("an event");
        assert_eq!(body.uuid, Some(&*id));
        assert!(body.time_ms.is_some());
    }

    #[test]
    fn a_plan_ends_with_its_events_or_its_time() {
        let plan = Plan::new(5, Duration::from_secs(3_600), 4);
        assert_eq!([plan.take(4), plan.take(4), plan.take(4)], [4, 1, 0]);
        assert_eq!(Plan::new(5, Duration::ZERO, 4).take(4), 0);
    }
}
