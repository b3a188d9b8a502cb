//! One connection to the DAS.

use std::time::Duration;

use anyhow::{Context as _, bail};
use osap::das::cipher::SessionCipher;
use osap::das::login::{self, Details, FirstOrBreak, LoginRecord};
use osap::{DevId, Serial, SessionKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use vestibule_mqtt_codec::{Connect, Packet, QoS, Rules, Will, decode, encode, frame_len};

use super::event::Plan;
use super::request;

/// Longer than any measurement: nothing but what is measured travels.
const KEEP_ALIVE: u16 = 3_600;
const MAX_PACKET: usize = 64 * 1024;

/// An open connection.
pub(super) struct Link {
    stream: TcpStream,
    received: Vec<u8>,
    /// The packet id used last.
    packet_id: u16,
}

impl Link {
    /// Says CONNECT with a full login record, as a device does that comes from the LBS; gives the code of the answer.
    pub(super) async fn open(
        stream: TcpStream,
        serial: &Serial,
        dev_id: &DevId,
        key: &SessionKey,
    ) -> anyhow::Result<(Link, u8)> {
        let details = Details {
            firmware_version: "V5.3.2 build 250701".to_owned(),
            dev_type: "CS-BENCH-1".to_owned(),
            dev_type_display: "CS-BENCH-1".to_owned(),
            mac: "02:00:5e:10:00:01".to_owned(),
            status: 1,
            lbs_domain: "lbs.example.net".to_owned(),
            reg_mode: 1,
            sdk_main_version: "v1.0.0".to_owned(),
            ..Details::default()
        };
        let payload = LoginRecord::full(serial, dev_id, details).seal(key);
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
        let mut link = Link { stream, received: Vec::new(), packet_id: 0 };
        let mut out = Vec::new();
        encode::connect_under(&connect, &Rules::OSAP_LEGACY, &mut out)?;
        link.stream.write_all(&out).await?;
        let code = link
            .next(|packet| match packet {
                Packet::ConnAck(answer) => Ok(answer.code),
                other => bail!("CONNECT was answered with {other:?}"),
            })
            .await?;
        Ok((link, code))
    }

    /// The two filters of a device, one after the other as devices do.
    pub(super) async fn subscribe(&mut self, serial: &Serial) -> anyhow::Result<()> {
        for filter in [format!("/iot/{serial}/#"), format!("/{serial}/#")] {
            let id = self.next_id();
            let mut out = Vec::new();
            encode::subscribe(id, [(filter.as_str(), QoS::AtLeastOnce)], &mut out)?;
            self.stream.write_all(&out).await?;
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
        mut write: impl FnMut(u16, &mut Vec<u8>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut outstanding = 0;
        let mut expected = self.packet_id;
        let mut out = Vec::new();
        loop {
            for _ in 0..plan.take(plan.window() - outstanding) {
                let id = self.next_id();
                write(id, &mut out)?;
                outstanding += 1;
            }
            if outstanding == 0 {
                return Ok(());
            }
            if !out.is_empty() {
                self.stream.write_all(&out).await?;
                out.clear();
            }
            match tokio::time::timeout(patience, self.stream.read_buf(&mut self.received)).await {
                Ok(Ok(0)) => bail!("the DAS closed the connection"),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => bail!("{outstanding} messages were not acknowledged within {} s", patience.as_secs()),
            }
            let (mut used, before) = (0, outstanding);
            while let Some((len, packet)) = first(self.received.get(used..).unwrap_or_default())? {
                used += len;
                expected = after(expected);
                match packet {
                    Packet::PubAck(id) if id == expected && outstanding > 0 => {}
                    other => bail!("instead of the PUBACK for {expected} came {other:?}"),
                }
                outstanding -= 1;
            }
            plan.count_acknowledged(before - outstanding);
            self.received.drain(..used);
        }
    }

    /// Does what the platform asks for until it is over and every answer is acknowledged. The answers to the requests of
    /// one read leave in one write.
    pub(super) async fn serve(
        &mut self,
        serial: &Serial,
        cipher: &SessionCipher,
        mut over: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let (mut out, mut unacknowledged) = (Vec::new(), 0_u64);
        loop {
            let mut used = 0;
            while let Some((len, packet)) = first(self.received.get(used..).unwrap_or_default())? {
                used += len;
                match packet {
                    Packet::Publish(publish) => {
                        unacknowledged += 1;
                        self.packet_id = after(self.packet_id);
                        request::answer(&publish, serial, cipher, self.packet_id, &mut out)?;
                    }
                    Packet::PubAck(_) if unacknowledged > 0 => unacknowledged -= 1,
                    other => bail!("instead of a request came {other:?}"),
                }
            }
            self.received.drain(..used);
            if !out.is_empty() {
                self.stream.write_all(&out).await?;
                out.clear();
            }
            let is_over = *over.borrow();
            if is_over && unacknowledged == 0 {
                return Ok(());
            }
            tokio::select! {
                read = self.stream.read_buf(&mut self.received) => if read? == 0 {
                    bail!("the DAS closed the connection");
                },
                _ = over.changed(), if !is_over => {}
            }
        }
    }

    /// DISCONNECT; the other side closes.
    pub(super) async fn leave(mut self) -> anyhow::Result<()> {
        let mut out = Vec::new();
        encode::disconnect(&mut out);
        self.stream.write_all(&out).await?;
        while self.stream.read_buf(&mut self.received).await? > 0 {}
        Ok(())
    }

    fn next_id(&mut self) -> u16 {
        self.packet_id = after(self.packet_id);
        self.packet_id
    }

    /// Waits for one packet and looks at it.
    async fn next<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        loop {
            if let Some((len, packet)) = first(&self.received)? {
                let seen = look(&packet);
                self.received.drain(..len);
                return seen;
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                bail!("the DAS closed the connection");
            }
        }
    }
}

/// The first complete packet and its length.
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
