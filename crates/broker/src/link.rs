//! The outside of a connection: what others may do to it from any thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use vestibule_mqtt_codec::{ConnAck, PublishHead, QoS, encode};

use crate::end::EndReason;
use crate::inflight::Inflight;
use crate::timer::Tick;

/// A peer that took everything at its last turn is given this many times its mark until the next one: its task
/// may stand behind many publishers in the queue of its thread, which is no fault of the peer.
const WILLING: usize = 4;

/// Why a message was not appended to a connection's out buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is ending.
    #[error("the connection is ending")]
    Ending,
    /// The peer takes too little: its out buffer is full.
    #[error("the connection's out buffer is full")]
    BufferFull,
    /// The peer acknowledges too little: too many messages are in flight.
    #[error("too many messages of the connection are not acknowledged")]
    InflightFull,
    /// The message cannot be written as MQTT.
    #[error("the message is too large for MQTT")]
    TooLarge,
}

impl SendError {
    /// Short code for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            SendError::Ending => "ending",
            SendError::BufferFull => "buffer_full",
            SendError::InflightFull => "inflight_full",
            SendError::TooLarge => "too_large",
        }
    }
}

/// One connection, seen from outside. Its task owns the socket; everybody else appends here and wakes it.
pub struct Link {
    peer: SocketAddr,
    /// In ticks of the shard; 0 = none.
    deadline: AtomicU32,
    /// On the shard's list of those who wait for the durable mark.
    waiting: AtomicBool,
    max_out: usize,
    /// The keep-alive that the peer was told to use from its next PINGREQ on, in seconds; 0 = none.
    told: AtomicU16,
    /// The packet id of the message that told it; 0 = the peer has acknowledged that.
    told_by: AtomicU16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    out: Vec<u8>,
    /// Bytes that the task has taken out and is writing.
    writing: usize,
    /// The peer did not take all of the last write.
    clogged: bool,
    inflight: Inflight,
    end: Option<EndReason>,
    woken: bool,
    waker: Option<Waker>,
    /// A message found no room since something was taken or acknowledged last.
    full: bool,
    /// Who waits for room.
    room: Option<Waker>,
}

impl State {
    fn wake(&mut self) {
        if !self.woken {
            self.woken = true;
            if let Some(waker) = &self.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// There may be room again.
    fn make_room(&mut self) {
        self.full = false;
        if let Some(waiting) = self.room.take() {
            waiting.wake();
        }
    }
}

/// A message on its way into the out buffer. Unless it is kept, nothing of it stays, also when the caller's
/// `write` panics: a torn packet would cost the peer its connection.
struct Draft<'a> {
    state: MutexGuard<'a, State>,
    before: usize,
    packet_id: Option<u16>,
    keep: bool,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.state.out.truncate(self.before);
            if let Some(id) = self.packet_id {
                self.state.inflight.release(id);
            }
        }
    }
}

/// A message that was appended.
pub(crate) struct Appended {
    /// Its packet id at QoS 1.
    pub(crate) packet_id: Option<u16>,
    /// The peer takes what it is given but has much waiting: it should have its turn before more is appended.
    pub(crate) pressed: bool,
}

