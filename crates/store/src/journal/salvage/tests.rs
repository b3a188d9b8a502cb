//! Every byte that leads to rows, and others by sample, without the database: what is found is what was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::config::read_at;
use crate::journal::examine::{Examined, examine};
use crate::journal::pages::PAGE;
use crate::{DeviceId, DevicePath, Flags, Position, Record, RecordKind};

/// A segment of a few pages, one of whose rows lies on several.
async fn segment(dir: &TempDir) -> (PathBuf, Vec<Arc<Record>>) {
    let path = dir.path().join("2026-01-01-1.db");
    let device = DeviceId::mint();
    let level = Box::<str>::from;
    let record = |position: i64| {
        let name = if position % 4 == 0 { "one" } else { "other" };
        Arc::new(Record {
            position: Position::new(position),
            device,
            serial: "S".into(),
            kind: RecordKind::Event,
            path: Arc::new(DevicePath { resource: level("r"), index: level("0"), area: level("a"), name: level(name) }),
            id: Some(format!("{position}").into()),
            time: position,
            received: position,
            flags: Flags::NONE,
            data: "x".repeat(if position == 9 { 6_000 } else { 300 }).into(),
        })
    };
    let records: Vec<Arc<Record>> = (1..=30).map(record).collect();
    let mut active = Active::create(path.clone(), 0, 1).await.unwrap();
    active.store(&records.iter().collect::<Vec<_>>(), 31, 5).await.unwrap();
    active.close().await.unwrap();
    (path, records)
}

fn salvaged(path: &Path) -> BTreeMap<i64, Arc<Record>> {
    let batch = Rows::gather(path, i64::MAX, &read_at()).unwrap().batch().unwrap();
    batch.into_iter().map(|record| (record.position.get(), record)).collect()
}

#[tokio::test]
async fn no_byte_of_a_segment_can_alter_a_row_or_take_more_than_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let (path, records) = segment(&dir).await;
    let whole = fs::read(&path).unwrap();
    let written: BTreeMap<i64, Arc<Record>> =
        records.iter().map(|record| (record.position.get(), record.clone())).collect();
    assert!(matches!(examine(&path, &read_at()).unwrap(), Examined::Sound(_)));
    assert_eq!(salvaged(&path), written);

    let mut leaves = 0;
    for page in 0..whole.len() / PAGE {
        let range = page * PAGE..(page + 1) * PAGE;
        // What is lost with the whole page bounds what may be lost with one byte of it.
        let mut bytes = whole.clone();
        bytes[range.clone()].fill(0);
        fs::write(&path, &bytes).unwrap();
        let without = salvaged(&path);
        leaves += usize::from(without.len() < written.len());
        assert!(without.iter().all(|(position, record)| written.get(position) == Some(record)));

        for at in range {
            // Heads of file and pages, and the pointers behind; and a sample of the rest.
            if at % PAGE > 160 && at % 41 != 0 {
                continue;
            }
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let found = salvaged(&path);
            assert!(found.iter().all(|(position, record)| written.get(position) == Some(record)), "byte {at}: altered");
            assert!(
                without.keys().all(|position| found.contains_key(position)),
                "byte {at}: more than the page is lost"
            );
            match examine(&path, &read_at()).unwrap() {
                Examined::Sound(contents) => {
                    assert_eq!((found.len() as i64, contents.mark.rows), (30, 30), "byte {at}: not noticed");
                }
                Examined::Damaged(place) => assert!(!place.in_log && place.offset % PAGE as u64 == 0, "byte {at}"),
                Examined::HalfSealed(_) => panic!("byte {at}: there is no index"),
            }
        }
    }
    // Three rows a thousand bytes, six thousand of one row elsewhere.
    assert!((3..=5).contains(&leaves), "{leaves} pages have rows");
}
