//! The connections to the control database and its schema.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Postgres, SqlSafeStr as _, Sqlite};

use crate::OpenError;

/// Connections that read at the same time; writes of the control database pass through one task.
const CONNECTIONS: u32 = 8;
/// What each connection to `control.db` keeps of it, in KiB: lookups are spread over all devices, so that a larger
/// cache costs memory for each device and saves a read from the kernel's.
const CACHE_KIB: u32 = 256;
/// How long a read waits for a connection before it fails.
const ACQUIRE: Duration = Duration::from_secs(10);
/// How long SQLite waits for a lock of another connection, such as that of a checkpoint.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

const SQLITE: &str = "the control database control.db";
const POSTGRES: &str = "the PostgreSQL database";

/// The control database.
#[derive(Clone)]
pub(crate) enum Db {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// One connection to the control database.
pub(crate) enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

/// One transaction on the control database; what was not committed when it is dropped did not happen.
pub(crate) enum Transaction<'c> {
    Sqlite(sqlx::Transaction<'c, Sqlite>),
    Postgres(sqlx::Transaction<'c, Postgres>),
}

impl Connection {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Connection::Sqlite(_) => Dialect::Sqlite,
            Connection::Postgres(_) => Dialect::Postgres,
        }
    }
}

impl Transaction<'_> {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Transaction::Sqlite(_) => Dialect::Sqlite,
            Transaction::Postgres(_) => Dialect::Postgres,
        }
    }
}

/// Evaluates the same body over the pool of either database, or over a [`Connection`] to it or a [`Transaction`] on it
/// when the first word says so; the types of the driver are inferred in each.
macro_rules! on_db {
    (Connection, $connection:expr, $inner:ident => $body:expr) => {
        match $connection {
            $crate::db::Connection::Sqlite($inner) => $body,
            $crate::db::Connection::Postgres($inner) => $body,
        }
    };
    (Transaction, $transaction:expr, $inner:ident => $body:expr) => {
        match $transaction {
            $crate::db::Transaction::Sqlite($inner) => $body,
            $crate::db::Transaction::Postgres($inner) => $body,
        }
    };
    ($db:expr, $pool:ident => $body:expr) => {
        match $db {
            $crate::db::Db::Sqlite($pool) => $body,
            $crate::db::Db::Postgres($pool) => $body,
        }
    };
}
pub(crate) use on_db;

impl Db {
    /// Opens `control.db` in the directory, creating it when missing.
    pub(crate) async fn sqlite(dir: &Path) -> Result<Db, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(dir.join("control.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("cache_size", format!("-{CACHE_KIB}"))
            .busy_timeout(BUSY);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            // A file does not hang up: asking first costs every statement another trip to the connection's thread.
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| database(SQLITE, error))?;
        Ok(Db::Sqlite(pool))
    }

    /// Connects to PostgreSQL; its tables are in the schema the URL's search path names first.
    pub(crate) async fn postgres(url: &str) -> Result<Db, OpenError> {
        let options = postgres_options(url)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .after_connect(|connection, _| Box::pin(async move { connection.execute(SYNC_COMMITS).await.map(drop) }))
            .connect_with(options)
            .await
            .map_err(|error| database(POSTGRES, error))?;
        Ok(Db::Postgres(pool))
    }

    /// Brings the schema up to date.
    pub(crate) async fn migrate(&self) -> Result<(), OpenError> {
        match self {
            Db::Sqlite(pool) => migrator(Dialect::Sqlite, &STEPS).run(pool).await,
            Db::Postgres(pool) => migrator(Dialect::Postgres, &STEPS).run(pool).await,
        }
        .map_err(|error| migrate(self.what(), error))
    }

    /// Which database it is, for people.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Db::Sqlite(_) => SQLITE,
            Db::Postgres(_) => POSTGRES,
        }
    }

    /// A connection of the pool; back in it when dropped.
    pub(crate) async fn connection(&self) -> Result<Connection, sqlx::Error> {
        Ok(match self {
            Db::Sqlite(pool) => Connection::Sqlite(pool.acquire().await?),
            Db::Postgres(pool) => Connection::Postgres(pool.acquire().await?),
        })
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        on_db!(self, pool => pool.close().await);
    }
}

impl Connection {
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_>, sqlx::Error> {
        Ok(match self {
            Connection::Sqlite(connection) => Transaction::Sqlite(connection.begin().await?),
            Connection::Postgres(connection) => Transaction::Postgres(connection.begin().await?),
        })
    }
}

