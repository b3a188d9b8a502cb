//! The copy of the journal in PostgreSQL.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Executor as _;
use tempfile::TempDir;
use vestibule_store::{
    DeviceId, EnvelopeKey, Flags, Journal, JournalHealth, OpenError, Position, Record, RecordKind, Secret, Store,
    StoreConfig,
};

use crate::bed::{Bed, HOUR, NOON, commit, durable, eventually, everything, only_on, path, positions};
use crate::control::row;
use crate::meter::Meter;
use crate::proxy::Proxy;

only_on!(Postgres:
    what_is_committed_is_copied_as_it_is,
    large_records_are_copied_a_few_at_a_time,
    closing_copies_the_rest,
    the_store_opens_and_commits_without_a_table_to_copy_to,
    devices_are_acknowledged_while_the_server_is_away,
    cuts_at_any_byte_lose_and_repeat_nothing,
    a_lost_connection_is_made_again,
    a_node_that_was_closed_during_an_outage_catches_up,
    what_is_not_copied_is_not_removed,
    a_cap_that_is_reached_during_an_outage_holds_until_it_ends,
    old_rows_are_removed_from_the_copy,
    a_clock_stepped_forward_removes_nothing_from_the_copy,
    two_journals_at_once_are_refused,
    a_journal_that_is_lost_is_gone_on_behind,
    a_copy_that_was_taken_over_is_not_written,
    a_server_told_not_to_sync_commits_is_told_otherwise,
    what_is_copied_is_counted,
);

/// Position and event id of every row.
async fn copied(bed: &Bed) -> Vec<(i64, Option<String>)> {
    sqlx::query_as("SELECT position, event_id FROM journal_record ORDER BY position")
        .fetch_all(&mut bed.pg().await)
        .await
        .unwrap()
}

fn told(records: &[Arc<Record>]) -> Vec<(i64, Option<String>)> {
    records.iter().map(|record| (record.position.get(), record.id.as_deref().map(str::to_owned))).collect()
}

