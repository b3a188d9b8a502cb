//! Files of the journal as a disk gives them back, which may refuse some of their bytes.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::ReadAt;

/// Bytes that are asked for at once.
const CHUNK: usize = 256 << 10;
/// What a disk is told of that gives nothing of a file: then it is not the file.
pub(super) const MUTE: &str = "the disk refuses to read any of it";
/// What a place is reported as whose bytes do not come.
pub(super) const REFUSED: &str = "the disk refuses to read it";

/// A file that is read at places.
pub(super) struct Disk {
    path: PathBuf,
    file: File,
    read_at: ReadAt,
}

/// What came of reading a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// All bytes that were asked for.
    Whole,
    /// So many: the file ends there.
    Short(usize),
    /// The disk refuses them. They count as lost.
    Refused,
}

impl Disk {
    pub(super) fn open(path: &Path, read_at: &ReadAt) -> io::Result<Disk> {
        Ok(Disk { path: path.to_owned(), file: File::open(path)?, read_at: read_at.clone() })
    }

    /// The length of the file.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Fills the buffer from this offset on. An error is none of these bytes alone.
    pub(super) fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<Came> {
        let mut filled = 0;
        while filled < buffer.len() {
            match (self.read_at)(&self.path, &self.file, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => return Ok(Came::Short(filled)),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_refusal(&error) => return Ok(Came::Refused),
                Err(error) => return Err(error),
            }
        }
        Ok(Came::Whole)
    }

    /// Everything in it; None: the disk refuses some of it.
    pub(super) fn all(&self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; usize::try_from(self.len()?).map_err(io::Error::other)?];
        Ok(match self.fill(&mut bytes, 0)? {
            Came::Whole => Some(bytes),
            Came::Short(len) => {
                bytes.truncate(len);
                Some(bytes)
            }
            Came::Refused => None,
        })
    }

    /// Its pieces of this length from an offset on.
    pub(super) fn pieces(&self, len: usize, offset: u64) -> Pieces<'_> {
        Pieces { disk: self, len, offset, chunk: Vec::new(), at: 0, singly: 0 }
    }
}

/// Pieces of a file in order, read many at once as long as the disk gives them.
pub(super) struct Pieces<'a> {
    disk: &'a Disk,
    len: usize,
    /// Where the chunk ends in the file.
    offset: u64,
    chunk: Vec<u8>,
    at: usize,
    /// How many pieces are still read one by one, because the disk refuses them together.
    singly: usize,
}

impl Pieces<'_> {
    /// The next piece, the last of which may be short, or an empty one at the end; None: the disk refuses it.
    pub(super) fn piece(&mut self) -> io::Result<Option<&[u8]>> {
        if self.at == self.chunk.len() && !self.read()? {
            return Ok(None);
        }
        let piece = self.at..self.chunk.len().min(self.at + self.len);
        self.at = piece.end;
        Ok(Some(&self.chunk[piece]))
    }

    /// Reads on; false: the next piece is refused.
    fn read(&mut self) -> io::Result<bool> {
        loop {
            let many = (CHUNK / self.len).max(1);
            let count = if self.singly > 0 { 1 } else { many };
            self.singly = self.singly.saturating_sub(1);
            self.chunk.resize(count * self.len, 0);
            self.at = 0;
            match self.disk.fill(&mut self.chunk, self.offset)? {
                Came::Whole => {}
                Came::Short(len) => self.chunk.truncate(len),
                Came::Refused if count > 1 => {
                    self.singly = many;
                    continue;
                }
                // A disk that refuses everything does not say where a file ends.
                Came::Refused if self.offset >= self.disk.len()? => self.chunk.clear(),
                Came::Refused => {
                    self.chunk.clear();
                    self.offset += self.len as u64;
                    return Ok(false);
                }
            }
            self.offset += self.chunk.len() as u64;
            return Ok(true);
        }
    }
}

/// Whether a disk says so of the bytes it was asked for: a medium error, or a checksum of the file system that is wrong.
fn is_refusal(error: &io::Error) -> bool {
    let refusals = [Errno::IO, Errno::NODATA, Errno::BADMSG, Errno::UCLEAN, Errno::ILSEQ];
    Errno::from_io_error(error).is_some_and(|errno| refusals.contains(&errno))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn pieces_are_all_there_but_for_those_that_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (pieces, rest, bad) in
            [(0, 0, vec![]), (3, 7, vec![1]), (700, 1, vec![0, 299, 300, 699]), (2, 0, vec![0, 1])]
        {
            let len = 1_000;
            let content: Vec<u8> = (0..pieces * len + rest).map(|at| (at / len + at) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            let refused = bad.clone();
            let read_at: ReadAt = Arc::new(move |_, file, buffer, offset| {
                let touched = |piece: &usize| {
                    let start = (piece * len) as u64;
                    offset < start + len as u64 && offset + buffer.len() as u64 > start
                };
                if refused.iter().any(touched) { Err(Errno::IO.into()) } else { file.read_at(buffer, offset) }
            });
            let disk = Disk::open(&path, &read_at).unwrap();
            let mut found = disk.pieces(len, 0);
            for index in 0..pieces {
                let piece = found.piece().unwrap().map(<[u8]>::to_vec);
                let expected = (!bad.contains(&index)).then(|| content[index * len..(index + 1) * len].to_vec());
                assert!(piece == expected, "{index} of {pieces}");
            }
            if rest > 0 {
                assert_eq!(found.piece().unwrap(), Some(&content[pieces * len..]));
            }
            assert_eq!(found.piece().unwrap(), Some(&[][..]));
            assert_eq!(disk.all().unwrap(), bad.is_empty().then_some(content));
        }
    }

    #[test]
    fn a_disk_that_refuses_everything_comes_to_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [0; 10]).unwrap();
        let read_at: ReadAt = Arc::new(|_, _, _, _| Err(Errno::IO.into()));
        let disk = Disk::open(&path, &read_at).unwrap();
        let mut found = disk.pieces(4, 0);
        let came: Vec<bool> = (0..4).map(|_| found.piece().unwrap().is_some()).collect();
        assert_eq!(came, [false, false, false, true]);
        assert_eq!((found.piece().unwrap(), disk.all().unwrap()), (Some(&[][..]), None));
    }

    #[test]
    fn only_what_is_said_of_the_bytes_is_a_refusal() {
        assert!(is_refusal(&Errno::IO.into()) && is_refusal(&Errno::BADMSG.into()));
        assert!(!is_refusal(&Errno::NOSPC.into()) && !is_refusal(&io::Error::other("what")));
    }
}
