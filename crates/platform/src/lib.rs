//! The device management platform: the heart that every family of devices meets in.
//!
//! It knows which devices exist ([`Device`]), whether they are there ([`Presence`]), what they reported
//! ([`Platform::report`], [`Platform::events`], [`Platform::follow`]), has them carry out operations
//! ([`Platform::invoke`]) and take values ([`Platform::set`]) and knows what their last steps were ([`Fact`]). It knows no wire format: an adapter translates its protocol into these calls, and
//! implements [`DeviceLink`] where the platform has to reach a device.

mod clock;
mod config;
mod credentials;
mod device;
mod events;
mod facts;
mod follow;
mod health;
mod invoke;
mod json;
mod link;
mod notebook;
mod operation_log;
mod permission;
mod platform;
mod presence;
mod registry;
mod set;
mod token;
mod twin;

pub use clock::{Clock, SystemClock};
pub use config::PlatformConfig;
pub use credentials::{Secrets, UpdateError};
pub use device::{Device, Family};
pub use events::{EventQuery, Report, ReportError};
pub use facts::{Fact, Step};
pub use follow::{EventFilter, Follow, Followed};
pub use health::Health;
pub use invoke::{Invoke, InvokeError, Outcome};
pub use link::{Answer, DeviceLink, NotSent, Operate, Reply, ReplyReceiver, SetAttribute};
pub use operation_log::OperationQuery;
pub use permission::{Caller, Permission};
pub use platform::{OpenError, Platform};
pub use presence::{Connection, ConnectionId, Presence, PresenceState};
pub use registry::{AddDeviceError, NewDevice};
pub use set::{Set, SetError};
pub use token::{TokenError, TokenFile};
pub use twin::{Desired, Leaf, Reported, SetOutcome};

pub use vestibule_store::{
    Credential, Credentials, DeviceId, DevicePath, Flags, Journal, Position, Record, RecordKind, Secret, StoreError,
};
