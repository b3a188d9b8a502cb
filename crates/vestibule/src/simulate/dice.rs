//! Chance that can be repeated.

/// A small generator of numbers (SplitMix64): what a seed brings is the same on every machine and in every version. Good
/// enough for the rhythm of a simulation, and for nothing that has to be secret.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The dice of one purpose of one device. Another purpose has dice of its own, so that a changed rate of one kind
    /// leaves the others as they were.
    pub(crate) fn new(seed: u64, device: u32, purpose: u32) -> Dice {
        let mut dice = Dice(seed);
        let mixed = dice.next() ^ (u64::from(device) << 32 | u64::from(purpose));
        let mut dice = Dice(mixed);
        // Neighbouring devices start from neighbouring numbers, which one turn takes apart.
        Dice(dice.next())
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 up to, but never, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        // 53 bits are what the mantissa holds.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number of the range, both ends included.
    pub(crate) fn within(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        let choices = (high.saturating_sub(low) as f64) + 1.0;
        low + (self.unit() * choices) as u64
    }

    /// One of these.
    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        const { assert!(N > 0, "there is something to pick") };
        from[(self.unit() * N as f64) as usize % N]
    }

    /// A pause of random length whose mean is this, as between the calls at a busy counter.
    pub(crate) fn pause(&mut self, mean: f64) -> f64 {
        -(1.0 - self.unit()).ln() * mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_its_devices_differ() {
        let draw = |seed, device, purpose| Dice::new(seed, device, purpose).next();
        assert_eq!(draw(7, 3, 1), draw(7, 3, 1));
        let draws = [draw(7, 3, 1), draw(8, 3, 1), draw(7, 4, 1), draw(7, 3, 2), draw(7, 1, 3)];
        for (index, one) in draws.iter().enumerate() {
            assert!(!draws[..index].contains(one), "{draws:?}");
        }
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_its_ends() {
        let mut dice = Dice::new(1, 0, 0);
        let draws: Vec<u64> = (0..1_000).map(|_| dice.within(2..=5)).collect();
        assert!((2..=5).all(|wanted| draws.contains(&wanted)) && draws.iter().all(|draw| (2..=5).contains(draw)));
        assert_eq!(dice.within(4..=4), 4);
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&dice.unit())));
        assert!((0..1_000).all(|_| ["a", "b"].contains(&dice.pick(["a", "b"]))));
    }

    #[test]
    fn pauses_have_their_mean() {
        let mut dice = Dice::new(1, 0, 0);
        let mean = (0..20_000).map(|_| dice.pause(3.0)).sum::<f64>() / 20_000.0;
        assert!((2.9..3.1).contains(&mean), "{mean}");
    }
}
