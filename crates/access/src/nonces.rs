//! The nonces that devices have shown at the LBS, and in their sessions at the DAS (osap-wire 13.3): a first message that comes
//! again is a recording.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::marker::PhantomData;
use std::mem;

use parking_lot::Mutex;

/// Nonces remembered of one holder.
const OF_HOLDER: usize = 64;
/// Holders of one generation. At least so many who came last are known, and at most twice as many; recordings of an older one
/// cost a key agreement again, or a guest. It is seven eighths of a power of two: as many as a map holds before it doubles.
const GENERATION: usize = 57_344;

/// The nonces that the holders of a secret, devices or their sessions, have shown last, as hashes under a secret of the process.
pub(crate) struct Nonces<K> {
    hasher: RandomState,
    shown: Mutex<Shown>,
    holder: PhantomData<fn(K)>,
}

/// What was shown, by the hash of its holder, which takes 8 bytes instead of 16 or more.
type Generation = HashMap<u64, Marks>;

#[derive(Default)]
struct Shown {
    recent: Generation,
    /// The generation before: holders who have shown nothing new since `recent` was begun.
    former: Generation,
}

/// What one holder has shown: of a session, and of a device that was at the LBS once, a single nonce, which needs no allocation.
enum Marks {
    One(u64),
    /// The oldest first.
    #[expect(clippy::box_collection, reason = "unboxed, it would double the size of every holder's marks")]
    Several(Box<VecDeque<u64>>),
}

impl<K> Default for Nonces<K> {
    fn default() -> Self {
        Nonces { hasher: RandomState::new(), shown: Mutex::default(), holder: PhantomData }
    }
}

impl<K: Hash> Nonces<K> {
    /// Whether the holder, who has proven to be one, shows this nonce for the first time.
    pub(crate) fn is_fresh(&self, holder: K, nonce: &[u8; 32]) -> bool {
        let mark = self.hasher.hash_one((&holder, nonce));
        let holder = self.hasher.hash_one(holder);
        // Who is forgotten is dropped after the lock, which others wait for.
        let (is_new, _forgotten) = self.shown.lock().add(holder, mark);
        is_new
    }
}

impl Shown {
    /// Whether it is new; remembers it. With it comes the generation that this has made too old.
    fn add(&mut self, holder: u64, mark: u64) -> (bool, Option<Generation>) {
        if let Some(marks) = self.recent.get_mut(&holder) {
            return (marks.add(mark), None);
        }
        // What is repeated moves nobody: recordings alone must not turn the generations. Looked up before it is removed, because
        // `entry` would make room for one more, and so double a generation that is full.
        if self.former.get(&holder).is_some_and(|marks| marks.contains(mark)) {
            return (false, None);
        }
        let marks = match self.former.remove(&holder) {
            Some(mut marks) => {
                marks.add(mark);
                marks
            }
            None => Marks::One(mark),
        };
        let forgotten = (self.recent.len() == GENERATION).then(|| {
            // With all its room at once: growing by copies would hold the lock for longer.
            let full = mem::replace(&mut self.recent, HashMap::with_capacity(GENERATION));
            mem::replace(&mut self.former, full)
        });
        self.recent.insert(holder, marks);
        (true, forgotten)
    }
}

impl Marks {
    fn contains(&self, mark: u64) -> bool {
        match self {
            Marks::One(only) => *only == mark,
            Marks::Several(marks) => marks.contains(&mark),
        }
    }

    /// Whether it is new; remembers it.
    fn add(&mut self, mark: u64) -> bool {
        if self.contains(mark) {
            return false;
        }
        match self {
            Marks::One(only) => *self = Marks::Several(Box::new(VecDeque::from([*only, mark]))),
            Marks::Several(marks) => {
                if marks.len() == OF_HOLDER {
                    marks.pop_front();
                }
                marks.push_back(mark);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use osap::modern::TicketId;

    use super::*;

    fn nonce(n: u32) -> [u8; 32] {
        let mut nonce = [0; 32];
        nonce[..4].copy_from_slice(&n.to_be_bytes());
        nonce
    }

    fn holder(n: usize) -> TicketId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        TicketId::new(id)
    }

    #[test]
    fn osap_13_3_the_last_64_nonces_of_a_ticket_are_known() {
        let nonces = Nonces::default();
        let (one, other) = (TicketId::new([1; 16]), TicketId::new([2; 16]));
        assert!((0..64).all(|n| nonces.is_fresh(one, &nonce(n))));
        assert!((0..64).all(|n| !nonces.is_fresh(one, &nonce(n))));
        assert!(nonces.is_fresh(other, &nonce(0)), "of another ticket");
        assert!(nonces.is_fresh(one, &nonce(64)));
        assert!(nonces.is_fresh(one, &nonce(0)), "the oldest is forgotten");
    }

    /// How many holders are known, of both generations.
    fn known(nonces: &Nonces<TicketId>) -> (usize, usize) {
        let shown = nonces.shown.lock();
        (shown.recent.len(), shown.former.len())
    }

    fn show(nonces: &Nonces<TicketId>, holders: std::ops::Range<usize>) {
        assert!(holders.into_iter().all(|n| nonces.is_fresh(holder(n), &nonce(0))));
    }

    #[test]
    fn the_table_is_bounded_and_knows_those_who_came_last() {
        let nonces = Nonces::default();
        let all = 3 * GENERATION + GENERATION / 4;
        show(&nonces, 0..all);
        assert_eq!(known(&nonces), (GENERATION / 4, GENERATION));
        assert!((all - GENERATION..all).all(|n| !nonces.is_fresh(holder(n), &nonce(0))));
        assert_eq!(known(&nonces), (GENERATION / 4, GENERATION), "what is repeated moves nobody");
        let shown = nonces.shown.lock();
        assert!(shown.recent.capacity() <= GENERATION && shown.former.capacity() <= GENERATION, "neither has doubled");
        drop(shown);
        assert!(nonces.is_fresh(holder(0), &nonce(0)), "whoever came long ago is forgotten");
    }

    #[test]
    fn who_shows_something_new_stays_with_everything_he_has_shown() {
        let nonces = Nonces::default();
        show(&nonces, 0..GENERATION);
        // The second generation begins with the next and is full with the last; the third begins with who is of the first.
        show(&nonces, GENERATION..2 * GENERATION);
        assert_eq!(known(&nonces), (GENERATION, GENERATION));
        assert!(nonces.is_fresh(holder(0), &nonce(1)));
        assert_eq!(known(&nonces), (1, GENERATION));
        show(&nonces, 2 * GENERATION..3 * GENERATION - 1);
        assert!(!nonces.is_fresh(holder(0), &nonce(0)));
        assert!(!nonces.is_fresh(holder(0), &nonce(1)));
        assert!(nonces.is_fresh(holder(0), &nonce(2)));
        assert_eq!(known(&nonces), (GENERATION, GENERATION), "he was in the third");
    }
}
