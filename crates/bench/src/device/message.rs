//! Messages of a device, sealed.

use osap::das::cipher::SessionCipher;
use osap::das::envelope::{self, General};
use vestibule_mqtt_codec::{PublishHead, QoS, encode};

/// Appends a PUBLISH at QoS 1 with this body, as devices of the protocol send it.
pub(super) fn publish(
    cipher: &SessionCipher,
    topic: &str,
    packet_id: u16,
    seq: u64,
    body: &[u8],
    out: &mut Vec<u8>,
) -> anyhow::Result<()> {
    let general = General::bare(seq);
    let head = PublishHead { dup: false, qos: QoS::AtLeastOnce, retain: true, topic, packet_id: Some(packet_id) };
    let len = envelope::sealed_len(&general, body.len());
    let mut sealed = Ok(());
    encode::publish_with(&head, len, out, |out| sealed = envelope::seal(cipher, &general, body, out))?;
    Ok(sealed?)
}
