//! The LBS: who a device is, its keys, and which DAS it goes to (osap-wire 3 to 5).
//!
//! [`frame`] cuts the byte stream, [`message`] gives the frames their fields, [`server`] and
//! [`client`] are the two ends of one connection as state machines. A run is always started by
//! the device and is strictly request and response.

pub mod backoff;
pub mod client;
pub mod das_info;
pub mod decoy;
pub mod frame;
pub mod message;
pub mod record;
pub mod server;

pub use das_info::DasInfo;
pub use decoy::Decoy;
pub use record::{Credential, Record, Run, Slot, Stage, Standing};
