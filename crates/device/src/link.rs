//! One connection to the DAS, as an MQTT client without a socket (osap-wire 9).
//!
//! The driver writes what [`Link::poll_transmit`] gives, each packet with a write of its own,
//! hands every frame that arrives to [`Link::handle_frame`], and calls
//! [`Link::handle_timeout`] at [`Link::poll_timeout`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use osap::DevId;
use osap::das::command::Command;
use osap::das::connack;
use osap::modern::login as modern;
use vestibule_mqtt_codec::{ConnAck, Packet, Publish, QoS, Rules, SubAck, decode, encode};

use crate::attribute::Wishes;
use crate::calls::{Answer, Call};
use crate::keep_alive::KeepAlive;
use crate::outbox::{Outbox, Outgoing};
use crate::pass::PassThrough;
use crate::profile::Profile;
use crate::session::Login;
use crate::state::LinkFault;

mod channel;
mod downlink;
mod secured;
mod uplink;

pub(crate) use channel::{Channel, Epoch};
pub(crate) use secured::{Entry, Secured};

/// How long CONNACK, SUBACK and UNSUBACK are waited for (osap-wire 9.3, 9.4, 9.9).
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a goodbye may take: two UNSUBACKs nobody sends, and the packets before them that a full socket holds back.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(18);

/// The largest packet taken from the DAS: 16 KiB of body and its topic.
pub(crate) const MAX_PACKET: usize = 18 * 1024;

/// Acknowledgements that wait for the socket before the driver stops reading.
const MAX_REPLIES: usize = 256;

/// Filters of a device: `/iot/<sn>/#` and `/<sn>/#`.
const FILTERS: u8 = 2;

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    profile: Arc<Profile>,
    channel: Channel,
    dev_id: DevId,
    login: Login,
    stage: Stage,
    /// Acknowledgements of downlinks, in the order these came.
    replies: VecDeque<Reply>,
    /// Commands; they go out before answers.
    notes: VecDeque<Note>,
    /// Answers to operations; they go out before events.
    answers: VecDeque<Answer>,
    keep_alive: KeepAlive,
    lbs_host: Box<str>,
    heard: Instant,
    ping_at: Instant,
    /// The end of a goodbye, whatever the server does.
    leave_by: Option<Instant>,
    /// Something went wrong on the way out: the server will find out by itself.
    orderly: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    AwaitConnack {
        until: Instant,
    },
    /// Of a modern login: the DAS has to prove itself before anything is said to it.
    AwaitHello {
        until: Instant,
    },
    /// It has, and the first sealed message is due.
    Report,
    Subscribe {
        filter: u8,
    },
    AwaitSuback {
        filter: u8,
        packet_id: u16,
        until: Instant,
    },
    Online,
    Unsubscribe {
        filter: u8,
    },
    AwaitUnsuback {
        filter: u8,
        packet_id: u16,
        until: Instant,
    },
    Disconnect,
    Closed,
}

/// PUBACK, PUBREC and PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Acknowledge(u16),
    Received(u16),
    Complete(u16),
}

/// A v2 command on its way out (osap-wire 9.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub command: Command,
    pub number: Number,
    pub body: Box<[u8]>,
}

/// The `Seq` of a command (osap-wire 9.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    /// A request gets one when it goes out.
    Next,
    /// A request whose answer is waited for has it already.
    Request(u64),
    /// An answer has that of the request.
    Answer(u64),
}

/// What a frame means to the rest of the device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LinkEvent<T> {
    /// CONNACK 0, and of a modern login the hello after it; `ready` when no subscription follows.
    Accepted { ready: bool },
    /// CONNACK with another code, or 11 later on; the connection is over.
    Refused(u8),
    /// The subscriptions were granted: the login is complete.
    Ready,
    /// An event is stored; the token it was queued with.
    Acknowledged(T),
    /// These events are, as a receipt of the platform says.
    Received(Vec<T>),
    /// An operation is to be carried out, or an attribute set.
    Operate(Box<Call>),
    /// Attributes are to be set through the shadow.
    Wish(Box<Wishes>),
    /// A command of the platform.
    Command { command: Command, seq: u64, body: Box<[u8]> },
    /// Bytes of an application.
    Pass { seq: u64, pass: Box<PassThrough> },
    /// Other firmware is to be fetched.
    Upgrade { seq: u64, body: Box<[u8]> },
    /// Where objects may be put.
    Granted { seq: u64, body: Box<[u8]> },
    /// A downlink nobody here understands. It is acknowledged all the same.
    Ignored,
}