impl Transaction<'_> {
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        on_db!(Transaction, self, transaction => transaction.commit().await)
    }
}

/// A COMMIT that returns before the log is synced would break every promise made here; a stricter setting stays.
pub(crate) const SYNC_COMMITS: &str = "SELECT set_config('synchronous_commit', 'on', false) \
     WHERE current_setting('synchronous_commit') = 'off'";

/// What the URL says.
pub(crate) fn postgres_options(url: &str) -> Result<PgConnectOptions, OpenError> {
    PgConnectOptions::from_str(url)
        .map(|options| options.application_name("vestibule"))
        .map_err(|error| database("the PostgreSQL URL", error))
}

pub(crate) fn database(what: &'static str, source: sqlx::Error) -> OpenError {
    OpenError::Database { what, source: Box::new(source) }
}

/// What is written otherwise for one database than for the other.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// One step of the schema. The text is written once; bytes (`{{blob}}`) and a key that the database counts up, never
/// giving a number twice (`{{counted}}`), are all that differs.
struct Step {
    version: i64,
    name: &'static str,
    sql: &'static str,
    only: Option<Dialect>,
}

/// Every step ever released, oldest first. A released one never changes.
const STEPS: [Step; 16] = [
    Step { version: 1, name: "registry", sql: include_str!("../migrations/0001_registry.sql"), only: None },
    Step {
        version: 2,
        name: "journal",
        sql: include_str!("../migrations/0002_journal.sql"),
        only: Some(Dialect::Postgres),
    },
    Step { version: 3, name: "twin", sql: include_str!("../migrations/0003_twin.sql"), only: None },
    Step { version: 4, name: "disabled", sql: include_str!("../migrations/0004_disabled.sql"), only: None },
    Step { version: 5, name: "both ways", sql: include_str!("../migrations/0005_both_ways.sql"), only: None },
    Step { version: 6, name: "principals", sql: include_str!("../migrations/0006_principals.sql"), only: None },
    Step { version: 7, name: "organisation", sql: include_str!("../migrations/0007_organisation.sql"), only: None },
    Step { version: 8, name: "webhook", sql: include_str!("../migrations/0008_webhook.sql"), only: None },
    Step { version: 9, name: "sessions", sql: include_str!("../migrations/0009_sessions.sql"), only: None },
    Step { version: 10, name: "media", sql: include_str!("../migrations/0010_media.sql"), only: None },
    Step { version: 11, name: "jobs", sql: include_str!("../migrations/0011_jobs.sql"), only: None },
    Step { version: 12, name: "views", sql: include_str!("../migrations/0012_views.sql"), only: None },
    Step { version: 13, name: "modern", sql: include_str!("../migrations/0013_modern.sql"), only: None },
    Step { version: 14, name: "certificates", sql: include_str!("../migrations/0014_certificates.sql"), only: None },
    Step { version: 15, name: "secrets", sql: include_str!("../migrations/0015_secrets.sql"), only: None },
    Step { version: 16, name: "device roots", sql: include_str!("../migrations/0016_device_root.sql"), only: None },
];

fn migrator(dialect: Dialect, steps: &[Step]) -> Migrator {
    let (blob, counted) = match dialect {
        Dialect::Sqlite => ("BLOB", "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT"),
        Dialect::Postgres => ("BYTEA", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    };
    let migrations = steps
        .iter()
        .filter(|step| step.only.is_none_or(|only| only == dialect))
        .map(|step| {
            let sql = AssertSqlSafe(step.sql.replace("{{blob}}", blob).replace("{{counted}}", counted)).into_sql_str();
            Migration::new(step.version, step.name.into(), MigrationType::Simple, sql, false)
        })
        .collect();
    Migrator::with_migrations(migrations)
}

fn migrate(what: &'static str, error: MigrateError) -> OpenError {
    match error {
        MigrateError::VersionMissing(found) => {
            OpenError::Newer { what: what.to_owned(), found, known: STEPS.last().map_or(0, |step| step.version) }
        }
        source => OpenError::Migrate { what, source: Box::new(source) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_in_order_and_leave_no_token() {
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            for migration in migrator(dialect, &STEPS).iter() {
                assert!(!migration.sql.as_str().contains("{{"), "{}", migration.description);
            }
        }
        assert!(STEPS.is_sorted_by(|a, b| a.version < b.version));
    }
}
