//! The power fails at any byte of any write.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Report {
        len: usize,
    },
    Acknowledge,
    Settle,
    Elapse(u64),
    Online(bool),
    /// A write that fails after so many bytes, and the program goes on.
    Fail(usize),
    /// The power fails: so many bytes of what is unwritten arrive, one of them perhaps wrong.
    PowerLoss {
        arrived: usize,
        flipped: Option<usize>,
        removed_come_back: bool,
    },
    /// The device is stopped and started again.
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let loss = (0..4000usize, proptest::option::of(0..4000usize), any::<bool>());
    prop_oneof![
        6 => (0..3000usize).prop_map(|len| Op::Report { len }),
        4 => Just(Op::Acknowledge),
        4 => Just(Op::Settle),
        2 => (1..20_000u64).prop_map(Op::Elapse),
        1 => any::<bool>().prop_map(Op::Online),
        1 => (0..4000usize).prop_map(Op::Fail),
        2 => loss.prop_map(|(arrived, flipped, removed_come_back)| {
            Op::PowerLoss { arrived, flipped, removed_come_back }
        }),
        1 => Just(Op::Restart),
    ]
}

/// What is known of the events.
#[derive(Default)]
struct Model {
    next: usize,
    /// Reported under this power supply, with their fates.
    fates: BTreeMap<usize, watch::Receiver<Fate>>,
    /// To be there after a loss of power.
    safe: BTreeSet<usize>,
    delivered: BTreeSet<usize>,
    /// Neither delivered nor there after a loss of power.
    vanished: u64,
    /// Writes of which a byte arrived wrong: a record that ends like a whole one is told as a lost event where nothing
    /// tells that it was a note.
    garbled: u64,
    /// Delivered, and the cache has forgotten it for good.
    forgotten: BTreeSet<usize>,
}

fn number(body: &str) -> usize {
    body.split('-').next().unwrap().parse().unwrap()
}

impl Model {
    fn look(&mut self, ledger: &Ledger) {
        for (number, fate) in &self.fates {
            if *fate.borrow() == Fate::Cached {
                self.safe.insert(*number);
            }
        }
        if !ledger.has_unnoted() {
            self.forgotten.clone_from(&self.delivered);
        }
    }

    /// Compares with what a restart found.
    fn check(&mut self, bench: &Bench) {
        let found: Vec<usize> = all(bench).iter().map(|body| number(body)).collect();
        assert!(found.is_sorted_by(|a, b| a < b), "in order, none twice: {found:?}");
        assert!(found.iter().all(|number| *number < self.next));
        for number in self.safe.difference(&self.delivered) {
            assert!(found.contains(number), "{number} was safe and is lost");
        }
        for number in &found {
            assert!(!self.forgotten.contains(number), "{number} was acknowledged and noted");
        }
        // Of what was not safe a torn write may leave a gap, which counts as lost, each time until that is noted.
        let vanished = self.fates.keys().filter(|number| !found.contains(number) && !self.delivered.contains(number));
        self.vanished += vanished.count() as u64;
        let told = bench.ledger.counts.dropped;
        let most = self.vanished + self.garbled;
        assert!(told <= most, "{told} are told as lost, {most} may be");
        self.fates.clear();
        // What came back is safe, and will be delivered again if it was before.
        self.safe = found.iter().copied().collect();
        self.delivered.retain(|number| !self.safe.contains(number));
        self.forgotten.clone_from(&self.delivered);
    }
}

/// All events, in the order in which they would be sent, without changing anything.
fn all(bench: &Bench) -> Vec<String> {
    let options = Options { ahead: (usize::MAX, usize::MAX), ..OPTIONS };
    Bench::with(options, bench.disk.clone()).drain()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_safe_is_lost(ops in proptest::collection::vec(op(), 1..60)) {
        run(ops);
    }
}

/// The last record is a note, and arrives whole but for a byte.
#[test]
fn a_note_that_cannot_be_read_loses_no_event() {
    let loss = Op::PowerLoss { arrived: 88, flipped: Some(0), removed_come_back: false };
    run(vec![Op::Report { len: 0 }, Op::Settle, Op::Acknowledge, Op::Settle, Op::Elapse(10_000), loss]);
}

