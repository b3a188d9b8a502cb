//! An admitted session: what it owes, what it may do, and what becomes of its packets.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use vestibule_mqtt_codec::{
    Connect, DecodeError, Packet, PacketType, QoS, SubAck, Subscribe, decode, encode, frame_len, split_publish,
};

use crate::acks::{Acks, Owed};
use crate::broker::Shared;
use crate::end::EndReason;
use crate::link::Link;
use crate::listener::ListenerConfig;
use crate::router::{RouteCache, is_indexable};
use crate::service::{Admitted, Denied, Disposition, Inbound, Service, Subscription, Ticket};
use crate::sessions::SessionId;
use crate::timer::Tick;

/// Topics whose grant a connection remembers.
const GRANTS: usize = 16;
/// Seconds a held connection (no room, a full window, answers that are not taken) is spared its keep-alive.
const HELD_GRACE: Tick = 60;

/// A will, kept until the end (MQTT 3.1.1, 3.1.2.5).
struct Will {
    topic: Box<str>,
    qos: QoS,
    payload: Box<[u8]>,
}

/// One admitted session. When it is dropped without [`Session::finish`], its task has panicked: the service is
/// told all the same.
pub(crate) struct Session<S: Service> {
    inner: Option<S::Session>,
    id: SessionId,
    service: Arc<S>,
    config: Arc<ListenerConfig>,
    shared: Arc<Shared>,
    link: Arc<Link>,
    acks: Acks,
    grants: Vec<(Box<str>, S::Grant)>,
    route: Option<Box<RouteCache>>,
    filters: Vec<Box<str>>,
    /// QoS 2 messages received and not yet released.
    unreleased: Vec<u16>,
    will: Option<Box<Will>>,
    keep_alive: Tick,
    /// Since when the peer is not listened to; 0 = it is.
    deaf_since: Tick,
    /// The next message has to wait for room or for acknowledgements.
    held: bool,
    /// Subscribers should have their turn before the next message.
    pressed: bool,
    /// It has not taken its identity's place yet; the deadline of its connection stands.
    guest: bool,
}

impl<S: Service> Session<S> {
    pub(crate) fn open(
        admitted: Admitted<S::Session>,
        link: Arc<Link>,
        config: Arc<ListenerConfig>,
        service: Arc<S>,
        shared: Arc<Shared>,
        connect: &Connect<'_>,
    ) -> Session<S> {
        metrics::gauge!("vestibule_sessions", "listener" => config.name).increment(1.0);
        let will = connect
            .will
            .as_ref()
            .filter(|_| config.profile.publishes_wills())
            .map(|will| Box::new(Will { topic: will.topic.into(), qos: will.qos, payload: will.payload.into() }));
        let mut session = Session {
            inner: Some(admitted.session),
            id: admitted.id,
            service,
            config,
            shared,
            link,
            acks: Acks::default(),
            grants: Vec::new(),
            route: None,
            filters: Vec::new(),
            unreleased: Vec::new(),
            will,
            keep_alive: keep_alive_ticks(connect.keep_alive),
            deaf_since: 0,
            held: false,
            pressed: false,
            guest: admitted.guest.is_some(),
        };
        if !session.guest {
            session.settle();
        }
        session
    }

    /// Takes the place of the identity's connection.
    fn settle(&mut self) {
        self.guest = false;
        let (service, inner) = (&self.service, &mut self.inner);
        self.shared.sessions.claim(self.id.clone(), &self.link, || {
            if let Some(inner) = inner {
                service.opened(inner);
            }
        });
    }

    /// The peer was heard.
    pub(crate) fn touch(&self, now: Tick) {
        if self.guest {
            return;
        }
        let patience = self.patience();
        self.link.set_deadline(if patience == 0 { 0 } else { now + patience });
    }

    /// How long the peer may be silent; 0 = for ever. A keep-alive that it was told of counts beside its own until it
    /// uses it (osap-wire 9.9).
    fn patience(&self) -> Tick {
        match self.link.told_keep_alive() {
            told if told == 0 || self.keep_alive == 0 => self.keep_alive,
            told => self.keep_alive.max(keep_alive_ticks(told)),
        }
    }

