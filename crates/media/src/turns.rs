//! One request at a time for each upload: a newer one has the older one stop, because the older is mostly what is left of a
//! connection that broke.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};
use uuid::Uuid;

/// Whose turn it is, for each upload that somebody is at.
#[derive(Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<Uuid, Place>>>);

#[derive(Default)]
struct Place {
    users: usize,
    lock: Arc<tokio::sync::Mutex<()>>,
    /// The number of the newest request: whoever has an older one stops.
    newest: watch::Sender<u64>,
}

/// The turn of one request, until it is dropped.
pub(crate) struct Turn {
    number: u64,
    newest: watch::Receiver<u64>,
    _guard: OwnedMutexGuard<()>,
    _entry: Entry,
}

/// Removes the place with its last user.
struct Entry {
    id: Uuid,
    places: Arc<Mutex<HashMap<Uuid, Place>>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        if let Some(place) = places.get_mut(&self.id) {
            place.users -= 1;
            if place.users == 0 {
                places.remove(&self.id);
            }
        }
    }
}

impl Turns {
    /// Asks everybody who came before to stop, and waits for it.
    pub(crate) async fn take(&self, id: Uuid) -> Turn {
        let (number, newest, lock, entry) = {
            let mut places = self.0.lock();
            let place = places.entry(id).or_default();
            place.users += 1;
            let number = *place.newest.borrow() + 1;
            place.newest.send_replace(number);
            let entry = Entry { id, places: Arc::clone(&self.0) };
            (number, place.newest.subscribe(), Arc::clone(&place.lock), entry)
        };
        Turn { number, newest, _guard: lock.lock_owned().await, _entry: entry }
    }
}

impl Turn {
    /// Whether a newer request waits.
    pub(crate) fn is_over(&self) -> bool {
        *self.newest.borrow() > self.number
    }

    /// Resolves when a newer request waits.
    pub(crate) async fn ended(&self) {
        // The sender is in the place, which stays as long as the turn.
        let _ = self.newest.clone().wait_for(|newest| *newest > self.number).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_request_has_the_older_one_stop() {
        let turns = Arc::new(Turns::default());
        let id = Uuid::now_v7();
        let first = turns.take(id).await;
        let second = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(id).await }
        });
        first.ended().await;
        assert!(first.is_over() && !second.is_finished());
        drop(first);
        let second = second.await.expect("a turn");
        // Who comes while others wait has all of them stop.
        let third = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(id).await }
        });
        second.ended().await;
        drop(second);
        let second = third.await.expect("a turn");
        // Who gives up waiting leaves nothing behind, and whoever was asked to stop stops.
        let impatient = tokio::time::timeout(std::time::Duration::ZERO, turns.take(id)).await;
        assert!(impatient.is_err() && second.is_over());
        // Another upload is not concerned.
        let _other = turns.take(Uuid::now_v7()).await;
        drop(second);
        drop(_other);
        assert!(turns.0.lock().is_empty());
    }
}
