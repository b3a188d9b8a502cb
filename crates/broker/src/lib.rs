//! The MQTT session engine.
//!
//! [`Shards`] are the runtimes: one single-threaded runtime for each core, each with its own listening socket.
//! A connection is one task that stays on the shard that accepted it. It reads into a buffer that the shard
//! owns, works on all complete frames in place, and writes everything it has to say in one call. Others reach
//! it through its [`Link`]: they append to its out buffer and wake it once.
//!
//! A listener may speak TLS ([`TlsListener`]): rustls is driven over the same buffers, what it decrypts is worked off in place
//! as what a plain socket gives. The engine issues and judges no certificates; that is the configuration's.
//!
//! What a listener's messages mean is decided by its [`Service`]: who may log in, which topic it may use
//! (asked before the payload is looked at, and remembered for each topic), and what becomes of a message. A
//! message that has to be durable is acknowledged after the service's durable mark has passed its [`Ticket`];
//! acknowledgements leave in the order of receipt.

mod acks;
mod broker;
mod connection;
mod end;
mod handshakes;
mod inflight;
mod link;
mod listener;
mod opening;
mod router;
mod scratch;
mod service;
mod session;
mod sessions;
mod shards;
mod socket;
mod strangers;
mod timer;
mod tls;

pub use broker::Broker;
pub use end::EndReason;
pub use handshakes::TlsListener;
pub use link::{Link, SendError};
pub use listener::{ListenerConfig, Profile};
pub use router::Router;
pub use service::{Admitted, Denied, Disposition, Inbound, Login, Refused, Service, Subscription, Ticket};
pub use sessions::SessionId;
pub use shards::{Shard, Shards, ShardsConfig};
pub use tls::TlsFacts;
pub use vestibule_mqtt_codec as codec;