/// Waits until the copy goes up to this position; whatever is there before is the beginning of the journal.
async fn copied_up_to(bed: &Bed, journal: &Journal, position: Position) {
    let all = told(&everything(journal).await);
    let mut pg = bed.pg().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let (next,): (i64,) = sqlx::query_as("SELECT next FROM journal_mark").fetch_one(&mut pg).await.unwrap();
        let rows = copied(bed).await;
        assert!(all.starts_with(&rows), "the copy is not a beginning of the journal");
        if next > position.get() {
            assert_eq!(rows, all);
            return;
        }
        assert!(std::time::Instant::now() < deadline, "the copy stays at {next}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A way to the bed's database, and the store's configuration over it.
async fn proxied(bed: &Bed) -> (Proxy, StoreConfig) {
    let mut config = bed.config();
    let url = config.url.take().unwrap();
    let (head, rest) = url.split_once("127.0.0.1:").unwrap();
    let (port, tail) = rest.split_once('/').unwrap();
    let proxy = Proxy::before(([127, 0, 0, 1], port.parse().unwrap()).into()).await;
    config.url = Some(format!("{head}127.0.0.1:{}/{tail}", proxy.port));
    (proxy, config)
}

async fn what_is_committed_is_copied_as_it_is(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    let mut rich = bed.event(device, "rich");
    rich.kind = RecordKind::Pass;
    rich.path = path("Käse", "Fläche", "名前");
    rich.serial = "S/\"'%_".into();
    rich.time = -62_135_596_800_000;
    rich.received = NOON + 7;
    rich.flags = Flags::CLOCK_SUSPECT | Flags::NO_TIME;
    rich.data = r#"{"text":"ß \u0000 ' \" \\ 🦀"}"#.into();
    let nameless = Record { id: None, ..bed.event(device, "") };
    // More than a batch, with repetitions in it.
    let many = (0..2_600).map(|n| bed.event(device, &(n % 2_400).to_string()));
    let given = commit(&store.journal, [rich, nameless.clone(), nameless].into_iter().chain(many)).await;
    let last = given[given.len() - 1];
    copied_up_to(&bed, &store.journal, last).await;
    let mut pg = bed.pg().await;
    let numbers: Vec<(i64, Vec<u8>, i16, i64, i64, i16)> = sqlx::query_as(
        "SELECT position, device, kind, time, received, flags FROM journal_record ORDER BY position LIMIT 2",
    )
    .fetch_all(&mut pg)
    .await
    .unwrap();
    let id = device.as_bytes().to_vec();
    let expected = [(1, id.clone(), 4, -62_135_596_800_000, NOON + 7, 5), (2, id, 1, NOON, NOON, 0)];
    assert_eq!(numbers, expected);
    let texts: Vec<Option<String>> = sqlx::query_scalar(
        "SELECT unnest(ARRAY[serial, resource, idx, area, name, event_id, data]) FROM journal_record \
         WHERE position = 1 OR position = 2 ORDER BY position",
    )
    .fetch_all(&mut pg)
    .await
    .unwrap();
    let first = ["S/\"'%_", "Käse", "0", "Fläche", "名前", "rich", r#"{"text":"ß \u0000 ' \" \\ 🦀"}"#].map(Some);
    let second =
        [Some("SERIAL-1"), Some("global"), Some("0"), Some("area"), Some("name"), None, Some(r#"{"value":1}"#)];
    assert_eq!(texts.iter().map(Option::as_deref).collect::<Vec<_>>(), [first, second].concat());
    store.close().await;
}

async fn large_records_are_copied_a_few_at_a_time(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    let large = |n: usize, bytes: usize| Record {
        data: format!("\"{}\"", "x".repeat(bytes)).into(),
        ..bed.event(device, &n.to_string())
    };
    // One alone is more than a transaction takes otherwise.
    let sizes = [1, 3 << 20, 3 << 20, 3 << 20, 9 << 20, 1, 6 << 20];
    let given = commit(&store.journal, sizes.into_iter().enumerate().map(|(n, bytes)| large(n, bytes))).await;
    copied_up_to(&bed, &store.journal, given[6]).await;
    store.close().await;
}

async fn closing_copies_the_rest(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    for n in 0..5_000 {
        store.journal.append(bed.event(device, &n.to_string()));
    }
    store.close().await;
    assert_eq!(copied(&bed).await.len(), 5_000);
}

async fn the_store_opens_and_commits_without_a_table_to_copy_to(bed: Bed) {
    bed.open().await.close().await;
    let mut admin = bed.pg().await;
    admin.execute("ALTER TABLE journal_record RENAME TO put_away").await.unwrap();
    let store = bed.open().await;
    let last = commit(&store.journal, (0..10).map(|n| bed.event(DeviceId::mint(), &n.to_string()))).await[9];
    assert_eq!(store.journal.health(), JournalHealth::Ok);
    admin.execute("ALTER TABLE put_away RENAME TO journal_record").await.unwrap();
    copied_up_to(&bed, &store.journal, last).await;
    store.close().await;
}

async fn devices_are_acknowledged_while_the_server_is_away(bed: Bed) {
    let (proxy, config) = proxied(&bed).await;
    let store = Store::open(StoreConfig { tail_records: 100, segment_rows: 700, ..config }).await.unwrap();
    let device = DeviceId::mint();
    let before = commit(&store.journal, (0..100).map(|n| bed.event(device, &n.to_string()))).await;
    copied_up_to(&bed, &store.journal, before[99]).await;
    proxy.cut();
    // More than memory keeps and than a transaction takes.
    for part in 0..3_i64 {
        let from = 100 + part * 1_000;
        commit(&store.journal, (from..from + 1_000).map(|n| bed.event(device, &n.to_string()))).await;
        assert_eq!(store.journal.health(), JournalHealth::Ok);
    }
    assert_eq!(everything(&store.journal).await.len(), 3_100);
    assert_eq!(copied(&bed).await.len(), 100);
    proxy.heal();
    copied_up_to(&bed, &store.journal, Position::new(3_100)).await;
    store.close().await;
}

async fn cuts_at_any_byte_lose_and_repeat_nothing(bed: Bed) {
    let (proxy, config) = proxied(&bed).await;
    let store = Store::open(StoreConfig { tail_records: 50, ..config.clone() }).await.unwrap();
    let device = DeviceId::mint();
    let mut last = Position::START;
    for (round, bytes) in (0..).zip([300, 1_500, 20_000, 60_000, 150_000]) {
        proxy.cut();
        // What the rounds before left is copied with it.
        last = commit(&store.journal, (0..400).map(|n| bed.event(device, &format!("{round}-{n}")))).await[399];
        proxy.heal_for(bytes);
        eventually("the next cut", || proxy.is_cut()).await;
        let all = told(&everything(&store.journal).await);
        assert!(all.starts_with(&copied(&bed).await));
    }
    assert!(copied(&bed).await.len() < 5 * 400, "no cut came in between: the test says nothing");
    proxy.heal();
    copied_up_to(&bed, &store.journal, last).await;
    store.close().await;
}

async fn a_lost_connection_is_made_again(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    let mut admin = bed.pg().await;
    let mut last = Position::START;
    for round in 0..5 {
        last = commit(&store.journal, (0..50).map(|n| bed.event(device, &format!("{round}-{n}")))).await[49];
        admin
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await
            .unwrap();
    }
    copied_up_to(&bed, &store.journal, last).await;
    store.close().await;
}

async fn a_node_that_was_closed_during_an_outage_catches_up(bed: Bed) {
    let (proxy, config) = proxied(&bed).await;
    let device = DeviceId::mint();
    for round in 0..3 {
        proxy.heal();
        let store = Store::open(config.clone()).await.unwrap();
        commit(&store.journal, (0..100).map(|n| bed.event(device, &format!("{round}-{n}")))).await;
        proxy.cut();
        commit(&store.journal, (100..300).map(|n| bed.event(device, &format!("{round}-{n}")))).await;
        store.close().await;
        // The control database is needed to open.
        assert!(matches!(Store::open(config.clone()).await.err(), Some(OpenError::Database { .. })));
    }
    assert!(copied(&bed).await.len() < 900);
    let store = bed.open().await;
    copied_up_to(&bed, &store.journal, Position::new(900)).await;
    store.close().await;
}

async fn what_is_not_copied_is_not_removed(bed: Bed) {
    let (proxy, config) = proxied(&bed).await;
    let day = Duration::from_secs(24 * 3600);
    let store = Store::open(StoreConfig { retention: day, segment_rows: 10, ..config }).await.unwrap();
    let device = DeviceId::mint();
    let mut count = 0;
    let mut some = |bed: &Bed, more: usize| {
        count += more;
        (count - more..count).map(|n| bed.event(device, &n.to_string())).collect::<Vec<_>>()
    };
    let first = commit(&store.journal, some(&bed, 15)).await;
    copied_up_to(&bed, &store.journal, first[14]).await;
    proxy.cut();
    commit(&store.journal, some(&bed, 20)).await;
    bed.advance(72 * HOUR);
    // A new segment begins, and those whose time is over go, as far as they are copied.
    commit(&store.journal, some(&bed, 5)).await;
    assert_eq!(positions(&everything(&store.journal).await), (11..=40).collect::<Vec<_>>());
    proxy.heal();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while copied(&bed).await.last().map(|(position, _)| *position) != Some(40) {
        assert!(std::time::Instant::now() < deadline, "the copy is never whole");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bed.advance(24 * HOUR);
    // Some more segments, so that what the forwarder has copied is looked at again.
    let last = commit(&store.journal, some(&bed, 20)).await;
    assert_eq!(positions(&everything(&store.journal).await), (36..=60).collect::<Vec<_>>());
    store.close().await;
    assert_eq!(copied(&bed).await.last().map(|(position, _)| *position), Some(last[19].get()));
}

async fn a_cap_that_is_reached_during_an_outage_holds_until_it_ends(bed: Bed) {
    let (proxy, config) = proxied(&bed).await;
    let config = StoreConfig { retention: Duration::from_secs(3600), max_bytes: Some(2_000_000), ..config };
    let store = Store::open(config).await.unwrap();
    let journal = &store.journal;
    let device = DeviceId::mint();
    let large =
        |n: usize| Record { data: format!("\"{}\"", "x".repeat(10_000)).into(), ..bed.event(device, &n.to_string()) };
    proxy.cut();
    commit(journal, (0..50).map(large)).await;
    // Two days later its time is over: nothing but the outage keeps the segment.
    bed.advance(48 * HOUR);
    let mut last = commit(journal, [large(50)]).await[0];
    let log = bed.dir().join("journal/2026-02-03-1.db-wal");
    eventually("the first segment is sealed", || !log.exists()).await;
    let full = || matches!(journal.health(), JournalHealth::Full { .. });
    for n in 51.. {
        assert!(n < 500, "the cap is never reached");
        last = journal.append(large(n));
        eventually("durable or full", || journal.durable() >= last || full()).await;
        if full() {
            break;
        }
    }
    assert!(journal.durable() < last);
    assert_eq!(everything(journal).await.len() as i64, last.get() - 1);
    assert_eq!(copied(&bed).await, []);
    proxy.heal();
    durable(journal, last).await;
    eventually("healthy", || journal.health() == JournalHealth::Ok).await;
    assert_eq!(journal.oldest().await.unwrap(), Some(Position::new(51)));
    store.close().await;
    assert_eq!(copied(&bed).await.last().map(|(position, _)| *position), Some(last.get()));
}

async fn old_rows_are_removed_from_the_copy(bed: Bed) {
    let day = Duration::from_secs(24 * 3600);
    let open = || bed.open_with(|config| (config.retention, config.segment_rows) = (day, 1_000));
    let store = open().await;
    let device = DeviceId::mint();
    // More than one statement removes.
    let given = commit(&store.journal, (0..10_500).map(|n| bed.event(device, &n.to_string()))).await;
    bed.advance(20 * HOUR);
    let given = [given, commit(&store.journal, [bed.event(device, "young")]).await].concat();
    copied_up_to(&bed, &store.journal, given[given.len() - 1]).await;
    store.close().await;
    bed.advance(5 * HOUR);
    let store = open().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while copied(&bed).await.len() != 1 {
        assert!(std::time::Instant::now() < deadline, "old rows stay");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(copied(&bed).await, [(10_501, Some("young".to_owned()))]);
    store.close().await;
}

async fn a_clock_stepped_forward_removes_nothing_from_the_copy(bed: Bed) {
    let open = || bed.open_with(|config| config.segment_rows = 10);
    let store = open().await;
    let device = DeviceId::mint();
    commit(&store.journal, (0..25).map(|n| bed.event(device, &n.to_string()))).await;
    store.close().await;
    bed.step(400 * 24 * HOUR);
    let store = open().await;
    // Retention comes after a copy: with the second one it has been.
    for n in 25..27 {
        let given = commit(&store.journal, [bed.event(device, &n.to_string())]).await;
        copied_up_to(&bed, &store.journal, given[0]).await;
    }
    assert_eq!(copied(&bed).await.len(), 27);
    store.close().await;
}

async fn two_journals_at_once_are_refused(bed: Bed) {
    let store = bed.open().await;
    let elsewhere = TempDir::new().unwrap();
    let mut config = bed.config();
    config.dir = elsewhere.path().join("data");
    // What is in the registry is sealed under the key of the first.
    config.envelope_key = Some(EnvelopeKey::read(&bed.dir().join("keys/envelope.key")).unwrap());
    let error = Store::open(config.clone()).await.err().expect("the store opened");
    assert!(matches!(error, OpenError::JournalInUse), "{error}");
    commit(&store.journal, [bed.event(DeviceId::mint(), "a")]).await;
    store.close().await;
    assert_eq!(copied(&bed).await.len(), 1);
    Store::open(config).await.unwrap().close().await;
}

async fn a_journal_that_is_lost_is_gone_on_behind(bed: Bed) {
    let device = DeviceId::mint();
    let store = bed.open().await;
    let hub = row("HUB");
    store.control.insert_device(&hub, &Secret::new(*b"ABCDEF")).await.unwrap();
    commit(&store.journal, (0..20).map(|n| bed.event(device, &n.to_string()))).await;
    store.close().await;
    // As the twin may be: ahead of the copy.
    let store = bed.open().await;
    store.control.put_leaves(Vec::new(), Some(Position::new(30))).await.unwrap();
    store.close().await;
    std::fs::remove_dir_all(bed.dir().join("journal")).unwrap();

    let store = bed.open().await;
    assert_eq!(store.journal.durable(), Position::new(30));
    // Devices repeat what they were not told was taken; it is there once.
    let given = commit(&store.journal, ["19", "20"].map(|id| bed.event(device, id))).await;
    assert_eq!(given, [31, 32].map(Position::new));
    store.close().await;
    let ids: Vec<String> = copied(&bed).await.into_iter().filter_map(|(_, id)| id).collect();
    assert_eq!(ids, (0..=20).map(|n| n.to_string()).collect::<Vec<_>>());
    // And so it stays.
    let store = bed.open().await;
    assert_eq!(store.journal.durable(), Position::new(32));
    store.close().await;
}

async fn a_copy_that_was_taken_over_is_not_written(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    let mine = commit(&store.journal, [bed.event(device, "mine")]).await;
    copied_up_to(&bed, &store.journal, mine[0]).await;
    // As a second process would after this one's session was lost.
    bed.pg().await.execute("UPDATE journal_mark SET writer = 'another', next = 1000").await.unwrap();
    // Devices do not feel it.
    commit(&store.journal, [bed.event(device, "too late")]).await;
    store.close().await;
    assert_eq!(copied(&bed).await, [(1, Some("mine".to_owned()))]);

    // The other one is gone: this one goes on behind it.
    let store = bed.open().await;
    let after = commit(&store.journal, [bed.event(device, "after")]).await;
    assert_eq!(after, [Position::new(1000)]);
    assert_eq!(positions(&everything(&store.journal).await), [1, 2, 1000]);
    store.close().await;
    let rows = copied(&bed).await;
    assert_eq!(rows, [(1, Some("mine".to_owned())), (1000, Some("after".to_owned()))]);
}

async fn a_server_told_not_to_sync_commits_is_told_otherwise(bed: Bed) {
    const LOOSE: &str =
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$";
    // Notes the setting in force at each insert.
    const SPY: &str = "CREATE TABLE seen (setting TEXT); \
        CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN NULL; END'; \
        CREATE TRIGGER spy AFTER INSERT ON journal_record FOR EACH STATEMENT EXECUTE FUNCTION spy()";
    bed.open().await.close().await;
    let mut admin = bed.pg().await;
    admin.execute(LOOSE).await.unwrap();
    sqlx::raw_sql(SPY).execute(&mut admin).await.unwrap();
    let store = bed.open().await;
    commit(&store.journal, [bed.event(DeviceId::mint(), "a")]).await;
    store.close().await;
    let seen: HashSet<(String,)> =
        sqlx::query_as("SELECT setting FROM seen").fetch_all(&mut admin).await.unwrap().into_iter().collect();
    assert_eq!(seen, HashSet::from([("on".to_owned(),)]));
}

async fn what_is_copied_is_counted(bed: Bed) {
    std::thread::spawn(move || {
        let meter = Meter::default();
        meter.run(async {
            let (proxy, config) = proxied(&bed).await;
            let store = Store::open(config).await.unwrap();
            let device = DeviceId::mint();
            commit(&store.journal, (0..100).map(|n| bed.event(device, &n.to_string()))).await;
            copied_up_to(&bed, &store.journal, Position::new(100)).await;
            proxy.cut();
            commit(&store.journal, (100..130).map(|n| bed.event(device, &n.to_string()))).await;
            eventually("a failure", || meter.count("vestibule_journal_forward_failures_total") > 0).await;
            eventually("a lag", || meter.count("vestibule_journal_forward_lag_records") == 30).await;
            assert_eq!(meter.count("vestibule_journal_forwarded_position"), 100);
            assert_eq!(meter.count("vestibule_journal_forwarded_total"), 100);
            proxy.heal();
            eventually("no lag", || meter.count("vestibule_journal_forward_lag_records") == 0).await;
            assert_eq!(meter.count("vestibule_journal_forwarded_position"), 130);
            assert_eq!(meter.count("vestibule_journal_forwarded_total"), 130);
            store.close().await;
        });
    })
    .join()
    .unwrap();
}