impl Link {
    /// A connection whose socket is open.
    pub(crate) fn new(now: Instant, profile: Arc<Profile>, channel: Channel, dev_id: DevId, login: Login) -> Self {
        let keep_alive = KeepAlive::new(profile.keep_alive);
        Self {
            lbs_host: profile.lbs_host.clone(),
            profile,
            channel,
            dev_id,
            login,
            stage: Stage::Connect,
            replies: VecDeque::new(),
            notes: VecDeque::new(),
            answers: VecDeque::new(),
            keep_alive,
            heard: now,
            ping_at: now + Duration::from_secs(keep_alive.present.into()),
            leave_by: None,
            orderly: true,
        }
    }

    /// The same under what the platform said on an earlier connection.
    pub(crate) fn steered(mut self, keep_alive: Option<u16>, lbs_host: Option<&str>) -> Self {
        if let Some(seconds) = keep_alive {
            self.keep_alive = KeepAlive::new(seconds);
        }
        if let Some(host) = lbs_host {
            self.lbs_host = host.into();
        }
        self
    }

    /// Another keep-alive from the next ping on (osap-wire 10.5).
    pub(crate) fn set_keep_alive(&mut self, seconds: u16) {
        self.keep_alive.next = seconds;
    }

    /// Sends a command when it is its turn.
    pub(crate) fn note(&mut self, note: Note) {
        self.notes.push_back(note);
    }

