//! One connection to the DAS.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use osap::das::cipher::SessionCipher;
use osap::das::connack;
use osap::das::login::{self, Details, FirstOrBreak, LoginRecord};
use osap::modern::login as modern_login;
use osap::modern::receipt::Receipt;
use osap::{DevId, Serial};
use tokio::net::TcpStream;
use tokio::sync::watch;
use vestibule_mqtt_codec::{Connect, Packet, Publish, QoS, Rules, Will, decode, encode, frame_len};

use super::channel::Channel;
use super::event::Plan;
use super::modern::{Challenge, Modern, Session, das_step};
use super::request;
use super::trouble::Trouble;
use super::wire::Wire;

/// Longer than any measurement: nothing but what is measured travels.
const KEEP_ALIVE: u16 = 3_600;
const MAX_PACKET: usize = 64 * 1024;

/// An open connection.
pub(super) struct Link {
    wire: Wire,
    received: Vec<u8>,
    /// The packet id used last.
    packet_id: u16,
    channel: Channel,
    /// What the last receipt has said is durable of what the device has sent.
    receipted: u64,
}

/// What a device says of itself.
fn details() -> Details {
    Details {
        firmware_version: "V5.3.2 build 250701".to_owned(),
        dev_type: "CS-BENCH-1".to_owned(),
        dev_type_display: "CS-BENCH-1".to_owned(),
        mac: "02:00:5e:10:00:01".to_owned(),
        status: 1,
        lbs_domain: "lbs.example.net".to_owned(),
        reg_mode: 1,
        sdk_main_version: "v1.0.0".to_owned(),
        ..Details::default()
    }
}

impl Link {
    /// Says CONNECT with a full login record, as a device does that comes from the LBS; gives the code of the answer.
    pub(super) async fn open(
        stream: TcpStream,
        serial: &Serial,
        dev_id: &DevId,
        cipher: &Rc<SessionCipher>,
    ) -> anyhow::Result<(Link, u8)> {
        let payload = LoginRecord::full(serial, dev_id, details()).seal(cipher.key());
        let topic = login::will_topic(serial, FirstOrBreak::First);
        let connect = Connect {
            clean_session: true,
            keep_alive: KEEP_ALIVE,
            client_id: "",
            will: Some(Will {
                topic: std::str::from_utf8(&topic).context("the will topic")?,
                payload: &payload,
                qos: QoS::AtLeastOnce,
                retain: true,
            }),
            user: Some(serial.as_str()),
            password: Some(login::PASSWORD),
        };
        let mut link = Link::over(stream.into(), Channel::Legacy(Rc::clone(cipher)));
        let mut out = Vec::new();
        encode::connect_under(&connect, &Rules::OSAP_LEGACY, &mut out)?;
        link.wire.write(&out).await?;
        let code = link
            .next(|packet| match packet {
                Packet::ConnAck(answer) => Ok(answer.code),
                other => bail!("CONNECT was answered with {other:?}"),
            })
            .await?;
        Ok((link, code))
    }

    fn over(wire: Wire, channel: Channel) -> Link {
        Link { wire, received: Vec::new(), packet_id: 0, channel, receipted: 0 }
    }

