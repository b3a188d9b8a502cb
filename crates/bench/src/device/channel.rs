//! The envelope of a connection to the DAS, of either kind.

use std::rc::Rc;

use anyhow::{Context as _, bail};
use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General};
use osap::modern::envelope::{OVERHEAD, Opened, Opener, Sealer};
use vestibule_mqtt_codec::{PublishHead, QoS, Rules, encode};

/// Seals what a device says and opens what it hears.
pub(super) enum Channel {
    /// Under the session key of the legacy suite.
    Legacy(Rc<SessionCipher>),
    /// Under the keys of one login.
    Modern(Box<Secured>),
}

/// The two directions of a login.
pub(super) struct Secured {
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
}

impl Channel {
    /// What MQTT looks like on such a connection.
    pub(super) fn rules(&self) -> &'static Rules {
        match self {
            Channel::Legacy(_) => &Rules::OSAP_LEGACY,
            Channel::Modern(_) => &Rules::STRICT,
        }
    }

    /// The number of the message that was sealed last in this login; 0 under the legacy suite, which does not count.
    pub(super) fn sealed(&self) -> u64 {
        match self {
            Channel::Legacy(_) => 0,
            Channel::Modern(secured) => secured.sealer.seq(),
        }
    }

    /// Appends a PUBLISH at QoS 1 with this body, as devices of the protocol send it.
    pub(super) fn publish(
        &mut self,
        topic: &str,
        packet_id: u16,
        seq: u64,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        let general = General::bare(seq);
        let retain = matches!(self, Channel::Legacy(_));
        let head = PublishHead { dup: false, qos: QoS::AtLeastOnce, retain, topic, packet_id: Some(packet_id) };
        let mut sealed = Ok(());
        match self {
            Channel::Legacy(cipher) => {
                let len = envelope::sealed_len(&general, body.len());
                let seal = |out: &mut Vec<u8>| sealed = envelope::seal(cipher, &general, body, out).map_err(Into::into);
                encode::publish_with(&head, len, out, seal)?;
            }
            Channel::Modern(secured) => {
                let len = OVERHEAD + envelope::plain_len(&general, body.len());
                let seal = |out: &mut Vec<u8>| {
                    let start = out.len();
                    let written = envelope::write(&general, body, out).map_err(anyhow::Error::from);
                    sealed = written.and_then(|()| Ok(secured.sealer.seal_tail(topic, out, start).map(drop)?));
                };
                encode::publish_with(&head, len, out, seal)?;
            }
        }
        sealed
    }

    /// Opens a payload in place.
    pub(super) fn open<'a>(&mut self, topic: &str, payload: &'a mut [u8]) -> anyhow::Result<envelope::Opened<'a>> {
        match self {
            Channel::Legacy(cipher) => envelope::open(cipher, payload).context("a message does not open"),
            Channel::Modern(secured) => match secured.opener.open(topic, payload)? {
                Opened::Next(text) => envelope::read(text).context("a message is none"),
                Opened::Repeated => bail!("a message came twice"),
            },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use osap::modern::Node;
    use osap::modern::login::record_key;
    use osap::modern::seal::Direction;
    use osap::{SessionKey, Suite};
    use vestibule_mqtt_codec::split_publish;

    use super::*;

    /// The channel of a device, and that of the platform with which it speaks.
    pub fn pair(suite: Suite) -> (Channel, Channel) {
        if suite == Suite::Legacy {
            let cipher = Rc::new(SessionCipher::new(SessionKey::from_bytes(&[7; 16]).expect("a key")));
            return (Channel::Legacy(Rc::clone(&cipher)), Channel::Legacy(cipher));
        }
        let node = Node::from_bytes(&[7; 48]).expect("48 bytes");
        let secured = |up, down| {
            let key = |direction| record_key(&node, &[9; 48], direction);
            Channel::Modern(Box::new(Secured {
                sealer: Sealer::new(suite, up, key(up)),
                opener: Opener::new(suite, down, key(down)),
            }))
        };
        (secured(Direction::Up, Direction::Down), secured(Direction::Down, Direction::Up))
    }

    #[test]
    fn what_one_end_seals_the_other_opens() {
        for suite in Suite::ALL {
            let (mut device, mut platform) = pair(suite);
            for seq in 1..=3 {
                let mut frame = Vec::new();
                device.publish("/iot/a", seq, u64::from(seq) + 10, b"{}", &mut frame).expect("a packet");
                let (head, payload) = split_publish(&mut frame, platform.rules()).expect("a PUBLISH");
                assert_eq!((head.packet_id, head.retain), (Some(seq), suite == Suite::Legacy));
                let opened = platform.open("/iot/a", payload).expect("it opens");
                assert_eq!((opened.general.seq, opened.application), (u64::from(seq) + 10, &b"{}"[..]));
            }
            assert_eq!(device.sealed(), if suite == Suite::Legacy { 0 } else { 3 });
        }
    }
}
