//! What happens between a commit and what is known of it.

use super::*;
use crate::{DeviceId, DevicePath, Flags, RecordKind, Scan};

fn batch(ids: &[Option<&str>]) -> Vec<Arc<Record>> {
    let device = DeviceId::mint();
    let level = || Box::from("x");
    let path = Arc::new(DevicePath { resource: level(), index: level(), area: level(), name: level() });
    let record = |(id, position): (&Option<&str>, i64)| Record {
        position: Position::new(position),
        device,
        serial: "S".into(),
        kind: RecordKind::Event,
        path: path.clone(),
        id: id.map(Box::from),
        time: 0,
        received: 0,
        flags: Flags::NONE,
        data: "1".into(),
    };
    ids.iter().zip(1..).map(record).map(Arc::new).collect()
}

async fn writer(dir: &Path, segment_rows: u64) -> SegmentWriter {
    let config = StoreConfig { segment_rows, ..StoreConfig::new(dir) };
    SegmentWriter::open(dir.join("journal"), &config, 1, None).await.unwrap()
}

#[tokio::test]
async fn a_commit_that_went_through_in_spite_of_an_error_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path(), 2).await;
    let batch = batch(&[Some("a"), None, Some("a"), None, Some("b")]);
    let mut rest = batch.as_slice();
    let mut dropped = Vec::new();
    while let Some(first) = rest.first() {
        let told = writer.commit(rest, 0).await.ok().unwrap();
        // As after an error: nothing is known but what the file says. Segments are full by now.
        (writer.active, writer.next) = (None, first.position.get());
        let again = writer.commit(rest, 0).await.ok().unwrap();
        assert_eq!((told.count, &told.dropped), (again.count, &again.dropped));
        rest = &rest[again.count..];
        dropped.extend(again.dropped);
    }
    assert_eq!(dropped, [Position::new(3)]);
    let scan = Scan { limit: 100, ..Scan::default() };
    let stored = writer.reader().scan(&scan).await.unwrap();
    assert_eq!(stored.iter().map(|record| record.position.get()).collect::<Vec<_>>(), [1, 2, 4, 5]);
    writer.close().await;
}

#[tokio::test]
async fn a_repetition_is_recognised_between_the_seal_and_its_result() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path(), 1).await;
    let batch = batch(&[Some("a"), Some("b")]);
    for first in 0..2 {
        assert!(writer.commit(&batch[first..], 0).await.is_ok());
    }
    while writer.ended[0].live.read().is_some() {
        tokio::task::yield_now().await;
    }
    let mut active = writer.active.take().unwrap();
    let (fresh, dropped) = writer.separate(&mut active, &batch).await.unwrap();
    assert!(fresh.is_empty() && dropped == [1, 2].map(Position::new));
    writer.active = Some(active);
    writer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_is_probed_while_it_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path(), 10).await;
    let batch = batch(&[Some("a")]);
    assert!(writer.commit(&batch, 0).await.is_ok());
    let (reader, segment) = (writer.reader(), writer.newest.clone().unwrap());
    let again = {
        let (reader, segment) = (reader.clone(), segment.clone());
        tokio::spawn(async move {
            for _ in 0..300 {
                reader.reopen(&segment).await;
            }
        })
    };
    let key = filter::key(&batch[0].device, "a");
    while !again.is_finished() {
        assert!(reader.contains(&segment, key, &batch[0]).await.unwrap());
    }
    again.await.unwrap();
    writer.close().await;
}