    /// Logs in under a modern suite, the report of the device included; `seq` is its number.
    pub(super) async fn log_in(
        stream: TcpStream,
        device: &Modern,
        session: &Session,
        seq: u64,
    ) -> Result<Link, Trouble> {
        let serial = device.serial();
        let mut wire = device.secure(stream, session).await?;
        let challenge = Challenge::draw(session, &wire)?;
        let connect = Connect {
            clean_session: true,
            keep_alive: KEEP_ALIVE,
            client_id: session.dev_id().as_str(),
            will: None,
            user: Some(serial.as_str()),
            password: Some(challenge.password()),
        };
        let malformed = |what: &str| Trouble::new("DAS", "login", what);
        let mut out = Vec::new();
        encode::connect_under(&connect, &Rules::STRICT, &mut out).map_err(|_| malformed("no CONNECT"))?;
        das_step("CONNECT", wire.write(&out)).await?;
        let mut received = Vec::new();
        let frame = das_step("CONNECT", next_frame(&mut wire, &mut received)).await?;
        match decode(&frame, &Rules::STRICT) {
            Ok(Packet::ConnAck(answer)) if answer.code == connack::ACCEPTED => {}
            Ok(Packet::ConnAck(answer)) => {
                let trouble = Trouble::new("DAS", "CONNECT", format!("CONNACK {}", answer.code));
                return Err(trouble.with_unknown_session(answer.code == connack::SESSION_UNKNOWN));
            }
            _ => return Err(malformed("CONNECT was answered with something else")),
        }
        let frame = das_step("hello", next_frame(&mut wire, &mut received)).await?;
        let secured = match decode(&frame, &Rules::STRICT) {
            Ok(Packet::Publish(hello)) if hello.head.topic == modern_login::topic(serial, "hello") => {
                challenge.meet(hello.payload).ok_or_else(|| malformed("the hello proves nothing"))?
            }
            _ => return Err(malformed("no hello came")),
        };
        let mut link = Link { received, ..Link::over(wire, Channel::Modern(Box::new(secured))) };
        let record = LoginRecord {
            boot_id: Some(device.boot().to_string()),
            ..LoginRecord::full(serial, session.dev_id(), details())
        };
        let (id, topic) = (link.next_id(), modern_login::topic(serial, "report"));
        out.clear();
        let sealed = link.channel.publish(&topic, id, seq, &record.encode(), &mut out);
        sealed.map_err(|error| malformed(&error.to_string()))?;
        das_step("report", link.wire.write(&out)).await?;
        let frame = das_step("report", next_frame(&mut link.wire, &mut link.received)).await?;
        match decode(&frame, &Rules::STRICT) {
            Ok(Packet::PubAck(acknowledged)) if acknowledged == id => Ok(link),
            _ => Err(malformed("the report was not acknowledged")),
        }
    }

    /// The two filters of a device, one after the other as devices do.
    pub(super) async fn subscribe(&mut self, serial: &Serial) -> anyhow::Result<()> {
        for filter in [format!("/iot/{serial}/#"), format!("/{serial}/#")] {
            let id = self.next_id();
            let mut out = Vec::new();
            encode::subscribe(id, [(filter.as_str(), QoS::AtLeastOnce)], &mut out)?;
            self.wire.write(&out).await?;
            self.next(|packet| match packet {
                Packet::SubAck(answer) if answer.packet_id == id && answer.codes == [1] => Ok(()),
                other => bail!("SUBSCRIBE to {filter} was answered with {other:?}"),
            })
            .await?;
        }
        Ok(())
    }

