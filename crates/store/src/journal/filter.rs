//! Whether an event may be in a segment, answered from memory.
//!
//! A Bloom filter whose bits of one key all lie in one cache line: 16 bits a key, 7 set. About one key in 700 that is not
//! there is answered "maybe", which costs a look into the segment. The filter of a sealed segment is stored in its seal, so
//! the hash is part of the format.

use crate::DeviceId;

const LINE: usize = 64;
const KEYS_PER_LINE: usize = LINE * 8 / 16;
const PROBES: u32 = 7;

/// The filter of a segment that no longer changes.
#[derive(Debug, PartialEq)]
pub(super) struct Filter(Vec<u8>);

impl Filter {
    /// A filter over these keys.
    pub(super) fn over(keys: &[u64]) -> Filter {
        let lines = keys.len().div_ceil(KEYS_PER_LINE).max(1);
        let mut filter = Filter(vec![0; lines * LINE]);
        for key in keys {
            let start = filter.line(*key);
            for bit in bits(*key) {
                filter.0[start + bit / 8] |= 1 << (bit % 8);
            }
        }
        filter
    }

    /// The filter that was stored as these bytes.
    pub(super) fn from_stored(bytes: Vec<u8>) -> Option<Filter> {
        (!bytes.is_empty() && bytes.len().is_multiple_of(LINE)).then_some(Filter(bytes))
    }

    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// False: the key is certainly not there.
    pub(super) fn may_contain(&self, key: u64) -> bool {
        let start = self.line(key);
        bits(key).all(|bit| self.0[start + bit / 8] & (1 << (bit % 8)) != 0)
    }

    /// Where the key's cache line begins; always within the bytes, which are whole lines.
    fn line(&self, key: u64) -> usize {
        let lines = (self.0.len() / LINE) as u128;
        ((u128::from(key) * lines) >> 64) as usize * LINE
    }
}

/// The bits of a key in its line: nine bits of a second hash for each.
fn bits(key: u64) -> impl Iterator<Item = usize> {
    let second = mix(key ^ 0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |probe| (second >> (9 * probe)) as usize % (LINE * 8))
}

/// The key of an event.
pub(super) fn key(device: &DeviceId, id: &str) -> u64 {
    let mut hash = id.len() as u64;
    for bytes in [device.as_bytes().as_slice(), id.as_bytes()] {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = mix(hash.rotate_left(23) ^ u64::from_le_bytes(word));
        }
    }
    hash
}

/// Spreads every input bit over the whole word: a folded multiplication by two odd constants.
fn mix(word: u64) -> u64 {
    let wide = u128::from(word ^ 0xa076_1d64_78bd_642f) * u128::from((word >> 32) ^ 0xe703_7ed1_a0b4_28db);
    (wide as u64) ^ (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(device: &DeviceId, range: std::ops::Range<u32>) -> Vec<u64> {
        range.map(|n| key(device, &format!("event-{n}"))).collect()
    }

    #[test]
    fn every_key_is_found_and_few_others() {
        let device = DeviceId::from(uuid::Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001));
        for count in [0, 1, 31, 1_000, 50_000] {
            let filter = Filter::over(&keys(&device, 0..count));
            let filter = Filter::from_stored(filter.as_bytes().to_vec()).unwrap();
            assert!(keys(&device, 0..count).iter().all(|key| filter.may_contain(*key)));
            let wrong = keys(&device, 1_000_000..1_050_000).iter().filter(|key| filter.may_contain(**key)).count();
            assert!(wrong < 250, "{wrong} of 50,000 at {count}");
        }
    }

    #[test]
    fn the_hash_is_part_of_the_format() {
        let device = DeviceId::from(uuid::Uuid::from_u128(1));
        assert_eq!(key(&device, "a"), key(&device, "a"));
        assert_ne!(key(&device, "a"), key(&device, "a\0"));
        assert_ne!(key(&device, ""), key(&DeviceId::from(uuid::Uuid::from_u128(2)), ""));
    }

    #[test]
    fn stored_bytes_that_are_no_filter_are_refused() {
        assert_eq!(Filter::from_stored(Vec::new()), None);
        assert_eq!(Filter::from_stored(vec![0; LINE - 1]), None);
    }
}
