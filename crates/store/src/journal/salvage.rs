//! What is done with a damaged segment: its files are set aside as they are, and every row that is what was written goes
//! into a new file of the same name.
//!
//! Nothing that a damaged page leads to is relied on: each page there is, of the file and of its log, is looked at by
//! itself, and its rows are believed by their checksums. A row is lost only with the page it is on.

mod rows;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::active::{Active, settle_file};
use super::damage::{self, Damage};
use super::examine::Place;
use super::name::parse_name;
use super::seal::{Found, Seal};
use super::segment::{Segment, remove_files};
use crate::directory::{create_dir, sync_entry, write_new};
use crate::{OpenError, ReadAt};
use rows::Rows;

/// What the file is called that the rows go to until it is whole.
const SUFFIX: &str = "-salvage";
/// How often it is begun again because the disk gives pages that it refused before.
const ATTEMPTS: usize = 3;

/// What is known of a damaged segment beside its files.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// The UTC day in its name.
    pub(super) day: i64,
    /// The first position it could hold, if known.
    pub(super) base: Option<i64>,
    /// No position from here on was stored.
    pub(super) before: i64,
    /// How long the journal has run, in milliseconds.
    pub(super) ran: i64,
}

/// What became of the rows.
pub(super) struct Salvaged {
    pub(super) rows: u64,
    /// How many the segment had, if that is known.
    expected: Option<i64>,
    /// Whether there is a file in place of the damaged one.
    pub(super) replaced: bool,
    /// Whether the disk gave afterwards what it had refused.
    answers_now: bool,
}

impl Salvaged {
    fn lost(&self) -> Option<u64> {
        let expected = u64::try_from(self.expected?).ok()?;
        Some(expected.saturating_sub(self.rows))
    }
}

/// Sets a damaged segment aside, with what is readable of it in its place. To be repeated after an error.
pub(super) async fn set_aside(
    path: &Path,
    known: Known,
    place: Place,
    read_at: &ReadAt,
) -> Result<(Damage, Salvaged), OpenError> {
    let salvaged = rebuild(path, known, read_at).await?;
    Ok((exchange(path, place, &salvaged)?, salvaged))
}

/// Writes what is readable into a file beside the damaged one.
pub(super) async fn rebuild(path: &Path, known: Known, read_at: &ReadAt) -> Result<Salvaged, OpenError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match rebuild_once(path, known, read_at).await {
            // A page is lost when it is refused again after others were written: a disk that was away may be back.
            Ok(salvaged) if salvaged.answers_now && attempts <= ATTEMPTS => {}
            Err(error) if path.exists() => {
                // A disk that is full needs the room.
                if let Err(error) = discard(path) {
                    tracing::debug!(%error, "what was salvaged in part stays until it is begun anew");
                }
                return Err(error);
            }
            rebuilt => return rebuilt,
        }
    }
}

/// Sets a damaged segment aside and puts what was salvaged of it in its place.
pub(super) fn exchange(path: &Path, place: Place, salvaged: &Salvaged) -> Result<Damage, OpenError> {
    let account = |set_aside| Damage {
        file: place.file(path),
        offset: place.offset,
        what: place.what.to_owned(),
        set_aside: Some(set_aside),
        salvaged: salvaged.rows,
        lost: salvaged.lost(),
        dropped: false,
    };
    let aside = place_aside(path)?;
    let damage = account(aside.clone());
    write_new(&Damage::account_path(&aside), damage.account().as_bytes(), 0o600)?;
    move_files(path, &aside)?;
    put_in_place(path)?;
    Ok(damage)
}

/// Removes what was salvaged of a segment that is not needed any more.
pub(super) fn discard(path: &Path) -> io::Result<()> {
    remove_files(&with_suffix(path))
}