    /// Keeps the window of unacknowledged messages full until the plan is done, then waits for the rest; `write` appends
    /// the PUBLISH of the next one, under the packet id it is given. What the acknowledgements of one read have made room for leaves in one write.
    pub(super) async fn report(
        &mut self,
        plan: &Plan,
        patience: Duration,
        mut write: impl FnMut(&mut Channel, u16, &mut Vec<u8>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut outstanding = 0;
        let mut expected = self.packet_id;
        let mut out = Vec::new();
        loop {
            for _ in 0..plan.take(plan.window() - outstanding) {
                let id = self.next_id();
                write(&mut self.channel, id, &mut out)?;
                outstanding += 1;
            }
            if outstanding == 0 {
                return Ok(());
            }
            if !out.is_empty() {
                self.wire.write(&out).await?;
                out.clear();
            }
            match tokio::time::timeout(patience, self.wire.read(&mut self.received)).await {
                Ok(Ok(0)) => bail!("the DAS closed the connection"),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => bail!("{outstanding} messages were not acknowledged within {} s", patience.as_secs()),
            }
            let (mut used, before) = (0, outstanding);
            while let Some((len, packet)) = first(self.received.get(used..).unwrap_or_default())? {
                used += len;
                match packet {
                    Packet::PubAck(id) if id == after(expected) && outstanding > 0 => {
                        expected = id;
                        outstanding -= 1;
                    }
                    Packet::Publish(publish) if is_receipt(&publish) => {
                        self.receipted = receipt(&mut self.channel, &publish)?;
                    }
                    other => bail!("instead of the PUBACK for {} came {other:?}", after(expected)),
                }
            }
            plan.count_acknowledged(before - outstanding);
            self.received.drain(..used);
        }
    }

    /// Does what the platform asks for until it is over and every answer is acknowledged. The answers to the requests of
    /// one read leave in one write.
    pub(super) async fn serve(&mut self, serial: &Serial, mut over: watch::Receiver<bool>) -> anyhow::Result<()> {
        let (mut out, mut unacknowledged) = (Vec::new(), 0_u64);
        loop {
            let mut used = 0;
            while let Some((len, packet)) = first(self.received.get(used..).unwrap_or_default())? {
                used += len;
                match packet {
                    Packet::Publish(publish) if is_receipt(&publish) => {
                        self.receipted = receipt(&mut self.channel, &publish)?;
                    }
                    Packet::Publish(publish) => {
                        unacknowledged += 1;
                        self.packet_id = after(self.packet_id);
                        request::answer(&publish, serial, &mut self.channel, self.packet_id, &mut out)?;
                    }
                    Packet::PubAck(_) if unacknowledged > 0 => unacknowledged -= 1,
                    other => bail!("instead of a request came {other:?}"),
                }
            }
            self.received.drain(..used);
            if !out.is_empty() {
                self.wire.write(&out).await?;
                out.clear();
            }
            let is_over = *over.borrow();
            if is_over && unacknowledged == 0 {
                return Ok(());
            }
            tokio::select! {
                read = self.wire.read(&mut self.received) => if read? == 0 {
                    bail!("the DAS closed the connection");
                },
                _ = over.changed(), if !is_over => {}
            }
        }
    }

    /// Waits until a receipt says that everything that was sent is durable.
    pub(super) async fn await_receipt(&mut self) -> anyhow::Result<()> {
        while self.receipted < self.channel.sealed() {
            let frame = next_frame(&mut self.wire, &mut self.received).await?;
            match decode(&frame, self.channel.rules()).context("what came is not MQTT")? {
                Packet::Publish(publish) if is_receipt(&publish) => {
                    self.receipted = receipt(&mut self.channel, &publish)?;
                }
                other => bail!("instead of a receipt came {other:?}"),
            }
        }
        Ok(())
    }

    /// DISCONNECT; the other side closes.
    pub(super) async fn leave(mut self) -> anyhow::Result<()> {
        let mut out = Vec::new();
        encode::disconnect(&mut out);
        self.wire.write(&out).await?;
        loop {
            match self.wire.read(&mut self.received).await {
                Ok(0) => return Ok(()),
                Ok(_) => self.received.clear(),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn next_id(&mut self) -> u16 {
        self.packet_id = after(self.packet_id);
        self.packet_id
    }

    /// Waits for one packet and looks at it; receipts may come before it.
    async fn next<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        loop {
            let frame = next_frame(&mut self.wire, &mut self.received).await?;
            match decode(&frame, self.channel.rules()).context("what came is not MQTT")? {
                Packet::Publish(publish) if is_receipt(&publish) => {
                    self.receipted = receipt(&mut self.channel, &publish)?;
                }
                packet => return look(&packet),
            }
        }
    }
}

/// Reads until a packet stands at the front, and takes it.
async fn next_frame(wire: &mut Wire, received: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    loop {
        let len = frame_len(received, MAX_PACKET).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        match len.filter(|&len| len <= received.len()) {
            Some(len) => return Ok(received.drain(..len).collect()),
            None if wire.read(received).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    }
}

fn is_receipt(publish: &Publish<'_>) -> bool {
    publish.head.qos == QoS::AtMostOnce && publish.head.topic.ends_with("/basic/login/receipt")
}

/// Up to which number the platform has stored what the device sent.
fn receipt(channel: &mut Channel, publish: &Publish<'_>) -> anyhow::Result<u64> {
    let mut payload = publish.payload.to_vec();
    let opened = channel.open(publish.head.topic, &mut payload).context("a receipt does not open")?;
    Ok(Receipt::decode(opened.application).context("a receipt is none")?.up)
}

/// The first complete packet and its length. What is read here reads alike under the rules of all suites.
fn first(received: &[u8]) -> anyhow::Result<Option<(usize, Packet<'_>)>> {
    let len = frame_len(received, MAX_PACKET).context("what came is not MQTT")?;
    let Some(frame) = len.and_then(|len| received.get(..len)) else { return Ok(None) };
    Ok(Some((frame.len(), decode(frame, &Rules::OSAP_LEGACY).context("what came is not MQTT")?)))
}

/// The packet id after this one; 0 is none.
fn after(id: u16) -> u16 {
    id.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_leave_zero_out() {
        assert_eq!((after(0), after(1), after(u16::MAX)), (1, 2, 1));
    }

    #[test]
    fn an_incomplete_packet_is_waited_for() {
        let mut bytes = Vec::new();
        encode::puback(7, &mut bytes);
        assert!(first(&bytes[..3]).expect("MQTT").is_none());
        bytes.push(0x40);
        assert_eq!(first(&bytes).expect("MQTT"), Some((4, Packet::PubAck(7))));
        assert!(first(&[0xff, 0]).is_err());
    }
}
