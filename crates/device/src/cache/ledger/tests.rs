//! The ledger against a medium in memory, on virtual time.

use std::io::ErrorKind;

use osap::das::topic::GLOBAL;

use super::*;
use crate::cache::record::Loss;
use crate::cache::{CacheError, EventCache};

mod clocks;
mod damage;
mod medium;
mod power;

/// The segments of a cache. Everything is as durable as the trait wants it.
#[derive(Debug, Clone, Default)]
struct Disk {
    segments: BTreeMap<u64, Vec<u8>>,
    /// What was taken away, which a loss of power may bring back.
    removed: BTreeMap<u64, Vec<u8>>,
    appends: usize,
    /// Of the next append only so many bytes arrive, and it fails.
    cut: Option<usize>,
    /// So do all that follow.
    full: bool,
    unreadable: bool,
    /// Segments and the bytes of them that cannot be read.
    bad: Vec<(u64, std::ops::Range<u64>)>,
}

fn broken(action: &'static str) -> CacheError {
    CacheError::Io { action, path: "medium".into(), source: ErrorKind::StorageFull.into() }
}

impl EventCache for Disk {
    fn segments(&mut self) -> Result<Vec<u64>, CacheError> {
        Ok(self.segments.keys().copied().collect())
    }

    fn read(&mut self, segment: u64, offset: u64, len: usize) -> Result<Vec<u8>, CacheError> {
        let bytes = self.segments.get(&segment).filter(|_| !self.unreadable).ok_or_else(|| broken("read"))?;
        let end = offset.saturating_add(len as u64).min(bytes.len() as u64);
        if self.bad.iter().any(|(bad, range)| *bad == segment && range.start < end && range.end > offset) {
            return Err(broken("read"));
        }
        Ok(bytes.iter().skip(offset as usize).take(len).copied().collect())
    }

    fn append(&mut self, segment: u64, bytes: &[u8]) -> Result<(), CacheError> {
        let newest = self.segments.last_key_value().map_or(0, |(newest, _)| *newest);
        assert!(segment >= newest, "an older segment is appended to");
        self.appends += 1;
        let arrived = if self.full { self.cut } else { self.cut.take() };
        if !self.segments.contains_key(&segment) {
            self.removed.clear();
        }
        let content = self.segments.entry(segment).or_default();
        content.extend_from_slice(&bytes[..arrived.unwrap_or(bytes.len()).min(bytes.len())]);
        if arrived.is_some() { Err(broken("write")) } else { Ok(()) }
    }

    fn remove(&mut self, segment: u64) -> Result<(), CacheError> {
        self.removed.extend(self.segments.remove_entry(&segment));
        Ok(())
    }
}

const OPTIONS: Options = Options {
    events: 1000,
    bytes: MIN_BYTES,
    age: Duration::from_secs(3600),
    grace: Duration::from_millis(250),
    unwritten: (100, 64 * 1024),
    ahead: (8, 32 * 1024),
};

/// 2026-11-20T21:31:22.110Z.
const TODAY: i64 = 1_795_210_282_110;

struct Bench {
    ledger: Ledger,
    disk: Disk,
    now: Instant,
    now_ms: i64,
    online: bool,
    /// Children that the platform has accepted.
    accepted: Vec<&'static str>,
    /// Lane, number and body of what was handed to the queue, in order.
    sent: Vec<(Arc<str>, u64, String)>,
}

impl Bench {
    fn new() -> Self {
        Self::with(OPTIONS, Disk::default())
    }

    fn with(options: Options, disk: Disk) -> Self {
        Self::at(TODAY, options, disk)
    }

    fn at(now_ms: i64, options: Options, mut disk: Disk) -> Self {
        let now = Instant::now();
        let ledger = Ledger::load("SN1", options, now, now_ms, &mut disk).unwrap();
        let (accepted, sent) = (Vec::new(), Vec::new());
        Self { ledger, disk, now, now_ms, online: false, accepted, sent }
    }

    /// Waits until what is on the medium is known, if it can be.
    fn loaded(mut self) -> Self {
        for _ in 0..READS {
            if !self.ledger.loaded {
                self.elapse(Duration::from_secs(4));
                self.settle();
            }
        }
        self
    }

