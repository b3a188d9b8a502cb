//! Looking at the databases of a data directory from beside it.

use std::fs;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::db::BUSY;
use crate::journal::{LOG, SEAL, parse_name, segment_files};

/// The registry in a data directory, where it is there and not in PostgreSQL.
pub fn control_database(data: &Path) -> Option<PathBuf> {
    Some(data.join("control.db")).filter(|path| path.exists())
}

/// The segment of the journal that was begun last.
pub fn newest_segment(data: &Path) -> Option<PathBuf> {
    segments(data).pop()
}

/// The segments of the journal in a data directory, oldest first.
pub fn segments(data: &Path) -> Vec<PathBuf> {
    let files = segment_files(&data.join("journal")).unwrap_or_default();
    let mut segments: Vec<PathBuf> = files.into_iter().map(|(path, _)| path).collect();
    segments.sort_by_key(|path| parse_name(path));
    segments
}

/// The seal beside a segment that never changes any more and has all of itself in its file.
pub(crate) fn seal_of(path: &Path) -> Option<PathBuf> {
    let has_log = fs::metadata(beside(path, LOG)).is_ok_and(|log| log.len() > 0);
    Some(beside(path, SEAL)).filter(|seal| !has_log && seal.exists())
}

/// The file beside a segment whose name ends so.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Reads a database from end to end, also while the platform runs; with `deep` its indexes are compared with its rows.
///
/// # Errors
/// What is wrong with it, in the database's words.
pub async fn check_database(path: &Path, deep: bool) -> Result<(), String> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(seal_of(path).is_some())
        .busy_timeout(BUSY);
    let check = async {
        let mut connection = options.disable_statement_logging().connect().await?;
        let pragma = if deep { "PRAGMA integrity_check(1)" } else { "PRAGMA quick_check(1)" };
        let (found,): (String,) = sqlx::query_as(pragma).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(found)
    };
    match check.await {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => Err(found),
        Err(error) => Err(error.to_string()),
    }
}
