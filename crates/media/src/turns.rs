//! One request at a time for each upload: a newer one has the older one stop, because the older is mostly what is left of a
//! connection that broke.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};
use uuid::Uuid;

/// Whose turn it is, for each upload that somebody is at.
#[derive(Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<Uuid, Place>>>);

struct Place {
    users: usize,
    lock: Arc<tokio::sync::Mutex<()>>,
    /// Tells the one whose turn it is to stop.
    stop: Arc<Notify>,
}

/// The turn of one request, until it is dropped.
pub(crate) struct Turn {
    stop: Arc<Notify>,
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
    /// Asks whoever has the turn to stop, and waits for it.
    pub(crate) async fn take(&self, id: Uuid) -> Turn {
        let (entry, lock) = {
            let mut places = self.0.lock();
            let place =
                places.entry(id).or_insert_with(|| Place { users: 0, lock: Arc::default(), stop: Arc::default() });
            place.users += 1;
            place.stop.notify_one();
            (Entry { id, places: Arc::clone(&self.0) }, Arc::clone(&place.lock))
        };
        let guard = lock.lock_owned().await;
        let stop = Arc::new(Notify::new());
        if let Some(place) = self.0.lock().get_mut(&id) {
            place.stop = Arc::clone(&stop);
        }
        Turn { stop, _guard: guard, _entry: entry }
    }
}

impl Turn {
    /// Resolves when a newer request waits.
    pub(crate) async fn ended(&self) {
        self.stop.notified().await;
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
        assert!(!second.is_finished());
        drop(first);
        let second = second.await.expect("a turn");
        // Another upload is not concerned.
        let _other = turns.take(Uuid::now_v7()).await;
        drop(second);
        drop(_other);
        assert!(turns.0.lock().is_empty());
    }
}
