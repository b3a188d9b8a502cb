//! Which operations a device carries out, and when (osap-wire 9.5, 9.8).
//!
//! A server may send an operation twice: once more with DUP, or again after a lost connection. The
//! vendor's client carries it out twice; this one does not. An operation is known by its `Seq` under
//! the session key: the second one gets the answer of the first, or none while that is under way.

use std::collections::VecDeque;
use std::time::Instant;

/// Bounds of an [`Executor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Operations carried out at the same time.
    pub running: usize,
    /// Operations that wait for one of them to end.
    pub waiting: usize,
    /// Answers remembered for repetitions.
    pub remembered: usize,
    /// Bytes of all remembered answers; the oldest are forgotten first, never that they were given.
    pub remembered_bytes: usize,
}

impl Limits {
    /// What a small device can afford: 8, 32, 64 and 16 KiB.
    pub const DEFAULT: Limits = Limits { running: 8, waiting: 32, remembered: 64, remembered_bytes: 16 * 1024 };
}

/// The operations of one device under one session key.
#[derive(Debug)]
pub struct Executor<C> {
    limits: Limits,
    /// Those that have ended in the order in which they did: one that took long is not forgotten for it.
    seen: VecDeque<(u64, Progress)>,
    running: usize,
    waiting: VecDeque<Waiting<C>>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting<C> {
    seq: u64,
    until: Option<Instant>,
    call: C,
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    Running,
    Done(Option<Box<[u8]>>),
}

/// What becomes of an operation that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer<C> {
    /// Carry it out now; [`Executor::finish`] follows.
    Begin(C),
    /// Later: [`Executor::finish`] gives it back when it is its turn.
    Wait,
    /// It is a repetition; this was the answer. Without one nothing is said: the first is under way,
    /// or its answer is no longer known.
    Repeated(Option<Box<[u8]>>),
    /// Too many are under way: refuse it. A repetition of it is not carried out either, because the
    /// server has been told that it was refused.
    Busy(C),
}

/// What is next after an operation has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Next<C> {
    /// Carry this out now, the second value is its `Seq`.
    pub begin: Option<(C, u64)>,
    /// Operations that waited too long and are dropped.
    pub expired: usize,
}

