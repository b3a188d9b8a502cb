//! Device SDK for the Open Service Access Protocol on Linux: enrol, stay connected, report events, carry out operations.
//!
//! ```no_run
//! use serde_json::json;
//! use vestibule_device::{Device, FileStorage};
//!
//! # async fn camera() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::builder("SN0000001", "ABCDEF")
//!     .lbs("127.0.0.1:8666")
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
//! 1. **Authenticate** at the LBS: a first authentication with the verification code, later a
//!    refresh with what the first one left. The result is a session key and the address of a DAS.
//! 2. **Store** DevID and master key, when they are new.
//! 3. **Log in** at the DAS and stay: keep-alive, events out, messages in.
//! 4. When the connection breaks, log in again at once, then after one, two and three seconds; then
//!    begin at 1.
//!
//! Every failure that is not the program's is retried for ever, with pauses that grow to two
//! minutes (an hour when the server speaks no suite the device may speak) and are jittered.
//! [`Device::state`] and [`Device::watch_state`] say where the device is, and while it
//! waits, why. Only two things end it: [`Device::stop`] and a server that blacklists it.
//!
//! # What is durable
//!
//! - DevID and master key, through [`Storage`], before the login that makes the former ones
//!   worthless. Nothing is deleted because a server said so: what a refusal puts in doubt is set
//!   aside in memory, and replaced once a run without it has succeeded.
//! - An event for which [`Event::report`] returned a [`Receipt`]: the platform has stored it.
//!   Before that it is in memory only, in a bounded queue, and is sent until it is acknowledged,
//!   over any number of connections, always under the same `basic.UUID`, by which the platform
//!   tells a repetition from a new event.
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
//! # Errors
//!
//! [`StartError`] and [`InvalidEvent`] are the program's; [`StorageError`] the machine's;
//! [`ReportError::Full`] says that events come faster than they can be delivered. What goes wrong
//! between device and server is no error but a [`State`].
//!
//! # Security
//!
//! The suite is the legacy one (protocol type 1), which is **not confidential**: its keys follow
//! from the verification code. Codes and keys are not printed, and wiped from memory after use.

mod attribute;
mod builder;
mod calls;
mod clock;
mod device;
mod dial;
mod driver;
mod event;
mod lbs;
mod link;
mod operation;
mod outbox;
mod profile;
mod session;
mod shared;
mod socket;
mod state;
mod storage;

pub use builder::{Builder, StartError};
pub use clock::{Clock, SystemClock};
pub use device::{Attribute, Device, Event, StopError};
pub use dial::{Dial, Dialing, TcpDial};
pub use event::{InvalidEvent, MAX_EVENT, Receipt, ReportError};
pub use operation::OperationError;
pub use shared::Counters;
pub use state::{LinkFault, Reason, State, StopReason};
pub use storage::{Credentials, FileStorage, MemoryStorage, Storage, StorageError};

pub use osap::das::{BodyError, topic::TopicError};
pub use osap::id::SerialError;
pub use osap::key::CodeError;
pub use osap::{DevId, MasterKey, ResultCode, Serial};
