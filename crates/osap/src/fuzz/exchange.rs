//! Requests and operations in any order: the table of one side and the executor of the other, each against a model that
//! is too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::das::executor::{Executor, Limits, Offer};
use crate::das::pending::{Full, GIVEN_UP, Pending, Take};

/// Two bytes a step: what is done, and to what. The first byte of all sets the bounds.
///
/// # Panics
/// When a request is answered twice or not at all, an operation is carried out twice, or a bound does not hold.
pub fn exchange(data: &[u8]) {
    let Some((&bounds, steps)) = data.split_first() else { return };
    let mut asking = Asking::new(1 + usize::from(bounds & 7));
    let mut doing = Doing::new(Limits {
        running: 1 + usize::from(bounds >> 3 & 1),
        waiting: usize::from(bounds >> 4 & 3),
        remembered: 1 + usize::from(bounds >> 6) * 4,
        remembered_bytes: 24,
    });
    let start = Instant::now();
    let mut now = start;
    for step in steps.as_chunks::<2>().0 {
        let [what, of] = *step;
        let (more, of) = (what >> 4, u64::from(of));
        match what & 15 {
            0..=2 => asking.enter(now + Duration::from_millis(of)),
            3 | 4 => asking.reply(of, more & 1 == 0),
            5 => asking.withdraw(of),
            6 => {
                now += Duration::from_millis(of);
                asking.expire(now);
            }
            7..=10 => doing.arrive(of, (more > 0).then(|| now + Duration::from_millis(more.into()))),
            11..=13 => doing.finish(now, of),
            14 => {
                asking.drain();
                doing.connection_lost();
            }
            _ => now += Duration::from_millis(of),
        }
    }
    asking.end();
    doing.end();
}

/// The side that asks.
struct Asking {
    limit: usize,
    pending: Pending<u64>,
    next: u64,
    open: BTreeMap<u64, Instant>,
    given_up: VecDeque<u64>,
    ended: BTreeSet<u64>,
}

impl Asking {
    fn new(limit: usize) -> Self {
        let (open, given_up, ended) = (BTreeMap::new(), VecDeque::new(), BTreeSet::new());
        Self { limit, pending: Pending::new(limit), next: 1, open, given_up, ended }
    }

    fn end_one(&mut self, seq: u64) {
        assert!(self.open.remove(&seq).is_some() && self.ended.insert(seq), "request {seq} ends twice");
    }

    fn enter(&mut self, until: Instant) {
        let entered = self.pending.enter(self.next, until, self.next);
        assert_eq!(entered, if self.open.len() < self.limit { Ok(()) } else { Err(Full(self.limit)) });
        if entered.is_ok() {
            self.open.insert(self.next, until);
            self.next += 1;
        }
        self.check();
    }

    fn reply(&mut self, seq: u64, fits: bool) {
        let taken = self.pending.take(seq, |&request| {
            assert_eq!(request, seq);
            fits
        });
        if fits && self.open.contains_key(&seq) {
            assert_eq!(taken, Take::Found(seq));
            self.end_one(seq);
        } else if let Some(at) = self.given_up.iter().position(|&given_up| given_up == seq) {
            assert_eq!(taken, Take::Late);
            self.given_up.remove(at);
        } else {
            assert_eq!(taken, Take::Unknown);
        }
        self.check();
    }

    fn withdraw(&mut self, seq: u64) {
        let withdrawn = self.pending.withdraw(seq);
        assert_eq!(withdrawn, self.open.contains_key(&seq).then_some(seq));
        if withdrawn.is_some() {
            self.end_one(seq);
        }
        self.check();
    }

    fn expire(&mut self, now: Instant) {
        let due: Vec<u64> = self.open.iter().filter(|(_, until)| **until <= now).map(|(&seq, _)| seq).collect();
        assert_eq!(self.pending.expire(now), due);
        for seq in due {
            self.end_one(seq);
            self.given_up.push_back(seq);
        }
        let too_many = self.given_up.len().saturating_sub(GIVEN_UP);
        self.given_up.drain(..too_many);
        self.check();
    }

    fn drain(&mut self) {
        let open: Vec<u64> = self.open.keys().copied().collect();
        assert!(self.pending.drain().eq(open.iter().copied()));
        open.into_iter().for_each(|seq| self.end_one(seq));
        self.check();
    }

