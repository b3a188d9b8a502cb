//! Another envelope key: everything that is sealed is sealed anew, in one transaction.
//!
//! A crash at any point leaves the database under the old key or under the new one, never under both, and the key it is
//! under is where the next start finds it: a key in the data directory is beside the old one before the transaction begins
//! ([`keeping`](crate::envelope::keeping)), and one from elsewhere is nobody's here to lose.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sqlx::AssertSqlSafe;

use crate::control::{NewAudit, add_audit};
use crate::db::{Transaction, on_db};
use crate::directory::{DataDir, sync_entry};
use crate::envelope::keeping::{KEY, prepare, promote};
use crate::envelope::recorded::{ONE, proof};
use crate::envelope::sealed::Keyed;
use crate::envelope::{Envelope, EnvelopeKey, Place, Sealed};
use crate::store::sealed_database;
use crate::{OpenError, StoreConfig, StoreError};

/// Rows that are read at once.
const PAGE: i64 = 500;

/// The key that is to be the next one.
pub enum NewKey {
    /// A new one, in the data directory.
    Kept,
    /// This one, which the platform is given from now on; it is not written anywhere.
    Given(EnvelopeKey),
}

/// How far an exchange of the key has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RekeyStep {
    /// The new key is on the disk beside the old one; nothing is sealed under it yet.
    Prepared,
    /// So many values are sealed under it, in a transaction that has not ended.
    Sealed(u64),
    /// All of them are; next the transaction ends.
    Complete,
    /// It has: the new key is the one.
    Committed,
    /// The new key has taken the place of the old one.
    Placed,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rekeyed {
    /// The id of the old key.
    pub from: String,
    /// The id of the new one.
    pub to: String,
    /// How many values were sealed anew.
    pub values: u64,
}

/// Why the key is the old one still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RekeyError {
    /// There is nothing to exchange it in.
    #[error("{} is no data directory: it has no VERSION", .0.display())]
    NotData(std::path::PathBuf),
    /// The new key is the old one.
    #[error("the key from {0} is the present one: name another")]
    Same(String),
    /// A value cannot be moved.
    #[error("a value in {table}.{column} does not open under the present key; nothing was changed")]
    Value {
        /// Its table.
        table: &'static str,
        /// Its column.
        column: &'static str,
        /// What is wrong with it.
        #[source]
        source: StoreError,
    },
    /// A key lies where the new one is to be.
    #[error("{} is an older key: move it away first, to where the keys of older backups are; nothing was changed", .0.display())]
    Older(std::path::PathBuf),
    /// The transaction ended, and the database did not say how.
    #[error(
        "the database failed as the exchange ended: it is done, or nothing was changed. Keep both keys; the next start says which one it is"
    )]
    Unsure(#[source] StoreError),
    /// Everything is done but that the new key has its place.
    #[error(
        "the exchange is done: everything is sealed under the new key, which is in keys/envelope.key.new and could not be put in its place. The next start does that"
    )]
    NotPlaced(#[source] OpenError),
    /// The key is another one by now: somebody else has exchanged it.
    #[error("somebody else has exchanged the key meanwhile; nothing was changed")]
    Outrun,
    /// The database failed. Before the end of the transaction nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data directory or the database cannot be opened, or a key not be read or written.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<sqlx::Error> for RekeyError {
    fn from(error: sqlx::Error) -> RekeyError {
        RekeyError::Store(error.into())
    }
}