impl<C> Executor<C> {
    /// Nothing has arrived yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, seen: VecDeque::new(), running: 0, waiting: VecDeque::new(), bytes: 0 }
    }

    /// An operation has arrived; it may be begun until `until`.
    pub fn offer(&mut self, seq: u64, until: Option<Instant>, call: C) -> Offer<C> {
        if let Some((_, progress)) = self.seen.iter().find(|(seen, _)| *seen == seq) {
            return match progress {
                Progress::Done(answer) => Offer::Repeated(answer.clone()),
                Progress::Waiting | Progress::Running => Offer::Repeated(None),
            };
        }
        if self.running < self.limits.running {
            self.running += 1;
            self.remember(seq, Progress::Running);
            return Offer::Begin(call);
        }
        if self.waiting.len() < self.limits.waiting {
            self.waiting.push_back(Waiting { seq, until, call });
            self.remember(seq, Progress::Waiting);
            return Offer::Wait;
        }
        self.remember(seq, Progress::Done(None));
        Offer::Busy(call)
    }

    /// An operation that was begun has ended with this answer.
    pub fn finish(&mut self, now: Instant, seq: u64, answer: Box<[u8]>) -> Next<C> {
        self.running = self.running.saturating_sub(1);
        self.bytes += answer.len();
        self.set(seq, Progress::Done(Some(answer)));
        let mut next = Next { begin: None, expired: 0 };
        while let Some(Waiting { seq, until, call }) = self.waiting.pop_front() {
            if until.is_some_and(|until| until <= now) {
                self.set(seq, Progress::Done(None));
                next.expired += 1;
                continue;
            }
            self.running += 1;
            self.set(seq, Progress::Running);
            next.begin = Some((call, seq));
            break;
        }
        self.forget_oldest();
        next
    }

    /// The connection is lost: what waits is dropped, because the server counts it as unknown. Says how
    /// many that were. What runs goes on.
    pub fn connection_lost(&mut self) -> usize {
        let dropped = self.waiting.len();
        for Waiting { seq, .. } in std::mem::take(&mut self.waiting) {
            self.set(seq, Progress::Done(None));
        }
        self.forget_oldest();
        dropped
    }

    fn set(&mut self, seq: u64, progress: Progress) {
        let Some(at) = self.seen.iter().position(|(seen, _)| *seen == seq) else { return };
        self.seen.remove(at);
        self.seen.push_back((seq, progress));
    }

    fn remember(&mut self, seq: u64, progress: Progress) {
        self.seen.push_back((seq, progress));
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        let done = |(_, progress): &(u64, Progress)| matches!(progress, Progress::Done(_));
        while self.seen.iter().filter(|entry| done(entry)).count() > self.limits.remembered {
            let Some(at) = self.seen.iter().position(done) else { break };
            if let Some((_, Progress::Done(Some(answer)))) = self.seen.remove(at) {
                self.bytes -= answer.len();
            }
        }
        for (_, progress) in &mut self.seen {
            if self.bytes <= self.limits.remembered_bytes {
                break;
            }
            if let Progress::Done(answer) = progress {
                self.bytes -= answer.take().map_or(0, |answer| answer.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { running: 1, waiting: 2, remembered: 3, remembered_bytes: 10 };

    fn answer(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn a_repetition_gets_the_first_answer() {
        let now = Instant::now();
        let mut executor = Executor::new(LIMITS);
        assert_eq!(executor.offer(7, None, "first"), Offer::Begin("first"));
        assert_eq!(executor.offer(7, None, "first"), Offer::Repeated(None), "under way");
        assert_eq!(executor.finish(now, 7, answer("done")), Next { begin: None, expired: 0 });
        assert_eq!(executor.offer(7, None, "first"), Offer::Repeated(Some(answer("done"))));
    }

    #[test]
    fn what_waits_comes_in_order_and_not_too_late() {
        let now = Instant::now();
        let soon = now + Duration::from_secs(1);
        let mut executor = Executor::new(LIMITS);
        assert_eq!(executor.offer(1, None, 1), Offer::Begin(1));
        assert_eq!(executor.offer(2, Some(soon), 2), Offer::Wait);
        assert_eq!(executor.offer(3, None, 3), Offer::Wait);
        assert_eq!(executor.offer(4, None, 4), Offer::Busy(4));
        assert_eq!(executor.finish(soon, 1, answer("1")), Next { begin: Some((3, 3)), expired: 1 });
        assert_eq!(executor.offer(2, None, 2), Offer::Repeated(None), "dropped, and not carried out after all");
        assert_eq!(executor.offer(4, None, 4), Offer::Repeated(None), "it was refused, and stays so");
        assert_eq!(executor.offer(5, None, 5), Offer::Wait);
        assert_eq!(executor.connection_lost(), 1);
        assert_eq!(executor.finish(soon, 3, answer("3")), Next { begin: None, expired: 0 });
    }

    #[test]
    fn what_took_long_is_remembered_as_long_as_the_rest() {
        let now = Instant::now();
        let mut executor = Executor::new(Limits { running: 2, ..LIMITS });
        assert_eq!(executor.offer(1, None, ()), Offer::Begin(()));
        for quick in 2..=4 {
            assert_eq!(executor.offer(quick, None, ()), Offer::Begin(()));
            executor.finish(now, quick, answer("q"));
        }
        executor.finish(now, 1, answer("long"));
        assert_eq!(executor.offer(1, None, ()), Offer::Repeated(Some(answer("long"))), "not carried out again");
        assert_eq!(executor.offer(2, None, ()), Offer::Begin(()), "the one that ended first is forgotten");
    }

    #[test]
    fn large_answers_are_forgotten_and_that_they_were_given_is_not() {
        let now = Instant::now();
        let mut executor = Executor::new(LIMITS);
        assert_eq!(executor.offer(1, None, ()), Offer::Begin(()));
        executor.finish(now, 1, answer("eleven bytes"));
        assert_eq!(executor.offer(1, None, ()), Offer::Repeated(None));
    }

    proptest! {
        #[test]
        fn nothing_is_carried_out_twice(steps in proptest::collection::vec((0..8u8, 0..30u64), 0..400)) {
            let (mut now, mut begun, mut running) = (Instant::now(), HashSet::new(), Vec::new());
            let mut answers = HashMap::new();
            // As many are remembered as may be sent again here.
            let limits = Limits { running: 2, waiting: 3, remembered: 30, remembered_bytes: 40 };
            let mut executor = Executor::new(limits);
            for (step, n) in steps {
                match step {
                    0..=4 => match executor.offer(n, Some(now + Duration::from_millis(n)), n) {
                        Offer::Begin(call) => {
                            prop_assert!(call == n && begun.insert(n), "{} again", n);
                            running.push(n);
                        }
                        Offer::Repeated(Some(answer)) => prop_assert_eq!(answers.get(&n), Some(&answer)),
                        Offer::Repeated(None) | Offer::Wait => {}
                        Offer::Busy(call) => prop_assert!(call == n && running.len() == 2),
                    },
                    5 => { executor.connection_lost(); }
                    6 => now += Duration::from_millis(n),
                    _ => if let Some(seq) = running.pop() {
                        let answer: Box<[u8]> = seq.to_string().into_bytes().into();
                        answers.insert(seq, answer.clone());
                        if let Some((call, seq)) = executor.finish(now, seq, answer).begin {
                            prop_assert!(call == seq && begun.insert(seq), "{} again", seq);
                            running.push(seq);
                        }
                    }
                }
                prop_assert!(executor.bytes <= 40 && executor.seen.len() <= 35);
                prop_assert_eq!(executor.running, running.len());
            }
        }
    }
}
