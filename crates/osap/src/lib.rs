//! The Open Service Access Protocol: frames, suites, handshakes and bodies, without IO.
//!
//! A device first talks to the **LBS**, which checks who it is and hands out a session key and
//! the address of a **DAS**; there it logs in over MQTT 3.1.1 and exchanges sealed bodies.
//! This crate holds both ends of both conversations as plain values:
//!
//! - [`lbs`]: the frames of the LBS, and the two state machines of one connection,
//!   [`lbs::server::Server`] and [`lbs::client::Client`];
//! - [`das`]: the login record, the envelope, topics and bodies of the DAS;
//! - [`modern`]: the same two conversations under the modern suites;
//! - [`suite`]: which cryptography a connection speaks;
//! - [`id`], [`key`], [`result`](mod@result): the vocabulary.
//!
//! Nothing here opens a socket, reads a clock or knows a task. Bytes and randomness go in, bytes
//! and requests to the driver come out; deadlines are the driver's. No sequence of bytes panics,
//! and every decoder is bounded.
//!
//! Section numbers in the documentation ("osap-wire 5.4") are those of the wire specification.

pub mod das;
pub mod fuzz;
pub mod id;
mod json;
pub mod key;
pub mod lbs;
pub mod modern;
pub mod random;
pub mod result;
pub mod suite;
mod wire;

pub use id::{DevId, Serial};
pub use key::{Code, MasterKey, SessionKey};
pub use random::{Random, SystemRandom};
pub use result::ResultCode;
pub use suite::{CodeCase, Suite};