impl Link {
    pub(crate) fn new(peer: SocketAddr, max_out: usize, inflight: Inflight) -> Arc<Link> {
        let state = State { inflight, ..State::default() };
        Arc::new(Link {
            peer,
            deadline: AtomicU32::new(0),
            waiting: AtomicBool::new(false),
            max_out,
            told: AtomicU16::new(0),
            told_by: AtomicU16::new(0),
            state: Mutex::new(state),
        })
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Arc<Link> {
        Link::new(SocketAddr::from(([127, 0, 0, 1], 1)), 1 << 16, Inflight::new(16, None))
    }

    /// Where the peer is.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Ends the connection; `reason` is a short code. What is in the out buffer is still tried once.
    pub fn close(&self, reason: &'static str) {
        self.end(EndReason::Closed(reason));
    }

    /// Appends a PUBLISH whose payload `write` writes straight into the out buffer; `len` is the payload's exact
    /// length. At QoS 1 the packet id given is returned; QoS 2 is not offered and becomes 1. `write` runs under
    /// the connection's lock: it does not touch this link.
    pub fn publish(
        &self,
        topic: &str,
        qos: QoS,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Option<u16>, SendError> {
        self.append(topic, qos, len, write).map(|appended| appended.packet_id)
    }

    /// The peer was told, by the message with this packet id, to show a sign of life every so many seconds from its next
    /// PINGREQ on (osap-wire 9.9, 10.5). Until that has come the larger of the old and the new interval counts, and it
    /// is not believed to be the next one before the message is acknowledged.
    pub fn tell_keep_alive(&self, seconds: u16, packet_id: Option<u16>) {
        let state = self.state.lock();
        let open = packet_id.filter(|&id| state.inflight.holds(id)).unwrap_or(0);
        self.told_by.store(open, Ordering::Relaxed);
        self.told.store(seconds, Ordering::Relaxed);
    }

    /// The keep-alive that the peer was told to use, in seconds; 0 = none.
    pub(crate) fn told_keep_alive(&self) -> u16 {
        self.told.load(Ordering::Relaxed)
    }

    /// A PINGREQ came. The keep-alive that the peer uses from now on, when it was told of another one and has taken note.
    pub(crate) fn take_told_keep_alive(&self) -> Option<u16> {
        if self.told.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let _state = self.state.lock();
        if self.told_by.load(Ordering::Relaxed) != 0 {
            return None;
        }
        Some(self.told.swap(0, Ordering::Relaxed)).filter(|&seconds| seconds != 0)
    }

    /// As [`Link::publish`]; also says whether the peer should have its turn.
    pub(crate) fn append(
        &self,
        topic: &str,
        qos: QoS,
        len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Appended, SendError> {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Err(SendError::Ending);
        }
        let waiting = state.out.len() + state.writing;
        let limit = if state.clogged { self.max_out } else { self.max_out.saturating_mul(WILLING) };
        // A single message may exceed the mark when nothing else waits, or it could never be sent.
        if waiting != 0 && waiting + topic.len() + len > limit {
            state.full = true;
            return Err(SendError::BufferFull);
        }
        let mut draft = Draft { before: state.out.len(), state, packet_id: None, keep: false };
        let qos = qos.min(QoS::AtLeastOnce);
        if qos == QoS::AtLeastOnce {
            draft.packet_id = draft.state.inflight.take();
            if draft.packet_id.is_none() {
                draft.state.full = true;
                return Err(SendError::InflightFull);
            }
        }
        let packet_id = draft.packet_id;
        let head = PublishHead { dup: false, qos, retain: false, topic, packet_id };
        encode::publish_with(&head, len, &mut draft.state.out, write).map_err(|_| SendError::TooLarge)?;
        draft.keep = true;
        draft.state.wake();
        let pressed = !draft.state.clogged && draft.state.out.len() + draft.state.writing > self.max_out / 2;
        Ok(Appended { packet_id, pressed })
    }

    /// The peer has acknowledged a message. False when it was not in flight.
    pub(crate) fn acknowledged(&self, packet_id: u16) -> bool {
        let mut state = self.state.lock();
        if self.told_by.load(Ordering::Relaxed) == packet_id {
            self.told_by.store(0, Ordering::Relaxed);
        }
        let released = state.inflight.release(packet_id);
        if released {
            state.make_room();
        }
        released
    }

    /// Ends when a message that found no room may find some, or the connection ends. At once when none was refused since the
    /// peer took or acknowledged something last. For one at a time: whoever waits longest is forgotten.
    pub async fn room(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.state.lock();
            if !state.full || state.end.is_some() {
                return Poll::Ready(());
            }
            state.room = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether the connection is at its end.
    pub fn is_ending(&self) -> bool {
        self.ending().is_some()
    }

    /// Appends to the out buffer without waking: for the connection's own task, which writes when its turn ends.
    pub(crate) fn reply(&self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.state.lock().out);
    }

    /// Puts an accepting CONNACK in front of what others have appended since the service knows the link: it has
    /// to be the first packet (MQTT-3.2.0-1).
    pub(crate) fn welcome(&self) {
        let mut first = Vec::new();
        encode::connack(&ConnAck { session_present: false, code: 0 }, &mut first);
        let mut state = self.state.lock();
        first.append(&mut state.out);
        state.out = first;
    }

    /// Makes a refusing CONNACK the only thing that is said.
    pub(crate) fn refuse(&self, code: u8) {
        let mut state = self.state.lock();
        state.end.get_or_insert(EndReason::Closed("refused"));
        state.out.clear();
        encode::connack(&ConnAck { session_present: false, code }, &mut state.out);
    }

    pub(crate) fn end(&self, reason: EndReason) {
        let mut state = self.state.lock();
        state.end.get_or_insert(reason);
        state.make_room();
        state.wake();
    }

    pub(crate) fn expire(&self) {
        self.end(EndReason::KeepAlive);
    }

    pub(crate) fn ending(&self) -> Option<EndReason> {
        self.state.lock().end
    }

    /// The task is over: whoever still holds the link holds neither buffers nor the task's memory.
    pub(crate) fn retire(&self) {
        let mut state = self.state.lock();
        state.end.get_or_insert(EndReason::Lost);
        state.out = Vec::new();
        state.inflight = Inflight::default();
        let waker = state.waker.take();
        state.make_room();
        // The waker may hold the last reference to the task: not dropped under the lock.
        drop(state);
        drop(waker);
    }

    /// Has the task look again.
    pub(crate) fn wake(&self) {
        self.state.lock().wake();
    }

    /// Whether somebody woke the task since the last call; if not, the task is woken when somebody does.
    pub(crate) fn take_wake(&self, context: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.woken) {
            return true;
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => state.waker = Some(context.waker().clone()),
        }
        false
    }

    /// Takes the out buffer to write it; [`Link::settle`] follows unless it is empty.
    pub(crate) fn take_out(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        let out = std::mem::take(&mut state.out);
        state.writing = out.len();
        out
    }

    /// Ends a write: what the peer did not take goes back to the front, but for `encrypted` bytes, which cannot be taken
    /// back and wait elsewhere. Returns how many bytes wait now.
    pub(crate) fn settle(&self, mut unwritten: Vec<u8>, encrypted: usize) -> usize {
        let mut state = self.state.lock();
        state.writing = encrypted;
        state.clogged = !unwritten.is_empty() || encrypted > 0;
        if !unwritten.is_empty() {
            unwritten.append(&mut state.out);
            state.out = unwritten;
        }
        state.make_room();
        state.out.len() + encrypted
    }

    /// Enters the list of those who wait. False when the link is on it already.
    pub(crate) fn enlist(&self) -> bool {
        !self.waiting.swap(true, Ordering::Relaxed)
    }

    /// Leaves the list and looks again.
    pub(crate) fn wake_waiting(&self) {
        self.waiting.store(false, Ordering::Relaxed);
        self.wake();
    }

    pub(crate) fn deadline(&self) -> Tick {
        self.deadline.load(Ordering::Relaxed)
    }

    pub(crate) fn set_deadline(&self, deadline: Tick) {
        self.deadline.store(deadline, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn publish(link: &Link, payload: &[u8]) -> Result<Option<u16>, SendError> {
        link.publish("t", QoS::AtLeastOnce, payload.len(), |out| out.extend_from_slice(payload))
    }

    #[test]
    fn a_panic_while_a_payload_is_written_leaves_no_torn_packet() {
        let link = Link::for_test();
        publish(&link, b"first").expect("room");
        let whole = link.take_out();
        link.settle(whole.clone(), 0);
        let torn = catch_unwind(AssertUnwindSafe(|| {
            link.publish("t", QoS::AtLeastOnce, 4, |out| {
                out.push(1);
                panic!("sealing failed");
            })
        }));
        assert!(torn.is_err());
        assert_eq!(link.take_out(), whole);
        assert!(!link.acknowledged(2), "its packet id is free again");
    }

    #[test]
    fn osap_9_9_a_new_keep_alive_counts_from_the_first_ping_after_the_peer_knows_of_it() {
        let link = Link::for_test();
        assert_eq!(link.take_told_keep_alive(), None);
        let id = publish(&link, b"{}").expect("room");
        link.tell_keep_alive(15, id);
        assert_eq!((link.take_told_keep_alive(), link.told_keep_alive()), (None, 15), "this ping may have crossed it");
        assert!(link.acknowledged(id.expect("QoS 1")));
        assert_eq!((link.take_told_keep_alive(), link.told_keep_alive()), (Some(15), 0));
        assert_eq!(link.take_told_keep_alive(), None);
        // Acknowledged before we came to say what it was.
        let id = publish(&link, b"{}").expect("room");
        assert!(link.acknowledged(id.expect("QoS 1")));
        link.tell_keep_alive(20, id);
        assert_eq!(link.take_told_keep_alive(), Some(20));
    }

    #[test]
    fn mqtt_3_2_0_1_what_was_said_before_the_connack_follows_it() {
        let link = Link::for_test();
        publish(&link, b"early").expect("room");
        link.welcome();
        assert_eq!(link.take_out()[..5], [0x20, 2, 0, 0, 0x32]);
    }

    #[test]
    fn a_refused_peer_is_told_that_and_nothing_else() {
        let link = Link::for_test();
        publish(&link, b"early").expect("room");
        link.refuse(5);
        assert_eq!(publish(&link, b"late"), Err(SendError::Ending));
        assert_eq!(link.take_out(), [0x20, 2, 0, 5]);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_held_to_its_mark_and_a_willing_one_is_spared_a_while() {
        let link = Link::new(SocketAddr::from(([127, 0, 0, 1], 1)), 1_000, Inflight::new(1_000, None));
        let fill = || (0..1_000).take_while(|_| publish(&link, &[0; 100]).is_ok()).count();
        let willing = fill();
        assert!((30..=40).contains(&willing), "{willing}");
        let out = link.take_out();
        assert_eq!(publish(&link, &[0; 100]), Err(SendError::BufferFull), "what is being written still counts");
        link.settle(out[..900].to_vec(), 0);
        assert_eq!(publish(&link, &[0; 100]), Err(SendError::BufferFull));
        assert_eq!(link.settle(Vec::new(), 0), 900);
        assert!(publish(&link, &[0; 100]).is_ok());
    }

    #[test]
    fn who_found_no_room_is_woken_when_the_peer_takes_or_acknowledges_something() {
        let link = Link::new(SocketAddr::from(([127, 0, 0, 1], 1)), 100, Inflight::new(2, None));
        let mut context = Context::from_waker(Waker::noop());
        let mut is_ready = || std::pin::pin!(link.room()).poll(&mut context).is_ready();
        assert!(is_ready());
        let id = publish(&link, b"1").expect("room");
        publish(&link, b"2").expect("room");
        assert_eq!(publish(&link, b"3"), Err(SendError::InflightFull));
        assert!(!is_ready());
        assert!(link.acknowledged(id.expect("QoS 1")));
        assert!(is_ready());
        let full = || link.publish("t", QoS::AtMostOnce, 90, |out| out.extend_from_slice(&[0; 90]));
        while full().is_ok() {}
        assert!(!is_ready());
        link.take_out();
        assert!(!is_ready(), "what is being written still counts");
        link.settle(Vec::new(), 0);
        assert!(is_ready());
        while full().is_ok() {}
        link.close("test");
        assert!(is_ready() && link.is_ending());
    }

    #[test]
    fn what_came_during_a_write_goes_behind_what_was_left_of_it() {
        let link = Link::for_test();
        link.reply(|out| out.extend_from_slice(b"abc"));
        let mut out = link.take_out();
        link.reply(|out| out.extend_from_slice(b"def"));
        out.drain(..1);
        assert_eq!(link.settle(out, 0), 5);
        assert_eq!(link.take_out(), b"bcdef");
    }
}
