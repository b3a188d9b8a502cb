//! What became of the events of one device, in three bits an event.

/// A set of small numbers.
#[derive(Debug, Default, Clone)]
struct Bits(Vec<u64>);

impl Bits {
    /// Adds a number; whether it was new.
    fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        // It has just been made long enough.
        let Some(word) = self.0.get_mut(word) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many of these the other has not.
    fn without(&self, other: &Bits) -> u64 {
        let others = other.0.iter().copied().chain(std::iter::repeat(0));
        self.0.iter().zip(others).map(|(ours, theirs)| u64::from((ours & !theirs).count_ones())).sum()
    }
}

/// Events are numbered from 0 in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    made: u32,
    acknowledged: Bits,
    stored: Bits,
    doubled: Bits,
    never_sent: u64,
}

/// What the platform stored, against what it acknowledged.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Ids that are stored.
    pub stored: u64,
    /// Ids that were acknowledged and are not stored: lost.
    pub missing: u64,
    /// Ids that are stored more than once.
    pub doubled: u64,
    /// Ids that are stored although no acknowledgement came: it was on its way when the connection ended.
    pub never_acknowledged: u64,
    /// Stored events with ids of this run that it never used.
    pub never_sent: u64,
}

impl Ledger {
    /// Numbers an event that is to be sent; `None` when there are no numbers left.
    pub(crate) fn make(&mut self) -> Option<u32> {
        let number = self.made;
        self.made = self.made.checked_add(1)?;
        Some(number)
    }

    /// The platform acknowledged it.
    pub(crate) fn acknowledge(&mut self, number: u32) {
        self.acknowledged.insert(number);
    }

    /// The platform has it stored, once more.
    pub(crate) fn find(&mut self, number: u32) {
        if number >= self.made {
            self.never_sent += 1;
        } else if !self.stored.insert(number) {
            self.doubled.insert(number);
        }
    }

    /// What was found, against what was acknowledged.
    pub(crate) fn compare(&self) -> Comparison {
        Comparison {
            stored: self.stored.len(),
            missing: self.acknowledged.without(&self.stored),
            doubled: self.doubled.len(),
            never_acknowledged: self.stored.without(&self.acknowledged),
            never_sent: self.never_sent,
        }
    }
}

impl std::ops::AddAssign for Comparison {
    fn add_assign(&mut self, more: Comparison) {
        self.stored += more.stored;
        self.missing += more.missing;
        self.doubled += more.doubled;
        self.never_acknowledged += more.never_acknowledged;
        self.never_sent += more.never_sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(made: u32, acknowledged: &[u32], stored: &[u32]) -> Comparison {
        let mut ledger = Ledger::default();
        for number in 0..made {
            assert_eq!(ledger.make(), Some(number));
        }
        acknowledged.iter().for_each(|&number| ledger.acknowledge(number));
        stored.iter().for_each(|&number| ledger.find(number));
        ledger.compare()
    }

    #[test]
    fn all_is_well_when_both_sides_agree() {
        assert_eq!(ledger(0, &[], &[]), Comparison::default());
        let all: Vec<u32> = (0..200).collect();
        assert_eq!(ledger(200, &all, &all), Comparison { stored: 200, ..Comparison::default() });
    }

    #[test]
    fn what_is_lost_or_doubled_is_found_whatever_the_sums_say() {
        // As many are stored as were acknowledged, and still one is gone and one there twice.
        let expected = Comparison { stored: 2, missing: 1, doubled: 1, ..Comparison::default() };
        assert_eq!(ledger(3, &[0, 1, 2], &[0, 2, 2]), expected);
        assert_eq!(ledger(130, &[129], &[]), Comparison { missing: 1, ..Comparison::default() });
        assert_eq!(ledger(1, &[0], &[0, 0, 0]).doubled, 1, "an id counts once however often it is there");
    }

    #[test]
    fn an_event_nobody_acknowledged_may_be_stored() {
        let expected = Comparison { stored: 2, never_acknowledged: 1, ..Comparison::default() };
        assert_eq!(ledger(100, &[3], &[3, 99]), expected);
    }

    #[test]
    fn an_event_nobody_sent_may_not() {
        assert_eq!(ledger(2, &[], &[2, 7]), Comparison { never_sent: 2, ..Comparison::default() });
    }
}
