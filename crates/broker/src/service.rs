//! What a listener's messages mean: the in-process handler behind it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use vestibule_mqtt_codec::{Connect, QoS};

use crate::end::EndReason;
use crate::link::Link;
use crate::sessions::SessionId;
use crate::tls::TlsFacts;

/// A place in the order of what has to become durable. A message may be acknowledged once
/// [`Service::durable`] has reached its ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub i64);

impl Ticket {
    /// Nothing to wait for.
    pub const READY: Ticket = Ticket(i64::MIN);
}

/// A CONNECT to be judged.
pub struct Login<'a> {
    /// The packet.
    pub connect: &'a Connect<'a>,
    /// Where it came from.
    pub peer: SocketAddr,
    /// The connection, to be kept by whoever wants to reach the peer later.
    pub link: &'a Arc<Link>,
    /// What its TLS handshake has shown; `None` without TLS.
    pub tls: Option<TlsFacts<'a>>,
}

/// A peer that may come in.
pub struct Admitted<S> {
    /// The proven identity. A connection of the same identity is closed as `replaced`.
    pub id: SessionId,
    /// What the service keeps with the connection.
    pub session: S,
    /// Whether it is a guest, and for how long at most: one that has shown something which may be a recording. A guest takes
    /// nobody's place and is not [opened](Service::opened) before a message of its own is [`Disposition::Settle`].
    pub guest: Option<Duration>,
}

/// A peer that may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Return code of the CONNACK.
    pub code: u8,
    /// Short code for counters and logs.
    pub reason: &'static str,
    /// How long the CONNACK is held back (the storm brake of osap-wire 9.3).
    pub delay: Duration,
}

/// A topic that may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The message is dropped and acknowledged as if accepted; MQTT 3.1.1 has no other answer that keeps the
    /// connection (3.3.5.2).
    Drop(&'static str),
    /// The connection is closed.
    Close(&'static str),
}

/// A message that came in on an authorised topic.
pub struct Inbound<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// As sent; a service never gets QoS 2 twice.
    pub qos: QoS,
    /// Packet id; `None` at QoS 0.
    pub packet_id: Option<u16>,
    /// The peer says that it sends this again.
    pub dup: bool,
    /// The payload in the receive buffer, to be opened in place.
    pub payload: &'a mut [u8],
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Done with; acknowledge at once.
    Done,
    /// Acknowledge when durable.
    After(Ticket),
    /// A guest has shown that it is who it says: the connection is the live one of its identity from now on. Acknowledge when
    /// durable, as with [`Disposition::After`].
    Settle(Ticket),
    /// Hand it, as it is, to those who subscribed.
    Route,
    /// Close the connection; nothing is acknowledged.
    Close(&'static str),
}

/// What becomes of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// Granted; the router delivers.
    Routed(QoS),
    /// Granted; the service delivers by identity, so nothing is entered into the router.
    Granted(QoS),
    /// Refused with 0x80.
    Refused,
}

/// The handler of one listener. Everything but [`Service::connect`] is called on the connection's thread
/// between two reads and must not block.
pub trait Service: Send + Sync + 'static {
    /// What belongs to one connection.
    type Session: Send + 'static;
    /// What was found out about a topic; remembered by the connection so that it is asked once.
    type Grant: Clone + Send + 'static;

    /// Judges a CONNECT.
    fn connect(&self, login: Login<'_>) -> impl Future<Output = Result<Admitted<Self::Session>, Refused>> + Send;

    /// The session is the live one of its identity from now on. For one identity these calls come in the order
    /// of the take-overs, which [`Service::connect`] cannot know when two connections log in at the same moment:
    /// the last one called is the one that lives. The table of sessions is locked meanwhile: be brief.
    fn opened(&self, _session: &mut Self::Session) {}

    /// May the session publish to this topic? Asked before the payload is touched.
    fn authorize(&self, session: &mut Self::Session, topic: &str) -> Result<Self::Grant, Denied>;

    /// Takes a message. A will comes this way as well, when its session has ended without DISCONNECT on a
    /// listener whose profile publishes wills.
    fn publish(&self, session: &mut Self::Session, grant: &Self::Grant, message: Inbound<'_>) -> Disposition;

    /// May the session subscribe?
    fn subscribe(&self, session: &mut Self::Session, filter: &str, qos: QoS) -> Subscription;

    /// A subscription has ended: the peer unsubscribed, or the router could not take what the service had granted.
    fn unsubscribe(&self, _session: &mut Self::Session, _filter: &str) {}

    /// The peer has acknowledged a message that was sent to it.
    fn acknowledged(&self, _session: &mut Self::Session, _packet_id: u16) {}

    /// The session is over. Called exactly once for each admitted session.
    fn ended(&self, session: Self::Session, reason: EndReason);

    /// Whether another message can be taken. While not, a connection that publishes is not read; it looks again
    /// when [`crate::Shards::durable_advanced`] is called, which is therefore due when room has come back, too.
    fn has_room(&self) -> bool {
        true
    }

    /// Everything up to this ticket is durable.
    fn durable(&self) -> Ticket {
        Ticket(i64::MAX)
    }
}
