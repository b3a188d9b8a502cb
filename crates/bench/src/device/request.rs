//! What the platform asks of a device, and what the device answers: an operation is done, a value is taken.

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use osap::Serial;
use osap::das::envelope::Opened;
use osap::das::reply::Reply;
use osap::das::service::Operate;
use osap::das::shadow;
use osap::das::topic::{Topic, method};
use vestibule_mqtt_codec::{Publish, encode};

use super::attribute::shadow_topic;
use super::channel::Channel;

/// The operation of every device: resource, index, area, name.
pub const OPERATION: [&str; 4] = ["Camera", "0", "Control", "Turn"];
/// What it answers.
const OUTPUT: &str = r#"{"position":3,"reached":true}"#;

/// Appends the acknowledgement of a request, and its answer.
pub(super) fn answer(
    publish: &Publish<'_>,
    serial: &Serial,
    channel: &mut Channel,
    answer_id: u16,
    out: &mut Vec<u8>,
) -> anyhow::Result<()> {
    encode::puback(publish.head.packet_id.context("a request without a packet id")?, out);
    let mut payload = publish.payload.to_vec();
    let Opened { general, application } = channel.open(publish.head.topic, &mut payload)?;
    let mut body = Vec::new();
    let topic = match Topic::parse(publish.head.topic).context("the topic of a request")? {
        Topic::Model { sub, index, resource, method: method::SERVICE, msg_type: "operate", area, name, .. } => {
            Operate::parse(application).context("an operation")?;
            Reply { code: 0, message: None, data: Some(OUTPUT) }.write(&mut body)?;
            let (serial, method, msg_type) = (serial.as_str(), method::SERVICE, "operate_reply");
            Topic::Model { serial, sub, index, resource, method, msg_type, area, name }.encode()?
        }
        Topic::Module { module: shadow::MODULE, method: shadow::METHOD, msg_type: "set", .. } => {
            shadow::parse_set(application).context("a value to set")?;
            shadow::write_set_reply(0, Timestamp::now().as_millisecond(), &mut body);
            shadow_topic(serial, "set_reply")?
        }
        _ => bail!("an unexpected request on {}", publish.head.topic),
    };
    channel.publish(&topic, answer_id, general.seq, &body, out)
}

#[cfg(test)]
mod tests {
    use osap::Suite;
    use osap::das::topic::GLOBAL;
    use vestibule_mqtt_codec::{Packet, decode, frame_len};

    use super::super::channel::tests::pair;
    use super::*;

    fn asked(topic: &str, body: &[u8]) -> anyhow::Result<(String, u64, Vec<u8>)> {
        let (mut device, mut platform) = pair(Suite::X25519);
        let serial = Serial::new("BENCH00001").expect("a serial");
        let (mut request, mut out) = (Vec::new(), Vec::new());
        platform.publish(topic, 5, 77, body, &mut request).expect("sealed");
        let Ok(Packet::Publish(publish)) = decode(&request, device.rules()) else { panic!("no request") };
        answer(&publish, &serial, &mut device, 9, &mut out)?;
        let len = frame_len(&out, 1 << 20).expect("MQTT").expect("complete");
        assert_eq!(decode(&out[..len], platform.rules()), Ok(Packet::PubAck(5)));
        let Ok(Packet::Publish(reply)) = decode(&out[len..], platform.rules()) else { panic!("no answer") };
        let mut payload = reply.payload.to_vec();
        let opened = platform.open(reply.head.topic, &mut payload).expect("it opens");
        Ok((reply.head.topic.to_owned(), opened.general.seq, opened.application.to_vec()))
    }

    #[test]
    fn an_operation_is_answered_under_its_number() {
        let [resource, index, area, name] = OPERATION;
        let (serial, method, msg_type) = ("BENCH00001", method::SERVICE, "operate");
        let topic = Topic::Model { serial, sub: GLOBAL, index, resource, method, msg_type, area, name };
        let (topic, seq, body) = asked(&topic.encode().expect("a topic"), b"{}").expect("an answer");
        assert_eq!((&*topic, seq), ("/iot/BENCH00001/global/0-Camera/model/service/operate_reply/Control/Turn", 77));
        let reply = Reply::parse(&body).expect("a reply");
        assert_eq!((reply.code, reply.data), (0, Some(OUTPUT)));
    }

    #[test]
    fn a_value_is_taken_and_anything_else_is_an_error() {
        let set =
            br#"{"method":"set","state":{"desired":{"domain":"Image","identifier":"Contrast","value":1},"version":3}}"#;
        let topic = "/iot/BENCH00001/global/0-Camera/basic/shadow/set";
        let (topic, seq, body) = asked(topic, set).expect("an answer");
        assert_eq!((&*topic, seq), ("/iot/BENCH00001/global/0-Camera/basic/shadow/set_reply", 77));
        assert_eq!(shadow::parse_set_reply(&body), Ok(0));
        assert!(asked("/iot/BENCH00001/global/0-Camera/basic/shadow/query_reply", set).is_err());
    }
}