/// Puts a copy of its rows in the place of a segment whose indexes nothing answers for.
pub(super) async fn renew(path: &Path, known: Known, read_at: &ReadAt) -> Result<(), OpenError> {
    // Without a log the copy takes its place in one step.
    let settled = settle_file(path).await;
    let failed = |source| OpenError::Segment { path: path.to_owned(), source: Box::new(source) };
    if !settled.map_err(failed)? {
        return Err(failed(sqlx::Error::Protocol("the log of the segment is in use".into())));
    }
    rebuild_once(path, known, read_at).await?;
    put_in_place(path)
}

/// Finishes what a crash interrupted; what it began and had not decided is begun anew when the segment is examined.
pub(super) fn finish(dir: &Path) -> Result<(), OpenError> {
    let list = || -> io::Result<Vec<PathBuf>> { fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect() };
    let files = list().map_err(|source| OpenError::Io { action: "list", path: dir.to_owned(), source })?;
    let segment = |file: &Path, suffix: &str| {
        let name = file.file_name()?.to_str()?.strip_suffix(suffix)?;
        let path = dir.join(name);
        parse_name(&path).map(|_| path)
    };
    for file in &files {
        let Some(path) = segment(file, SUFFIX) else { continue };
        if path.exists() {
            remove_files(file).map_err(|source| OpenError::Io { action: "remove", path: file.clone(), source })?;
        } else {
            let beside = Segment::files(&path).into_iter().any(|file| file.exists());
            if beside {
                move_files(&path, &last_aside(&path)?)?;
            }
            put_in_place(&path)?;
        }
    }
    Ok(())
}

