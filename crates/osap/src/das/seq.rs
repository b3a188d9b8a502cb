//! Recognising a sequence number that was seen before (osap-wire 9.8 and 13.2.6).

/// How many numbers below the highest are remembered one by one.
pub const WIDTH: u64 = 256;

/// The sequence numbers of requests seen under one session key.
///
/// Numbers arrive out of order, because devices queue kinds of messages separately. A number is
/// accepted once; a number more than [`WIDTH`] below the highest counts as seen. A device that
/// restarts counts from 1 again, under a new session key and so with a new window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeqWindow {
    /// One more than the highest number seen, 0 before the first.
    end: u128,
    /// Bit n stands for the number n below the highest.
    seen: [u64; 4],
}

impl SeqWindow {
    /// A window that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the number is new; it is seen from now on.
    pub fn accept(&mut self, seq: u64) -> bool {
        let end = u128::from(seq) + 1;
        if end > self.end {
            self.shift(end - self.end);
            self.end = end;
            self.seen[0] |= 1;
            return true;
        }
        let below = self.end - end;
        if below >= u128::from(WIDTH) {
            return false;
        }
        let (word, bit) = ((below / 64) as usize, below % 64);
        let fresh = self.seen[word] & (1 << bit) == 0;
        self.seen[word] |= 1 << bit;
        fresh
    }

    /// Moves every remembered number down by `by`.
    fn shift(&mut self, by: u128) {
        if by >= u128::from(WIDTH) {
            self.seen = [0; 4];
            return;
        }
        let (words, bits) = ((by / 64) as usize, (by % 64) as u32);
        for to in (0..4_usize).rev() {
            let from = |back: usize| to.checked_sub(words + back).map_or(0, |index| self.seen[index]);
            let carried = if bits == 0 { 0 } else { from(1) >> (64 - bits) };
            self.seen[to] = (from(0) << bits) | carried;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_seen_in_the_field_is_accepted() {
        let mut window = SeqWindow::new();
        assert!([1, 4, 2, 5, 3].into_iter().all(|seq| window.accept(seq)));
        assert!([1, 4, 2, 5, 3].into_iter().all(|seq| !window.accept(seq)));
    }

    #[test]
    fn the_window_has_the_width_it_says() {
        let mut window = SeqWindow::new();
        assert!(window.accept(1000));
        assert!(!window.accept(1000 - WIDTH));
        assert!(window.accept(1000 - WIDTH + 1));
        assert!(window.accept(u64::MAX));
        assert!(!window.accept(u64::MAX));
        assert!(window.accept(u64::MAX - 255));
        assert!(!window.accept(1001));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(seqs in proptest::collection::vec(0..1200_u64, 0..600)) {
            let mut window = SeqWindow::new();
            let (mut seen, mut highest) = (HashSet::new(), None);
            for seq in seqs {
                let too_old = highest.is_some_and(|highest: u64| seq + WIDTH <= highest);
                let expected = !too_old && !seen.contains(&seq);
                prop_assert_eq!(window.accept(seq), expected, "{}", seq);
                seen.insert(seq);
                highest = highest.max(Some(seq));
            }
        }

        #[test]
        fn nothing_is_accepted_twice(seqs in proptest::collection::vec(any::<u64>(), 0..200)) {
            let mut window = SeqWindow::new();
            let mut accepted = HashSet::new();
            for seq in seqs.iter().chain(&seqs) {
                if window.accept(*seq) {
                    prop_assert!(accepted.insert(*seq));
                }
            }
        }
    }
}
