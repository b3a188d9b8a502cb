//! Looking at a segment from beside the journal: every page that was sealed, every row.
//!
//! Nothing is written and nobody waits. A segment that is sealed does not change, and what a platform that runs writes to is
//! looked at through the database, which shows one moment.

use std::io;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::examine::{Place, verify};
use super::row;
use super::salvage::readable;
use super::seal::Seal;
use super::segment::Segment;
use super::stored::Mark;
use crate::config::read_at;
use crate::db::BUSY;
use crate::scan::MAX_SCAN;
use crate::{Position, Scan};

/// How a segment of the journal was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many records can be read as they were written, of a damaged segment from anywhere in its files.
    pub records: u64,
    /// What is wrong with it.
    pub flaw: Option<Flaw>,
}

/// Damage, as it was found from beside the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The file.
    pub file: PathBuf,
    /// Where in the file it begins, in bytes, if that can be told.
    pub offset: Option<u64>,
    /// What is wrong there.
    pub what: String,
    /// How many records cannot be read any more, if that is known.
    pub lost: Option<u64>,
}

/// Compares each page of a segment with its seal, if it has one, and each row with its checksum, also while a platform is
/// `running` on the directory. A segment that is gone has nothing and no flaw.
///
/// # Errors
/// The file cannot be looked at, in the words of the system or the database.
pub async fn check_segment(path: &Path, running: bool) -> Result<Checked, String> {
    // One that is sealed, set aside or removed at this moment is looked at once more.
    for _ in 0..2 {
        let [.., seal] = Segment::files(path);
        let sealed = seal.exists();
        let checked = if sealed || !running {
            let path = path.to_owned();
            let checked = tokio::task::spawn_blocking(move || by_pages(&path, sealed)).await;
            checked.map_err(io::Error::other).flatten().map_err(|error| error.to_string())?
        } else {
            by_rows(path).await?
        };
        if !path.exists() {
            return Ok(Checked::default());
        }
        if checked.flaw.is_none() || seal.exists() == sealed {
            return Ok(checked);
        }
    }
    Err("it changes while it is looked at".to_owned())
}

/// A segment that nobody writes to. Blocks.
fn by_pages(path: &Path, sealed: bool) -> io::Result<Checked> {
    let disk = read_at();
    let flaw = if sealed { Seal::check(path, &disk)? } else { None };
    let place = match flaw {
        Some(place) => place,
        None => match verify(path, &disk)? {
            Ok(rows) => return Ok(Checked { records: u64::try_from(rows).unwrap_or(0), flaw: None }),
            Err(place) => place,
        },
    };
    Ok(damaged(path, place))
}

fn damaged(path: &Path, place: Place) -> Checked {
    let Place { offset, what, .. } = place;
    // A disk that gives nothing of it has been told by the place already.
    let (records, expected) = readable(path, &read_at()).unwrap_or((0, None));
    let lost = expected.map(|expected| expected.saturating_sub(records));
    Checked { records, flaw: Some(Flaw { file: place.file(path), offset: Some(offset), what: what.to_owned(), lost }) }
}

/// A segment that may be written to.
async fn by_rows(path: &Path) -> Result<Checked, String> {
    let failed = |error: sqlx::Error| error.to_string();
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY);
    let mut connection = options.disable_statement_logging().connect().await.map_err(failed)?;
    let counted = count(&mut connection).await;
    connection.close().await.map_err(failed)?;
    let (found, expected, what) = match counted {
        Ok((found, expected)) if found == expected => return Ok(Checked { records: found, flaw: None }),
        Ok((found, expected)) => (found, Some(expected), "records are missing or not what was written".to_owned()),
        Err(error) if super::damage::is_suspected(&error) => (0, None, error.to_string()),
        Err(error) => return Err(error.to_string()),
    };
    // It is damaged; the pages, which may change meanwhile, can only say where.
    let from = path.to_owned();
    let place = tokio::task::spawn_blocking(move || verify(&from, &read_at())).await;
    if let Ok(Ok(Err(place))) = place {
        return Ok(damaged(path, place));
    }
    let lost = expected.map(|expected| expected.saturating_sub(found));
    Ok(Checked { records: found, flaw: Some(Flaw { file: path.to_owned(), offset: None, what, lost }) })
}

/// How many records are what was written, of how many there were when this began.
async fn count(connection: &mut SqliteConnection) -> Result<(u64, u64), sqlx::Error> {
    let (base, next, rows, ran, sum): (i64, i64, i64, i64, i64) =
        sqlx::query_as("SELECT base, next, rows, ran, sum FROM mark").fetch_one(&mut *connection).await?;
    if i64::from(Mark { base, next, rows, ran }.sum()) != sum {
        return Err(sqlx::Error::Decode("the mark is not what was written".into()));
    }
    let mut scan = Scan { before: Some(Position::new(next)), limit: MAX_SCAN, ..Scan::default() };
    let mut found = 0;
    // Each query sees one moment; rows that are there stay as they are.
    loop {
        let mut query = row::select(&scan, false);
        row::finish(&mut query, &scan, MAX_SCAN);
        let rows: Vec<row::Row> = query.build_query_as().fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { break };
        scan.after = Position::new(last.0);
        found += rows.into_iter().filter_map(|row| row::record(row).ok()).count() as u64;
    }
    Ok((found, u64::try_from(rows).unwrap_or(0)))
}