    /// The platform wants an end: what it sent is acknowledged, and nothing else said.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.leave_by.get_or_insert(now + GOODBYE_TIMEOUT);
        self.stage = Stage::Disconnect;
    }

    /// Appends the next packet that is due, if one is. What is sealed has to go out as it is, and before anything else.
    ///
    /// # Errors
    /// [`LinkFault::Exhausted`]: the session has carried all it may.
    pub(crate) fn poll_transmit<T>(
        &mut self,
        now: Instant,
        outbox: &mut Outbox<T>,
        out: &mut Vec<u8>,
    ) -> Result<bool, LinkFault> {
        if let Some(reply) = self.replies.pop_front() {
            if self.replies.is_empty() {
                self.replies = VecDeque::new();
            }
            match reply {
                Reply::Acknowledge(id) => encode::puback(id, out),
                Reply::Received(id) => encode::pubrec(id, out),
                Reply::Complete(id) => encode::pubcomp(id, out),
            }
            return Ok(true);
        }
        let until = now + ANSWER_TIMEOUT;
        match self.stage {
            Stage::Connect => {
                self.connect(out);
                // Under a modern suite a `Seq` counts as long as the program runs.
                outbox.handle_connection(self.channel.is_modern() || !self.login.full);
                outbox.set_receipts(matches!(&self.channel, Channel::Modern(secured) if secured.has_receipts()));
                self.ping_at = now + self.keep_alive.ping();
                self.stage = Stage::AwaitConnack { until };
            }
            Stage::Report => {
                self.report(outbox, out)?;
                self.stage = Stage::Subscribe { filter: 0 };
            }
            Stage::Subscribe { filter } => {
                let packet_id = outbox.next_packet_id();
                let name = self.filter(filter);
                written(encode::subscribe(packet_id, [(&*name, QoS::AtLeastOnce)], out));
                self.stage = Stage::AwaitSuback { filter, packet_id, until };
            }
            Stage::Unsubscribe { filter } => {
                let packet_id = outbox.next_packet_id();
                let name = self.filter(filter);
                written(encode::unsubscribe(packet_id, [&*name], out));
                self.stage = Stage::AwaitUnsuback { filter, packet_id, until };
            }
            Stage::Disconnect => {
                encode::disconnect(out);
                self.stage = Stage::Closed;
            }
            Stage::AwaitConnack { .. } | Stage::AwaitHello { .. } | Stage::Closed => return Ok(false),
            Stage::AwaitSuback { .. } | Stage::AwaitUnsuback { .. } | Stage::Online => {
                if self.ping_at <= now {
                    // Counted from the last one, whatever else goes over the wire (9.9).
                    self.ping_at = now + self.keep_alive.ping();
                    self.channel.owe_receipt();
                    encode::pingreq(out);
                } else if self.stage == Stage::Online && self.receipt(outbox, out)? {
                } else if self.stage == Stage::Online
                    && let Some(note) = self.notes.pop_front()
                {
                    if self.notes.is_empty() {
                        self.notes = VecDeque::new();
                    }
                    self.publish_note(&note, outbox, out)?;
                } else if self.stage == Stage::Online
                    && let Some(answer) = self.answers.pop_front()
                {
                    if self.answers.is_empty() {
                        self.answers = VecDeque::new();
                    }
                    let (packet_id, seq, dup) = (outbox.next_packet_id(), answer.seq, false);
                    self.publish(&Outgoing { topic: &answer.topic, body: &answer.body, packet_id, seq, dup }, out)?;
                } else if self.stage == Stage::Online
                    && let Some(event) = outbox.poll(now)
                {
                    let packet_id = event.packet_id;
                    let number = self.publish(&event, out)?;
                    outbox.handle_sealed(packet_id, number);
                } else {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Takes one complete packet.
    ///
    /// # Errors
    /// [`LinkFault`]: the connection is worth nothing any more.
    pub(crate) fn handle_frame<T>(
        &mut self,
        now: Instant,
        frame: &[u8],
        outbox: &mut Outbox<T>,
    ) -> Result<Option<LinkEvent<T>>, LinkFault> {
        let packet = decode(frame, &Rules::OSAP_LEGACY).map_err(|_| LinkFault::Protocol)?;
        self.heard = now;
        if let Stage::AwaitConnack { .. } = self.stage {
            let Packet::ConnAck(connack) = packet else { return Err(LinkFault::Protocol) };
            return Ok(self.connack(now, connack.code));
        }
        if let Stage::AwaitHello { .. } = self.stage {
            return self.hello(now, packet).map(Some);
        }
        match packet {
            Packet::PubAck(id) => return Ok(outbox.handle_puback(id).map(LinkEvent::Acknowledged)),
            Packet::SubAck(suback) => return self.suback(suback),
            Packet::UnsubAck(id) => {
                if let Stage::AwaitUnsuback { filter, packet_id, .. } = self.stage
                    && packet_id == id
                {
                    self.stage = after_unsubscribe(filter);
                }
            }
            Packet::Publish(publish) => {
                match (publish.head.qos, publish.head.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => self.replies.push_back(Reply::Acknowledge(id)),
                    (QoS::ExactlyOnce, Some(id)) => self.replies.push_back(Reply::Received(id)),
                    _ => {}
                }
                return self.downlink(now, publish.head.topic, publish.payload, outbox).map(Some);
            }
            Packet::PubRel(id) => self.replies.push_back(Reply::Complete(id)),
            // Nothing here is sent at QoS 2, so these belong to nothing.
            Packet::PubRec(_) | Packet::PubComp(_) | Packet::PingResp => {}
            // A DAS that wants the device elsewhere says so before it closes.
            Packet::ConnAck(ConnAck { code: connack::SESSION_UNKNOWN, .. }) => {
                return Ok(self.connack(now, connack::SESSION_UNKNOWN));
            }
            Packet::Disconnect => return Err(LinkFault::Closed),
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq => return Err(LinkFault::Protocol),
        }
        Ok(None)
    }

    /// Whether the login is complete and nobody wants an end.
    pub(crate) fn is_online(&self) -> bool {
        self.stage == Stage::Online
    }

    /// Whether this connection began with a full login, under a session key that is new.
    pub(crate) fn is_full_login(&self) -> bool {
        self.login.full
    }

    /// What the numbers of the platform's requests count in.
    pub(crate) fn epoch(&self) -> Epoch {
        self.channel.epoch()
    }

    /// Sends an answer when it is its turn.
    pub(crate) fn answer(&mut self, answer: Answer) {
        self.answers.push_back(answer);
    }

    fn connack<T>(&mut self, now: Instant, code: u8) -> Option<LinkEvent<T>> {
        if code != connack::ACCEPTED {
            self.stage = Stage::Closed;
            return Some(LinkEvent::Refused(code));
        }
        if self.channel.is_modern() {
            // Anybody can say that; it counts when the DAS has proven itself.
            self.stage = Stage::AwaitHello { until: now + ANSWER_TIMEOUT };
            return None;
        }
        let ready = !self.login.subscribe;
        self.stage = if ready { Stage::Online } else { Stage::Subscribe { filter: 0 } };
        Some(LinkEvent::Accepted { ready })
    }

    /// What has to follow the CONNACK of a modern login, and nothing else before it.
    fn hello<T>(&mut self, now: Instant, packet: Packet<'_>) -> Result<LinkEvent<T>, LinkFault> {
        let Packet::Publish(Publish { head, payload }) = packet else {
            return Err(if packet == Packet::Disconnect { LinkFault::Closed } else { LinkFault::Protocol });
        };
        let expected = head.topic == modern::topic(&self.profile.serial, "hello") && head.qos == QoS::AtMostOnce;
        match &mut self.channel {
            Channel::Modern(secured) if expected => {
                if !secured.handle_hello(now, payload) {
                    return Err(LinkFault::NotAuthentic);
                }
            }
            _ => return Err(LinkFault::Protocol),
        }
        self.stage = Stage::Report;
        Ok(LinkEvent::Accepted { ready: false })
    }

    fn suback<T>(&mut self, suback: SubAck<'_>) -> Result<Option<LinkEvent<T>>, LinkFault> {
        let Stage::AwaitSuback { filter, packet_id, .. } = self.stage else { return Ok(None) };
        if suback.packet_id != packet_id {
            return Ok(None);
        }
        if suback.codes != [0] && suback.codes != [1] && suback.codes != [2] {
            return Err(LinkFault::SubscriptionRefused);
        }
        if filter + 1 < FILTERS {
            self.stage = Stage::Subscribe { filter: filter + 1 };
            return Ok(None);
        }
        self.stage = Stage::Online;
        Ok(Some(LinkEvent::Ready))
    }

    /// Time has passed.
    ///
    /// # Errors
    /// [`LinkFault`]: what was waited for did not come.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkFault> {
        match self.stage {
            Stage::AwaitConnack { until } | Stage::AwaitHello { until } | Stage::AwaitSuback { until, .. }
                if until <= now =>
            {
                return Err(LinkFault::NoAnswer);
            }
            Stage::AwaitUnsuback { filter, until, .. } if until <= now => {
                self.orderly = false;
                self.stage = after_unsubscribe(filter);
            }
            _ => {}
        }
        if self.leave_by.is_some_and(|end| end <= now) {
            return Err(LinkFault::NoAnswer);
        }
        if self.receipt_missing_at().is_some_and(|end| end <= now) {
            return Err(LinkFault::NoReceipt);
        }
        if self.silent_at() <= now { Err(LinkFault::Silent) } else { Ok(()) }
    }

    /// When something is due without a frame coming. While the socket takes nothing, what would
    /// be sent is not.
    pub(crate) fn poll_timeout<T>(&self, outbox: &Outbox<T>, writable: bool) -> Instant {
        let answer = match self.stage {
            Stage::AwaitConnack { until } | Stage::AwaitHello { until } => return until,
            Stage::AwaitSuback { until, .. } | Stage::AwaitUnsuback { until, .. } => Some(until),
            _ => None,
        };
        let repeat = if self.stage == Stage::Online { outbox.deadline() } else { None };
        let send = [Some(self.ping_at), repeat].into_iter().flatten().filter(|_| writable);
        let receipt = self.receipt_missing_at();
        send.chain(answer).chain(self.leave_by).chain(receipt).fold(self.silent_at(), Instant::min)
    }

    /// Where acknowledgements are not authentic, two intervals without a receipt are the end (13.3).
    fn receipt_missing_at(&self) -> Option<Instant> {
        self.channel.receipt_missing_at(self.keep_alive.silence())
    }

    /// Nothing for two keep-alive intervals is the end (9.9).
    fn silent_at(&self) -> Instant {
        self.heard + self.keep_alive.silence()
    }

    /// The program wants an end: goodbye in order, as far as the login got.
    pub(crate) fn handle_stop(&mut self, now: Instant) {
        self.leave_by.get_or_insert(now + GOODBYE_TIMEOUT);
        self.stage = match self.stage {
            Stage::Connect | Stage::AwaitConnack { .. } | Stage::AwaitHello { .. } => Stage::Closed,
            Stage::Online => Stage::Unsubscribe { filter: 0 },
            Stage::Report | Stage::Subscribe { .. } | Stage::AwaitSuback { .. } => Stage::Disconnect,
            going => going,
        };
    }

    /// Nothing more will be sent or is worth reading.
    pub(crate) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Whether the goodbye was answered all along.
    pub(crate) fn is_orderly(&self) -> bool {
        self.orderly
    }

    /// Too many acknowledgements and answers wait for the socket: do not read on.
    pub(crate) fn is_congested(&self) -> bool {
        self.replies.len() + self.answers.len() + self.notes.len() >= MAX_REPLIES
    }

    fn filter(&self, index: u8) -> String {
        let serial = &self.profile.serial;
        if index == 0 { format!("/iot/{serial}/#") } else { format!("/{serial}/#") }
    }
}

fn after_unsubscribe(filter: u8) -> Stage {
    if filter + 1 < FILTERS { Stage::Unsubscribe { filter: filter + 1 } } else { Stage::Disconnect }
}

/// Every text and length that reaches the encoder was bounded where it entered the device.
fn written(result: Result<(), vestibule_mqtt_codec::EncodeError>) {
    result.expect("serial, topics and bodies were checked to fit into a packet");
}

#[cfg(test)]
mod tests;
