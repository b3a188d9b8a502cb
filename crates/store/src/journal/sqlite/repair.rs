//! Segments that are found to be damaged while the journal runs: they are looked at and salvaged beside the writing, one
//! after the other, and only take each other's place in between two commits.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

use super::SegmentWriter;
use super::sealing::Sealed;
use crate::journal::active::{Active, Opened, Sound};
use crate::journal::examine::{Place, verify};
use crate::journal::name::day;
use crate::journal::salvage::{self, Known, Salvaged};
use crate::journal::seal::Seal;
use crate::journal::segment::Segment;
use crate::journal::segments::Doubt;
use crate::journal::writer::CommitError;
use crate::{OpenError, ReadAt};

/// A segment that is to be looked at.
pub(super) struct Suspect {
    segment: Arc<Segment>,
    known: Known,
    /// Where it is damaged, if that is known.
    place: Option<Place>,
    /// Who waits for it.
    settled: Option<oneshot::Sender<bool>>,
}

/// A segment that is being looked at.
pub(super) struct Repair {
    segment: Arc<Segment>,
    settled: Option<oneshot::Sender<bool>>,
    /// Tells it to end.
    stop: Arc<AtomicBool>,
    task: JoinHandle<Looked>,
}

/// What is to take the place of a damaged segment.
pub(in crate::journal) struct Rebuilt {
    place: Place,
    salvaged: Salvaged,
    sound: Sound,
}

/// What a look at a segment gives; `None`: it is what was written.
pub(in crate::journal) type Looked = Result<Option<Rebuilt>, OpenError>;

/// What was done beside the writing.
pub(in crate::journal) enum Done {
    /// A segment that has ended was sealed, or not.
    Seal(Result<Sealed, JoinError>),
    /// A suspect was looked at.
    Look(Result<Looked, JoinError>),
}

impl SegmentWriter {
    /// Whether a doubt can be taken now.
    pub(in crate::journal) fn may_look(&self) -> bool {
        self.repair.is_none() && self.suspects.is_empty()
    }

    /// Has a segment looked at that a reader doubts. New records go elsewhere meanwhile.
    pub(in crate::journal) async fn look(&mut self, doubt: Doubt) {
        let Doubt { segment, settled } = doubt;
        match self.step_away(&segment).await {
            Ok(true) => self.suspect(segment, None, Some(settled)),
            Ok(false) => {
                self.reader.reopen(&segment).await;
                // A reader that went away needs no answer.
                let _ = settled.send(true);
            }
            Err(error) => {
                tracing::error!(segment = %segment.path.display(), %error, "a doubted journal segment cannot be left");
                let _ = settled.send(false);
            }
        }
    }

