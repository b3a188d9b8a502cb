//! How closely a decoder holds its peer to the standard.

/// Which deviations from MQTT 3.1.1 are tolerated. There are two sets, because a listener
/// serves either the standard or the OSAP devices in the field, never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The will topic may be padded with zero bytes; it ends at the first one.
    pub(crate) zero_padded_will_topic: bool,
    /// An empty client id may come with clean session 0.
    pub(crate) empty_client_id: bool,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK may carry packet id 0.
    pub(crate) ack_of_zero: bool,
}

impl Rules {
    /// OASIS MQTT 3.1.1 to the letter.
    pub const STRICT: Rules = Rules { zero_padded_will_topic: false, empty_client_id: false, ack_of_zero: false };

    /// The standard with the deviations of osap-wire 9.10 (points 1, 2 and 8): zero bytes
    /// inside the will topic, an empty client id without clean session, and packet id 0 in
    /// acknowledgements. Its remaining points (retain everywhere, will as login data, silence
    /// after QoS 2) are legal packets and a matter of the session.
    pub const OSAP_LEGACY: Rules = Rules { zero_padded_will_topic: true, empty_client_id: true, ack_of_zero: true };
}
