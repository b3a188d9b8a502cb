//! The modern suites: protocol types 4, 8 and 16 (osap-wire 13.3).
//!
//! One key schedule serves all three; a type only says where the fresh secret comes from: the
//! exporter of a TLS 1.3 connection (4), an ECDH on P-384 (8) or on X25519 (16).
//!
//! - [`secret`], [`schedule`], [`seal`]: the secrets and what follows from them;
//! - [`message`]: the frames between device and LBS;
//! - [`ticket`]: what the platform keeps of a device; [`slots`]: what the device keeps;
//! - [`server`] and [`client`]: the two ends of one connection to the LBS, as state machines;
//! - [`login`], [`envelope`], [`receipt`]: the DAS session that follows.
//!
//! As everywhere in this crate bytes, time and randomness go in, bytes and requests come out.

pub mod client;
pub mod envelope;
pub mod login;
pub mod message;
pub mod receipt;
pub mod schedule;
pub mod seal;
pub mod secret;
pub mod server;
pub mod share;
pub mod slots;
pub mod ticket;
#[cfg(test)]
mod uniqueness;

pub use client::Client;
pub use secret::{Exporter, Node, Psk, TicketId};
pub use server::Server;
pub use slots::Slots;
pub use ticket::{Ticket, Tickets};
