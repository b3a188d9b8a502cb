//! Commits that fail: nothing is acknowledged, nothing is lost, and it goes on by itself.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqliteConnection};
use tempfile::TempDir;
use vestibule_store::{DeviceId, Journal, JournalHealth, Position, Store, StoreConfig};

use crate::bed::{Bed, NOON, commit, durable, eventually, everything, on_both, only_on, positions};

on_both!(
    a_failing_commit_keeps_everything_and_recovers,
    the_queue_is_bounded_while_commits_fail,
    closing_gives_up_on_a_database_that_stays_away,
);

only_on!(Sqlite: a_segment_that_cannot_be_made_is_made_later);

/// Keeps the journal from committing, for real: another process's lock on the file.
struct Obstacle(SqliteConnection);

impl Obstacle {
    async fn put(bed: &Bed) -> Obstacle {
        let path = bed.dir().join("journal/2026-02-03-1.db");
        let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
        connection.execute("BEGIN IMMEDIATE").await.unwrap();
        Obstacle(connection)
    }

    async fn clear(mut self) {
        self.0.execute("ROLLBACK").await.unwrap();
        self.0.close().await.unwrap();
    }
}

fn failing(journal: &Journal) -> bool {
    matches!(journal.health(), JournalHealth::Failing { .. })
}

async fn a_failing_commit_keeps_everything_and_recovers(bed: Bed) {
    let store = bed.open().await;
    let journal = &store.journal;
    let device = DeviceId::mint();
    commit(journal, [bed.event(device, "0")]).await;
    let obstacle = Obstacle::put(&bed).await;
    for n in 1..=100 {
        journal.append(bed.event(device, &n.to_string()));
    }
    eventually("failing", || failing(journal)).await;
    let JournalHealth::Failing { since_ms, error } = journal.health() else { unreachable!("it fails") };
    assert_eq!(since_ms, NOON);
    assert!(!error.is_empty());
    // What comes meanwhile waits too; the beginning of the trouble is remembered.
    bed.advance(5_000);
    for n in 101..=200 {
        journal.append(bed.event(device, &n.to_string()));
    }
    assert_eq!(journal.durable(), Position::new(1));
    assert!(matches!(journal.health(), JournalHealth::Failing { since_ms: NOON, .. }));
    obstacle.clear().await;

    durable(journal, Position::new(201)).await;
    eventually("healthy", || journal.health() == JournalHealth::Ok).await;
    assert_eq!(positions(&everything(journal).await), (1..=201).collect::<Vec<_>>());
    store.close().await;
}

async fn the_queue_is_bounded_while_commits_fail(bed: Bed) {
    let store = bed
        .open_with(|config| {
            config.queue_records = 50;
            config.queue_bytes = 1 << 20;
        })
        .await;
    let journal = &store.journal;
    let device = DeviceId::mint();
    commit(journal, [bed.event(device, "first")]).await;
    let obstacle = Obstacle::put(&bed).await;
    for n in 0..50 {
        assert!(journal.has_room(), "{n}");
        journal.append(bed.event(device, &n.to_string()));
    }
    assert!(!journal.has_room());
    // Who does not ask is served nevertheless.
    let mut last = journal.append(bed.event(device, "beyond"));
    obstacle.clear().await;
    tokio::time::timeout(Duration::from_secs(60), journal.room()).await.expect("there was never room again");
    assert!(journal.has_room());
    durable(journal, last).await;

    // Bytes count as well.
    let obstacle = Obstacle::put(&bed).await;
    for n in 0..3 {
        assert!(journal.has_room(), "{n}");
        let mut record = bed.event(device, &format!("large {n}"));
        record.data = format!("\"{}\"", "x".repeat(400_000)).into();
        last = journal.append(record);
    }
    assert!(!journal.has_room());
    obstacle.clear().await;
    durable(journal, last).await;
    eventually("room", || journal.has_room()).await;
    assert_eq!(everything(journal).await.len(), 1 + 51 + 3);
    store.close().await;
}

async fn closing_gives_up_on_a_database_that_stays_away(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    commit(&store.journal, [bed.event(device, "kept")]).await;
    let obstacle = Obstacle::put(&bed).await;
    let lost = store.journal.append(bed.event(device, "never acknowledged"));
    store.close().await;
    assert!(store.journal.durable() < lost);
    obstacle.clear().await;
    let store = bed.open().await;
    assert_eq!(positions(&everything(&store.journal).await), [1]);
    store.close().await;
}

async fn a_segment_that_cannot_be_made_is_made_later(bed: Bed) {
    let store = bed.open().await;
    let (dir, away) = (bed.dir().join("journal"), bed.dir().join("journal.away"));
    std::fs::rename(&dir, &away).unwrap();
    std::fs::write(&dir, b"not a directory").unwrap();
    let position = store.journal.append(bed.event(DeviceId::mint(), "a"));
    eventually("failing", || failing(&store.journal)).await;
    std::fs::remove_file(&dir).unwrap();
    std::fs::rename(&away, &dir).unwrap();
    durable(&store.journal, position).await;
    assert_eq!(positions(&everything(&store.journal).await), [1]);
    store.close().await;
}

const FULL_DISK_DIR: &str = "VESTIBULE_TEST_FULL_DISK_DIR";

/// The file system refuses to let files grow, in the middle of a segment. The limit is one of a process, so a child runs
/// the store; the shell ignores the signal that comes with the limit.
#[test]
fn a_disk_that_takes_no_more_stops_acknowledgements_until_it_does() {
    if let Some(dir) = std::env::var_os(FULL_DISK_DIR) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(full_disk(StoreConfig::new(dir)));
        return;
    }
    let dir = TempDir::new().unwrap();
    let output = Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; ulimit -S -f 2000; exec "$@""#, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "failure::a_disk_that_takes_no_more_stops_acknowledgements_until_it_does", "--nocapture"])
        .env(FULL_DISK_DIR, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("the disk was full and took everything later"), "{text}");
}

async fn full_disk(config: StoreConfig) {
    let bed = Bed::new(crate::bed::Backend::Sqlite).await;
    let store = Store::open(config.clone()).await.unwrap();
    let journal = &store.journal;
    let device = DeviceId::mint();
    let mut appended = 0;
    while !failing(journal) {
        assert!(appended < 100_000, "the limit is never reached");
        let last = journal.append(bed.event(device, &appended.to_string()));
        appended += 1;
        eventually("durable or failing", || journal.durable() >= last || failing(journal)).await;
    }
    let acknowledged = journal.durable().get();
    assert!(acknowledged > 10 && acknowledged < appended);
    let limit = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    durable(journal, Position::new(appended)).await;
    store.close().await;

    let store = Store::open(config).await.unwrap();
    assert_eq!(positions(&everything(&store.journal).await), (1..=appended).collect::<Vec<_>>());
    store.close().await;
    println!("the disk was full and took everything later");
}
