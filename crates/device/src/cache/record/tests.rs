use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Records that own what they say, for proptest.
#[derive(Debug, Clone)]
enum Owned {
    Begin(u64, String),
    Event(u64, i64, String, String, Vec<u8>),
    Gone(Vec<(u64, u64)>),
    Losses(Losses),
}

impl Owned {
    fn record(&self) -> Record<'_> {
        match self {
            Self::Begin(floor, serial) => Record::Begin { format: FORMAT, floor: *floor, serial },
            Self::Event(seq, at, sub, topic, body) => Record::Event { seq: *seq, at: *at, sub, topic, body },
            Self::Gone(ranges) => Record::Gone(ranges.clone()),
            Self::Losses(losses) => Record::Losses(losses.clone()),
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
    let event = (seq(), any::<i64>(), "[ -~]{0,72}", ".{0,60}", vec(any::<u8>(), 0..200));
    let telling = proptest::option::of(("[!-~]{1,64}", loss()));
    prop_oneof![
        (seq(), "[ -~]{0,72}").prop_map(|(floor, serial)| Owned::Begin(floor, serial)),
        event.prop_map(|(seq, at, sub, topic, body)| Owned::Event(seq, at, sub, topic, body)),
        vec(range(), 0..20).prop_map(Owned::Gone),
        (telling, loss()).prop_map(|(telling, untold)| {
            Owned::Losses(Losses { telling: telling.map(|(id, loss)| (id.into(), loss)), untold })
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in vec(record(), 0..8), rubbish in vec(any::<u8>(), 0..7)) {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for record in &records {
            record.record().encode(&mut bytes);
            ends.push(bytes.len());
        }
        let whole = bytes.len();
        bytes.extend_from_slice(&rubbish);
        let mut scan = Scan::new(&bytes);
        for (record, ends) in records.iter().zip(ends.windows(2)) {
            prop_assert_eq!(scan.next(), Some((ends[0]..ends[1], record.record())));
        }
        prop_assert_eq!(scan.next(), None);
        prop_assert_eq!(scan.end(), whole);
    }

    #[test]
    fn a_flipped_bit_ends_the_scan_where_it_is(records in vec(record(), 1..6), place: prop::sample::Index, bit in 0..8) {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.record().encode(&mut bytes));
        let good: Vec<_> = Scan::new(&bytes).map(|(place, _)| place).collect();
        let flipped = place.index(bytes.len());
        bytes[flipped] ^= 1u8 << bit;
        let left: Vec<_> = Scan::new(&bytes).map(|(place, _)| place).collect();
        let before: Vec<_> = good.into_iter().take_while(|place| place.end <= flipped).collect();
        prop_assert_eq!(left, before);
    }

    #[test]
    fn any_bytes_are_scanned(bytes in vec(any::<u8>(), 0..300)) {
        let mut scan = Scan::new(&bytes);
        scan.by_ref().for_each(drop);
        prop_assert!(scan.end() <= bytes.len());
    }
}

#[test]
fn a_log_that_is_cut_anywhere_gives_the_whole_records_before_the_cut() {
    let records = [
        Owned::Begin(1, "SN0000001".into()),
        Owned::Event(1, 1_795_210_282_110, "global".into(), "/iot/SN0000001/x".into(), b"{}".to_vec()),
        Owned::Gone(vec![(1, 1), (4, 9)]),
        Owned::Losses(Losses::default()),
    ];
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for record in &records {
        record.record().encode(&mut bytes);
        ends.push(bytes.len());
    }
    for cut in 0..=bytes.len() {
        let expected = ends.iter().filter(|&&end| end <= cut).count();
        assert_eq!(Scan::new(&bytes[..cut]).count(), expected, "{cut}");
        // A file system may fill up with zeros what it did not get to write.
        let mut padded = bytes[..cut].to_vec();
        padded.resize(bytes.len() + 64, 0);
        // A record that ends in zeros is whole again with them.
        assert!(Scan::new(&padded).count() >= expected, "{cut}");
    }
    assert_eq!(Scan::new(&[0; 4096]).count(), 0, "zeros are no record");
}

#[test]
fn the_bytes_are_those_of_the_description() {
    let mut bytes = Vec::new();
    Record::Event { seq: 2, at: -1, sub: "S", topic: "/t", body: b"{}" }.encode(&mut bytes);
    let payload = [&[2, 2, 0, 0, 0, 0, 0, 0, 0][..], &[0xff; 8], &[1, b'S', 2, 0, b'/', b't', b'{', b'}']].concat();
    assert_eq!(bytes[..4], 25u32.to_le_bytes());
    assert_eq!(bytes[8..], payload);
    // The check value of CRC-32C, by which others know it.
    assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283);
    assert_eq!(bytes[4..8], CRC.checksum(&[&bytes[..4], &payload].concat()).to_le_bytes());
}

#[test]
fn what_is_no_record_is_not_read() {
    let framed = |payload: &[u8]| {
        let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
        [&len, &checksum(len, payload).to_le_bytes(), payload].concat()
    };
    let good = framed(&[3]);
    assert_eq!(Scan::new(&good).count(), 1);
    for bad in [&[][..], &[0], &[5], &[1, 1], &[2; 12], &[3, 1], &[4, 0], &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]] {
        assert_eq!(Scan::new(&framed(bad)).count(), 0, "{bad:?}");
    }
    let mut long = vec![2; MAX_PAYLOAD + 1];
    long[17] = 0;
    assert_eq!(Scan::new(&framed(&long)).count(), 0, "too long");
}
