//! Quality of service.

/// How often a message is delivered (MQTT 3.1.1 section 4.3). Ordered from weak to strong, so
/// that the granted level is `requested.min(offered)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0: sent once, never acknowledged.
    AtMostOnce = 0,
    /// QoS 1: repeated until PUBACK.
    AtLeastOnce = 1,
    /// QoS 2: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level of a wire value; `None` for 3 and above.
    pub fn new(value: u8) -> Option<QoS> {
        match value {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }

    /// The wire value: 0, 1 or 2.
    pub fn value(self) -> u8 {
        self as u8
    }
}
