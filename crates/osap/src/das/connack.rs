//! Return codes of a CONNACK, as devices understand them (osap-wire 9.3).

/// The device is logged in.
pub const ACCEPTED: u8 = 0;
/// The device stops for good, until it is restarted.
pub const BLACKLISTED: u8 = 10;
/// The session key is not, or no longer, known: the device goes back to the LBS at once.
pub const SESSION_UNKNOWN: u8 = 11;
/// The session exists: the device connects again at once with the short login record.
pub const SESSION_EXISTS: u8 = 12;
