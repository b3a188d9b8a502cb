//! Which connection is whose: one live connection for each authenticated principal.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::link::Link;

const SHARDS: usize = 64;

/// An authenticated identity. Take-over happens only inside a realm, by the same principal; a name that was
/// not proven never is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The kind of identity, such as `osap` or `mqtt`.
    pub realm: &'static str,
    /// The identity inside the realm.
    pub principal: Box<str>,
}

/// The live connections by identity, across all shards.
pub(crate) struct Sessions {
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<SessionId, Arc<Link>>>>,
}

impl Sessions {
    pub(crate) fn new() -> Sessions {
        Sessions { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, id: &SessionId) -> &Mutex<HashMap<SessionId, Arc<Link>>> {
        &self.shards[self.hasher.hash_one(id) as usize % SHARDS]
    }

    /// Makes the link the identity's connection and closes the one it replaces. `opened` is called while nobody
    /// else can claim the identity, so that its calls come in the order of the take-overs.
    pub(crate) fn claim(&self, id: SessionId, link: &Arc<Link>, opened: impl FnOnce()) {
        let mut shard = self.shard(&id).lock();
        if let Some(replaced) = shard.insert(id, Arc::clone(link)) {
            replaced.close("replaced");
        }
        opened();
    }

    /// Forgets the link, unless another has taken its place.
    pub(crate) fn release(&self, id: &SessionId, link: &Arc<Link>) {
        let mut shard = self.shard(id).lock();
        if shard.get(id).is_some_and(|held| Arc::ptr_eq(held, link)) {
            shard.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::end::EndReason;

    fn id(realm: &'static str, principal: &str) -> SessionId {
        SessionId { realm, principal: principal.into() }
    }

    #[test]
    fn a_second_login_replaces_the_first_and_a_late_goodbye_does_not_remove_it() {
        let sessions = Sessions::new();
        let (first, second, third) = (Link::for_test(), Link::for_test(), Link::for_test());
        sessions.claim(id("osap", "SN1"), &first, || {});
        assert_eq!(first.ending(), None);
        sessions.claim(id("osap", "SN1"), &second, || {});
        assert_eq!(first.ending(), Some(EndReason::Closed("replaced")));
        sessions.release(&id("osap", "SN1"), &first);
        sessions.claim(id("osap", "SN1"), &third, || {});
        assert_eq!(second.ending(), Some(EndReason::Closed("replaced")));
        sessions.release(&id("osap", "SN1"), &third);
        sessions.claim(id("osap", "SN1"), &Link::for_test(), || {});
        assert_eq!(third.ending(), None);
    }

    #[test]
    fn the_same_name_in_another_realm_is_another_session() {
        let sessions = Sessions::new();
        let (device, application) = (Link::for_test(), Link::for_test());
        sessions.claim(id("osap", "SN1"), &device, || {});
        sessions.claim(id("mqtt", "SN1"), &application, || {});
        assert_eq!(device.ending(), None);
    }
}