    /// Makes sure that nobody writes to a segment; false: it need not be looked at any more.
    async fn step_away(&mut self, segment: &Arc<Segment>) -> Result<bool, CommitError> {
        if segment.removed.load(Ordering::Acquire) {
            return Ok(false);
        }
        if self.active.is_none() && self.newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, segment)) {
            // What the last commit did there is not known. Opened anew it is examined.
            self.reopen(&[]).await?;
            return Ok(self.is_suspect(segment));
        }
        let Some(active) = self.active.take_if(|active| Arc::ptr_eq(&active.segment, segment)) else { return Ok(true) };
        if let Err(error) = self.begin(active.segment.day.max(day((self.now)()))).await {
            self.active = Some(active);
            return Err(error);
        }
        let _ = segment.bounds.set(active.bounds);
        self.ended.push(segment.clone());
        if let Err(error) = active.abandon().await {
            tracing::debug!(%error, segment = %segment.path.display(), "a doubted journal segment was not closed in order");
        }
        Ok(true)
    }

    /// Has a segment looked at to which nobody writes, when the ones before it have been.
    pub(super) fn suspect(
        &mut self,
        segment: Arc<Segment>,
        place: Option<Place>,
        settled: Option<oneshot::Sender<bool>>,
    ) {
        let looked_at = self.repair.iter_mut().map(|repair| (&repair.segment, &mut repair.settled));
        let suspects = self.suspects.iter_mut().map(|suspect| (&suspect.segment, &mut suspect.settled));
        match looked_at.chain(suspects).find(|(other, _)| Arc::ptr_eq(other, &segment)) {
            // Readers come one at a time.
            Some((_, waiting)) => *waiting = settled.or(waiting.take()),
            None => {
                // What a commit that failed may have left behind that is in the next segment.
                let list = self.reader.list();
                let mut next = list.iter().skip_while(|other| !Arc::ptr_eq(other, &segment)).skip(1);
                let before = next.next().map_or(self.next, |next| next.base);
                let known = Known { day: segment.day, base: Some(segment.base), before, ran: self.age.ran() };
                self.suspects.push_back(Suspect { segment, known, place, settled });
            }
        }
        self.begin_look();
    }

    /// Whether a segment is being looked at, or will be.
    pub(super) fn is_suspect(&self, segment: &Arc<Segment>) -> bool {
        let looked_at = self.repair.iter().map(|repair| &repair.segment);
        looked_at.chain(self.suspects.iter().map(|suspect| &suspect.segment)).any(|other| Arc::ptr_eq(other, segment))
    }

    pub(super) fn begin_look(&mut self) {
        if self.repair.is_some() {
            return;
        }
        // Who waits for one that was removed or replaced meanwhile needs nothing more.
        self.suspects.retain_mut(|suspect| {
            let is_gone = suspect.segment.removed.load(Ordering::Acquire);
            if let Some(settled) = suspect.settled.take_if(|_| is_gone) {
                let _ = settled.send(true);
            }
            !is_gone
        });
        let sealing = self.sealing.as_ref().map(|(segment, _)| segment.clone());
        let may = |suspect: &Suspect| sealing.as_ref().is_none_or(|sealing| !Arc::ptr_eq(sealing, &suspect.segment));
        let Some(at) = self.suspects.iter().position(may) else { return };
        let Some(Suspect { segment, known, place, settled }) = self.suspects.remove(at) else { return };
        let stop = Arc::new(AtomicBool::new(false));
        let (disk, stopped) = (self.read_at.clone(), stop.clone());
        let read_at: ReadAt = Arc::new(move |path, file, bytes, offset| match stopped.load(Ordering::Relaxed) {
            true => Err(std::io::Error::other("the journal is being closed")),
            false => disk(path, file, bytes, offset),
        });
        let task = tokio::spawn(look(segment.clone(), known, place, read_at));
        self.repair = Some(Repair { segment, settled, stop, task });
    }

    /// Waits for what is done beside the writing; for ever when that is nothing. To be handed to [`SegmentWriter::went`].
    pub(in crate::journal) async fn beside(&mut self) -> Done {
        tokio::select! {
            sealed = ended(self.sealing.as_mut().map(|(_, task)| task)) => Done::Seal(sealed),
            looked = ended(self.repair.as_mut().map(|repair| &mut repair.task)) => Done::Look(looked),
        }
    }

    /// Takes what was done beside the writing, and has more done.
    pub(in crate::journal) async fn went(&mut self, done: Done) {
        let goes_on = match done {
            Done::Seal(result) => match self.sealing.take() {
                Some((segment, _)) => self.sealed(&segment, result),
                None => false,
            },
            Done::Look(result) => match self.repair.take() {
                Some(repair) => self.looked(repair, result).await,
                None => false,
            },
        };
        self.begin_look();
        if goes_on {
            self.seal_again();
        }
    }

    /// Has a segment looked at and waits until it was: for whom cannot go on without.
    pub(super) async fn look_now(&mut self, segment: &Arc<Segment>) {
        if !self.is_suspect(segment) {
            self.suspect(segment.clone(), None, None);
        }
        while self.is_suspect(segment) {
            let done = self.beside().await;
            self.went(done).await;
        }
    }

    /// Ends the looking. What was salvaged so far is begun anew when the segment is doubted again.
    pub(in crate::journal) async fn stop_looking(&mut self) {
        self.suspects.clear();
        if let Some(Repair { stop, settled, task, .. }) = self.repair.take() {
            drop(settled);
            stop.store(true, Ordering::Relaxed);
            // Its files are closed when it has ended.
            let _ = task.await;
        }
    }

    async fn looked(&mut self, repair: Repair, result: Result<Looked, JoinError>) -> bool {
        let Repair { segment, settled, .. } = repair;
        let done = match result {
            // What was read was not what is on the disk.
            Ok(Ok(None)) => {
                self.reader.reopen(&segment).await;
                Ok(())
            }
            Ok(Ok(Some(rebuilt))) => self.replace(&segment, rebuilt).await,
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(CommitError::failed(error.to_string())),
        };
        // Gone with the retention it needs nothing.
        let is_settled = done.is_ok() || segment.removed.load(Ordering::Acquire);
        if let (Err(error), false) = (done, is_settled) {
            tracing::error!(segment = %segment.path.display(), %error, "a damaged journal segment cannot be set aside");
        }
        if let Some(settled) = settled {
            let _ = settled.send(is_settled);
        }
        is_settled
    }

    /// Has the readable rows of a damaged segment take its place.
    async fn replace(&mut self, segment: &Arc<Segment>, rebuilt: Rebuilt) -> Result<(), CommitError> {
        let Rebuilt { place, salvaged, sound } = rebuilt;
        if segment.removed.load(Ordering::Acquire) {
            return Ok(salvage::discard(&segment.path)?);
        }
        self.reader.reopen(segment).await;
        self.damages.report(salvage::exchange(&segment.path, place, &salvaged)?);
        let sound = sound.renamed(segment.path.clone());
        // Nobody else sets them.
        let _ = sound.segment.bounds.set(sound.bounds);
        let _ = segment.salvaged.set(sound.segment.clone());
        segment.removed.store(true, Ordering::Release);
        self.reader.replace(segment, sound.segment.clone());
        self.filters.retain(|(other, _)| !Arc::ptr_eq(other, segment));
        self.ended.retain(|other| !Arc::ptr_eq(other, segment));
        self.ended.push(sound.segment);
        Ok(())
    }
}

