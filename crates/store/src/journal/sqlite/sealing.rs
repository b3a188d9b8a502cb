//! Segments that have ended are sealed beside the writing, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::task::JoinError;

use super::SegmentWriter;
use crate::journal::active::{Active, Ended, Opened};
use crate::journal::examine::Place;
use crate::journal::segment::Segment;
use crate::journal::segments::SegmentReader;
use crate::{OpenError, ReadAt};

/// What sealing a segment gives.
pub(in crate::journal) type Sealed = Result<Ended, OpenError>;

/// What a segment is reported as that was damaged when a commit to it failed, and could not be salvaged then.
const FAILED: Place = Place { in_log: false, offset: 0, what: "it was damaged when a commit to it failed" };

impl SegmentWriter {
    /// Has a segment sealed beside the writing, after the one before it.
    pub(super) async fn end(&mut self, active: Active) {
        self.collect_seal(true).await;
        let segment = active.segment.clone();
        // Already set when sealing is tried again.
        let _ = segment.bounds.set(active.bounds);
        self.ended.push(segment.clone());
        self.tried = Instant::now();
        let task = tokio::spawn(active.seal(self.reader.clone(), self.read_at.clone()));
        self.sealing = Some((segment, task));
    }

    /// Takes the result of a seal, when there is one or, if told to, once there is; true: one more segment is sealed.
    pub(super) async fn collect_seal(&mut self, wait: bool) -> bool {
        let Some((segment, task)) = self.sealing.take_if(|(_, task)| wait || task.is_finished()) else { return false };
        let result = task.await;
        let is_sealed = self.sealed(&segment, result);
        self.begin_look();
        is_sealed
    }

    /// Takes the result of a seal; true: one more segment is sealed.
    pub(super) fn sealed(&mut self, segment: &Arc<Segment>, result: Result<Sealed, JoinError>) -> bool {
        match result {
            Ok(Ok(Ended::Sealed(segment, filter))) => {
                self.ended.retain(|other| !Arc::ptr_eq(other, &segment));
                if !segment.removed.load(Ordering::Acquire) {
                    self.filters.push((segment, filter));
                    self.trim_filters();
                }
                return true;
            }
            Ok(Ok(Ended::Damaged(segment, place))) => self.suspect(segment, Some(place), None),
            // It stays readable and is tried again, after the others.
            Ok(Err(error)) => tracing::warn!(%error, "a journal segment could not be sealed"),
            Err(error) => tracing::error!(%error, "sealing a journal segment ended badly"),
        }
        if let Some(at) = self.ended.iter().position(|other| Arc::ptr_eq(other, segment)) {
            self.ended[at..].rotate_left(1);
        }
        false
    }

    /// Has the next segment sealed that has ended: one whose seal failed, or that was salvaged.
    pub(super) fn seal_again(&mut self) {
        if self.sealing.is_some() {
            return;
        }
        let waiting = self.ended.iter().filter(|segment| !self.is_suspect(segment));
        // One without bounds may have more than was committed: it is not sealed but salvaged.
        let (sealable, left): (Vec<_>, Vec<_>) = waiting.cloned().partition(|segment| segment.bounds.get().is_some());
        left.into_iter().for_each(|segment| self.suspect(segment, Some(FAILED), None));
        let Some(segment) = sealable.into_iter().next() else { return };
        self.tried = Instant::now();
        let task = tokio::spawn(seal(segment.clone(), self.reader.clone(), self.read_at.clone()));
        self.sealing = Some((segment, task));
    }
}

/// Seals a segment that nobody writes to.
async fn seal(segment: Arc<Segment>, reader: SegmentReader, read_at: ReadAt) -> Sealed {
    match Active::open(segment.path.clone(), segment.day, Some(segment.clone()), &read_at).await? {
        Opened::Active(sound) => sound.connect().await?.seal(reader, read_at).await,
        Opened::Sealed(segment, filter, _) => Ok(Ended::Sealed(segment, filter)),
        Opened::Damaged(place) => Ok(Ended::Damaged(segment, place)),
        Opened::HalfSealed => {
            let source = std::io::Error::other("its indexes were made by somebody else");
            Err(OpenError::Io { action: "seal", path: segment.path.clone(), source })
        }
    }
}
