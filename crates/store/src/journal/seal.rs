//! The seal of a segment that no longer changes: what is true of its records, a filter over its events, and a checksum for
//! each page of its file, in a file beside it (`…-seal`). A segment is sealed when this file is there.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::checksum::CRC;
use super::disk::{Disk, REFUSED};
use super::examine::Place;
use super::filter::Filter;
use super::pages::PAGE;
use super::segment::{Bounds, Segment};
use super::stored::Mark;
use crate::directory::write_new;
use crate::{OpenError, ReadAt};

const MAGIC: &[u8; 8] = b"VBLSEAL\x02";

/// What a seal says.
pub(super) struct Seal {
    pub(super) mark: Mark,
    pub(super) bounds: Bounds,
    pub(super) filter: Filter,
    /// The checksum of each page.
    pages: Vec<u32>,
}

/// What is beside a segment.
pub(super) enum Found {
    /// Nothing: it was not sealed.
    Nothing,
    Seal(Seal),
    /// A file that is not what was written.
    Damaged,
}

impl Seal {
    /// Makes the seal of a segment whose file is whole and has no log; a place: the disk refuses a page of it. Blocks.
    pub(super) fn make(
        path: &Path,
        mark: Mark,
        bounds: Bounds,
        filter: Filter,
        read_at: &ReadAt,
    ) -> io::Result<Result<Seal, Place>> {
        let disk = Disk::open(path, read_at)?;
        let mut found = disk.pieces(PAGE, 0);
        let mut pages = Vec::new();
        loop {
            match found.piece()? {
                Some([]) => return Ok(Ok(Seal { mark, bounds, filter, pages })),
                Some(page) => pages.push(CRC.checksum(page)),
                None => {
                    let offset = pages.len() as u64 * PAGE as u64;
                    return Ok(Err(Place { in_log: false, offset, what: REFUSED }));
                }
            }
        }
    }

    /// Writes it beside its segment, durably. Blocks.
    pub(super) fn write(&self, path: &Path) -> Result<(), OpenError> {
        let mut bytes = Vec::with_capacity(128 + 4 * self.pages.len() + self.filter.as_bytes().len());
        bytes.extend_from_slice(MAGIC);
        let Bounds { rows: _, min_time, max_time, received, ran } = self.bounds;
        for number in [self.mark.base, self.mark.next, self.mark.rows, min_time, max_time, received, ran] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.pages.len() as u64).to_le_bytes());
        self.pages.iter().for_each(|sum| bytes.extend_from_slice(&sum.to_le_bytes()));
        bytes.extend_from_slice(self.filter.as_bytes());
        bytes.extend_from_slice(&CRC.checksum(&bytes).to_le_bytes());
        let [.., seal] = Segment::files(path);
        write_new(&seal, &bytes, 0o600)
    }

    /// Reads what is beside a segment.
    pub(super) fn read(path: &Path, read_at: &ReadAt) -> io::Result<Found> {
        let [.., seal] = Segment::files(path);
        match Disk::open(&seal, read_at).and_then(|disk| disk.all()) {
            Ok(bytes) => Ok(bytes.and_then(|bytes| Seal::parse(&bytes)).map_or(Found::Damaged, Found::Seal)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Seal> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        if CRC.checksum(body) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC)?;
        let mut number = || {
            let (number, behind) = rest.split_first_chunk::<8>()?;
            rest = behind;
            Some(i64::from_le_bytes(*number))
        };
        let (base, next, rows) = (number()?, number()?, number()?);
        let (min_time, max_time, received, ran) = (number()?, number()?, number()?, number()?);
        let pages = usize::try_from(number()?).ok()?;
        let (sums, filter) = rest.split_at_checked(pages.checked_mul(4)?)?;
        let pages = sums.as_chunks::<4>().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        Some(Seal {
            mark: Mark { base, next, rows, ran },
            bounds: Bounds { rows, min_time, max_time, received, ran },
            filter: Filter::from_stored(filter.to_vec())?,
            pages,
        })
    }

    /// Whether the file is as long as it was; what can be known at once.
    pub(super) fn check_length(&self, path: &Path) -> io::Result<Option<Place>> {
        let expected = self.pages.len() as u64 * PAGE as u64;
        let len = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let what = "the file is not as long as it was";
        Ok((len != expected).then_some(Place { in_log: false, offset: len.min(expected), what }))
    }

    /// Compares the file of a sealed segment with its seal, page by page. Blocks.
    pub(super) fn check(path: &Path, read_at: &ReadAt) -> io::Result<Option<Place>> {
        let seal = match Seal::read(path, read_at)? {
            Found::Seal(seal) => seal,
            Found::Nothing | Found::Damaged => return Ok(Some(BROKEN)),
        };
        if let Some(place) = seal.check_length(path)? {
            return Ok(Some(place));
        }
        let disk = Disk::open(path, read_at)?;
        let mut found = disk.pieces(PAGE, 0);
        for (index, sum) in seal.pages.iter().enumerate() {
            let what = match found.piece()? {
                Some(page) if CRC.checksum(page) == *sum => continue,
                Some(_) => "a page is not what was written",
                None => REFUSED,
            };
            return Ok(Some(Place { in_log: false, offset: index as u64 * PAGE as u64, what }));
        }
        Ok(None)
    }
}

