use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Records that own what they say, for proptest.
#[derive(Debug, Clone)]
enum Owned {
    Begin(u64, Before, String),
    Event(u32, u64, i64, String, String, Vec<u8>),
    Note(u32, Losses, Vec<(u64, u64)>),
}

/// The device whose records they are.
fn seal() -> Seal {
    Seal::of("SN0000001")
}

/// Where there are records, and where something else.
fn scanned(bytes: &[u8]) -> Vec<(Range<usize>, bool)> {
    let mut bytes = bytes.to_vec();
    Scan::new(seal(), &mut bytes).map(|(place, scanned)| (place, matches!(scanned, Scanned::Record(_)))).collect()
}

/// Records in some bytes.
fn records(bytes: &[u8]) -> Vec<Range<usize>> {
    scanned(bytes).into_iter().filter(|(_, record)| *record).map(|(place, _)| place).collect()
}

impl Owned {
    fn record(&self) -> Record<'_> {
        match self {
            Self::Begin(floor, before, serial) => {
                Record::Begin { format: FORMAT, floor: *floor, before: *before, serial }
            }
            Self::Event(index, seq, at, sub, topic, body) => {
                Record::Event { index: *index, seq: *seq, at: *at, ran: 7, sub, topic, body }
            }
            Self::Note(index, losses, gone) => {
                Record::Note { index: *index, at: -7, ran: 8, losses: losses.clone(), gone: gone.clone() }
            }
        }
    }
}

fn loss() -> impl Strategy<Value = Loss> {
    any::<(u64, i64, i64)>().prop_map(|(count, from, to)| Loss { count, from, to })
}

