//! Whether a segment that was not sealed is as it was written.
//!
//! The database would say nothing of a row that a damaged page leaves out. So after a start, and whenever there is a doubt,
//! the file is gone through page by page together with its log: every page belongs to one table and is accounted for, every
//! row has its checksum, and there are as many records as were counted when they were stored. What memory must know of the
//! segment comes out of the same pass.

use std::io;
use std::path::Path;

use super::disk::REFUSED;
use super::filter;
use super::format::{FORMAT, TABLES, root};
use super::live::Live;
use super::pages::{Break, Image, PAGE, Pages, View, be32};
use super::segment::{Bounds, Segment};
use super::stored::{Dictionary, Mark, Stored};
use super::tree::{Flaw, TreeError, Value, Walk, columns};
use crate::{ReadAt, RecordKind};

/// What a segment is found to be.
pub(super) enum Examined {
    /// As it was written.
    Sound(Box<Contents>),
    /// Not what was written, here.
    Damaged(Place),
    /// As it was written, but for indexes that nothing answers for: its seal was not completed.
    HalfSealed(Box<Contents>),
}

/// Where something is wrong, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// In the log, not in the file itself.
    pub(super) in_log: bool,
    pub(super) offset: u64,
    pub(super) what: &'static str,
}

/// What a sound segment holds.
pub(super) struct Contents {
    pub(super) mark: Mark,
    pub(super) bounds: Bounds,
    pub(super) live: Live,
    /// The highest numbers of a device and a path.
    pub(super) last_device: i64,
    pub(super) last_path: i64,
    /// Where the log stops being one, or ends; what lies behind was no whole transaction.
    pub(super) log_end: u64,
}

/// Examines a segment file together with its log. Blocks.
pub(super) fn examine(path: &Path, read_at: &ReadAt) -> io::Result<Examined> {
    let mut live = Live::default();
    Ok(match look(path, read_at, Some(&mut live))? {
        Ok((contents, false)) => Examined::Sound(Box::new(Contents { live, ..contents })),
        Ok((contents, true)) => Examined::HalfSealed(Box::new(Contents { live, ..contents })),
        Err(place) => Examined::Damaged(place),
    })
}

/// How many records a segment has, when every row is what was written; indexes are not looked at. Blocks.
pub(super) fn verify(path: &Path, read_at: &ReadAt) -> io::Result<Result<i64, Place>> {
    Ok(look(path, read_at, None)?.map(|(contents, _)| contents.bounds.rows))
}

/// What a segment holds, with `live` what memory must know of it; true: there are indexes.
fn look(path: &Path, read_at: &ReadAt, live: Option<&mut Live>) -> io::Result<Result<(Contents, bool), Place>> {
    let pages = match Pages::open(path, read_at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err(Place { in_log: false, offset: 0, what: "the file is missing" }));
        }
        pages => pages?,
    };
    match pages.broken() {
        Some(Break { offset, refused: true, .. }) => {
            pages.is_part()?;
            return Ok(Err(Place { in_log: true, offset, what: REFUSED }));
        }
        Some(Break { offset, commits: 2.., .. }) => {
            let what = "a frame of the log is not what was written, and commits lie behind it";
            return Ok(Err(Place { in_log: true, offset, what }));
        }
        _ => {}
    }
    match contents(&pages, live) {
        Ok(contents) => Ok(Ok(contents)),
        // What was found missing may only have been refused.
        Err(TreeError::Flaw(Flaw { page, what })) => Ok(Err(match pages.refused() {
            Some(image) => {
                pages.is_part()?;
                let (Image::Log(offset) | Image::File(offset)) = image;
                Place { in_log: matches!(image, Image::Log(_)), offset, what: REFUSED }
            }
            None => Place { in_log: false, offset: u64::from(page.saturating_sub(1)) * PAGE as u64, what },
        })),
        Err(TreeError::Io(error)) => Err(error),
    }
}

