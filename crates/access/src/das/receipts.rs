//! Receipts of the sessions over plain TCP (osap-wire 13.3, "Receipts").
//!
//! A PUBACK is not authentic there: somebody on the path can swallow an alarm and acknowledge it. So each side says, sealed,
//! up to which number everything of QoS 1 is durable; and a side that hears nothing of the other for two intervals ends the
//! connection.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use osap::modern::receipt::Receipt;
use parking_lot::Mutex;
use vestibule_broker::Ticket;

use super::link::OsapLink;

/// How often it is looked: a receipt follows a message of QoS 1 within a second.
pub(super) const LOOK: Duration = Duration::from_millis(400);
/// The interval of a device that names no keep-alive.
const USUAL_MS: i64 = 30_000;

/// The receipts of one connection.
pub(super) struct Receipts {
    line: Arc<OsapLink>,
    state: Mutex<State>,
}

struct State {
    /// How often one is sent at least: by the shorter of the keep-alives that the device may use.
    interval_ms: i64,
    /// How often the device sends one at least: by the longer.
    patience_ms: i64,
    /// The number up to which everything is durable.
    durable: u64,
    /// The number of the last message.
    last: u64,
    /// Messages that are not durable yet: their places in the order of what becomes durable, and their numbers.
    waiting: VecDeque<(Ticket, u64)>,
    /// What the last receipt has said.
    told: u64,
    /// A message of QoS 1 has come since the last receipt.
    due: bool,
    sent: i64,
    heard: i64,
}

/// What is to be done for a connection.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Send(u64),
    /// Nothing was heard for two intervals.
    End,
}

impl Receipts {
    /// The receipts of a connection that begins now, by the steady clock; the keep-alive in seconds.
    pub(super) fn new(line: Arc<OsapLink>, keep_alive: u16, now: i64) -> Receipts {
        let interval_ms = if keep_alive == 0 { USUAL_MS } else { i64::from(keep_alive) * 1_000 };
        // The report, which opened the session, was the first message; there is nothing durable in it.
        let state = State {
            interval_ms,
            patience_ms: interval_ms,
            durable: 1,
            last: 1,
            waiting: VecDeque::new(),
            told: 1,
            due: false,
            sent: now,
            heard: now,
        };
        Receipts { line, state: Mutex::new(state) }
    }

    /// The device was told of another keep-alive, in seconds, which it may take or have taken already.
    pub(super) fn told(&self, keep_alive: u16) {
        let mut state = self.state.lock();
        let interval_ms = i64::from(keep_alive.max(1)) * 1_000;
        state.interval_ms = state.interval_ms.min(interval_ms);
        state.patience_ms = state.patience_ms.max(interval_ms);
    }

    /// A message with this number came; `ticket` is when it is durable, where it has to be.
    pub(super) fn came(&self, seq: u64, ticket: Option<Ticket>, acknowledged: bool) {
        self.state.lock().came(seq, ticket, acknowledged);
    }

    /// A receipt of the device came.
    pub(super) fn heard(&self, now: i64) {
        self.state.lock().heard = now;
    }

    fn look(&self, now: i64, durable: Ticket) {
        let step = self.state.lock().step(now, durable);
        match step {
            Step::Nothing => {}
            Step::Send(up) => self.line.tell_receipt(Receipt { up, down: 0 }),
            Step::End => {
                metrics::counter!("vestibule_das_receipts_missing_total").increment(1);
                self.line.end("no_receipt");
            }
        }
    }
}

impl State {
    fn came(&mut self, seq: u64, ticket: Option<Ticket>, acknowledged: bool) {
        self.last = seq;
        self.due |= acknowledged;
        match ticket {
            Some(ticket) => self.waiting.push_back((ticket, seq)),
            None if self.waiting.is_empty() => self.durable = seq,
            None => {}
        }
    }

    fn step(&mut self, now: i64, durable: Ticket) -> Step {
        while self.waiting.front().is_some_and(|(ticket, _)| *ticket <= durable) {
            self.waiting.pop_front();
            self.durable = self.waiting.front().map_or(self.last, |(_, next)| next - 1);
        }
        if now.saturating_sub(self.heard) > 2 * self.patience_ms {
            return Step::End;
        }
        // One that could only repeat the last waits for the disk: what it would say is not so yet.
        let is_due = self.due && self.durable > self.told;
        if is_due || now.saturating_sub(self.sent) >= self.interval_ms {
            self.due = !self.waiting.is_empty();
            self.sent = now;
            self.told = self.durable;
            return Step::Send(self.durable);
        }
        Step::Nothing
    }
}

/// The connections that are given receipts.
#[derive(Default)]
pub(super) struct Round(Mutex<Vec<Weak<Receipts>>>);

impl Round {
    pub(super) fn enter(&self, receipts: &Arc<Receipts>) {
        self.0.lock().push(Arc::downgrade(receipts));
    }

    /// Looks after all of them; those that are over are forgotten.
    pub(super) fn look(&self, now: i64, durable: Ticket) {
        let mut here = Vec::new();
        self.0.lock().retain(|receipts| match receipts.upgrade() {
            Some(receipts) => {
                here.push(receipts);
                true
            }
            None => false,
        });
        here.iter().for_each(|receipts| receipts.look(now, durable));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            interval_ms: 30_000,
            patience_ms: 30_000,
            durable: 1,
            last: 1,
            waiting: VecDeque::new(),
            told: 1,
            due: false,
            sent: 0,
            heard: 0,
        }
    }

    #[test]
    fn osap_13_3_a_receipt_never_passes_a_message_that_is_not_on_the_disk() {
        let mut state = state();
        state.came(2, Some(Ticket(10)), true);
        state.came(3, None, false);
        state.came(4, Some(Ticket(11)), true);
        assert_eq!(state.step(400, Ticket(9)), Step::Nothing);
        assert_eq!(state.step(800, Ticket(10)), Step::Send(3), "as far as it goes");
        assert_eq!(state.step(900, Ticket(10)), Step::Nothing);
        assert_eq!(state.step(1_000, Ticket(11)), Step::Send(4));
        assert_eq!(state.step(1_400, Ticket(11)), Step::Nothing);
    }

    #[test]
    fn osap_13_3_one_is_sent_each_interval_and_two_without_one_are_the_end() {
        let mut state = state();
        assert_eq!(state.step(30_000, Ticket(0)), Step::Send(1));
        assert_eq!(state.step(59_999, Ticket(0)), Step::Nothing);
        assert_eq!(state.step(60_000, Ticket(0)), Step::Send(1));
        assert_eq!(state.step(60_001, Ticket(0)), Step::End);
        state.heard = 60_001;
        assert_eq!(state.step(60_002, Ticket(0)), Step::Nothing);
    }

    #[test]
    fn osap_9_9_another_keep_alive_makes_neither_side_impatient() {
        let mut state = state();
        (state.interval_ms, state.patience_ms) = (10_000, 300_000);
        assert_eq!(state.step(10_000, Ticket(0)), Step::Send(1));
        assert_eq!(state.step(600_000, Ticket(0)), Step::Send(1));
        assert_eq!(state.step(600_001, Ticket(0)), Step::End);
    }

    #[test]
    fn what_stays_unstored_is_told_of_as_far_as_it_is_so() {
        let mut state = state();
        state.came(2, None, true);
        state.came(3, Some(Ticket(10)), true);
        assert_eq!(state.step(30_000, Ticket(9)), Step::Send(2), "at the interval in any case");
        assert_eq!(state.step(30_400, Ticket(10)), Step::Send(3));
    }
}
