//! The pages of a segment file and of its log, read without the database: it stops at the first page that is damaged, or
//! passes over it without a word. (The file formats of SQLite 3, as its documentation has them.)

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::segment::Segment;

/// Bytes of a page.
pub(super) const PAGE: usize = 4_096;
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const FRAME: u64 = (FRAME_HEADER + PAGE) as u64;

/// The bytes of one page.
pub(super) type Page = Box<[u8; PAGE]>;

/// Where the bytes of a page are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Image {
    /// In the segment file, from this offset on.
    File(u64),
    /// In its log.
    Log(u64),
}

/// Which pages a number means.
#[derive(Clone, Copy)]
pub(super) enum View {
    /// Those the last commit has left, as the database shows them.
    Committed,
    /// The newest ones in the log, whether or not their frames are whole.
    Logged,
    /// Those in the segment file, without the log.
    Filed,
}

/// A segment file with its log.
pub(super) struct Pages {
    file: File,
    /// Bytes of the file.
    pub(super) len: u64,
    log: Option<(File, Log)>,
}

/// What a log holds.
#[derive(Default)]
struct Log {
    len: u64,
    /// The newest committed content of each page, by its offset.
    committed: HashMap<u32, u64>,
    /// The newest content of each page in any frame.
    logged: HashMap<u32, u64>,
    /// The number of pages after the last commit.
    count: Option<u32>,
    broken: Option<Break>,
}

/// Where a log ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Break {
    /// Where the frame begins that is not what was written, in the log.
    pub(super) offset: u64,
    /// Commits that lie behind. One may be a transaction that a power cut came into: the earlier ones were synced.
    pub(super) commits: usize,
}

impl Pages {
    /// Opens a segment file for reading, with its log if it has one.
    pub(super) fn open(path: &Path) -> io::Result<Pages> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let [_, log, ..] = Segment::files(path);
        let log = match File::open(log) {
            Ok(file) => {
                let log = Log::read(BufReader::with_capacity(1 << 20, &file))?;
                Some((file, log))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Pages { file, len, log })
    }

    /// The number of pages the database sees.
    pub(super) fn count(&self) -> u32 {
        let logged = self.log.as_ref().and_then(|(_, log)| log.count);
        logged.unwrap_or_else(|| u32::try_from(self.len / PAGE as u64).unwrap_or(u32::MAX))
    }

    /// Where the log is not what was written, if so.
    pub(super) fn broken(&self) -> Option<Break> {
        self.log.as_ref().and_then(|(_, log)| log.broken)
    }

    /// Bytes of the log.
    pub(super) fn log_len(&self) -> u64 {
        self.log.as_ref().map_or(0, |(_, log)| log.len)
    }

    /// Where a page is, numbered from 1.
    pub(super) fn image(&self, view: View, number: u32) -> Option<Image> {
        let logged = |pages: fn(&Log) -> &HashMap<u32, u64>| {
            self.log.as_ref().and_then(|(_, log)| pages(log).get(&number)).map(|offset| Image::Log(*offset))
        };
        let found = match view {
            View::Committed => logged(|log| &log.committed),
            View::Logged => logged(|log| &log.logged),
            View::Filed => None,
        };
        found.or_else(|| Some(Image::File(u64::from(number.checked_sub(1)?) * PAGE as u64)))
    }

    /// Every page image there is, those of the last commit first.
    pub(super) fn images(&self) -> impl Iterator<Item = Image> + '_ {
        let committed = (1..=self.count()).filter_map(|number| self.image(View::Committed, number));
        let filed = (0..self.len / PAGE as u64).map(|index| Image::File(index * PAGE as u64));
        let frames = self.log_len().saturating_sub(LOG_HEADER as u64) / FRAME;
        let logged = (0..frames).map(|index| Image::Log(LOG_HEADER as u64 + index * FRAME + FRAME_HEADER as u64));
        committed.chain(filed).chain(logged)
    }

    /// Reads a page; None: there are not that many bytes.
    pub(super) fn read(&self, image: Image) -> io::Result<Option<Page>> {
        let (file, offset) = match (image, &self.log) {
            (Image::File(offset), _) => (&self.file, offset),
            (Image::Log(offset), Some((log, _))) => (log, offset),
            (Image::Log(_), None) => return Ok(None),
        };
        let mut page = Box::new([0; PAGE]);
        match file.read_exact_at(&mut page[..], offset) {
            Ok(()) => Ok(Some(page)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Log {
    fn read(mut input: impl Read) -> io::Result<Log> {
        let mut log = Log::default();
        let mut header = [0; LOG_HEADER];
        let read = fill(&mut input, &mut header)?;
        log.len = read as u64;
        if read < LOG_HEADER {
            return Ok(log);
        }
        let big = be32(&header, 0) == 0x377f_0683;
        let known = be32(&header, 0) & !1 == 0x377f_0682 && be32(&header, 8) as usize == PAGE;
        let mut sums = checksum((0, 0), &header[..24], big);
        let mut whole = known && sums == (be32(&header, 24), be32(&header, 28));
        if !whole {
            log.broken = Some(Break { offset: 0, commits: 0 });
        }
        let mut pending = Vec::new();
        let mut frame = vec![0; FRAME as usize];
        loop {
            let offset = log.len;
            let read = fill(&mut input, &mut frame)?;
            log.len += read as u64;
            if read < frame.len() {
                return Ok(log);
            }
            let content = offset + FRAME_HEADER as u64;
            let (number, size) = (be32(&frame, 0), be32(&frame, 4));
            log.logged.insert(number, content);
            let ours = frame[8..16] == header[16..24];
            if whole {
                let next = checksum(checksum(sums, &frame[..8], big), &frame[FRAME_HEADER..], big);
                whole = ours && number != 0 && next == (be32(&frame, 16), be32(&frame, 20));
                if whole {
                    sums = next;
                    pending.push((number, content));
                    if size != 0 {
                        log.committed.extend(pending.drain(..));
                        log.count = Some(size);
                    }
                    continue;
                }
                log.broken = Some(Break { offset, commits: 0 });
            }
            // Frames of an earlier round of the log bear another mark.
            if let Some(broken) = log.broken.as_mut().filter(|_| ours && size != 0) {
                broken.commits += 1;
            }
        }
    }
}

/// The checksum of a log, gone on with over whole pairs of words.
fn checksum((mut first, mut second): (u32, u32), bytes: &[u8], big: bool) -> (u32, u32) {
    for pair in bytes.chunks_exact(8) {
        let word = |at: usize| {
            let word = be32(pair, at);
            if big { word } else { word.swap_bytes() }
        };
        first = first.wrapping_add(word(0)).wrapping_add(second);
        second = second.wrapping_add(word(4)).wrapping_add(first);
    }
    (first, second)
}

/// Reads as much as there is.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A big-endian number at a place that the caller knows to be there.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