/// What a seal that is not whole is reported as; the segment's rows answer for themselves.
pub(super) const BROKEN: Place =
    Place { in_log: false, offset: 0, what: "the seal beside the file is not what was written" };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read_at;

    #[test]
    fn a_seal_is_read_as_it_was_written_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("2026-01-01-1.db");
        fs::write(&path, vec![7; 3 * PAGE]).unwrap();
        assert!(matches!(Seal::read(&path, &read_at()).unwrap(), Found::Nothing));
        let mark = Mark { base: 1, next: 9, rows: 5, ran: 8 };
        let bounds = Bounds { rows: 5, min_time: -3, max_time: 4, received: 6, ran: 8 };
        Seal::make(&path, mark, bounds, Filter::over(&[1, 2]), &read_at()).unwrap().unwrap().write(&path).unwrap();
        let Found::Seal(read) = Seal::read(&path, &read_at()).unwrap() else { panic!("no seal") };
        assert_eq!((read.mark, read.bounds, read.pages.len()), (mark, bounds, 3));
        assert_eq!(read.filter, Filter::over(&[1, 2]));
        assert_eq!(Seal::check(&path, &read_at()).unwrap(), None);

        let [.., seal] = Segment::files(&path);
        let whole = fs::read(&seal).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert!(Seal::parse(&bytes).is_none(), "byte {at}");
            assert!(Seal::parse(&whole[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn a_page_that_changed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("2026-01-01-1.db");
        let pages = 131;
        fs::write(&path, vec![7; pages * PAGE]).unwrap();
        let mark = Mark { base: 1, next: 1, rows: 0, ran: 0 };
        Seal::make(&path, mark, Bounds::EMPTY, Filter::over(&[]), &read_at()).unwrap().unwrap().write(&path).unwrap();
        for page in [0, 64, pages - 1] {
            let mut bytes = vec![7; pages * PAGE];
            bytes[page * PAGE + 9] = 8;
            fs::write(&path, bytes).unwrap();
            assert_eq!(Seal::check(&path, &read_at()).unwrap().map(|place| place.offset), Some((page * PAGE) as u64));
        }
        fs::write(&path, vec![7; PAGE]).unwrap();
        assert_eq!(Seal::check(&path, &read_at()).unwrap().map(|place| place.offset), Some(PAGE as u64));
        fs::remove_file(&path).unwrap();
        assert_eq!(Seal::check(&path, &read_at()).unwrap().map(|place| place.offset), Some(0));
    }
}