/// Seals everything under another key. Nobody may use the data directory meanwhile. The old key is `config.envelope_key`, or
/// the one in the data directory, which is written to `keep_old` first if that is named. `told` hears how far it has come.
///
/// # Errors
/// [`RekeyError`]: nothing was changed, unless it says so.
pub async fn rekey(
    config: &StoreConfig,
    new: NewKey,
    keep_old: Option<&Path>,
    by: &str,
    mut told: impl FnMut(RekeyStep),
) -> Result<Rekeyed, RekeyError> {
    if !config.dir.join("VERSION").exists() {
        return Err(RekeyError::NotData(config.dir.clone()));
    }
    let mut dir = DataDir::open(&config.dir)?;
    let (db, old) = sealed_database(&mut dir, config).await?;
    let done = async {
        let (new, is_kept) = match new {
            NewKey::Kept => (EnvelopeKey::random(dir.path().join(KEY).display().to_string())?, true),
            NewKey::Given(key) => (key, false),
        };
        let (from, to) = (old.id(), new.id());
        if from == to {
            return Err(RekeyError::Same(new.origin().to_owned()));
        }
        let place = dir.path().join(KEY);
        if is_kept && place.exists() && EnvelopeKey::read(&place)?.id() != from {
            return Err(RekeyError::Older(place));
        }
        if let Some(path) = keep_old {
            keep(&old, path)?;
        }
        if is_kept {
            prepare(dir.path(), &new)?;
            told(RekeyStep::Prepared);
        }
        let (old, new) = (Envelope::new(&old), Envelope::new(&new));
        let mut connection = db.connection().await?;
        let mut transaction = connection.begin().await?;
        let mut values = 0;
        for sealed in Sealed::ALL.into_iter().filter(|sealed| *sealed != Sealed::Proof) {
            values += reseal(&mut transaction, sealed, (&old, &new), &mut |more| {
                told(RekeyStep::Sealed(values + more));
            })
            .await?;
        }
        // Whoever has come first has changed the row, and this one finds it so.
        let changed = on_db!(Transaction, &mut transaction, transaction => {
            sqlx::query("UPDATE envelope SET key_id = $1, proof = $2, since = $3 WHERE one = $4 AND key_id = $5")
                .bind(&to)
                .bind(proof(&new))
                .bind((config.now)())
                .bind(ONE)
                .bind(&from)
                .execute(&mut **transaction)
                .await?
                .rows_affected()
        });
        if changed != 1 {
            return Err(RekeyError::Outrun);
        }
        let detail = format!(r#"{{"from":"{from}","to":"{to}","values":{values}}}"#);
        let audit = NewAudit {
            time: (config.now)(),
            actor: by.to_owned(),
            action: "admin.rekey".to_owned(),
            device: None,
            serial: None,
            org: None,
            detail,
            ok: true,
        };
        add_audit(&mut transaction, audit).await?;
        told(RekeyStep::Complete);
        transaction.commit().await.map_err(|error| RekeyError::Unsure(error.into()))?;
        told(RekeyStep::Committed);
        if is_kept {
            promote(dir.path()).map_err(RekeyError::NotPlaced)?;
            told(RekeyStep::Placed);
        }
        Ok(Rekeyed { from, to, values })
    }
    .await;
    db.close().await;
    done
}

/// Writes a key to a file that does not exist yet, for its owner only, or finds that it is there: an exchange that came to
/// nothing may be begun again.
fn keep(key: &EnvelopeKey, path: &Path) -> Result<(), OpenError> {
    if path.exists() && EnvelopeKey::read(path).is_ok_and(|kept| kept.id() == key.id()) {
        return Ok(());
    }
    let failed = |source| OpenError::Io { action: "write", path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = file.write_all(key.bytes()).and_then(|()| file.sync_all()).and_then(|()| sync_entry(path));
    written.map_err(|source| {
        // A part of a key is none, and would be in the way the next time.
        let _ = std::fs::remove_file(path);
        failed(source)
    })
}

/// Seals all values of a column anew, a page at a time in the order of their rows; returns how many there were.
async fn reseal(
    transaction: &mut Transaction<'_>,
    sealed: Sealed,
    (old, new): (&Envelope, &Envelope),
    told: &mut dyn FnMut(u64),
) -> Result<u64, RekeyError> {
    let column = sealed.column();
    let (table, name, key) = (column.table, column.name, column.key);
    let page = format!(
        "SELECT {key}, {name} FROM {table} WHERE {key} > $1 AND {name} IS NOT NULL ORDER BY {key} LIMIT {PAGE}"
    );
    let first = format!("SELECT {key}, {name} FROM {table} WHERE {name} IS NOT NULL ORDER BY {key} LIMIT {PAGE}");
    let update = format!("UPDATE {table} SET {name} = $1 WHERE {key} = $2");
    let again = |value: &[u8], row: &[u8]| {
        let place = Place { column: sealed, row };
        let opened = old.open_sealed(value, &place);
        let opened = opened.map_err(|source| RekeyError::Value { table, column: name, source })?;
        Ok::<_, RekeyError>(new.seal(&opened, &place))
    };
    macro_rules! all_rows {
        ($key:ty, $row:expr) => {{
            let (mut last, mut done): (Option<$key>, u64) = (None, 0);
            loop {
                let rows: Vec<($key, Vec<u8>)> = on_db!(Transaction, &mut *transaction, transaction => match &last {
                    None => sqlx::query_as(AssertSqlSafe(first.clone())).fetch_all(&mut **transaction).await?,
                    Some(last) => {
                        let page = sqlx::query_as(AssertSqlSafe(page.clone())).bind(last.clone());
                        page.fetch_all(&mut **transaction).await?
                    }
                });
                let Some((key, _)) = rows.last() else { break done };
                last = Some(key.clone());
                for (key, value) in rows {
                    let row: fn(&$key) -> Vec<u8> = $row;
                    let value = again(&value, &row(&key))?;
                    on_db!(Transaction, &mut *transaction, transaction => {
                        let update = sqlx::query(AssertSqlSafe(update.clone())).bind(value).bind(key);
                        update.execute(&mut **transaction).await?;
                    });
                    done += 1;
                }
                told(done);
            }
        }};
    }
    Ok(match column.keyed {
        Keyed::Bytes => all_rows!(Vec<u8>, |key| key.clone()),
        Keyed::Text => all_rows!(String, |key| key.as_bytes().to_vec()),
        Keyed::Number => all_rows!(i64, |key| key.to_be_bytes().to_vec()),
    })
}
