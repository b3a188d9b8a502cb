//! Segments that are found to be damaged while the journal runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::SegmentWriter;
use crate::journal::active::{Active, Opened};
use crate::journal::examine::{Place, verify};
use crate::journal::salvage::{self, Known};
use crate::journal::seal::Seal;
use crate::journal::segment::Segment;
use crate::journal::writer::CommitError;

impl SegmentWriter {
    /// Looks whether a segment is as it was written. If not it is set aside and what is readable of it takes its place.
    pub(in crate::journal) async fn check(&mut self, segment: &Arc<Segment>) -> Result<(), CommitError> {
        self.collect_seal(true).await;
        if segment.removed.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.active.as_ref().is_some_and(|active| Arc::ptr_eq(&active.segment, segment)) {
            // Opened anew it is examined.
            self.active = None;
            self.reopen(&[]).await?;
            return Ok(());
        }
        let (path, read_at, sealed) = (segment.path.clone(), self.read_at.clone(), segment.is_sealed());
        let place = tokio::task::spawn_blocking(move || {
            let flaw = if sealed { Seal::check(&path, &read_at)? } else { None };
            // Damage that is older than the seal is in the rows alone.
            match flaw {
                Some(place) => Ok(Some(place)),
                None => Ok(verify(&path, &read_at)?.err()),
            }
        })
        .await;
        match place.map_err(std::io::Error::other).flatten()? {
            Some(place) => self.set_aside(segment, place).await,
            // What was read was not what is on the disk.
            None => {
                self.reader.reopen(segment).await;
                Ok(())
            }
        }
    }

    /// Has the readable rows of a damaged segment take its place.
    pub(super) async fn set_aside(&mut self, segment: &Arc<Segment>, place: Place) -> Result<(), CommitError> {
        let known = Known { day: segment.day, base: Some(segment.base), before: self.next, ran: self.age.ran() };
        self.reader.reopen(segment).await;
        let (damage, _) = salvage::set_aside(&segment.path, known, place, &self.read_at).await?;
        self.damages.report(damage);
        let Opened::Active(sound) = Active::open(segment.path.clone(), segment.day, None, &self.read_at).await? else {
            return Err(CommitError::failed("what was salvaged of a journal segment was changed by somebody else"));
        };
        let active = sound.connect().await?;
        // Nobody else sets it.
        let _ = segment.salvaged.set(active.segment.clone());
        segment.removed.store(true, Ordering::Release);
        self.reader.replace(segment, active.segment.clone());
        self.filters.retain(|(other, _)| !Arc::ptr_eq(other, segment));
        self.ended.retain(|other| !Arc::ptr_eq(other, segment));
        self.newest.take_if(|newest| Arc::ptr_eq(newest, segment));
        self.end(*active).await;
        Ok(())
    }
}
