//! What is found of a journal when it is opened, with everything that is damaged already set aside.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::active::{Active, Opened, Sound};
use super::age::Age;
use super::damage::{Damage, Damages};
use super::examine::Place;
use super::filter::Filter;
use super::name::segment_files;
use super::salvage::{self, Known};
use super::segment::Segment;
use super::watermark::{Found, State, UNKNOWN, Watermark};
use crate::{OpenError, ReadAt, StoreConfig};

/// The file in a journal that came out of a backup.
pub(crate) const RESTORED: &str = "RESTORED";

/// A journal that was found.
pub(super) struct Start {
    dir: PathBuf,
    read_at: ReadAt,
    pub(super) damages: Damages,
    pub(super) age: Age,
    /// What was noted of how far it went.
    pub(super) watermark: State,
    /// Where it goes on.
    pub(super) next: i64,
    /// In the order of their records.
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) filters: Vec<(Arc<Segment>, Filter)>,
    /// Those that are not sealed, in order; true: nothing more is written to it.
    pub(super) actives: Vec<(Box<Active>, bool)>,
    /// Whether positions were given that are not there any more.
    pub(super) end_is_lost: bool,
}

/// A segment that was found.
struct Piece {
    opened: Result<Sound, Filter>,
    segment: Arc<Segment>,
    next: i64,
    ran: i64,
    /// Whether it holds what could be salvaged of a damaged one.
    salvaged: bool,
}

impl Start {
    /// Opens what is in this directory, which is there.
    pub(super) async fn of(dir: &Path, config: &StoreConfig) -> Result<Start, OpenError> {
        salvage::finish(dir)?;
        let damages = Damages::load(dir);
        let noted = Watermark::read(dir, &config.read_at)?;
        let before = match &noted {
            Found::State(state) => Some(*state),
            Found::Nothing | Found::Damaged => None,
        };
        let now = (config.now)();
        let mut start = Start {
            dir: dir.to_owned(),
            read_at: config.read_at.clone(),
            damages,
            age: Age::new(before, 0, config.elapsed.clone(), now),
            watermark: before.unwrap_or_default(),
            next: 1,
            segments: Vec::new(),
            filters: Vec::new(),
            actives: Vec::new(),
            end_is_lost: false,
        };
        let mut pieces = Vec::new();
        for (path, day) in segment_files(dir)? {
            pieces.extend(start.open(path, day).await?);
        }
        let headless = salvage::headless(dir);
        let list = |source| OpenError::Io { action: "list", path: dir.to_owned(), source };
        let (mut end_is_lost, mut told) = (false, false);
        for path in headless.map_err(list)? {
            start.damages.report(salvage::set_aside_rest(&path, &start.read_at)?);
            end_is_lost |= before.is_none();
            told = true;
        }
        start.sort(&mut pieces);
        if matches!(noted, Found::Damaged) {
            let file = dir.join("MARK");
            let what = "the note of how far the journal went is not what was written".to_owned();
            start.damages.report(Damage {
                file,
                offset: 0,
                what,
                set_aside: None,
                salvaged: 0,
                lost: None,
                dropped: false,
            });
        }
        let reached = |pieces: &[Piece]| pieces.iter().map(|piece| piece.next).max().unwrap_or(1);
        if before.is_some_and(|state| state.next > reached(&pieces)) {
            start.end_is_missing(&mut pieces, told).await?;
            end_is_lost = true;
        }
        end_is_lost |= pieces.last().is_some_and(|piece| piece.salvaged);
        // Until it has a note of its own, a restored journal knows nothing of what was given after the backup was taken.
        end_is_lost |= before.is_none() && dir.join(RESTORED).exists();
        start.next = reached(&pieces);
        if end_is_lost {
            // Positions beyond what is readable were given.
            let beyond = before.map_or(start.next.saturating_add(UNKNOWN), |state| state.reserved);
            start.next = start.next.max(beyond);
            tracing::warn!(next = start.next, "the journal goes on behind every position that it may have given");
        }
        let newest = pieces.iter().map(|piece| piece.ran).max().unwrap_or(0);
        start.age = Age::new(before, newest, config.elapsed.clone(), now);
        start.end_is_lost = end_is_lost;
        start.take(pieces).await?;
        Ok(start)
    }