    /// While we do not listen, the peer's silence proves nothing; but not for ever. When we listen again, its time
    /// starts anew.
    pub(crate) fn attend(&mut self, listen: bool, now: Tick) {
        if listen {
            if self.deaf_since != 0 {
                self.deaf_since = 0;
                self.touch(now);
            }
        } else if self.deaf_since == 0 && !self.guest {
            self.deaf_since = now;
            let patience = self.patience();
            if patience != 0 {
                self.link.set_deadline(now + HELD_GRACE.max(patience));
            }
        }
    }

    /// Whether reading has to wait for room or for acknowledgements.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    pub(crate) fn owes(&self) -> bool {
        !self.acks.is_empty()
    }

    /// What the peer may leave unread of its answers.
    pub(crate) fn max_out(&self) -> usize {
        self.config.max_out
    }

    /// Whether subscribers should have their turn, asked once.
    pub(crate) fn take_pressed(&mut self) -> bool {
        std::mem::take(&mut self.pressed)
    }

    fn has_room(&self) -> bool {
        self.acks.len() < self.config.max_unacknowledged && self.service.has_room()
    }

    /// Appends the acknowledgements that may leave now, and looks whether reading may go on.
    pub(crate) fn release_acks(&mut self) {
        if !self.acks.is_empty() {
            let durable = self.service.durable();
            let (acks, link) = (&mut self.acks, &self.link);
            link.reply(|out| {
                acks.release(durable, |owed| match owed {
                    Owed::PubAck(id) => encode::puback(id, out),
                    Owed::PubRec(id) => encode::pubrec(id, out),
                });
            });
        }
        self.held = self.held && !self.has_room();
    }

    /// Works off the complete frames in `bytes`; returns how many bytes they took. Stops before a message for
    /// which the service has no room or the window is full, and when subscribers should have their turn.
    pub(crate) fn work(&mut self, bytes: &mut [u8], max_frame: usize) -> ControlFlow<EndReason, usize> {
        let mut at = 0;
        while at < bytes.len() && !self.pressed {
            let len = match frame_len(&bytes[at..], max_frame) {
                Ok(Some(len)) if bytes.len() - at >= len => len,
                Ok(_) => break,
                Err(error) => return self.malformed(&error),
            };
            // A guest has to be heard: it stays a guest otherwise, and comes again and again.
            if is_publish(bytes[at]) && !self.guest && !self.has_room() {
                // The window may be full of what can leave at once.
                self.release_acks();
                if !self.has_room() {
                    self.held = true;
                    metrics::counter!("vestibule_connections_held_total", "listener" => self.config.name).increment(1);
                    break;
                }
            }
            self.frame(&mut bytes[at..at + len])?;
            at += len;
        }
        ControlFlow::Continue(at)
    }

    fn frame(&mut self, frame: &mut [u8]) -> ControlFlow<EndReason> {
        if is_publish(frame[0]) {
            return self.publish(frame);
        }
        let packet = match decode(frame, self.config.profile.rules()) {
            Ok(packet) => packet,
            Err(error) => return self.malformed(&error),
        };
        match packet {
            Packet::PingReq => {
                if let Some(seconds) = self.link.take_told_keep_alive() {
                    self.keep_alive = keep_alive_ticks(seconds);
                }
                self.link.reply(encode::pingresp);
            }
            Packet::PubAck(id) => {
                // An acknowledgement of nothing is ignored: the peer may have counted a lost packet as id 0
                // (osap-wire 9.10), or answer after we gave up.
                if self.link.acknowledged(id)
                    && let Some(session) = &mut self.inner
                {
                    self.service.acknowledged(session, id);
                }
            }
            Packet::PubRel(id) => {
                self.unreleased.retain(|&held| held != id);
                self.link.reply(|out| encode::pubcomp(id, out));
            }
            Packet::Subscribe(subscribe) => return self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => {
                for filter in unsubscribe.filters {
                    if let Some(at) = self.filters.iter().position(|held| &**held == filter) {
                        self.shared.router.unsubscribe(filter, &self.link);
                        self.filters.swap_remove(at);
                    }
                    if let Some(session) = &mut self.inner {
                        self.service.unsubscribe(session, filter);
                    }
                }
                self.link.reply(|out| encode::unsuback(unsubscribe.packet_id, out));
            }
            Packet::Disconnect => return ControlFlow::Break(EndReason::Disconnect),
            Packet::Connect(_) => return ControlFlow::Break(EndReason::Protocol("second_connect")),
            // Never asked for: we send no QoS 2.
            Packet::PubRec(_) | Packet::PubComp(_) => {
                return ControlFlow::Break(EndReason::Protocol("qos2_not_in_use"));
            }
            _ => return ControlFlow::Break(EndReason::Protocol("server_packet_from_client")),
        }
        ControlFlow::Continue(())
    }

    fn publish(&mut self, frame: &mut [u8]) -> ControlFlow<EndReason> {
        let (head, payload) = match split_publish(frame, self.config.profile.rules()) {
            Ok(split) => split,
            Err(error) => return self.malformed(&error),
        };
        if head.qos == QoS::ExactlyOnce && !self.config.profile.takes_qos2() {
            return ControlFlow::Break(EndReason::Protocol("qos2_not_offered"));
        }
        let Some(session) = &mut self.inner else { return ControlFlow::Break(EndReason::Panic) };
        let grant = match self.grants.iter().find(|(topic, _)| &**topic == head.topic) {
            Some((_, grant)) => grant.clone(),
            None => match self.service.authorize(session, head.topic) {
                Ok(grant) => {
                    if self.grants.len() == GRANTS {
                        self.grants.remove(0);
                    }
                    self.grants.push((head.topic.into(), grant.clone()));
                    grant
                }
                Err(Denied::Close(reason)) => return ControlFlow::Break(EndReason::Closed(reason)),
                Err(Denied::Drop(reason)) => {
                    self.count_denied(reason);
                    return self.owe(head.qos, head.packet_id, Ticket::READY);
                }
            },
        };
        if head.qos == QoS::ExactlyOnce && head.packet_id.is_some_and(|id| self.unreleased.contains(&id)) {
            // Received before; only the answer was lost (MQTT-4.3.3-2).
            return self.owe(head.qos, head.packet_id, Ticket::READY);
        }
        let (topic, qos, packet_id, dup) = (head.topic, head.qos, head.packet_id, head.dup);
        let message = Inbound { topic, qos, packet_id, dup, payload: &mut *payload };
        match self.service.publish(session, &grant, message) {
            Disposition::Done => self.owe(qos, packet_id, Ticket::READY),
            Disposition::After(ticket) => self.owe(qos, packet_id, ticket),
            Disposition::Settle(ticket) => {
                if self.guest {
                    self.settle();
                }
                self.owe(qos, packet_id, ticket)
            }
            Disposition::Route => {
                let cache = self.route.get_or_insert_default();
                self.pressed |= self.shared.router.publish(cache, topic, qos, payload);
                self.owe(qos, packet_id, Ticket::READY)
            }
            Disposition::Close(reason) => ControlFlow::Break(EndReason::Closed(reason)),
        }
    }

    fn owe(&mut self, qos: QoS, packet_id: Option<u16>, ticket: Ticket) -> ControlFlow<EndReason> {
        match (qos, packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.acks.push(Owed::PubAck(id), ticket),
            (QoS::ExactlyOnce, Some(id)) => {
                if !self.unreleased.contains(&id) {
                    if self.unreleased.len() >= self.config.max_unreleased {
                        return ControlFlow::Break(EndReason::Protocol("too_many_unreleased"));
                    }
                    self.unreleased.push(id);
                }
                self.acks.push(Owed::PubRec(id), ticket);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> ControlFlow<EndReason> {
        let Some(session) = &mut self.inner else { return ControlFlow::Break(EndReason::Panic) };
        let mut codes = Vec::new();
        for (filter, qos) in subscribe.filters {
            let code = match self.service.subscribe(session, filter, qos) {
                // QoS 2 towards subscribers is not offered; granting less is the server's right (3.9.3).
                Subscription::Granted(qos) => qos.min(QoS::AtLeastOnce).value(),
                Subscription::Routed(qos) => {
                    let known = self.filters.iter().any(|held| &**held == filter);
                    let full = self.filters.len() >= self.config.max_subscriptions;
                    if !known && (full || !is_indexable(filter)) {
                        metrics::counter!("vestibule_subscriptions_refused_total", "listener" => self.config.name)
                            .increment(1);
                        self.service.unsubscribe(session, filter);
                        SubAck::FAILURE
                    } else {
                        if !known {
                            self.filters.push(filter.into());
                        }
                        let qos = qos.min(QoS::AtLeastOnce);
                        self.shared.router.subscribe(filter, qos, &self.link);
                        qos.value()
                    }
                }
                Subscription::Refused => SubAck::FAILURE,
            };
            codes.push(code);
        }
        self.link.reply(|out| {
            if encode::suback(subscribe.packet_id, &codes, out).is_err() {
                // Impossible: a SUBSCRIBE that fitted has fewer filters than a SUBACK has room for codes.
                tracing::error!("a SUBACK could not be written");
            }
        });
        ControlFlow::Continue(())
    }

    fn malformed<T>(&self, error: &DecodeError) -> ControlFlow<EndReason, T> {
        tracing::debug!(listener = self.config.name, peer = %self.link.peer(), %error, "malformed packet");
        ControlFlow::Break(EndReason::Protocol("malformed_packet"))
    }

    /// The end. Tells the service.
    pub(crate) fn finish(mut self, reason: EndReason) {
        self.end(reason);
    }

    fn end(&mut self, reason: EndReason) {
        if self.inner.is_none() {
            return;
        }
        self.link.end(reason);
        for filter in self.filters.drain(..) {
            self.shared.router.unsubscribe(&filter, &self.link);
        }
        self.shared.sessions.release(&self.id, &self.link);
        if let Some(will) = self.will.take()
            && !reason.is_orderly()
            // A session that a panic went through is asked nothing more, so nobody can say whether it may.
            && reason != EndReason::Panic
        {
            self.guarded(|session| session.say(*will));
        }
        let Some(inner) = self.inner.take() else { return };
        let detail = match reason {
            EndReason::Protocol(detail) => detail,
            other => other.as_str(),
        };
        metrics::gauge!("vestibule_sessions", "listener" => self.config.name).decrement(1.0);
        metrics::counter!("vestibule_connections_ended_total", "listener" => self.config.name, "reason" => detail, "phase" => "session").increment(1);
        tracing::debug!(listener = self.config.name, peer = %self.link.peer(), reason = detail, "session ended");
        self.guarded(|session| session.service.ended(inner, reason));
    }

    /// Calls the service at the end of a session, perhaps while a panic unwinds: a second one would take the
    /// process along.
    fn guarded(&mut self, call: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| call(self))).is_err() {
            count_panic(self.config.name);
        }
    }

    /// Publishes a will: a message of the session like any other, with the same permission.
    fn say(&mut self, mut will: Will) {
        let Some(session) = &mut self.inner else { return };
        let grant = match self.service.authorize(session, &will.topic) {
            Ok(grant) => grant,
            Err(Denied::Close(reason) | Denied::Drop(reason)) => return self.count_denied(reason),
        };
        let message =
            Inbound { topic: &will.topic, qos: will.qos, packet_id: None, dup: false, payload: &mut will.payload };
        if self.service.publish(session, &grant, message) == Disposition::Route {
            self.shared.router.send(&will.topic, will.qos, &will.payload);
        }
    }

    fn count_denied(&self, reason: &'static str) {
        metrics::counter!("vestibule_publishes_denied_total", "listener" => self.config.name, "reason" => reason)
            .increment(1);
    }
}

impl<S: Service> Drop for Session<S> {
    fn drop(&mut self) {
        // Without a panic it is the runtime that was stopped under us.
        self.end(if std::thread::panicking() { EndReason::Panic } else { EndReason::Shutdown });
    }
}

/// Counts and logs a defect of ours that has cost a connection.
pub(crate) fn count_panic(listener: &'static str) {
    metrics::counter!("vestibule_panics_total", "listener" => listener).increment(1);
    tracing::error!(listener, "the task of a connection panicked");
}

fn is_publish(first: u8) -> bool {
    PacketType::from_first_byte(first) == Ok(PacketType::Publish)
}

/// One and a half times the keep-alive, in ticks; 0 = never (MQTT-3.1.2-24).
fn keep_alive_ticks(keep_alive: u16) -> Tick {
    let keep_alive = Tick::from(keep_alive);
    // One tick more, because the present one has begun already.
    if keep_alive == 0 { 0 } else { keep_alive + keep_alive.div_ceil(2) + 1 }
}