    /// The power fails, and comes back.
    fn restarted(self) -> Self {
        let now_ms = self.now_ms;
        self.restarted_at(now_ms)
    }

    /// As [`restarted`](Self::restarted), and the wall clock shows this.
    fn restarted_at(self, now_ms: i64) -> Self {
        Self::at(now_ms, self.ledger.options, self.disk)
    }

    fn report(&mut self, body: impl ToString) -> watch::Receiver<Fate> {
        self.report_of(GLOBAL, body)
    }

    fn report_of(&mut self, sub: &str, body: impl ToString) -> watch::Receiver<Fate> {
        let body = body.to_string().into_bytes().into();
        let message = Message { topic: "/iot/SN1/x".into(), body };
        assert!(self.ledger.takes(message.cost()).unwrap());
        self.ledger.report(self.now, self.now_ms, sub, message).unwrap()
    }

    fn elapse(&mut self, time: Duration) {
        self.now += time;
        self.now_ms += i64::try_from(time.as_millis()).unwrap();
    }

    /// Does everything that is due, and gives the number of jobs.
    fn settle(&mut self) -> usize {
        for jobs in 0..1000 {
            if self.online {
                self.ledger.tell_losses(|| "loss".into());
            }
            let accepted = self.accepted.clone();
            let open = move |sub: &str| {
                let child = accepted.iter().position(|child| *child == sub);
                if sub == GLOBAL { Some(0) } else { child.map(|child| child as u8 + 1) }
            };
            self.feed(&open);
            let job = self.ledger.plan(self.now, self.now_ms, self.online, &open);
            self.feed(&open);
            let Some(job) = job else {
                let deadline = self.ledger.deadline(self.now, self.online);
                assert!(deadline.is_none_or(|at| at > self.now), "nothing is done and something is due");
                return jobs;
            };
            let outcome = job.carry_out(&mut self.disk);
            if outcome.has_loaded() {
                self.sent.clear();
            }
            for event in self.ledger.handle_outcome(self.now, outcome) {
                assert!(self.ledger.is_next(&event.sub, event.seq, event.message.cost()), "read in vain");
                self.hand(event.sub, event.seq, &event.message);
            }
        }
        panic!("it does not come to rest");
    }

    fn feed(&mut self, open: OpenLane<'_>) {
        let closed = self.ledger.retract(open);
        self.sent.retain(|(sub, ..)| !closed.contains(sub));
        while let Some(Next::Memory { sub, seq, message, .. }) = self.ledger.next(open) {
            let message = Message { topic: message.topic.clone(), body: message.body.clone() };
            self.hand(sub, seq, &message);
        }
        let evicted = self.ledger.take_evicted();
        self.sent.retain(|(_, seq, _)| !evicted.contains(seq));
    }

    fn hand(&mut self, sub: Arc<str>, seq: u64, message: &Message) {
        self.ledger.handle_handed(&sub, seq, message.cost());
        self.sent.push((sub, seq, String::from_utf8(message.body.to_vec()).unwrap()));
    }

    /// The platform acknowledges the oldest event in the queue.
    fn acknowledge(&mut self) -> String {
        let (sub, seq, body) = self.sent.remove(0);
        self.ledger.acknowledge(&sub, seq);
        body
    }

