//! What happens between a commit and what is known of it.

use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

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

#[tokio::test]
async fn what_a_failed_commit_left_in_a_damaged_segment_is_not_stored_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path(), 100).await;
    let batch = batch(&[None, None, None, None]);
    let (before, failed) = batch.split_at(3);
    writer.commit(before, 0).await.unwrap();
    let first = writer.newest.clone().unwrap();
    // It went through, and nobody was told; then the file was damaged.
    writer.active.as_mut().unwrap().store(&[&failed[0]], 5, 0).await.unwrap();
    writer.active.take().unwrap().abandon().await.unwrap();
    let mut connection = SqliteConnectOptions::new().filename(&first.path).connect().await.unwrap();
    connection.execute("UPDATE record SET time = 7 WHERE position = 1").await.unwrap();
    connection.close().await.unwrap();

    // The first attempt to salvage it fails.
    let obstacle = first.path.with_extension("db-salvage-wal");
    std::fs::create_dir_all(&obstacle).unwrap();
    assert_eq!(writer.commit(failed, 0).await.unwrap().count, 1, "it does not wait for the salvage");
    assert!(!writer.may_look() && writer.last() == Position::new(4));
    for attempt in 0..2 {
        while !writer.may_look() {
            let done = writer.beside().await;
            writer.went(done).await;
        }
        assert_eq!(writer.damages().list().len(), attempt);
        if attempt == 0 {
            std::fs::remove_dir_all(&obstacle).unwrap();
            writer.seal_again();
            assert!(writer.sealing.is_none() && !writer.may_look());
        }
    }
    let damage = writer.damages().list();
    assert_eq!((damage.len(), damage[0].salvaged), (1, 2), "{damage:?}");
    let scan = Scan { limit: 100, ..Scan::default() };
    let stored = writer.reader().scan(&scan).await.unwrap();
    assert_eq!(stored.iter().map(|record| record.position.get()).collect::<Vec<_>>(), [2, 3, 4]);
    writer.close().await;
}

#[tokio::test]
async fn a_disk_that_fails_as_a_whole_has_no_segment_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let refusing = Arc::new(AtomicUsize::new(0));
    let from = refusing.clone();
    let mut config = StoreConfig::new(dir.path());
    config.read_at = Arc::new(move |_, file, bytes, offset| match from.load(Ordering::SeqCst) {
        from if from > 0 && offset + bytes.len() as u64 >= from as u64 => Err(Errno::IO.into()),
        _ => file.read_at(bytes, offset),
    });
    let mut writer = SegmentWriter::open(dir.path().join("journal"), &config, 1, None).await.unwrap();
    let batch = batch(&[None, None]);
    writer.commit(&batch[..1], 0).await.unwrap();
    let first = writer.newest.clone().unwrap();
    // As after a commit that failed, on a disk that reads nothing, or not all and takes no other file.
    writer.active.take().unwrap().abandon().await.unwrap();
    let name = file_name(day((writer.now)()), 1);
    let obstacle = dir.path().join("journal").join(format!("{name}-new"));
    for (refused, is_writable) in [(1, true), (5 * 4_096, false)] {
        refusing.store(refused, Ordering::SeqCst);
        if !is_writable {
            std::fs::create_dir(&obstacle).unwrap();
        }
        for _ in 0..2 {
            assert!(writer.commit(&batch[1..], 0).await.is_err());
            assert!(writer.may_look() && writer.newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, &first)));
        }
    }
    std::fs::remove_dir(&obstacle).unwrap();
    refusing.store(0, Ordering::SeqCst);
    assert_eq!(writer.commit(&batch[1..], 0).await.unwrap().count, 1);
    let stored = writer.reader().scan(&Scan { limit: 100, ..Scan::default() }).await.unwrap();
    assert_eq!((stored.len(), writer.reader().list().len()), (2, 1));
    assert_eq!(writer.damages().list(), []);
    writer.close().await;
}
