//! What only the journal on PostgreSQL has: another process may want it, and the server may go.

use sqlx::Executor as _;
use tempfile::TempDir;
use vestibule_store::{DeviceId, JournalHealth, OpenError, Position, Store};

use crate::bed::{Bed, commit, durable, eventually, everything, ids, only_on};

only_on!(Postgres:
    two_writers_on_one_database_are_refused,
    a_lost_connection_is_made_again,
    a_journal_that_was_taken_over_is_not_written,
    a_server_told_not_to_sync_commits_is_told_otherwise,
);

async fn two_writers_on_one_database_are_refused(bed: Bed) {
    let store = bed.open().await;
    let elsewhere = TempDir::new().unwrap();
    let mut config = bed.config();
    config.dir = elsewhere.path().join("data");
    let error = Store::open(config.clone()).await.err().expect("the store opened");
    assert!(matches!(error, OpenError::JournalInUse), "{error}");
    store.close().await;
    Store::open(config).await.unwrap().close().await;
}

async fn a_lost_connection_is_made_again(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    let mut admin = bed.pg().await;
    for round in 0..5 {
        commit(&store.journal, (0..50).map(|n| bed.event(device, &format!("{round}-{n}")))).await;
        admin
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await
            .unwrap();
    }
    commit(&store.journal, [bed.event(device, "last")]).await;
    let expected: Vec<String> =
        (0..5).flat_map(|round| (0..50).map(move |n| format!("{round}-{n}"))).chain(["last".into()]).collect();
    assert_eq!(ids(&everything(&store.journal).await), expected);
    store.close().await;
}

async fn a_journal_that_was_taken_over_is_not_written(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    commit(&store.journal, [bed.event(device, "mine")]).await;
    // As a second process would after this one's session was lost.
    bed.pg().await.execute("UPDATE journal_mark SET writer = 'another', next = 1000").await.unwrap();
    store.journal.append(bed.event(device, "too late"));
    eventually("failing", || matches!(store.journal.health(), JournalHealth::Failing { .. })).await;
    assert_eq!(store.journal.durable(), Position::new(1));
    store.close().await;

    let store = bed.open().await;
    assert_eq!(commit(&store.journal, [bed.event(device, "after")]).await, [Position::new(1000)]);
    assert_eq!(ids(&everything(&store.journal).await), ["mine", "after"]);
    store.close().await;
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
    let last = commit(&store.journal, [bed.event(DeviceId::mint(), "a")]).await;
    durable(&store.journal, last[0]).await;
    let seen: Vec<(String,)> = sqlx::query_as("SELECT setting FROM seen").fetch_all(&mut admin).await.unwrap();
    assert_eq!(seen, [("on".to_owned(),)]);
    store.close().await;
}
