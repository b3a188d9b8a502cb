//! Requests that wait for their reply, by `Seq` (osap-wire 9.8).

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Requests that were given up and are still remembered, so that their reply is known to be late.
pub(crate) const GIVEN_UP: usize = 64;

/// The requests of one side on one connection.
///
/// Each takes part once: its reply comes in time, comes late, or never. `T` is what the caller
/// wants back. Numbers are the caller's: they count on over the connections of one session key.
#[derive(Debug)]
pub struct Pending<T> {
    limit: usize,
    waiting: BTreeMap<u64, (Instant, T)>,
    given_up: VecDeque<u64>,
}

/// What a reply belongs to.
#[derive(Debug, PartialEq, Eq)]
pub enum Take<T> {
    /// A request that waits for it.
    Found(T),
    /// A request that has been given up.
    Late,
    /// No request: never sent, or answered already.
    Unknown,
}

/// As many requests as allowed wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} requests wait for their reply already")]
pub struct Full(pub usize);

impl<T> Pending<T> {
    /// An empty table for at most `limit` requests.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, waiting: BTreeMap::new(), given_up: VecDeque::new() }
    }

    /// How many requests wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Enters a request with a number that is in no use; it is given up at `until`.
    ///
    /// # Errors
    /// [`Full`]; nothing was entered.
    pub fn enter(&mut self, seq: u64, until: Instant, request: T) -> Result<(), Full> {
        if self.waiting.len() >= self.limit {
            return Err(Full(self.limit));
        }
        self.waiting.insert(seq, (until, request));
        Ok(())
    }

    /// Takes back a request that was not sent after all.
    pub fn withdraw(&mut self, seq: u64) -> Option<T> {
        self.waiting.remove(&seq).map(|(_, request)| request)
    }

    /// The request a reply belongs to, if `fits` says that it does.
    pub fn take(&mut self, seq: u64, fits: impl FnOnce(&T) -> bool) -> Take<T> {
        if self.waiting.get(&seq).is_some_and(|(_, request)| fits(request))
            && let Some((_, request)) = self.waiting.remove(&seq)
        {
            return Take::Found(request);
        }
        match self.given_up.iter().position(|&given_up| given_up == seq) {
            Some(at) => {
                self.given_up.remove(at);
                Take::Late
            }
            None => Take::Unknown,
        }
    }

    /// Takes every request up to a number, of those from `first` on: what is not answered one by one.
    pub fn take_through(&mut self, first: u64, last: u64) -> Vec<T> {
        let numbers: Vec<u64> = self.waiting.range(first..=last.max(first)).map(|(&seq, _)| seq).collect();
        numbers.into_iter().filter(|&seq| seq <= last).filter_map(|seq| self.withdraw(seq)).collect()
    }

    /// When the next request is given up.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|(until, _)| *until).min()
    }

    /// Gives up what is due; gives it back in the order of the numbers.
    pub fn expire(&mut self, now: Instant) -> Vec<T> {
        let due: Vec<u64> = self.waiting.iter().filter(|(_, (until, _))| *until <= now).map(|(&seq, _)| seq).collect();
        due.into_iter()
            .filter_map(|seq| {
                let request = self.withdraw(seq)?;
                if self.given_up.len() == GIVEN_UP {
                    self.given_up.pop_front();
                }
                self.given_up.push_back(seq);
                Some(request)
            })
            .collect()
    }

    /// Everything that waits: the connection is gone, nobody can know.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.waiting).into_values().map(|(_, request)| request)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reply_counts_once_and_only_for_its_request() {
        let now = Instant::now();
        let mut pending = Pending::new(2);
        let (first, second) = (7, 8);
        pending.enter(first, now + Duration::from_secs(1), "first").expect("room");
        pending.enter(second, now + Duration::from_secs(2), "second").expect("room");
        assert_eq!(pending.enter(9, now, "third"), Err(Full(2)));
        assert_eq!(pending.take(second, |_| false), Take::Unknown, "a reply to another request");
        assert_eq!(pending.take(second, |_| true), Take::Found("second"));
        assert_eq!(pending.take(second, |_| true), Take::Unknown, "a repetition");
        assert_eq!(pending.expire(now), [] as [&str; 0]);
        assert_eq!(pending.deadline(), Some(now + Duration::from_secs(1)));
        assert_eq!(pending.expire(now + Duration::from_secs(1)), ["first"]);
        assert_eq!(pending.take(first, |_| true), Take::Late);
        assert_eq!(pending.take(first, |_| true), Take::Unknown);
        assert!(pending.is_empty());
    }

    #[test]
    fn what_is_answered_together_is_taken_up_to_there_and_no_further() {
        let now = Instant::now();
        let mut pending = Pending::new(8);
        for seq in [3, 10, 12, 13, 15] {
            pending.enter(seq, now, seq).expect("room");
        }
        assert_eq!(pending.take_through(10, 13), [10, 12, 13]);
        assert_eq!(pending.take_through(10, 13), [] as [u64; 0]);
        assert_eq!(pending.take_through(15, 3), [] as [u64; 0], "the other way round");
        assert_eq!(pending.take_through(10, u64::MAX), [15]);
        assert_eq!(pending.len(), 1);
    }

    proptest! {
        #[test]
        fn every_request_ends_once(steps in proptest::collection::vec((0..5u8, 1..40u64), 0..300)) {
            let start = Instant::now();
            let mut pending = Pending::new(8);
            let (mut now, mut open, mut ended) = (start, Vec::new(), 0);
            let (mut entered, mut seq) = (0, 0);
            for (step, n) in steps {
                match step {
                    0 | 1 => {
                        seq += 1;
                        let until = now + Duration::from_millis(n);
                        let result = pending.enter(seq, until, ());
                        prop_assert_eq!(result.is_err(), open.len() == 8);
                        if result.is_ok() {
                            entered += 1;
                            open.push((seq, until));
                        }
                    }
                    2 => {
                        let expected = open.iter().position(|&(seq, _)| seq == n);
                        let found = pending.take(n, |()| true) == Take::Found(());
                        prop_assert_eq!(found, expected.is_some());
                        if let Some(at) = expected {
                            open.remove(at);
                            ended += 1;
                        }
                    }
                    _ => {
                        now += Duration::from_millis(n);
                        let before = open.len();
                        open.retain(|&(_, until)| until > now);
                        ended += before - open.len();
                        prop_assert_eq!(pending.expire(now).len(), before - open.len());
                    }
                }
                prop_assert_eq!(pending.len(), open.len());
                prop_assert!(pending.given_up.len() <= GIVEN_UP);
            }
            ended += pending.drain().count();
            prop_assert_eq!(entered, ended);
        }
    }
}
