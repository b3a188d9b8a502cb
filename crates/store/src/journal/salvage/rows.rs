//! The rows of a damaged segment, wherever they lie.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::journal::pages::{Image, PAGE, Page, Pages, View};
use crate::journal::stored::{Dictionary, Mark, Stored};
use crate::journal::tree::{Cell, leaf};
use crate::{ReadAt, Record};

/// Records that are read at once.
const BATCH: usize = 1_000;

/// The rows of a damaged segment, by the images of the pages they are on.
pub(super) struct Rows {
    pub(super) pages: Pages,
    known: Dictionary,
    pub(super) mark: Option<Mark>,
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
    pub(super) fn gather(path: &Path, before: i64, read_at: &ReadAt) -> io::Result<Rows> {
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
        // Otherwise nothing says that it is these pages and not the whole disk.
        pages.is_part()?;
        places.sort_unstable();
        Ok(Rows { pages, known, mark, places: places.into(), page: None })
    }

    /// The first position of a row, whether or not it is what was written.
    pub(super) fn first(&self) -> Option<i64> {
        self.places.front().map(|place| place.position)
    }

    /// The next rows that are what was written, in their order; none: there are no more.
    pub(super) fn batch(&mut self) -> io::Result<Vec<Arc<Record>>> {
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

const _: () = assert!(PAGE / 4 < u16::MAX as usize, "the index of a cell fits");
