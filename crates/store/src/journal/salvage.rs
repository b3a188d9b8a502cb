//! What is done with a damaged segment: its files are set aside as they are, and every row that is what was written goes
//! into a new file of the same name.
//!
//! Nothing that a damaged page leads to is relied on: each page there is, of the file and of its log, is looked at by
//! itself, and its rows are believed by their checksums. A row is lost only with the page it is on.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::active::{Active, settle_file};
use super::damage::{self, Damage};
use super::examine::Place;
use super::name::parse_name;
use super::pages::{Image, PAGE, Page, Pages, View};
use super::seal::{Found, Seal};
use super::segment::{Segment, remove_files};
use super::stored::{Dictionary, Mark, Stored};
use super::tree::{Cell, leaf};
use crate::directory::{create_dir, sync_entry, write_new};
use crate::{OpenError, ReadAt, Record};

/// Records that are stored at once.
const BATCH: usize = 1_000;
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
    let mut salvaged = rebuild(path, known, read_at).await?;
    // A page is lost when it is refused again after others were written: a disk that was away may be back.
    for _ in 0..ATTEMPTS {
        if !salvaged.answers_now {
            break;
        }
        salvaged = rebuild(path, known, read_at).await?;
    }
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
    Ok((damage, salvaged))
}

/// Puts a copy of its rows in the place of a segment whose indexes nothing answers for.
pub(super) async fn renew(path: &Path, known: Known, read_at: &ReadAt) -> Result<(), OpenError> {
    // Without a log the copy takes its place in one step.
    let settled = settle_file(path).await;
    let failed = |source| OpenError::Segment { path: path.to_owned(), source: Box::new(source) };
    if !settled.map_err(failed)? {
        return Err(failed(sqlx::Error::Protocol("the log of the segment is in use".into())));
    }
    rebuild(path, known, read_at).await?;
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

/// Writes what is readable into a file beside the damaged one.
async fn rebuild(path: &Path, known: Known, read_at: &ReadAt) -> Result<Salvaged, OpenError> {
    let failed = |source: io::Error| OpenError::Io { action: "salvage", path: path.to_owned(), source };
    let sql = |source| OpenError::Segment { path: path.to_owned(), source: Box::new(source) };
    let file = with_suffix(path);
    remove_files(&file).map_err(failed)?;
    let sealed = match Seal::read(path, read_at) {
        Ok(Found::Seal(seal)) => Some(seal.mark),
        _ => None,
    };
    let mut rows = {
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
        next = next.max(last.position.get() + 1);
        count += batch.len() as u64;
        active.store(&batch.iter().collect::<Vec<_>>(), next, ran).await.map_err(sql)?;
    }
    active.store(&[], next, ran).await.map_err(sql)?;
    active.close().await.map_err(sql)?;
    sync_entry(&file).map_err(failed)?;
    let answers_now = blocking(move || rows.pages.answers_now()).await.map_err(failed)?;
    Ok(Salvaged { rows: count, expected, replaced: true, answers_now })
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

/// The rows of a damaged segment, by the images of the pages they are on.
struct Rows {
    pages: Pages,
    known: Dictionary,
    mark: Option<Mark>,
    /// Where rows are, by position and by how far their image is to be preferred; not all are what was written.
    places: VecDeque<RowPlace>,
    /// The page that was read last.
    page: Option<(Image, Page)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RowPlace {
    position: i64,
    rank: usize,
    cell: u16,
    image: Image,
}

impl Rows {
    fn gather(path: &Path, before: i64, read_at: &ReadAt) -> io::Result<Rows> {
        let pages = Pages::open(path, read_at)?;
        let (mut known, mut mark, mut places) = (Dictionary::default(), None::<Mark>, Vec::new());
        let mut bytes = Vec::new();
        for (rank, image) in pages.images().enumerate() {
            let Some(page) = pages.read(image)? else { continue };
            for (index, cell) in cells(&page) {
                // What refers to nothing else is taken here; a record waits for what it refers to.
                let mut first = None;
                payloads(&cell, &page, &pages, &mut bytes, |row| {
                    match Stored::read(cell.rowid, row) {
                        Some(Stored::Device { number, id, serial }) => drop(known.add_device(number, id, serial)),
                        Some(Stored::Path { number, levels }) => drop(known.add_path(number, levels)),
                        Some(Stored::Mark(found)) if mark.is_none_or(|mark| mark.next < found.next) => {
                            mark = Some(found)
                        }
                        Some(Stored::Record(record)) if (1..before).contains(&record.position) => {
                            first = Some(record.position);
                        }
                        _ => return false,
                    }
                    true
                })?;
                if let (Some(position), Ok(cell)) = (first, u16::try_from(index)) {
                    places.push(RowPlace { position, rank, cell, image });
                }
            }
        }
        if pages.is_mute() {
            // Nothing says that it is these pages and not the whole disk.
            return Err(io::Error::other("the disk refuses to read any of it"));
        }
        places.sort_unstable();
        Ok(Rows { pages, known, mark, places: places.into(), page: None })
    }

    /// The first position of a row, whether or not it is what was written.
    fn first(&self) -> Option<i64> {
        self.places.front().map(|place| place.position)
    }

    /// The next rows that are what was written, in their order; none: there are no more.
    fn batch(&mut self) -> io::Result<Vec<Arc<Record>>> {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(place) = self.places.front().copied().filter(|_| batch.len() < BATCH) {
            self.places.pop_front();
            if let Some(record) = self.record(place)? {
                batch.push(Arc::new(record));
                while self.places.front().is_some_and(|other| other.position == place.position) {
                    self.places.pop_front();
                }
            }
        }
        Ok(batch)
    }

    fn record(&mut self, place: RowPlace) -> io::Result<Option<Record>> {
        if self.page.as_ref().is_none_or(|(image, _)| *image != place.image) {
            self.page = self.pages.read(place.image)?.map(|page| (place.image, page));
        }
        let Some((_, page)) = &self.page else { return Ok(None) };
        let Some((_, cell)) = cells(page).find(|(index, _)| *index == usize::from(place.cell)) else { return Ok(None) };
        let mut record = None;
        payloads(&cell, page, &self.pages, &mut Vec::new(), |row| {
            if let Some(Stored::Record(stored)) = Stored::read(cell.rowid, row) {
                record = self.known.record(&stored);
            }
            record.is_some()
        })?;
        Ok(record)
    }
}

/// What cells there are on a page of rows; nothing on any other.
fn cells(page: &Page) -> impl Iterator<Item = (usize, Cell)> + '_ {
    // The first page has no rows of ours.
    let cells = leaf(page, 2).ok().into_iter().flatten().enumerate();
    cells.filter_map(|(index, cell)| Some((index, cell.ok()?)))
}

/// Shows the bytes of a row until they are accepted: those of a large one may lie in several places.
fn payloads(
    cell: &Cell,
    page: &Page,
    pages: &Pages,
    bytes: &mut Vec<u8>,
    mut accept: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    for view in [View::Committed, View::Logged, View::Filed] {
        if cell.payload(page, pages, view, bytes, |_| {})? && accept(bytes) {
            return Ok(());
        }
        if !cell.is_elsewhere() {
            return Ok(());
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn with_suffix(path: &Path) -> PathBuf {
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

const _: () = assert!(PAGE / 4 < u16::MAX as usize, "the index of a cell fits");

#[cfg(test)]
mod tests;
