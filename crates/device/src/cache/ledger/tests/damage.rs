//! A bit flips in what was written.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::cache::record::Scanned;

/// A segment with events of one record each, and some of them acknowledged.
fn written(events: usize, acknowledged: usize) -> Bench {
    let mut bench = Bench::new();
    for number in 0..events {
        bench.report(number);
        bench.settle();
    }
    (0..acknowledged).for_each(|_| _ = bench.acknowledge());
    bench.settle();
    bench.elapse(Duration::from_secs(10));
    bench.settle();
    bench
}

/// Whether the last thing in a segment is a note that can be read.
fn ends_with_note(segment: &[u8]) -> bool {
    let mut segment = segment.to_vec();
    let last = Scan::new(Seal::of("SN1"), &mut segment).last();
    matches!(last, Some((_, Scanned::Record(Record::Note { .. }))))
}

/// What is left of the events, how many of them are lost, and that both stay so over restarts.
fn left(disk: Disk) -> (Vec<String>, u64) {
    let options = Options { bytes: 8 * MIN_BYTES, ..OPTIONS };
    let mut first = Bench::with(options, disk.clone()).loaded();
    let lost = first.ledger.counts.dropped;
    let untold = first.ledger.losses.untold.count;
    let kept = Bench::with(options, disk).loaded().drain();
    first.report("new");
    first.elapse(Duration::from_secs(10));
    first.settle();
    let mut second = first.restarted().loaded();
    assert_eq!((second.ledger.counts.dropped, second.ledger.losses.untold.count), (0, untold), "counted once");
    let mut after = second.drain();
    assert_eq!(after.pop().as_deref(), Some("new"));
    assert_eq!(after, kept);
    (kept, lost)
}

#[test]
fn a_byte_that_is_wrong_costs_the_record_it_is_in() {
    let disk = written(12, 0).disk;
    let segment = &disk.segments[&1];
    let last = segment.len() - 1;
    let last_but_one = segment[..last].iter().rposition(|byte| *byte == 0).unwrap();
    for place in 0..=last {
        for flip in [0x01, 0x80, 0xff] {
            let mut disk = disk.clone();
            disk.segments.get_mut(&1).unwrap()[place] ^= flip;
            let (kept, lost) = left(disk);
            let numbers: Vec<usize> = kept.iter().map(|body| body.parse().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{place}: {numbers:?}");
            assert!(numbers.len() >= 10, "{place}: {numbers:?}");
            // Behind the last two nothing tells how many there were, and without its zero the last one looks like a write
            // that was cut short.
            let told = if [last, last_but_one].contains(&place) { 11 } else { 12 };
            assert_eq!(numbers.len() + lost as usize, told, "{place}");
        }
    }
}

#[test]
fn what_was_acknowledged_is_not_lost() {
    let bench = written(12, 5);
    let mut disk = bench.disk;
    let segment = disk.segments.get_mut(&1).unwrap();
    let zeros: Vec<usize> =
        segment.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(place, _)| place).collect();
    // Begin, note, and twelve events: of those with the numbers 4 to 7 three had been acknowledged.
    segment[zeros[5]..zeros[9]].fill(b'?');
    let (kept, lost) = left(disk);
    assert_eq!((kept, lost), (vec!["8", "9", "10", "11"].into_iter().map(String::from).collect(), 3));
}

#[test]
fn a_note_at_the_end_that_is_damaged_counts_as_an_event() {
    let mut disk = written(2, 1).disk;
    let segment = disk.segments.get_mut(&1).unwrap();
    assert!(ends_with_note(segment));
    let place = segment.len() - 3;
    segment[place] ^= 0x80;
    assert!(!ends_with_note(segment));
    assert_eq!(left(disk), (numbers(0..2), 1));
}

#[test]
fn the_platform_is_told_the_exact_number_and_when() {
    let mut bench = Bench::new();
    for number in 0..9 {
        bench.report(number);
        bench.elapse(Duration::from_secs(1));
        bench.settle();
    }
    let mut disk = bench.disk;
    let segment = disk.segments.get_mut(&1).unwrap();
    let zeros: Vec<usize> =
        segment.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(place, _)| place).collect();
    segment[zeros[3] + 2..zeros[6] - 2].fill(0);
    let mut bench = Bench::with(OPTIONS, disk);
    bench.online = true;
    bench.settle();
    assert_eq!(bench.ledger.losses(), Some(("loss", Loss { count: 3, from: TODAY + 1000, to: TODAY + 5000 })));
    assert_eq!(bench.drain(), ["0", "1", "5", "6", "7", "8"]);
}