fn seq() -> impl Strategy<Value = u64> {
    1..=MAX_SEQ
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (seq(), seq()).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

fn record() -> impl Strategy<Value = Owned> {
    let event = (0..=MAX_INDEX, seq(), any::<i64>(), "[ -~]{0,72}", ".{0,60}", vec(any::<u8>(), 0..600));
    let telling = proptest::option::of(("[!-~]{1,64}", loss()));
    let before = (any::<u64>(), 0..=MAX_INDEX).prop_map(|(segment, events)| Before { segment, events });
    prop_oneof![
        (seq(), before, "[ -~]{0,72}").prop_map(|(floor, before, serial)| Owned::Begin(floor, before, serial)),
        event.prop_map(|(index, seq, at, sub, topic, body)| Owned::Event(index, seq, at, sub, topic, body)),
        (0..=MAX_INDEX, telling, loss(), vec(range(), 0..20)).prop_map(|(index, telling, untold, gone)| {
            let telling = telling.map(|(id, loss)| (id.into(), loss));
            Owned::Note(index, Losses { telling, untold }, gone)
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in vec(record(), 0..8), rubbish in vec(1u8.., 0..7)) {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for record in &records {
            record.record().encode(seal(), &mut bytes);
            ends.push(bytes.len());
        }
        let whole = bytes.len();
        bytes.extend_from_slice(&rubbish);
        let mut scan = Scan::new(seal(), &mut bytes);
        for (record, ends) in records.iter().zip(ends.windows(2)) {
            prop_assert_eq!(scan.next(), Some((ends[0]..ends[1], Scanned::Record(record.record()))));
        }
        let rest = (!rubbish.is_empty()).then_some((whole..whole + rubbish.len(), Scanned::Cut));
        prop_assert_eq!(scan.next(), rest);
        prop_assert_eq!(scan.next(), None);
    }

    #[test]
    fn a_flipped_bit_costs_the_records_it_touches(list in vec(record(), 1..6), place: prop::sample::Index, bit in 0..8) {
        let mut bytes = Vec::new();
        list.iter().for_each(|record| record.record().encode(seal(), &mut bytes));
        let good = records(&bytes);
        let flipped = place.index(bytes.len());
        bytes[flipped] ^= 1u8 << bit;
        // With its zero a record takes along the one behind it.
        let spared = |place: &Range<usize>| place.end <= flipped || place.start > flipped + 1;
        let left = records(&bytes);
        prop_assert_eq!(left, good.into_iter().filter(spared).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_scanned(bytes in vec(any::<u8>(), 0..300)) {
        let mut end = 0;
        for (place, _) in scanned(&bytes) {
            prop_assert_eq!(place.start, end);
            prop_assert!(place.end > end);
            end = place.end;
        }
        prop_assert_eq!(end, bytes.len());
    }
}

#[test]
fn groups_end_where_they_must() {
    for len in [0, 1, 253, 254, 255, 507, 508, 509, 1016] {
        for fill in [0, 1] {
            let body = vec![fill; len];
            let event = Record::Event { index: 1, seq: 1, at: -1, ran: u32::MAX, sub: "S", topic: "/t", body: &body };
            let mut bytes = Vec::new();
            event.encode(seal(), &mut bytes);
            assert_eq!(bytes.iter().position(|byte| *byte == 0), Some(bytes.len() - 1), "{len} {fill}");
            assert_eq!(Scan::first(seal(), &mut bytes), Some(event), "{len} {fill}");
        }
    }
}

#[test]
fn a_log_that_is_cut_anywhere_gives_the_whole_records_before_the_cut() {
    let list = [
        Owned::Begin(1, Before::default(), "SN0000001".into()),
        Owned::Event(0, 1, 1_795_210_282_110, "global".into(), "/iot/SN0000001/x".into(), b"{}".to_vec()),
        Owned::Note(1, Losses::default(), vec![(1, 1), (4, 9)]),
    ];
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for record in &list {
        record.record().encode(seal(), &mut bytes);
        ends.push(bytes.len());
    }
    for cut in 0..=bytes.len() {
        let expected = ends.iter().filter(|&&end| end <= cut).count();
        assert_eq!(records(&bytes[..cut]).len(), expected, "{cut}");
        // A file system may fill up with zeros what it did not get to write.
        let mut padded = bytes[..cut].to_vec();
        padded.resize(bytes.len() + 64, 0);
        // A record that lacks its zero only is whole again with them.
        assert!(records(&padded).len() >= expected, "{cut}");
    }
    assert_eq!(records(&[0; 4096]).len(), 0, "zeros are no record");
}

#[test]
fn the_bytes_are_those_of_the_description() {
    let mut bytes = Vec::new();
    Record::Event { index: 3, seq: 2, at: -1, ran: 5, sub: "S", topic: "/t", body: b"{}" }.encode(seal(), &mut bytes);
    let payload = [
        &[2, 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0][..],
        &[0xff; 8],
        &[5, 0, 0, 0, 1, b'S', 2, 0, b'/', b't', b'{', b'}'],
    ]
    .concat();
    // The check value of CRC-32C, by which others know it.
    assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283);
    let device = CRC.checksum(&[&[FORMAT][..], b"SN0000001"].concat());
    let crc = CRC.checksum(&[&device.to_le_bytes()[..], &payload].concat());
    let whole = [&payload[..], &crc.to_le_bytes()].concat();
    // Each zero is the end of a group.
    let stuffed: Vec<u8> =
        whole.split(|byte| *byte == 0).flat_map(|group| [&[group.len() as u8 + 1], group].concat()).collect();
    assert_eq!(bytes, [&stuffed[..], &[0]].concat());
}

#[test]
fn what_is_no_record_is_not_read() {
    let framed = |payload: &[u8]| {
        let mut bytes = Vec::new();
        frame(seal(), payload, &mut bytes);
        bytes
    };
    let mut good = vec![3];
    good.resize(1 + 4 + 8 + 4 + 1 + 48, 0);
    assert_eq!(records(&framed(&good)).len(), 1);
    let note = [&good[..], &[0; 15]].concat();
    let begin = [&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0; 12], &[1, 0xff]].concat();
    for bad in [&[][..], &[0], &[5], &[1, 1], &[2; 12], &note, &begin] {
        assert_eq!(records(&framed(bad)).len(), 0, "{bad:?}");
    }
    let event = |len: usize| {
        let mut bytes = Vec::new();
        let body = vec![1; len];
        Record::Event { index: 0, seq: 1, at: 0, ran: 0, sub: "", topic: "", body: &body }.encode(seal(), &mut bytes);
        bytes
    };
    assert_eq!(records(&event(MAX_PAYLOAD - 28)).len(), 1);
    assert_eq!(records(&event(MAX_PAYLOAD - 27)).len(), 0, "too long");
    let mut other = Vec::new();
    frame(Seal::of("SN0000002"), &good, &mut other);
    assert_eq!(records(&other).len(), 0, "of another device");
}