fn contents(pages: &Pages, mut live: Option<&mut Live>) -> Result<(Contents, bool), TreeError> {
    let flaw = |page, what| TreeError::Flaw(Flaw { page, what });
    let mut walk = Walk::new(pages);
    let indexed = head(pages, &mut walk)? > TABLES.len();
    let mut known = Dictionary::default();
    let mut count = [0; 2];
    const FOREIGN: &str = "a row is not what was written";
    for table in [root::DEVICE, root::DEVICE_COPY] {
        walk.table(table, &mut |rowid, row| {
            let Some(Stored::Device { number, id, serial }) = Stored::read(rowid, row) else { return Err(FOREIGN) };
            count[0] += 1;
            if known.add_device(number, id, serial) { Ok(()) } else { Err(FOREIGN) }
        })?;
    }
    for table in [root::PATH, root::PATH_COPY] {
        walk.table(table, &mut |rowid, row| {
            let Some(Stored::Path { number, levels }) = Stored::read(rowid, row) else { return Err(FOREIGN) };
            count[1] += 1;
            if known.add_path(number, levels) { Ok(()) } else { Err(FOREIGN) }
        })?;
    }
    if (count[0], count[1]) != (2 * known.len().0, 2 * known.len().1) {
        return Err(flaw(root::DEVICE, "devices or paths are missing"));
    }
    let mut mark = None;
    walk.table(root::MARK, &mut |rowid, row| match Stored::read(rowid, row) {
        Some(Stored::Mark(found)) => mark.replace(found).map_or(Ok(()), |_| Err(FOREIGN)),
        _ => Err(FOREIGN),
    })?;
    let mark = mark.ok_or_else(|| flaw(root::MARK, "the mark is missing"))?;
    if let Some(live) = &mut live {
        for (number, id, serial) in known.devices() {
            live.add_device(id, serial, number);
        }
    }
    let mut bounds = Bounds::EMPTY;
    walk.table(root::RECORD, &mut |rowid, row| {
        let Some(Stored::Record(record)) = Stored::read(rowid, row) else { return Err(FOREIGN) };
        let (device, path) = known.device_and_path_of(&record).ok_or(FOREIGN)?;
        bounds.include(record.time, record.received);
        if let Some(live) = &mut live {
            live.add(device, record.position, record.id.map(|id| filter::key(device, id)));
            if record.kind == RecordKind::Attribute.stored() {
                live.add_report(device, path, record.position);
            }
        }
        Ok(())
    })?;
    bounds.ran = mark.ran;
    if bounds.rows != mark.rows {
        return Err(flaw(root::RECORD, "records are missing"));
    }
    // The pages of indexes are not looked at.
    if !indexed && walk.visited != pages.count() {
        return Err(flaw(1, "pages belong to nothing"));
    }
    let (last_device, last_path) = known.last();
    let log_end = pages.broken().map_or(pages.log_len(), |broken| broken.offset);
    Ok((Contents { mark, bounds, live: Live::default(), last_device, last_path, log_end }, indexed))
}

/// Holds the first page to what it must be; returns how many tables, views and indexes there are.
fn head(pages: &Pages, walk: &mut Walk<'_>) -> Result<usize, TreeError> {
    let flaw = |what| TreeError::Flaw(Flaw { page: 1, what });
    let page = match pages.image(View::Committed, 1) {
        Some(image) => pages.read(image)?,
        None => None,
    };
    let page = page.ok_or_else(|| flaw("the file has no first page"))?;
    let is_ours = page.starts_with(b"SQLite format 3\0\x10\0\x02\x02\0\x40\x20\x20")
        && be32(&page[..], 44) == 4
        && be32(&page[..], 56) == 1
        && be32(&page[..], 60) == FORMAT
        // No page is free, and what this file does not use is zero.
        && page[32..40].iter().chain(&page[48..56]).chain(&page[64..92]).all(|byte| *byte == 0);
    if !is_ours {
        return Err(flaw("the head of the file is not what was written"));
    }
    if be32(&page[..], 28) != pages.count() {
        return Err(flaw("the file is not as long as it was"));
    }
    let mut items = 0;
    walk.table(1, &mut |_, row| {
        let expected = TABLES.get(items);
        items += 1;
        let Some(item) = expected else { return Ok(()) };
        let root = if item.kind == "table" { items as i64 + 1 } else { 0 };
        let row = columns::<5>(row).filter(|(_, count)| *count == 5).map(|(values, _)| values);
        let text = |text| Value::Text(text);
        let right = [text(item.kind), text(item.name), text(item.name), Value::Integer(root), text(item.sql)];
        if row == Some(right) { Ok(()) } else { Err("the schema is not what was written") }
    })?;
    if items < TABLES.len() { Err(flaw("the schema is not whole")) } else { Ok(items) }
}

impl Place {
    /// The file it is in.
    pub(super) fn file(&self, segment: &Path) -> std::path::PathBuf {
        let [file, log, ..] = Segment::files(segment);
        if self.in_log { log } else { file }
    }
}