fn run(ops: Vec<Op>) {
    let mut bench = Bench::new();
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Report { len } => {
                if bench.ledger.takes(len + 20).is_ok_and(|room| room) && bench.ledger.bytes() < 150_000 {
                    let body = format!("{}-{}", model.next, "x".repeat(len));
                    model.fates.insert(model.next, bench.report(body));
                    model.next += 1;
                }
            }
            Op::Acknowledge if !bench.sent.is_empty() => {
                let number = number(&bench.acknowledge());
                model.delivered.insert(number);
            }
            Op::Acknowledge => {}
            Op::Settle => {
                bench.settle();
            }
            Op::Elapse(ms) => {
                // Age is another matter.
                let now_ms = bench.now_ms;
                bench.elapse(Duration::from_millis(ms));
                bench.now_ms = now_ms;
            }
            Op::Online(online) => bench.online = online,
            Op::Fail(bytes) => bench.disk.cut = Some(bytes),
            Op::PowerLoss { arrived, flipped, removed_come_back } => {
                model.look(&bench.ledger);
                bench.online = false;
                let job = bench.ledger.plan(bench.now, bench.now_ms, false, &|_| None).unwrap_or_default();
                for segment in job.remove {
                    bench.disk.remove(segment).unwrap();
                }
                if let Some(batch) = job.write {
                    let mut bytes = batch.bytes[..arrived.min(batch.bytes.len())].to_vec();
                    if let Some(flipped) = flipped.filter(|flipped| *flipped < bytes.len()) {
                        bytes[flipped] ^= 0x10;
                        model.garbled += 1;
                    }
                    // Whether a new segment had been made durable by then, nobody knows.
                    bench.disk.segments.entry(batch.segment).or_default().extend(bytes);
                }
                if removed_come_back {
                    let removed = std::mem::take(&mut bench.disk.removed);
                    for (segment, bytes) in removed {
                        bench.disk.segments.entry(segment).or_insert(bytes);
                    }
                }
                bench.disk.cut = None;
                bench = bench.restarted();
                model.check(&bench);
                bench.disk.removed.clear();
            }
            Op::Restart => {
                bench.disk.cut = None;
                bench.ledger.close();
                bench.elapse(Duration::from_secs(60));
                bench.settle();
                model.look(&bench.ledger);
                bench = bench.restarted();
                model.check(&bench);
            }
        }
        model.look(&bench.ledger);
    }
}

#[test]
fn a_log_cut_at_every_byte_keeps_every_whole_event_before_the_cut() {
    let mut bench = Bench::new();
    let mut ends = Vec::new();
    for number in 0..6 {
        bench.report(number);
        bench.settle();
        ends.push(bench.disk.segments[&1].len());
    }
    let whole = bench.disk.segments[&1].clone();
    for cut in 0..=whole.len() {
        let mut disk = Disk::default();
        disk.segments.insert(1, whole[..cut].to_vec());
        let kept = ends.iter().filter(|end| **end <= cut).count();
        let mut after = Bench::with(OPTIONS, disk);
        assert_eq!(after.ledger.counts.dropped, 0, "what was not safe is not lost");
        // It goes on as if nothing had happened, and what is new is safe as well.
        after.report("new");
        after.settle();
        let mut expected = numbers(0..kept);
        expected.push("new".into());
        assert_eq!(after.restarted().drain(), expected, "cut at {cut}");
    }
}

#[test]
fn many_losses_of_power_leave_no_more_segments_than_there_is_room_for() {
    let mut bench = Bench::new();
    for number in 0..200 {
        bench.report(number);
        bench.settle();
        // The next write is cut short, so this segment is not appended to any more.
        let newest = bench.disk.segments.values_mut().next_back().unwrap();
        newest.extend_from_slice(b"?");
        bench = bench.restarted();
        assert!(bench.disk.segments.len() as u64 * 4096 <= MIN_BYTES, "{}", bench.disk.segments.len());
    }
    let kept = bench.ledger.len().0;
    assert_eq!(bench.ledger.losses.untold.count, 200 - kept as u64);
    assert_eq!(bench.drain(), numbers(200 - kept..200));
}
