//! The attributes that devices report.

use anyhow::Context as _;
use osap::Serial;
use osap::das::shadow::{self, State, Versioned};
use osap::das::topic::{self, Topic};

use super::channel::Channel;

/// Attributes of each device, all of one part and area.
pub const NAMES: [&str; 5] = ["Brightness", "Contrast", "Saturation", "Sharpness", "Exposure"];
/// The part of the device they belong to: resource and index.
pub const PLACE: (&str, &str) = ("Camera", "0");
/// Their area.
pub const AREA: &str = "Image";

/// Writes the reports of one device, one attribute after the other, each with a value it has not had before.
pub(super) struct Writer<'a> {
    topic: String,
    seq: &'a mut u64,
    /// Reports so far, over all attributes.
    reports: &'a mut u64,
    body: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(serial: &Serial, seq: &'a mut u64, reports: &'a mut u64) -> anyhow::Result<Writer<'a>> {
        Ok(Writer { topic: shadow_topic(serial, "report")?, seq, reports, body: Vec::new() })
    }

    /// Appends a PUBLISH with the next report.
    pub(super) fn publish(&mut self, channel: &mut Channel, packet_id: u16, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let attributes = NAMES.len() as u64;
        let name = NAMES.get((*self.reports % attributes) as usize).context("an attribute")?;
        let (value, version) = (format!("{}.25", 1_000 + *self.reports), *self.reports / attributes + 1);
        let state = State { area: AREA.to_owned(), name: (*name).to_owned(), value: &value };
        self.body.clear();
        shadow::write_report(&Versioned { state, version }, &mut self.body)?;
        *self.reports += 1;
        *self.seq += 1;
        channel.publish(&self.topic, packet_id, *self.seq, &self.body, out)
    }
}

/// The topic of a message of state synchronisation.
pub(super) fn shadow_topic(serial: &Serial, msg_type: &str) -> anyhow::Result<String> {
    let (resource, index) = PLACE;
    let topic = Topic::Module {
        serial: serial.as_str(),
        sub: topic::GLOBAL,
        index,
        resource,
        module: shadow::MODULE,
        method: shadow::METHOD,
        msg_type,
    };
    topic.encode().context("the topic of an attribute")
}

#[cfg(test)]
mod tests {
    use osap::Suite;
    use vestibule_mqtt_codec::split_publish;

    use super::super::channel::tests::pair;
    use super::*;

    #[test]
    fn every_report_is_of_the_next_attribute_and_has_a_fresh_value() {
        let (mut device, mut platform) = pair(Suite::Legacy);
        let serial = Serial::new("BENCH00001").expect("a serial");
        let (mut seq, mut reports) = (0, 0);
        let mut seen = Vec::new();
        for id in 1..=7 {
            let mut frame = Vec::new();
            let mut writer = Writer::new(&serial, &mut seq, &mut reports).expect("a writer");
            writer.publish(&mut device, id, &mut frame).expect("a packet");
            let (head, payload) = split_publish(&mut frame, platform.rules()).expect("a PUBLISH");
            assert_eq!(head.topic, "/iot/BENCH00001/global/0-Camera/basic/shadow/report");
            let opened = platform.open(head.topic, payload).expect("it opens");
            let Versioned { state, version } = shadow::parse_report(opened.application).expect("a report");
            seen.push((state.name, state.value.to_owned(), version));
        }
        let row = |name: &str, value: &str, version| (name.to_owned(), value.to_owned(), version);
        assert_eq!(seen[0], row("Brightness", "1000.25", 1));
        assert_eq!(seen[4], row("Exposure", "1004.25", 1));
        assert_eq!(seen[5], row("Brightness", "1005.25", 2));
        assert_eq!((seq, reports), (7, 7));
    }
}