    /// Opens one segment; None: nothing is left of it.
    async fn open(&self, path: PathBuf, day: i64) -> Result<Option<Piece>, OpenError> {
        let mut salvaged = false;
        // Once more after what is wrong has been set right; a disk that damages what was just written is none to go on with.
        for _ in 0..3 {
            let known = Known { day, base: None, before: i64::MAX, ran: self.age.ran() };
            match Active::open(path.clone(), day, None, &self.read_at).await? {
                Opened::Active(sound) => {
                    let (segment, next, ran) = (sound.segment.clone(), sound.mark.next, sound.mark.ran);
                    return Ok(Some(Piece { opened: Ok(sound), segment, next, ran, salvaged }));
                }
                Opened::Sealed(segment, filter, next) => {
                    let ran = segment.bounds.get().map_or(0, |bounds| bounds.ran);
                    return Ok(Some(Piece { opened: Err(filter), segment, next, ran, salvaged }));
                }
                Opened::HalfSealed => salvage::renew(&path, known, &self.read_at).await?,
                Opened::Damaged(place) => {
                    if !self.set_aside(&path, known, place).await? {
                        return Ok(None);
                    }
                    salvaged = true;
                }
            }
        }
        let source = std::io::Error::other("what was written to it a moment ago is damaged");
        Err(OpenError::Io { action: "use", path, source })
    }

    /// True: there is a file in its place.
    async fn set_aside(&self, path: &Path, known: Known, place: Place) -> Result<bool, OpenError> {
        let (damage, salvaged) = salvage::set_aside(path, known, place, &self.read_at).await?;
        self.damages.report(damage);
        Ok(salvaged.replaced)
    }

    /// The journal ends before where it is known to have gone: the log of its newest segment lost its end, or a file is
    /// gone.
    async fn end_is_missing(&self, pieces: &mut Vec<Piece>, told: bool) -> Result<(), OpenError> {
        const WHAT: &str = "the end of the journal is missing: it went further than this";
        let newest = pieces.pop_if(|piece| piece.opened.is_ok() && !piece.salvaged);
        let Some(Piece { opened: Ok(sound), segment, .. }) = newest else {
            if !told && !pieces.last().is_some_and(|piece| piece.salvaged) {
                let file = pieces.last().map_or_else(|| self.dir.clone(), |piece| piece.segment.path.clone());
                let offset = std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
                let (what, set_aside) = (WHAT.to_owned(), None);
                self.damages.report(Damage { file, offset, what, set_aside, salvaged: 0, lost: None, dropped: false });
            }
            return Ok(());
        };
        let offset = sound.log_end;
        let (path, day) = (segment.path.clone(), segment.day);
        let known = Known { day, base: Some(segment.base), before: i64::MAX, ran: self.age.ran() };
        self.set_aside(&path, known, Place { in_log: true, offset, what: WHAT }).await?;
        let piece = self.open(path, day).await?;
        pieces.extend(piece.map(|piece| Piece { salvaged: true, ..piece }));
        Ok(())
    }

    /// In the order of their records. A segment that ended without a record has the base of the one after it.
    fn sort(&self, pieces: &mut [Piece]) {
        pieces.sort_by_key(|piece| (piece.segment.base, piece.next));
    }

    /// All but the newest have ended, unless that one is sealed or salvaged: then the next one is still to be made.
    async fn take(&mut self, pieces: Vec<Piece>) -> Result<(), OpenError> {
        let count = pieces.len();
        for (index, piece) in pieces.into_iter().enumerate() {
            self.segments.push(piece.segment.clone());
            match piece.opened {
                Ok(sound) => self.actives.push((sound.connect().await?, piece.salvaged || index + 1 < count)),
                Err(filter) => self.filters.push((piece.segment, filter)),
            }
        }
        Ok(())
    }
}