/// Looks whether a segment to which nobody writes is as it was written. If not, what is readable of it is written beside.
async fn look(segment: Arc<Segment>, known: Known, place: Option<Place>, read_at: ReadAt) -> Looked {
    let place = match place {
        Some(place) => place,
        None => {
            let (path, read_at, sealed) = (segment.path.clone(), read_at.clone(), segment.is_sealed());
            let find = move || {
                let flaw = if sealed { Seal::check(&path, &read_at)? } else { None };
                // Damage that is older than the seal is in the rows alone.
                match flaw {
                    Some(place) => Ok(Some(place)),
                    None => Ok(verify(&path, &read_at)?.err()),
                }
            };
            let found = tokio::task::spawn_blocking(find).await.map_err(std::io::Error::other).flatten();
            let unread = |source| OpenError::Io { action: "read", path: segment.path.clone(), source };
            match found.map_err(unread)? {
                Some(place) => place,
                None => return Ok(None),
            }
        }
    };
    let salvaged = salvage::rebuild(&segment.path, known, &read_at).await?;
    match Active::open(salvage::with_suffix(&segment.path), segment.day, None, &read_at).await? {
        Opened::Active(sound) => Ok(Some(Rebuilt { place, salvaged, sound })),
        _ => {
            let source = std::io::Error::other("what was written to it a moment ago is damaged");
            Err(OpenError::Io { action: "salvage", path: segment.path.clone(), source })
        }
    }
}

/// What a task gives when it ends; nothing, for ever, when there is none.
async fn ended<T>(task: Option<&mut JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => pending().await,
    }
}