    /// Everything there is, as the platform gets it.
    fn drain(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        self.settle();
        while !self.sent.is_empty() {
            all.push(self.acknowledge());
            self.settle();
        }
        all
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn what_is_acknowledged_in_time_costs_no_write() {
    let mut bench = Bench::new();
    bench.online = true;
    let fate = bench.report("0");
    assert_eq!(bench.settle(), 0);
    bench.elapse(Duration::from_millis(249));
    assert_eq!(bench.settle(), 0);
    assert_eq!(*fate.borrow(), Fate::Pending);
    assert_eq!(bench.acknowledge(), "0");
    assert_eq!(*fate.borrow(), Fate::Delivered);
    bench.elapse(Duration::from_secs(60));
    assert_eq!((bench.settle(), bench.disk.appends), (0, 0));

    let late = bench.report("1");
    bench.elapse(Duration::from_millis(200));
    let later = bench.report("2");
    bench.elapse(Duration::from_millis(50));
    bench.settle();
    assert_eq!((*late.borrow(), *later.borrow()), (Fate::Cached, Fate::Cached), "written together");
    assert_eq!(bench.disk.appends, 1);
}

#[test]
fn without_a_connection_events_are_written_at_once_and_come_back_in_order() {
    let mut bench = Bench::new();
    let fates: Vec<_> = (0..30).map(|number| bench.report(number)).collect();
    bench.settle();
    assert_eq!(bench.disk.appends, 1);
    assert!(fates.iter().all(|fate| *fate.borrow() == Fate::Cached));
    assert_eq!(bench.sent.len(), 8, "as many as may be in the queue");

    let mut bench = bench.restarted();
    assert_eq!(bench.ledger.len(), (30, 0));
    bench.report(30);
    assert_eq!(bench.drain(), numbers(0..31));
    assert_eq!(bench.ledger.len(), (0, 0));
    assert!(bench.disk.appends <= 3, "few writes: {}", bench.disk.appends);
}

#[test]
fn acknowledgements_are_noted_together_and_what_is_not_noted_is_sent_again() {
    let mut bench = Bench::new();
    for number in 0..100 {
        bench.report(number);
        bench.settle();
    }
    let before = bench.disk.appends;
    for _ in 0..63 {
        bench.acknowledge();
        bench.settle();
    }
    assert_eq!(bench.disk.appends, before);
    let unnoted = Bench::with(OPTIONS, bench.disk.clone());
    assert_eq!(unnoted.ledger.len().0, 100);

    bench.acknowledge();
    bench.settle();
    assert_eq!(bench.disk.appends, before + 1);
    bench.acknowledge();
    assert_eq!(Bench::with(OPTIONS, bench.disk.clone()).drain(), numbers(64..100));
    // One that is alone waits for ten seconds, or until the device stops.
    bench.settle();
    bench.elapse(Duration::from_secs(10));
    bench.settle();
    assert_eq!(Bench::with(OPTIONS, bench.disk.clone()).drain(), numbers(65..100));
    bench.acknowledge();
    bench.ledger.close();
    bench.settle();
    assert_eq!(bench.restarted().drain(), numbers(66..100));
}

#[test]
fn the_oldest_is_dropped_and_the_number_reported_once() {
    let mut bench = Bench::with(Options { events: 10, ..OPTIONS }, Disk::default());
    let fates: Vec<_> = (0..14).map(|number| bench.report(number)).collect();
    let dropped = |fates: &[watch::Receiver<Fate>]| -> Vec<bool> {
        fates.iter().map(|fate| *fate.borrow() == Fate::Dropped).collect()
    };
    assert_eq!(dropped(&fates), [[true; 4].as_slice(), &[false; 10]].concat());
    bench.settle();
    for number in 14..20 {
        bench.elapse(Duration::from_millis(10));
        bench.report(number);
        bench.settle();
    }
    assert_eq!((bench.ledger.counts.dropped, bench.ledger.len().0), (10, 10));
    assert_eq!(bench.sent.first().map(|(.., body)| &**body), Some("10"), "what was dropped left the queue");

    let mut bench = bench.restarted();
    assert_eq!(bench.ledger.losses.untold, Loss { count: 10, from: TODAY, to: TODAY });
    assert_eq!(bench.ledger.losses(), None, "there is no connection");
    bench.online = true;
    bench.settle();
    let loss = Loss { count: 10, from: TODAY, to: TODAY };
    assert_eq!(bench.ledger.losses(), Some(("loss", loss)));
    bench.ledger.handle_losses_handed();
    assert_eq!(bench.ledger.losses(), None, "it is in the queue");
    // Until it is acknowledged it keeps its id, and what is lost meanwhile comes into the next one.
    bench.report(20);
    bench.settle();
    bench.elapse(Duration::from_secs(1));
    bench.settle();
    let mut bench = bench.restarted();
    bench.online = true;
    bench.settle();
    assert_eq!(bench.ledger.losses(), Some(("loss", loss)));
    bench.ledger.handle_losses_handed();
    bench.ledger.handle_losses_told();
    bench.settle();
    assert_eq!(bench.ledger.losses().map(|(_, loss)| loss.count), Some(1));
    bench.ledger.handle_losses_handed();
    bench.ledger.handle_losses_told();
    bench.ledger.close();
    bench.settle();
    let mut bench = bench.restarted();
    assert_eq!(bench.ledger.losses, Losses::default());
    assert_eq!(bench.drain(), numbers(11..21));
}

#[test]
fn bytes_are_bounded_by_whole_segments_and_acknowledged_ones_go() {
    let mut bench = Bench::new();
    let body = "x".repeat(4000);
    for number in 0..200 {
        bench.report(format!("{number}-{body}"));
        bench.settle();
        let held: usize = bench.disk.segments.values().map(Vec::len).sum();
        assert_eq!(bench.ledger.bytes(), held as u64);
        assert!(held as u64 <= MIN_BYTES, "{held}");
        assert!(bench.disk.segments.values().all(|segment| segment.len() <= 64 * 1024));
    }
    let (kept, _) = bench.ledger.len();
    assert!((30..60).contains(&kept), "{kept}");
    assert_eq!(bench.ledger.counts.dropped, 200 - kept as u64);
    let expected: Vec<String> = (200 - kept..200).map(|number| format!("{number}-{body}")).collect();
    assert_eq!(Bench::with(OPTIONS, bench.disk.clone()).drain(), expected);
    assert_eq!(bench.drain(), expected);
    assert_eq!(bench.disk.segments.len(), 1, "only the one that is appended to is left");
}

#[test]
fn a_child_waits_without_being_in_the_way_and_is_given_up() {
    let mut bench = Bench::new();
    for number in 0..20 {
        bench.report_of("CHILD", format!("c{number}"));
        bench.report(number);
    }
    bench.settle();
    let mut bench = bench.restarted();
    assert_eq!(bench.drain(), numbers(0..20));
    assert_eq!(bench.ledger.len(), (20, 0));
    bench.accepted = vec!["CHILD"];
    bench.report(20);
    bench.settle();
    assert_eq!(bench.acknowledge(), "c0");
    // It is taken away while some of it is in the queue.
    let fate = bench.report_of("CHILD", "late");
    bench.ledger.give_up("CHILD");
    bench.sent.retain(|(sub, ..)| &**sub != "CHILD");
    assert_eq!(*fate.borrow(), Fate::GivenUp);
    assert_eq!(bench.drain(), ["20"]);
    let counts = bench.ledger.counts;
    assert_eq!((counts.dropped, counts.given_up), (0, 20), "the platform is not told of it");
    bench.ledger.close();
    bench.settle();
    assert_eq!(bench.restarted().ledger.len(), (0, 0));
}

#[test]
fn what_is_in_a_lane_that_is_closed_comes_back_and_is_in_nobodys_way() {
    let mut bench = Bench::new();
    bench.accepted = vec!["CHILD"];
    (0..10).for_each(|number| _ = bench.report_of("CHILD", format!("c{number}")));
    bench.settle();
    bench.report("own");
    bench.settle();
    assert_eq!((bench.sent.len(), &*bench.sent[0].2), (8, "c0"));
    // A new connection: the child has to be accepted again.
    bench.accepted = Vec::new();
    assert_eq!(bench.drain(), ["own"]);
    bench.accepted = vec!["CHILD"];
    assert_eq!(bench.drain(), (0..10).map(|number| format!("c{number}")).collect::<Vec<_>>());
}

#[test]
fn a_medium_that_fails_leaves_events_in_memory_and_is_tried_again() {
    let mut bench = Bench::new();
    bench.report("0");
    bench.settle();
    bench.disk.cut = Some(20);
    let pending = bench.report("1");
    bench.settle();
    assert!(bench.ledger.is_failing());
    assert_eq!((*pending.borrow(), bench.ledger.counts.failures), (Fate::Pending, 1));
    // They are sent all the same.
    assert_eq!((bench.acknowledge(), bench.acknowledge()), ("0".into(), "1".into()));
    assert_eq!(*pending.borrow(), Fate::Delivered);

    for number in 2..101 {
        bench.report(number);
    }
    bench.report(101);
    let full = bench.ledger.takes(10);
    assert!(matches!(full, Err(ReportError::Full { events: 100, .. })), "{full:?}");
    bench.elapse(Duration::from_secs(1));
    bench.settle();
    assert!(!bench.ledger.is_failing());
    assert!(bench.ledger.takes(10).unwrap());
    let unreadable = bench.ledger.takes(MAX_MESSAGE + 1);
    assert!(matches!(unreadable, Err(ReportError::Invalid(InvalidEvent::TooLarge(_)))));
    assert_eq!(bench.restarted().drain(), numbers(2..102));
}

#[test]
fn a_medium_that_stays_full_fills_with_nothing_and_costs_no_event() {
    let mut bench = Bench::with(Options { age: Duration::from_secs(86_400), ..OPTIONS }, Disk::default());
    for number in 0..20 {
        bench.report(number);
        bench.settle();
    }
    (bench.disk.full, bench.disk.cut) = (true, Some(100));
    bench.report("x".repeat(15_000));
    for _ in 0..100 {
        bench.settle();
        bench.elapse(Duration::from_secs(60));
        assert!(bench.disk.segments.len() <= 3, "{:?}", bench.disk.segments.keys());
    }
    assert_eq!((bench.ledger.counts.dropped, bench.ledger.len().0), (0, 21));
    (bench.disk.full, bench.disk.cut) = (false, None);
    bench.settle();
    let mut expected = numbers(0..20);
    expected.push("x".repeat(15_000));
    assert_eq!(bench.restarted().drain(), expected);
}

#[test]
fn a_medium_that_cannot_be_read_is_tried_again_and_damage_is_counted() {
    let mut bench = Bench::new();
    for number in 0..20 {
        bench.report(number);
    }
    bench.settle();
    let mut bench = bench.restarted();
    bench.disk.unreadable = true;
    bench.settle();
    assert_eq!((bench.sent.len(), bench.ledger.counts.failures), (0, 1));
    bench.disk.unreadable = false;
    // A cell of the flash forgets.
    let segment = bench.disk.segments.values_mut().next().unwrap();
    let place = segment.windows(3).position(|body| body == b"x\x31\x33").unwrap();
    segment[place + 1] = b'9';
    bench.elapse(Duration::from_secs(2));
    let expected: Vec<String> = numbers(0..20).into_iter().filter(|number| number != "13").collect();
    assert_eq!(bench.drain(), expected);
    assert_eq!(bench.ledger.counts.dropped, 1);
    assert!(bench.ledger.counts.damaged_bytes > 0);
}

#[test]
fn a_cache_of_another_device_or_a_newer_program_is_refused() {
    let mut bench = Bench::new();
    bench.report("0");
    bench.settle();
    let mut disk = bench.disk;
    let error = Ledger::load("SN2", OPTIONS, Instant::now(), TODAY, &mut disk.clone()).unwrap_err();
    assert!(matches!(error, CacheError::Foreign { serial } if serial == "SN1"));
    let mut newer = Vec::new();
    let (before, seal) = (Before::default(), Seal::of("SN1"));
    Record::Begin { format: 2, floor: 1, before, serial: "SN1" }.encode(seal, &mut newer);
    disk.segments.insert(9, newer);
    let newer = Ledger::load("SN1", OPTIONS, Instant::now(), TODAY, &mut disk);
    assert!(matches!(newer, Err(CacheError::Newer(2))));
}

#[test]
fn an_event_on_the_medium_takes_little_memory() {
    assert!(size_of::<(u64, Slot)>() <= 48, "{}", size_of::<(u64, Slot)>());
}

#[test]
fn receipts_nobody_holds_are_forgotten() {
    let mut bench = Bench::with(Options { unwritten: (1000, 1 << 20), ..OPTIONS }, Disk::default());
    for number in 0..500 {
        drop(bench.report(number));
    }
    assert!(bench.ledger.watchers.len() <= 64, "{}", bench.ledger.watchers.len());
}
