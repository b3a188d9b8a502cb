//! OSAP's two services as adapters over the platform.
//!
//! The [`Lbs`] (load balancing service) authenticates a device and tells it which DAS to use; the [`Das`] (device
//! access service) is the MQTT service behind which the device lives. Both translate: the bytes are `osap`'s, the
//! devices, their secrets, their presence and their reports are the platform's.

mod assignment;
mod attempts;
mod brake;
mod budget;
mod crowd;
mod das;
mod explain;
mod fair;
mod key_state;
mod lbs;
mod origin;
mod pool;
mod record;
mod repeats;
mod window;

pub use assignment::{Assignment, DasNode};
pub use attempts::FailureLimits;
pub use das::{Das, das_listener};
pub use lbs::{Lbs, LbsConfig, RandomSource};
pub use origin::{Network, Origin};
pub use pool::{ComputePool, NotDone};
