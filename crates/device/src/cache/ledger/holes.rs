//! Where events are missing in what was read, and how many.

use std::collections::BTreeMap;

use crate::cache::record::Loss;

/// The places where records could not be read, each between the numbers of two events that could.
///
/// How many are missing follows from the index of the next record; which of them had been acknowledged, from the notes
/// that follow. Nothing here is looked at more often than there are records.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// By the highest number before it.
    holes: BTreeMap<u64, Hole>,
    /// Number and time of the newest event so far.
    newest: Option<(u64, i64)>,
}

#[derive(Debug)]
struct Hole {
    /// The number of the next event; `u64::MAX` until it is known.
    before: u64,
    missing: u64,
    from: Option<i64>,
    to: Option<i64>,
}

/// Events that are lost: their numbers lie between the two.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub after: u64,
    pub before: u64,
    pub loss: Loss,
}

impl Holes {
    /// So many events cannot be read that were written after the newest so far.
    pub(super) fn add(&mut self, missing: u64) {
        let (after, at) = self.newest.unzip();
        let hole = Hole { before: u64::MAX, missing: 0, from: at, to: None };
        self.holes.entry(after.unwrap_or(0)).or_insert(hole).missing += missing;
    }

    /// An event that could be read.
    pub(super) fn handle_event(&mut self, seq: u64, at: i64) {
        if self.newest.is_some_and(|(newest, _)| seq <= newest) {
            // Written again, because the medium failed the first time.
            return self.take(seq, seq);
        }
        if let Some(mut last) = self.holes.last_entry()
            && last.get().before == u64::MAX
        {
            let after = *last.key();
            let hole = last.get_mut();
            (hole.before, hole.to) = (seq, Some(at));
            hole.missing = hole.missing.min(seq - after - 1);
        }
        self.newest = Some((seq, at));
    }

    /// These numbers are accounted for.
    pub(super) fn take(&mut self, first: u64, last: u64) {
        let start = self.holes.range(..first).next_back().map_or(first, |(after, _)| *after);
        let mut empty = Vec::new();
        for (&after, hole) in self.holes.range_mut(start..last.max(start)) {
            let (first, last) = (first.max(after + 1), last.min(hole.before - 1));
            if first <= last {
                hole.missing = hole.missing.saturating_sub(last - first + 1);
            }
            if hole.missing == 0 && hole.before != u64::MAX {
                empty.push(after);
            }
        }
        for after in empty {
            self.holes.remove(&after);
        }
    }

    /// How many are missing behind the newest event, where some may be.
    pub(super) fn behind(&self) -> Option<u64> {
        self.holes.last_key_value().filter(|(_, hole)| hole.before == u64::MAX).map(|(_, hole)| hole.missing)
    }

    /// What is missing, where `next` is the next number that is given; `at` is a time for what has none.
    pub(super) fn finish(self, next: u64, at: i64) -> impl Iterator<Item = Missing> {
        self.holes.into_iter().map(move |(after, hole)| {
            let before = hole.before.min(next);
            let count = hole.missing.min(before.saturating_sub(after + 1));
            let (from, to) = (hole.from.or(hole.to).unwrap_or(at), hole.to.or(hole.from).unwrap_or(at));
            Missing { after, before, loss: Loss { count, from: from.min(to), to: from.max(to) } }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(holes: Holes, next: u64) -> Vec<(u64, u64, u64, i64, i64)> {
        let all = holes.finish(next, 99);
        all.map(|Missing { after, before, loss }| (after, before, loss.count, loss.from, loss.to)).collect()
    }

    #[test]
    fn a_hole_lies_between_two_events_and_is_not_larger_than_their_numbers_allow() {
        let mut holes = Holes::default();
        holes.add(2);
        holes.handle_event(5, 50);
        holes.handle_event(6, 60);
        holes.add(1);
        holes.add(3);
        holes.handle_event(9, 90);
        assert_eq!(holes.behind(), None);
        holes.add(1);
        assert_eq!(holes.behind(), Some(1));
        assert_eq!(missing(holes, 100), [(0, 5, 2, 50, 50), (6, 9, 2, 60, 90), (9, 100, 1, 90, 90)]);
        let mut nothing = Holes::default();
        nothing.add(1);
        assert_eq!(missing(nothing, 7), [(0, 7, 1, 99, 99)]);
    }

    #[test]
    fn what_was_acknowledged_or_written_again_is_not_missing() {
        let mut holes = Holes::default();
        holes.handle_event(1, 10);
        holes.add(5);
        holes.handle_event(10, 100);
        holes.take(2, 3);
        holes.handle_event(5, 50);
        holes.take(11, 20);
        holes.take(1, 1);
        holes.take(10, 10);
        holes.add(4);
        holes.take(11, 12);
        assert_eq!(missing(holes, 30), [(1, 10, 2, 10, 100), (10, 30, 2, 100, 100)]);
        let mut holes = Holes::default();
        holes.handle_event(1, 10);
        holes.add(5);
        holes.handle_event(10, 100);
        holes.take(1, u64::MAX);
        assert_eq!(missing(holes, 30), []);
    }
}
