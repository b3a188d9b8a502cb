//! Device SDK for the Open Service Access Protocol on Linux: enrol, stay connected, report events, carry out operations.
//!
//! ```no_run
//! use serde_json::json;
//! use vestibule_device::{Anchor, Device, FileStorage};
//!
//! # async fn camera() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::builder("SN0000001", "ABCDEFGHJKMNP")
//!     .lbs("osaps://lbs.example:8665")
//!     .anchors(Anchor::from_pem(&std::fs::read("ca.pem")?)?)
//!     .storage(FileStorage::new("state")?)
//!     .start()?;
//!
//! let receipt = device.event("Camera", 0, "Detection", "Motion").report(&json!({"level": 3})).await?;
//! println!("stored as {}", receipt.id);
//!
//! device.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The run of a device
//!
//! One task does everything, for as long as the device lives:
//!
//! 1. **Authenticate** at the LBS: with the verification code first, later with the ticket that the last run left. Each run
//!    gives a new ticket, the address of a DAS, and a secret to log in there.
//! 2. **Store** DevID and ticket, before the platform is told that the device has them.
//! 3. **Log in** at the DAS and stay: keep-alive, events out, messages in. Before its life is over the session is renewed at
//!    the LBS, while the connection goes on.
//! 4. When the connection breaks, log in again at once, then after one, two and three seconds; then
//!    begin at 1.
//!
//! Every failure that is not the program's is retried for ever, with pauses that grow to two
//! minutes (an hour when the server speaks no suite the device may speak) and are jittered.
//! [`Device::state`] and [`Device::watch_state`] say where the device is, and while it
//! waits, why. Two things end it: [`Device::stop`], and a platform that sends it away; under the legacy suite also a server
//! that blacklists it ([`StopReason`]).
//!
//! The platform may change the keep-alive, forbid commands, and send the device to another LBS. It goes there without a
//! gap: the connection to the present DAS goes on until the other LBS has let the device in, and the device stays, or
//! returns to the LBS the program named, after four attempts that led to nothing.
//!
//! # What is durable
//!
//! - DevID and the two latest tickets, through [`Storage`], written and read back before the platform is told. Nothing is
//!   deleted because a server said so: a device whose storage or whose platform loses a last write still comes in.
//! - An event for which [`Event::report`] returned a [`Receipt`]: the platform has stored it, or the cache has.
//!   Before that it is in memory only, in a bounded queue. It is sent until it is acknowledged,
//!   over any number of connections, always under the same `basic.UUID`, by which the platform
//!   tells a repetition from a new event.
//!
//! # Cache
//!
//! ```no_run
//! # use vestibule_device::{Device, FileCache, FileStorage};
//! # fn camera() -> Result<Device, Box<dyn std::error::Error>> {
//! # let builder = Device::builder("SN0000001", "ABCDEFGHJKMNP").lbs("osaps://lbs.example:8665").storage(FileStorage::new("state")?);
//! let device = builder.cache(FileCache::open("cache")?).start()?;
//! # Ok(device)
//! # }
//! ```
//!
//! With [`Builder::cache`] events outlive the program and a loss of power: each is sent at once when there is a
//! connection, and written when it is not acknowledged within a moment ([`Builder::cache_grace`]).
//!
//! - Events of the device, and those of each child, reach the platform in the order in which they were reported, over any
//!   number of restarts, and are stored once: those whose acknowledgement was not noted before a crash are sent again under
//!   their id. Up to 64 acknowledgements, or ten seconds of them, are noted together.
//! - What a child reported stays in the cache until the child is there and accepted, also after a restart.
//! - The cache is bounded ([`Builder::cache_bounds`]). What is the oldest is dropped first; [`Counters::dropped`] counts it,
//!   and the platform gets the event `global/0/sdk/events_dropped` with `count`, `from` and `to` once there is a connection,
//!   over restarts as well. That report itself is never dropped, and stored once.
//! - While the cache cannot be written, events are sent as without one: [`Event::report`] returns with the acknowledgement,
//!   and [`ReportError::Full`] when memory is full. [`Device::cache_status`] and [`Counters::cache_failures`] say so, and it
//!   is tried again with pauses of up to a minute. While it cannot be read either, also at the start, new events go before
//!   those in it, which follow when it can.
//! - What is damaged in the cache, or cannot be read in three attempts though the medium does other things, is dropped and
//!   told as such, to the number as far as what is left tells it; everything else stays.
//! - Events only: values of attributes are reported again after a login, and passed bytes have no id by which a repetition
//!   could be told.
//! - [`FileCache`] is for a file system, which may be away for a while ([`FileCache::new`]). It appends and syncs, several events with one call, removes files of up to 256 KiB
//!   and renames nothing. [`EventCache`] is for another medium.
//!
//! # Operations
//!
//! What the platform may ask for is said before the device starts, with [`Builder::operation`]. An operation is carried
//! out at most once, and answered on the connection it came in on or not at all: what the platform cannot know it
//! calls unknown, and never sends again by itself.
//!
//! # Attributes
//!
//! What the device is at the moment is reported with [`Device::attribute`], when it changes. What the platform may set is
//! said before the start, with [`Builder::attribute`].
//!
//! # Pass-through
//!
//! Bytes that the platform carries and does not read: [`Device::pass`] sends some to an application and returns when they
//! are stored, [`Builder::on_pass`] takes what an application sends.
//!
//! # Pictures
//!
//! ```no_run
//! # use serde_json::json;
//! # use vestibule_device::{Device, Picture};
//! # async fn camera(device: Device, jpeg: Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
//! let motion = device.event("Camera", 0, "Detection", "Motion").picture("shot", Picture::jpeg(jpeg));
//! let receipt = motion.report(&json!({"level": 3})).await?;
//! receipt.pictures().await?;
//! # Ok(())
//! # }
//! ```
//!
//! An event names a [`Picture`] by its id and is delivered at once; the picture follows over HTTP, to an address that the
//! platform gives for it, and goes on where it was after a cut. [`Device::upload_picture`] sends one by itself. Pictures are in memory
//! until the platform has them, sixteen at most; they do not outlive the program.
//!
//! # Children
//!
//! A hub speaks for up to 64 devices that have no connection of their own: [`Builder::child`] and [`Device::add_child`].
//! Each is authenticated with its own code after every login, and then reports events and attributes and carries out
//! operations like a device, through its [`Child`]. What it reports before the platform has accepted it is held back;
//! what a child reported that the platform refuses is given up, with [`ReportError::NoChild`], and [`Child::state`] says
//! so. All share the queue and the bounds of the hub; what is held back takes half of the queue at most.
//!
//! # Firmware
//!
//! What firmware a device has is said before the start, with [`Builder::firmware_module`], and told to the platform after each
//! login and when it changes. [`Builder::on_upgrade`] takes the platform's orders to fetch other firmware, one at a time and
//! each once, and says how far it is with [`UpgradeProgress`]. The SDK fetches, checks and writes nothing: how a file comes
//! to the device and into its flash is the program's matter (osap-wire 10.3), and so is that it is the right one.
//!
//! # Owner, presence, time
//!
//! [`Device::owner`] asks whose the device is, [`Device::bind`] makes it the user's who gave it a token, and
//! [`Builder::on_binding`] is told when it changes hands. [`Builder::on_challenge`] is told when somebody has to show that
//! they are at the device, and [`Device::time_server`] gives the time server the platform wants the device to ask.
//!
//! # Errors
//!
//! [`StartError`], [`ChildError`] and [`InvalidEvent`] are the program's; [`StorageError`] the machine's;
//! [`ReportError::Full`] says that events come faster than they can be delivered. What goes wrong
//! between device and server is no error but a [`State`].
//!
//! # Security
//!
//! A device speaks TLS 1.3 with LBS and DAS, and believes nobody but who is vouched for by one of its [`Anchor`]s
//! ([`Builder::anchors`]); where it has none, [`Builder::first_use`] pins the first server that knows its code. Messages are
//! sealed once more inside, under keys of each login (protocol type 4, osap-wire 13.3). A message that is changed, missing or
//! repeated ends the connection.
//!
//! For devices without TLS there are [`Builder::suites`] and `osap://` (types 8 and 16): bodies and credentials stay closed,
//! serial, topics, sizes and times do not. With the feature `legacy` of this crate there is a legacy suite (protocol type 1) as
//! well, which is **not confidential**: its keys follow from the verification code. No server leads a device from one of these
//! to another.
//!
//! Codes, tickets and keys are not printed, and wiped from memory after use.

