//! OSAP's two services as adapters over the platform.
//!
//! The [`Lbs`] (load balancing service) authenticates a device and tells it which DAS to use; the [`Das`] (device
//! access service) is the MQTT service behind which the device lives. Both translate: the bytes are `osap`'s, the
//! devices, their secrets, their presence and their reports are the platform's.

mod agreements;
mod assignment;
mod attempts;
mod brake;
mod budget;
mod crowd;
mod das;
mod epochs;
mod explain;
mod fair;
mod key_state;
mod lbs;
mod nonces;
mod origin;
mod provisioner;
mod record;
mod repeats;
mod tickets;
mod window;

pub use agreements::{Agreements, NotDone, Turn};
pub use assignment::{Assignment, DasNode};
pub use attempts::{Attempts, FailureLimits};
pub use das::{Das, das_listener, modern_das_listener};
pub use epochs::Epochs;
pub use lbs::{Lbs, LbsConfig, LbsThreads, ModernLbs, ModernLbsConfig, RandomSource};
pub use origin::{Network, Origin};
pub use provisioner::Provisioner;
