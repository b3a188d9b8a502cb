//! How far the journal went, kept beside its segments so that the loss of one does not take it along.
//!
//! The file is written after each commit and not synced then: it is never ahead of what was durable, so a journal that ends
//! before it has lost its end. A power cut may set it back; what it has room for (`reserved`) is synced before any position
//! up to there is stored, so that after a loss the journal goes on behind every position that was given.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::checksum::CRC;
use super::disk::Disk;
use crate::directory::write_new;
use crate::{OpenError, ReadAt};

/// How many positions are reserved at once.
const RESERVED: i64 = 1 << 16;
/// What is skipped when neither the newest segment nor this file says how far the journal went.
pub(super) const UNKNOWN: i64 = 1 << 32;
const MAGIC: &[u8; 8] = b"VBLMARK\x02";
const LEN: usize = 44;

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The next position that was to be stored.
    pub(super) next: i64,
    /// No position from here on was given.
    pub(super) reserved: i64,
    /// How long the journal had run, in milliseconds.
    pub(super) ran: i64,
    /// What the clock said then, Unix milliseconds.
    pub(super) clock: i64,
}

/// The file.
pub(super) struct Watermark {
    file: File,
    state: State,
    failing: bool,
}

/// What was there.
pub(super) enum Found {
    Nothing,
    State(State),
    /// A file that is not what was written.
    Damaged,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("MARK")
}

impl Watermark {
    /// Reads what a former process left.
    pub(super) fn read(dir: &Path, read_at: &ReadAt) -> Result<Found, OpenError> {
        let path = path(dir);
        match Disk::open(&path, read_at).and_then(|disk| disk.all()) {
            Ok(bytes) => Ok(bytes.and_then(|bytes| parse(&bytes)).map_or(Found::Damaged, Found::State)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
            Err(source) => Err(OpenError::Io { action: "read", path, source }),
        }
    }

    /// Writes the file anew, durably, for a journal that goes on so.
    pub(super) fn open(dir: &Path, mut state: State) -> Result<Watermark, OpenError> {
        let path = path(dir);
        state.reserved = state.reserved.max(state.next);
        write_new(&path, &state.bytes(), 0o600)?;
        let file = File::options().write(true).open(&path);
        let file = file.map_err(|source| OpenError::Io { action: "open", path, source })?;
        Ok(Watermark { file, state, failing: false })
    }

    /// Has room for the positions before `next`, durably.
    pub(super) fn reserve(&mut self, next: i64) -> io::Result<()> {
        if next <= self.state.reserved {
            return Ok(());
        }
        let reserved = next.saturating_add(RESERVED);
        self.file.write_all_at(&State { reserved, ..self.state }.bytes(), 0)?;
        self.file.sync_data()?;
        self.state.reserved = reserved;
        Ok(())
    }

    /// Writes down what was committed. It may fail: what is lost is only knowledge of a loss.
    pub(super) fn note(&mut self, next: i64, ran: i64, clock: i64) {
        self.state = State { next, ran, clock, ..self.state };
        let failed = self.file.write_all_at(&self.state.bytes(), 0).err();
        if let Some(error) = failed.as_ref().filter(|_| !self.failing) {
            tracing::warn!(%error, "the journal cannot write down how far it went");
        }
        self.failing = failed.is_some();
    }

    /// Makes durable what was noted.
    pub(super) fn close(self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl State {
    fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(MAGIC);
        for (place, number) in
            bytes[8..40].as_chunks_mut::<8>().0.iter_mut().zip([self.next, self.reserved, self.ran, self.clock])
        {
            *place = number.to_le_bytes();
        }
        let sum = CRC.checksum(&bytes[..40]);
        bytes[40..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

fn parse(bytes: &[u8]) -> Option<State> {
    let bytes: &[u8; LEN] = bytes.try_into().ok()?;
    let numbers = bytes[8..40].as_chunks::<8>().0;
    let number = |index: usize| numbers.get(index).map(|number| i64::from_le_bytes(*number));
    let state = State { next: number(0)?, reserved: number(1)?, ran: number(2)?, clock: number(3)? };
    (state.bytes() == *bytes).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read_at;

    #[test]
    fn positions_are_reserved_before_they_are_given_and_noted_after() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Watermark::read(dir.path(), &read_at()).unwrap(), Found::Nothing));
        let mut mark = Watermark::open(dir.path(), State { next: 5, ..State::default() }).unwrap();
        let read = || match Watermark::read(dir.path(), &read_at()).unwrap() {
            Found::State(state) => state,
            _ => panic!("no state"),
        };
        assert_eq!((read().next, read().reserved), (5, 5));
        mark.reserve(6).unwrap();
        assert_eq!((read().next, read().reserved), (5, 6 + RESERVED));
        mark.note(6, 70, 80);
        mark.reserve(7).unwrap();
        let state = State { next: 6, reserved: 6 + RESERVED, ran: 70, clock: 80 };
        assert_eq!(read(), state);
        mark.close().unwrap();
        for at in 0..LEN {
            let mut bytes = state.bytes();
            bytes[at] ^= 1;
            assert_eq!(parse(&bytes), None, "byte {at}");
            assert_eq!(parse(&state.bytes()[..at]), None, "cut at {at}");
        }
    }
}
