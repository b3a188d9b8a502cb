//! Databases of earlier releases.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqlSafeStr as _};
use vestibule_store::{DeviceId, DeviceRow, NewAudit, QueuedOperation};

use crate::bed::{Backend, Bed, NOON, on_both};
use crate::control::row;

on_both!(a_database_with_four_steps_is_brought_up_to_date);

/// The first four steps as they were released: version, name, text, and whether SQLite has it.
const FOUR: [(i64, &str, &str, bool); 4] = [
    (1, "registry", include_str!("../../migrations/0001_registry.sql"), true),
    (2, "journal", include_str!("../../migrations/0002_journal.sql"), false),
    (3, "twin", include_str!("../../migrations/0003_twin.sql"), true),
    (4, "disabled", include_str!("../../migrations/0004_disabled.sql"), true),
];

fn four(backend: Backend) -> Migrator {
    let blob = if backend == Backend::Sqlite { "BLOB" } else { "BYTEA" };
    let steps = FOUR
        .into_iter()
        .filter(|(_, _, _, on_sqlite)| *on_sqlite || backend == Backend::Postgres)
        .map(|(version, name, sql, _)| {
            let sql = AssertSqlSafe(sql.replace("{{blob}}", blob)).into_sql_str();
            Migration::new(version, name.into(), MigrationType::Simple, sql, false)
        })
        .collect();
    Migrator::with_migrations(steps)
}

async fn a_database_with_four_steps_is_brought_up_to_date(bed: Bed) {
    let old = DeviceRow { product: Some("hub".into()), disabled: true, ..row("OLD") };
    macro_rules! fill {
        ($connection:expr) => {{
            let mut connection = $connection;
            four(bed.backend).run_direct(None, &mut connection, false).await.unwrap();
            sqlx::query(
                "INSERT INTO device (id, serial, family, product, created, enrol_until, code, disabled) \
                 VALUES ($1, 'OLD', 'osap', 'hub', $2, 0, $1, 1)",
            )
            .bind(old.id.as_bytes().to_vec())
            .bind(NOON)
            .execute(&mut connection)
            .await
            .unwrap();
            sqlx::query(
                "INSERT INTO leaf (device, resource, place, area, name, version, reported, reported_version, \
                 desired_version) VALUES ($1, 'global', '0', 'a', 'n', 1, '1', 1, 0)",
            )
            .bind(old.id.as_bytes().to_vec())
            .execute(&mut connection)
            .await
            .unwrap();
            connection.close().await.unwrap();
        }};
    }
    std::fs::create_dir(bed.dir()).unwrap();
    match bed.backend {
        Backend::Sqlite => {
            let options = SqliteConnectOptions::new().filename(bed.dir().join("control.db")).create_if_missing(true);
            fill!(options.connect().await.unwrap());
        }
        Backend::Postgres => fill!(bed.pg().await),
    }

    let store = bed.open().await;
    assert_eq!(store.control.devices(None, 10).await.unwrap(), std::slice::from_ref(&old));
    let leaves = store.control.leaves(None).await.unwrap();
    assert_eq!(leaves.len(), 1);
    // What is new works on it.
    let part = DeviceRow { parent: Some(old.id), ..row("PART") };
    store.control.insert_device(&part, &vestibule_store::Secret::new(*b"ABCDEF")).await.unwrap();
    let op = QueuedOperation {
        id: DeviceId::mint().into(),
        device: old.id,
        path: leaves[0].path.clone(),
        input: None,
        created: NOON,
        expires: NOON,
        deadline_ms: 1,
        by: "alice".into(),
        taken: false,
    };
    assert!(store.control.queue_operation(op, 1).await.unwrap());
    store.control.begin_key("s", "k", [1; 32], NOON, NOON + 1).await.unwrap();
    let audit = NewAudit {
        time: NOON,
        actor: "alice".into(),
        action: "look".into(),
        device: Some(old.id),
        serial: None,
        org: None,
        detail: "{}".into(),
        ok: true,
    };
    store.control.add_audit(audit).await.unwrap();
    store.close().await;
    // And it stays as it is.
    bed.open().await.close().await;
}
