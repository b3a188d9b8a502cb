//! When the sessions of the modern suites end: a connection is closed at the end of its session, and its device comes back
//! through the LBS (osap-wire 13.3).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use vestibule_broker::Link;

/// How often it is looked.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// The connections by the end of their sessions. One that ended before is forgotten when its time has come.
#[derive(Default)]
pub(super) struct Leases(Mutex<BTreeMap<i64, Vec<Weak<Link>>>>);

impl Leases {
    /// The connection is to be closed then, in Unix ms.
    pub(super) fn enter(&self, expires: i64, link: &Arc<Link>) {
        let mut leases = self.0.lock();
        let links = leases.entry(expires).or_default();
        // A device that comes and goes leaves its connections behind.
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(link));
    }

    /// Closes those whose time has come.
    pub(super) fn end(&self, now: i64) {
        let due = {
            let mut leases = self.0.lock();
            let later = leases.split_off(&now.saturating_add(1));
            std::mem::replace(&mut *leases, later)
        };
        for link in due.into_values().flatten().filter_map(|link| link.upgrade()) {
            link.close("renew");
        }
    }
}
