//! What it costs to look back, and that an older segment is looked into as well.

use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::*;
use crate::journal::sqlite::SegmentWriter;
use crate::{Flags, StoreConfig};

/// Instructions of the database's machine for each attribute, at most: looks into three indexes and one row.
const EACH: u64 = 250;

fn path(name: &str) -> Arc<DevicePath> {
    let level = || Box::from("x");
    Arc::new(DevicePath { resource: level(), index: level(), area: level(), name: name.into() })
}

fn report(device: DeviceId, position: i64, path: &Arc<DevicePath>) -> Arc<Record> {
    Arc::new(Record {
        position: Position::new(position),
        device,
        serial: "S".into(),
        kind: RecordKind::Attribute,
        path: path.clone(),
        id: None,
        time: position * 10,
        received: position * 10,
        flags: Flags::NONE,
        data: position.to_string().into(),
    })
}

/// A sealed segment in which each of ten attributes of a device was reported so often, and the path of its file.
async fn sealed(dir: &std::path::Path, times: i64, device: DeviceId) -> (SegmentWriter, Vec<Arc<DevicePath>>) {
    let rows = times * 10;
    let config = StoreConfig { segment_rows: rows as u64, ..StoreConfig::new(dir) };
    let mut writer = SegmentWriter::open(dir.join("journal"), &config, 1, None).await.unwrap();
    let paths: Vec<_> = (0..10).map(|number| path(&number.to_string())).collect();
    let records: Vec<_> = (1..=rows + 1).map(|at| report(device, at, &paths[(at % 10) as usize])).collect();
    let mut rest = records.as_slice();
    while !rest.is_empty() {
        let told = writer.commit(rest, 0).await.ok().unwrap();
        rest = &rest[told.count..];
    }
    let first = writer.reader().list()[0].clone();
    while !first.is_sealed() {
        tokio::task::yield_now().await;
    }
    (writer, paths)
}

async fn opened(segment: &Segment, read_only: bool) -> SqliteConnection {
    SqliteConnectOptions::new().filename(&segment.path).read_only(read_only).connect().await.unwrap()
}

#[tokio::test]
async fn the_work_grows_with_what_is_asked_for_and_not_with_what_was_reported() {
    let device = DeviceId::mint();
    let mut spent = Vec::new();
    for times in [10, 2_000] {
        let dir = tempfile::tempdir().unwrap();
        let (writer, paths) = sealed(dir.path(), times, device).await;
        let segment = writer.reader().list()[0].clone();
        let mut connection = opened(&segment, true).await;
        let steps = Arc::new(AtomicU64::new(0));
        let counted = steps.clone();
        connection.lock_handle().await.unwrap().set_progress_handler(1, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            true
        });
        let last = Last { device, paths: &paths, until: Position::new(times * 5) };
        let rows: Vec<Row> = indexed(&last).build_query_as().fetch_all(&mut connection).await.unwrap();
        assert_eq!(rows.len(), 10);
        let indexed = steps.swap(0, Ordering::Relaxed);
        let rows: Vec<Row> = unindexed(&last).build_query_as().fetch_all(&mut connection).await.unwrap();
        assert_eq!(rows.len(), 10);
        spent.push((indexed, steps.load(Ordering::Relaxed)));
        connection.close().await.unwrap();
        writer.close().await;
    }
    let [(few, _), (many, by_device)] = spent[..] else { unreachable!("two rounds") };
    assert!(many <= 10 * EACH, "{many} instructions for ten attributes");
    assert!(many < few + few / 2, "{few} after 100 reports, {many} after 20,000");
    // So the measure tells one from the other.
    assert!(by_device > 10 * many, "{by_device}");
}

#[tokio::test]
async fn a_segment_sealed_without_the_index_is_looked_into_as_well() {
    let (dir, device) = (tempfile::tempdir().unwrap(), DeviceId::mint());
    let (writer, paths) = sealed(dir.path(), 20, device).await;
    let reader = writer.reader();
    let until = Position::new(95);
    let asked = [&paths[..], &[path("never")]].concat();
    let with: Vec<_> = reader.last_reports(device, &asked, until).await.unwrap();
    assert_eq!(with.iter().map(|record| record.position.get()).collect::<Vec<_>>(), (86..=95).collect::<Vec<_>>());
    let segment = reader.list()[0].clone();
    reader.reopen(&segment).await;
    // As an older version has left it, but for the checksums of its pages, which were compared already.
    let mut connection = opened(&segment, false).await;
    for index in ["record_report", "path_levels"] {
        connection.execute(sqlx::AssertSqlSafe(format!("DROP INDEX {index}"))).await.unwrap();
    }
    connection.close().await.unwrap();
    assert_eq!(reader.last_reports(device, &asked, until).await.unwrap(), with);
    writer.close().await;
}