mod attribute;
mod builder;
mod cache;
mod calls;
mod child;
mod clock;
mod device;
mod dial;
mod driver;
mod entrance;
mod event;
mod firmware;
#[doc(hidden)]
pub mod fuzz;
mod hub;
mod keep_alive;
mod keyring;
#[cfg(feature = "legacy")]
mod lbs;
mod link;
mod modern;
mod moving;
mod operation;
mod outbox;
mod owner;
mod pass;
mod picture;
mod profile;
mod query;
mod session;
mod shared;
mod socket;
mod state;
mod steering;
mod storage;
mod stream;

pub use builder::{Builder, StartError};
pub use cache::{CacheError, CacheStatus, EventCache, FileCache};
pub use child::{Child, ChildBuilder, ChildError, ChildState};
pub use clock::{Clock, SystemClock};
pub use device::{Attribute, Device, Event, StopError};
pub use dial::{Dial, Dialing, TcpDial};
pub use event::{InvalidEvent, MAX_EVENT, Receipt, ReportError};
pub use firmware::{FirmwareModule, UpgradeError, UpgradeProgress};
pub use modern::{Anchor, InvalidAnchor};
pub use operation::OperationError;
pub use owner::{BindError, CommandError, OwnerError};
pub use pass::PassThrough;
pub use picture::{Picture, UploadError};
pub use shared::Counters;
pub use state::{LinkFault, Reason, State, StopReason, TlsFault};
pub use steering::{PresenceChallenge, PresenceError};
pub use storage::{
    Credentials, FileStorage, IssuedCertificate, LegacyCredentials, MemoryStorage, ModernCredentials, Storage,
    StorageError,
};

pub use osap::das::base::Ntp as TimeServer;
pub use osap::das::ota::{
    Code as UpgradeCode, Diff as FirmwareDiff, File as FirmwareFile, Status as UpgradeStatus, Upgrade,
};
pub use osap::das::{BodyError, topic::TopicError};
pub use osap::id::SerialError;
pub use osap::key::CodeError;
pub use osap::modern::slots::{Slot, Slots};
pub use osap::modern::{Psk, TicketId};
pub use osap::{DevId, MasterKey, ResultCode, Serial, Suite};
