//! Operations under loss: the platform's table of requests against the device's executor, on a virtual clock.
//!
//! A seeded network loses connections, delays and repeats messages, and replies to the wrong request; the device reboots in
//! the middle. Whatever happens, nothing is carried out twice, and what the platform says of an operation is true.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use osap::das::executor::{Executor, Limits, Offer};
use osap::das::pending::{Pending, Take};

const RUNS: u64 = 10_000;
const STEPS: usize = 60;
const WINDOW: usize = 6;
const LIMITS: Limits = Limits { running: 2, waiting: 2, remembered: 8, remembered_bytes: 64 };

/// What the platform says of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// The device says that it is busy.
    Refused,
    TimedOut,
    Unknown,
}

/// A small generator; the seed is the run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// Both sides and what lies between them.
struct World {
    now: Instant,
    dice: Dice,
    next_seq: u64,
    pending: Pending<u64>,
    /// Requests on their way to the device, and replies on theirs to the platform.
    down: VecDeque<(u64, Duration)>,
    up: VecDeque<u64>,
    executor: Executor<u64>,
    running: BTreeMap<u64, u32>,
    connection: u32,
    /// What the device has really done.
    carried_out: BTreeSet<u64>,
    outcomes: BTreeMap<u64, Outcome>,
    sent: u64,
    strays: u64,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            now: Instant::now(),
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            next_seq: 1,
            pending: Pending::new(WINDOW),
            down: VecDeque::new(),
            up: VecDeque::new(),
            executor: Executor::new(LIMITS),
            running: BTreeMap::new(),
            connection: 0,
            carried_out: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            sent: 0,
            strays: 0,
        }
    }

    fn end(&mut self, seq: u64, outcome: Outcome) {
        assert_eq!(self.outcomes.insert(seq, outcome), None, "operation {seq} ended twice");
    }

    fn invoke(&mut self) {
        let (seq, ttl) = (self.next_seq, Duration::from_millis(1 + self.dice.roll(80)));
        if self.pending.enter(seq, self.now + ttl, seq).is_ok() {
            self.next_seq += 1;
            self.sent += 1;
            self.down.push_back((seq, ttl));
        }
    }

    /// The oldest request arrives, now and then twice.
    fn deliver(&mut self) {
        let Some((seq, ttl)) = self.down.pop_front() else { return };
        if self.dice.roll(4) == 0 {
            self.down.push_back((seq, ttl));
        }
        match self.executor.offer(seq, Some(self.now + ttl), seq) {
            Offer::Begin(seq) => self.begin(seq),
            Offer::Repeated(Some(_)) => self.up.push_back(seq),
            // A refusal is an answer too, of something that was not done.
            Offer::Busy(seq) => {
                if let Take::Found(seq) = self.pending.take(seq, |_| true) {
                    self.end(seq, Outcome::Refused);
                }
            }
            Offer::Repeated(None) | Offer::Wait => {}
        }
    }

    fn begin(&mut self, seq: u64) {
        assert!(self.carried_out.insert(seq), "operation {seq} is carried out twice");
        self.running.insert(seq, self.connection);
    }

    fn finish(&mut self) {
        let Some((seq, connection)) = self.running.pop_first() else { return };
        if connection == self.connection {
            self.up.push_back(seq);
        }
        if let Some((seq, same)) = self.executor.finish(self.now, seq, Box::from(*b"done")).begin {
            assert_eq!(seq, same);
            self.begin(seq);
        }
    }

    /// A reply arrives: the right one, again, or one with the number of another request.
    fn reply(&mut self) {
        let Some(seq) = self.up.pop_front() else { return };
        let said = match self.dice.roll(6) {
            0 => {
                self.up.push_back(seq);
                seq
            }
            1 => seq + 1_000_000,
            _ => seq,
        };
        // Which operation it was for is in the topic of the reply.
        match self.pending.take(said, |&of| of == seq) {
            Take::Found(of) => self.end(of, Outcome::Done),
            Take::Late => {
                assert!(matches!(self.outcomes.get(&said), Some(Outcome::TimedOut)), "{said} was not given up")
            }
            Take::Unknown => self.strays += 1,
        }
    }

    fn pass_time(&mut self) {
        self.now += Duration::from_millis(self.dice.roll(40));
        for seq in self.pending.expire(self.now) {
            self.end(seq, Outcome::TimedOut);
        }
    }

    /// The connection is lost with everything on it; the device goes on, or starts anew under another key.
    fn cut(&mut self) {
        self.down.clear();
        self.up.clear();
        let lost: Vec<u64> = self.pending.drain().collect();
        lost.into_iter().for_each(|seq| self.end(seq, Outcome::Unknown));
        self.executor.connection_lost();
        self.connection += 1;
        if self.dice.roll(3) == 0 {
            self.running.clear();
            self.executor = Executor::new(LIMITS);
        }
    }

    fn step(&mut self) {
        match self.dice.roll(16) {
            0..=3 => self.invoke(),
            4..=7 => self.deliver(),
            8..=10 => self.finish(),
            11..=13 => self.reply(),
            14 => self.pass_time(),
            _ => self.cut(),
        }
    }
}

#[test]
fn osap_9_5_nothing_is_carried_out_twice_and_every_outcome_is_true() {
    let (mut done, mut open_ended, mut strays) = (0_u64, 0_u64, 0_u64);
    for seed in 0..RUNS {
        let mut world = World::new(seed + 1);
        for _ in 0..STEPS {
            world.step();
        }
        world.cut();
        assert_eq!(world.outcomes.len() as u64, world.sent, "seed {seed}: an operation without an outcome");
        for (seq, outcome) in &world.outcomes {
            match outcome {
                Outcome::Done => {
                    assert!(world.carried_out.contains(seq), "seed {seed}: {seq} is said to be done");
                    done += 1;
                }
                Outcome::Refused => {
                    assert!(!world.carried_out.contains(seq), "seed {seed}: {seq} is said to be refused")
                }
                Outcome::TimedOut | Outcome::Unknown => open_ended += 1,
            }
        }
        strays += world.strays;
    }
    // The dice are fair enough that each thing happens, or the runs would prove nothing.
    assert!(done > RUNS && open_ended > RUNS && strays > RUNS / 2, "{done} {open_ended} {strays}");
}
