//! MQTT 3.1.1 packets, for both sides of a connection: a decoder that borrows from the
//! receive buffer and an encoder that appends to the send buffer.
//!
//! The crate holds no socket, no clock and no session. A receiver cuts its stream with
//! [`frame_len`] and hands each frame to [`decode`] (or, when the payload is to be changed in
//! place, to [`split_publish`]); a sender calls the functions of [`mod@encode`]. Decoding
//! allocates nothing and never panics.
//!
//! ```
//! use vestibule_mqtt_codec::{Packet, PublishHead, QoS, Rules, decode, encode, frame_len};
//!
//! let head = PublishHead {
//!     dup: false,
//!     qos: QoS::AtLeastOnce,
//!     retain: false,
//!     topic: "hall/door",
//!     packet_id: Some(7),
//! };
//! let mut wire = Vec::new();
//! encode::publish(&head, b"open", &mut wire)?;
//!
//! assert_eq!(frame_len(&wire, 1024)?, Some(wire.len()));
//! let Packet::Publish(publish) = decode(&wire, &Rules::STRICT)? else {
//!     panic!("a PUBLISH was written");
//! };
//! assert_eq!(publish.head, head);
//! assert_eq!(publish.payload, b"open");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a packet may look like is the letter of OASIS MQTT 3.1.1 under [`Rules::STRICT`]; errors
//! name the clause that was broken. [`Rules::OSAP_LEGACY`] tolerates the deviations of the
//! OSAP devices in the field and nothing else.

mod ack;
mod connack;
mod connect;
pub mod encode;
mod error;
mod frame;
mod packet;
mod publish;
mod qos;
mod reader;
mod rules;
mod subscribe;
pub mod topic;

pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use error::{DecodeError, EncodeError};
pub use frame::{MAX_REMAINING_LENGTH, PacketType, frame_len};
pub use packet::{Packet, decode};
pub use publish::{Publish, PublishHead, split_publish};
pub use qos::QoS;
pub use rules::Rules;
pub use subscribe::{SubAck, Subscribe, SubscribeFilters, Unsubscribe, UnsubscribeFilters};
pub use topic::TopicError;
