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
mod tests;