    fn check(&self) {
        assert_eq!((self.pending.len(), self.pending.is_empty()), (self.open.len(), self.open.is_empty()));
        assert_eq!(self.pending.deadline(), self.open.values().min().copied());
        assert!(self.open.len() <= self.limit);
    }

    fn end(mut self) {
        self.drain();
        assert_eq!(self.ended.len() as u64, self.next - 1, "a request without an end");
    }
}

/// The side that carries out.
struct Doing {
    limits: Limits,
    executor: Executor<u64>,
    running: VecDeque<u64>,
    waiting: VecDeque<(u64, Option<Instant>)>,
    /// The last that have ended, with the answer of those that were carried out.
    ended: VecDeque<(u64, Option<Box<[u8]>>)>,
}

impl Doing {
    fn new(limits: Limits) -> Self {
        let (running, waiting, ended) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { limits, executor: Executor::new(limits), running, waiting, ended }
    }

    fn arrive(&mut self, seq: u64, until: Option<Instant>) {
        let is_under_way = self.running.contains(&seq) || self.waiting.iter().any(|(waiting, _)| *waiting == seq);
        let ended = self.ended.iter().find(|(ended, _)| *ended == seq);
        match self.executor.offer(seq, until, seq) {
            Offer::Begin(call) => {
                assert!(call == seq && !is_under_way && ended.is_none(), "operation {seq} is carried out twice");
                assert!(self.running.len() < self.limits.running);
                self.running.push_back(seq);
            }
            Offer::Wait => {
                assert!(!is_under_way && ended.is_none(), "operation {seq} waits twice");
                assert!(self.running.len() == self.limits.running && self.waiting.len() < self.limits.waiting);
                self.waiting.push_back((seq, until));
            }
            // A long answer may be forgotten, but never is it another's.
            Offer::Repeated(Some(answer)) => {
                assert_eq!(ended, Some(&(seq, Some(answer))), "the answer of another operation");
            }
            Offer::Repeated(None) => assert!(is_under_way || ended.is_some(), "operation {seq} is not carried out"),
            Offer::Busy(call) => {
                assert!(call == seq && !is_under_way && ended.is_none());
                assert!(self.running.len() == self.limits.running && self.waiting.len() == self.limits.waiting);
                self.end_one(seq, None);
                self.forget();
            }
        }
    }

    fn finish(&mut self, now: Instant, which: u64) {
        if self.running.is_empty() {
            return;
        }
        let at = usize::try_from(which).unwrap_or(0) % self.running.len();
        let Some(seq) = self.running.remove(at) else { return };
        let answer: Box<[u8]> = vec![seq.to_le_bytes()[0]; at + 3 + (which >> 5) as usize].into();
        let next = self.executor.finish(now, seq, answer.clone());
        self.end_one(seq, Some(answer));
        let mut expired = 0;
        let begun = loop {
            match self.waiting.pop_front() {
                Some((seq, Some(until))) if until <= now => {
                    expired += 1;
                    self.end_one(seq, None);
                }
                Some((seq, _)) => break Some(seq),
                None => break None,
            }
        };
        assert_eq!((next.begin, next.expired), (begun.map(|seq| (seq, seq)), expired));
        self.running.extend(begun);
        self.forget();
    }

    fn connection_lost(&mut self) {
        assert_eq!(self.executor.connection_lost(), self.waiting.len());
        for (seq, _) in std::mem::take(&mut self.waiting) {
            self.end_one(seq, None);
        }
        self.forget();
    }

    fn end_one(&mut self, seq: u64, answer: Option<Box<[u8]>>) {
        self.ended.push_back((seq, answer));
    }

    fn forget(&mut self) {
        let too_many = self.ended.len().saturating_sub(self.limits.remembered);
        self.ended.drain(..too_many);
    }

    /// What is remembered keeps its bounds.
    fn end(mut self) {
        let mut bytes = 0;
        for (seq, _) in &self.ended {
            match self.executor.offer(*seq, None, *seq) {
                Offer::Repeated(answer) => bytes += answer.map_or(0, |answer| answer.len()),
                other => panic!("operation {seq} is forgotten too early: {other:?}"),
            }
        }
        assert!(bytes <= self.limits.remembered_bytes, "{bytes} bytes are remembered");
        let under_way: Vec<u64> = self.running.drain(..).chain(self.waiting.drain(..).map(|(seq, _)| seq)).collect();
        for seq in under_way {
            assert_eq!(self.executor.offer(seq, None, seq), Offer::Repeated(None));
        }
    }
}