/// The segments of which there is a log or a seal and no file.
pub(super) fn headless(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let file = entry?.path();
        let name = file.to_str().and_then(|name| name.strip_suffix("-wal").or_else(|| name.strip_suffix("-seal")));
        if let Some(path) = name.map(PathBuf::from)
            && parse_name(&path).is_some()
            && !path.exists()
            && !found.contains(&path)
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Sets aside what is left of a segment whose file is gone.
pub(super) fn set_aside_rest(path: &Path, read_at: &ReadAt) -> Result<Damage, OpenError> {
    let expected = match Seal::read(path, read_at) {
        Ok(Found::Seal(seal)) => u64::try_from(seal.mark.rows).ok(),
        _ => None,
    };
    let aside = place_aside(path)?;
    let damage = Damage {
        file: path.to_owned(),
        offset: 0,
        what: "the file is missing".to_owned(),
        set_aside: Some(aside.clone()),
        salvaged: 0,
        lost: expected,
        dropped: false,
    };
    write_new(&Damage::account_path(&aside), damage.account().as_bytes(), 0o600)?;
    move_files(path, &aside)?;
    Ok(damage)
}

async fn rebuild_once(path: &Path, known: Known, read_at: &ReadAt) -> Result<Salvaged, OpenError> {
    let failed = |source: io::Error| OpenError::Io { action: "salvage", path: path.to_owned(), source };
    let sql = |source| OpenError::Segment { path: path.to_owned(), source: Box::new(source) };
    let file = with_suffix(path);
    if !path.exists() && file.exists() {
        // It was set aside and not put in its place: these are the rows.
        return Err(failed(io::Error::other("what was salvaged of it is put in its place at the next start")));
    }
    remove_files(&file).map_err(failed)?;
    let sealed = match Seal::read(path, read_at) {
        Ok(Found::Seal(seal)) => Some(seal.mark),
        _ => None,
    };
    let rows = {
        let (path, read_at) = (path.to_owned(), read_at.clone());
        blocking(move || Rows::gather(&path, known.before, &read_at)).await.map_err(failed)?
    };
    let mark = sealed.or(rows.mark);
    let expected = mark.map(|mark| mark.rows);
    let Some(base) = known.base.or(mark.map(|mark| mark.base)).or(rows.first()) else {
        return Ok(Salvaged { rows: 0, expected, replaced: false, answers_now: false });
    };
    let ran = mark.map_or(known.ran, |mark| mark.ran);
    let mut next = mark.map_or(base, |mark| mark.next.min(known.before)).max(base);
    let mut active = Active::create_at(file.clone(), known.day, base).await.map_err(sql)?;
    let copied = copy(rows, &mut active, &mut next, ran).await;
    // In any case, so that nobody is at these files any more.
    let closed = active.close().await;
    let (rows, count) = copied?;
    closed.map_err(sql)?;
    sync_entry(&file).map_err(failed)?;
    let answers_now = blocking(move || rows.pages.answers_now()).await.map_err(failed)?;
    Ok(Salvaged { rows: count, expected, replaced: true, answers_now })
}

/// Copies what is readable, and how far the segment went; returns how many rows that are.
async fn copy(mut rows: Rows, active: &mut Active, next: &mut i64, ran: i64) -> Result<(Rows, u64), OpenError> {
    let path = active.segment.path.clone();
    let failed = |source| OpenError::Io { action: "salvage to", path: path.clone(), source };
    let sql = |source| OpenError::Segment { path: path.clone(), source: Box::new(source) };
    let mut count = 0;
    loop {
        let (behind, batch) = blocking(move || {
            let batch = rows.batch()?;
            Ok((rows, batch))
        })
        .await
        .map_err(failed)?;
        rows = behind;
        let Some(last) = batch.last() else { break };
        *next = (*next).max(last.position.get() + 1);
        count += batch.len() as u64;
        active.store(&batch.iter().collect::<Vec<_>>(), *next, ran).await.map_err(sql)?;
    }
    active.store(&[], *next, ran).await.map_err(sql)?;
    Ok((rows, count))
}

/// How many records of a damaged segment are readable, and how many it had, if that is known. Blocks.
pub(super) fn readable(path: &Path, read_at: &ReadAt) -> io::Result<(u64, Option<u64>)> {
    let sealed = match Seal::read(path, read_at) {
        Ok(Found::Seal(seal)) => Some(seal.mark),
        _ => None,
    };
    let mut rows = Rows::gather(path, i64::MAX, read_at)?;
    let expected = sealed.or(rows.mark).and_then(|mark| u64::try_from(mark.rows).ok());
    let mut count = 0;
    loop {
        match rows.batch()?.len() {
            0 => return Ok((count, expected)),
            len => count += len as u64,
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

pub(super) fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// Makes a directory for the files of this segment that no others are in.
fn place_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let aside = (1..).map(|number| aside(path, number)).find(|aside| !aside.exists());
    let aside = aside.unwrap_or_else(|| aside_of(path));
    create_dir(&aside)?;
    Ok(aside)
}

/// The newest directory for the files of this segment.
fn last_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let aside = (1..).map(|number| aside(path, number)).take_while(|aside| aside.exists()).last();
    aside.map_or_else(|| place_aside(path), Ok)
}

fn aside_of(path: &Path) -> PathBuf {
    let dir = path.parent().unwrap_or(Path::new("."));
    damage::directory(dir).join(path.file_stem().unwrap_or_default())
}

fn aside(path: &Path, number: u32) -> PathBuf {
    let mut name = aside_of(path).into_os_string();
    if number > 1 {
        name.push(format!(".{number}"));
    }
    name.into()
}

/// Moves the files of a segment, its own first: from then on it is set aside.
fn move_files(path: &Path, to: &Path) -> Result<(), OpenError> {
    for file in Segment::files(path) {
        let Some(name) = file.file_name() else { continue };
        let target = to.join(name);
        let moved = match fs::rename(&file, &target) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            moved => moved.and_then(|()| sync_entry(&target)).and_then(|()| sync_entry(&file)),
        };
        moved.map_err(|source| OpenError::Io { action: "set aside", path: file, source })?;
    }
    Ok(())
}

/// Gives the file of salvaged rows, if there is one, the name of the segment.
fn put_in_place(path: &Path) -> Result<(), OpenError> {
    let moved = match fs::rename(with_suffix(path), path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        moved => moved.and_then(|()| sync_entry(path)),
    };
    moved.map_err(|source| OpenError::Io { action: "put in place", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