#[test]
fn the_end_of_a_segment_is_known_from_the_next() {
    let mut bench = Bench::new();
    let body = "x".repeat(6000);
    for number in 0..30 {
        bench.report(format!("{number}-{body}"));
        bench.settle();
    }
    assert_eq!(bench.disk.segments.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    let per = bench.disk.segments[&1].windows(3).filter(|bytes| *bytes == b"xxx").count() / 5900;
    let disk = bench.disk;
    let spoilt = |segments: &[u64], from: usize| {
        let mut disk = disk.clone();
        segments.iter().for_each(|segment| disk.segments.get_mut(segment).unwrap()[from..].fill(0x55));
        left(disk)
    };
    // The last two records of the first one.
    let (kept, lost) = spoilt(&[1], disk.segments[&1].len() - 7000);
    assert_eq!((kept.len(), lost), (28, 2));
    // All of the second one, with its begin.
    let (kept, lost) = spoilt(&[2], 0);
    assert_eq!((kept.len(), lost), (30 - per, per as u64));
    // All of the first two: what the second says of the first is gone as well.
    let (kept, lost) = spoilt(&[1, 2], 0);
    assert_eq!(kept.len(), 30 - 2 * per);
    assert!(lost >= per as u64, "{lost}");
    // Of the third one nobody knows, and there is no zero in it.
    let (kept, lost) = spoilt(&[3], 0);
    assert_eq!((kept.len(), lost), (2 * per, 0));
}

#[test]
fn a_segment_without_its_begin_is_of_this_device_or_nothing() {
    let mut disk = written(5, 0).disk;
    disk.segments.get_mut(&1).unwrap()[3] ^= 1;
    assert_eq!(left(disk.clone()), (numbers(0..5), 0));
    let mut other = Ledger::load("SN2", OPTIONS, Instant::now(), TODAY, &mut disk).unwrap();
    assert_eq!((other.len().0, other.losses.untold.count), (0, 1));
    other.close();
}

#[test]
fn hostile_segments_take_no_longer_than_others() {
    // Ranges that cover everything, over and over, and an event between each two of them.
    let seal = Seal::of("SN1");
    let mut segment = Vec::new();
    Record::Begin { format: 1, floor: 1, before: Before::default(), serial: "SN1" }.encode(seal, &mut segment);
    let mut index = 0;
    while segment.len() < 250 * 1024 {
        let (seq, sub) = (u64::from(2 * index + 1), format!("S{index}"));
        Record::Event { index: 3 * index, seq, at: 0, ran: 0, sub: &sub, topic: "/t", body: b"" }
            .encode(seal, &mut segment);
        segment.extend_from_slice(b"\x02?\x00");
        let gone = vec![(seq + 1, seq + 1); 4];
        Record::Note { index: 3 * index + 2, at: 0, ran: 0, losses: Losses::default(), gone }
            .encode(seal, &mut segment);
        index += 1;
    }
    let segments = (1..=8).map(|number| (number, segment.clone())).collect();
    let mut disk = Disk { segments, ..Disk::default() };
    let options = Options { events: 100_000, bytes: 1 << 26, ..OPTIONS };
    let begun = Instant::now();
    let mut ledger = Ledger::load("SN1", options, begun, TODAY, &mut disk).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(ledger.len().0, index as usize);
    ledger.close();
}

/// What happens to a medium with some events on it.
#[derive(Debug, Clone)]
enum Harm {
    Flip(Index, u8),
    Fill(Index, usize, u8),
    /// The end of the last segment is cut off.
    Cut(Index),
    Unreadable(Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<Index>(), 0..8u8).prop_map(|(place, bit)| Harm::Flip(place, 1 << bit)),
        2 => (any::<Index>(), 1..2000usize, any::<u8>()).prop_map(|(place, len, byte)| Harm::Fill(place, len, byte)),
        1 => any::<Index>().prop_map(Harm::Cut),
        1 => any::<Index>().prop_map(Harm::Unreadable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_come_in_order_and_lost_ones_are_counted_once(
        steps in vec((0..3000usize, 0..3usize), 1..60),
        harms in vec(harm(), 1..5),
    ) {
        let mut bench = Bench::new();
        let mut acknowledged = Vec::new();
        for (number, (len, acknowledge)) in steps.iter().enumerate() {
            bench.report(format!("{number}-{}", "x".repeat(*len)));
            bench.settle();
            for _ in 0..(*acknowledge).min(bench.sent.len()) {
                acknowledged.push(bench.acknowledge());
                bench.settle();
            }
        }
        bench.ledger.close();
        bench.settle();
        prop_assume!(bench.ledger.counts.dropped == 0);
        let before = Bench::with(OPTIONS, bench.disk.clone()).drain();
        prop_assert_eq!(before.len() + acknowledged.len(), steps.len());
        let whole = bench.disk;
        let mut disk = whole.clone();
        for harm in harms {
            let last = *disk.segments.keys().next_back().unwrap();
            let place = match harm {
                Harm::Flip(place, _) | Harm::Fill(place, ..) | Harm::Cut(place) | Harm::Unreadable(place) => place,
            };
            let number = *place.get(&disk.segments.keys().copied().collect::<Vec<_>>());
            let segment = disk.segments.get_mut(if matches!(harm, Harm::Cut(_)) { &last } else { &number }).unwrap();
            if segment.is_empty() {
                continue;
            }
            let at = place.index(segment.len());
            match harm {
                Harm::Flip(_, bits) => segment[at] ^= bits,
                Harm::Fill(_, len, byte) => {
                    let end = (at + len).min(segment.len());
                    segment[at..end].fill(byte);
                }
                Harm::Cut(_) => segment.truncate(at),
                Harm::Unreadable(_) => disk.bad.push((number, at as u64..at as u64 + 1)),
            }
        }
        let told = Bench::with(OPTIONS, disk.clone()).loaded().ledger;
        // A segment without its end and its begin says nothing of the medium: it may be the only one.
        if told.loaded {
            let reported = told.losses.untold.count;
            prop_assert_eq!(told.counts.dropped, reported);
            let (kept, lost) = left(disk.clone());
            prop_assert_eq!(lost, reported);
            prop_assert!(kept.iter().all(|body| before.contains(body) || acknowledged.contains(body)));
            let safe = kept.iter().filter(|body| before.contains(body)).count() as u64;
            // A note at the end that cannot be read any more is taken for an event: which it was, nobody knows.
            let (number, last) = whole.segments.last_key_value().unwrap();
            let unreadable = disk.bad.iter().any(|(bad, _)| bad == number) || !ends_with_note(&disk.segments[number]);
            let all = before.len() + acknowledged.len() + usize::from(ends_with_note(last) && unreadable);
            prop_assert!(safe + lost <= all as u64, "{} and {} lost of {}", safe, lost, all);
        }
    }
}
