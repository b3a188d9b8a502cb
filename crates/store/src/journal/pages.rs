//! The pages of a segment file and of its log, read without the database: it stops at the first page that is damaged, or
//! passes over it without a word. (The file formats of SQLite 3, as its documentation has them.)

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::path::Path;

use parking_lot::Mutex;

use super::disk::{Came, Disk, MUTE};
use super::segment::Segment;
use crate::ReadAt;

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
    file: Disk,
    /// Bytes of the file.
    pub(super) len: u64,
    log: Option<(Disk, Log)>,
    asked: Mutex<Asked>,
}

/// What the disk was asked for.
#[derive(Default)]
struct Asked {
    /// Whether it gave any page.
    answered: bool,
    /// The pages that it refused.
    refused: BTreeSet<Image>,
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
    /// Whether the disk refuses to read the frame.
    pub(super) refused: bool,
}

impl Pages {
    /// Opens a segment file for reading, with its log if it has one.
    pub(super) fn open(path: &Path, read_at: &ReadAt) -> io::Result<Pages> {
        let file = Disk::open(path, read_at)?;
        let len = file.len()?;
        let [_, log, ..] = Segment::files(path);
        let log = match Disk::open(&log, read_at) {
            Ok(file) => {
                let log = Log::read(&file)?;
                Some((file, log))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Pages { file, len, log, asked: Mutex::default() })
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

    /// Reads a page; None: there are not that many bytes, or the disk refuses them.
    pub(super) fn read(&self, image: Image) -> io::Result<Option<Page>> {
        let (file, offset) = match (image, &self.log) {
            (Image::File(offset), _) => (&self.file, offset),
            (Image::Log(offset), Some((log, _))) => (log, offset),
            (Image::Log(_), None) => return Ok(None),
        };
        let mut page = Box::new([0; PAGE]);
        let came = file.fill(&mut page[..], offset)?;
        let mut asked = self.asked.lock();
        match came {
            Came::Whole => {
                asked.answered = true;
                Ok(Some(page))
            }
            Came::Short(_) => Ok(None),
            Came::Refused => {
                asked.refused.insert(image);
                Ok(None)
            }
        }
    }

    /// The first page that the disk has refused.
    pub(super) fn refused(&self) -> Option<Image> {
        self.asked.lock().refused.first().copied()
    }

    /// Makes sure that what the disk has refused is a part.
    ///
    /// # Errors
    /// It refuses every page there is.
    pub(super) fn is_part(&self) -> io::Result<()> {
        let answered = || self.asked.lock().answered;
        for image in self.images() {
            if answered() {
                return Ok(());
            }
            self.read(image)?;
        }
        let is_mute = !answered() && self.refused().is_some();
        if is_mute { Err(io::Error::other(MUTE)) } else { Ok(()) }
    }

    /// Whether the disk now gives a page that it has refused.
    pub(super) fn answers_now(&self) -> io::Result<bool> {
        let refused = std::mem::take(&mut self.asked.lock().refused);
        for image in refused {
            if self.read(image)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Log {
    fn read(disk: &Disk) -> io::Result<Log> {
        let mut log = Log::default();
        let mut header = [0; LOG_HEADER];
        let came = disk.fill(&mut header, 0)?;
        if let Came::Short(len) = came {
            log.len = len as u64;
            return Ok(log);
        }
        log.len = LOG_HEADER as u64;
        let refused = came == Came::Refused;
        let big = be32(&header, 0) == 0x377f_0683;
        let known = be32(&header, 0) & !1 == 0x377f_0682 && be32(&header, 8) as usize == PAGE;
        let mut sums = checksum((0, 0), &header[..24], big);
        let mut whole = known && sums == (be32(&header, 24), be32(&header, 28)) && !refused;
        if !whole {
            log.broken = Some(Break { offset: 0, commits: 0, refused });
        }
        let mut pending = Vec::new();
        let mut frames = disk.pieces(FRAME as usize, log.len);
        loop {
            let offset = log.len;
            let Some(frame) = frames.piece()? else {
                log.len += FRAME;
                if whole {
                    whole = false;
                    log.broken = Some(Break { offset, commits: 0, refused: true });
                }
                continue;
            };
            log.len += frame.len() as u64;
            if (frame.len() as u64) < FRAME {
                return Ok(log);
            }
            let content = offset + FRAME_HEADER as u64;
            let (number, size) = (be32(frame, 0), be32(frame, 4));
            log.logged.insert(number, content);
            let ours = frame[8..16] == header[16..24];
            if whole {
                let next = checksum(checksum(sums, &frame[..8], big), &frame[FRAME_HEADER..], big);
                whole = ours && number != 0 && next == (be32(frame, 16), be32(frame, 20));
                if whole {
                    sums = next;
                    pending.push((number, content));
                    if size != 0 {
                        log.committed.extend(pending.drain(..));
                        log.count = Some(size);
                    }
                    continue;
                }
                log.broken = Some(Break { offset, commits: 0, refused: false });
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

/// A big-endian number at a place that the caller knows to be there.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
