//! How often a hub may fail to prove that it knows the code of a device (osap-wire 10.6, 13.2.3).

use osap::das::hub::MAX_CHILDREN;
use vestibule_platform::{Device, DeviceId};

use crate::attempts::Claim;
use crate::budget::Budget;

const HOUR: i64 = 60 * 60 * 1_000;

/// For one device, in any hour: as many as at the LBS.
const PER_CHILD: u16 = 5;

/// For all devices that are not its own. A hub may come before anybody has registered what is behind it: each of its
/// children may spend its own budget and be registered then, and all of them may be looked at once more at the same moment.
const PER_HUB: u16 = (PER_CHILD + 1) * MAX_CHILDREN as u16;

/// The failures of the recent past.
///
/// A device that is the hub's child already, one that it may not have, and a serial that nobody has registered cost the
/// same, so that neither an answer nor its absence tells which serials exist. What an operator does for a device, to
/// register it among it, gives it a fresh budget with every hub. A hub spends its own budgets only, and none for its own
/// children: nobody else keeps it from bringing them.
pub(super) struct Proofs {
    children: Budget<(DeviceId, Claim)>,
    hubs: Budget<(DeviceId, u32)>,
}

/// A proof that is looked at. It counts nowhere unless [`failed`](Attempt::failed) is called.
pub(super) struct Attempt<'a> {
    proofs: &'a Proofs,
    child: (DeviceId, Claim),
    /// `None` for a child of its own.
    hub: Option<(DeviceId, u32)>,
    now: i64,
    counts: bool,
}

impl Attempt<'_> {
    pub(super) fn failed(mut self) {
        self.counts = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.counts {
            return;
        }
        self.proofs.children.give_back(&self.child, self.now);
        if let Some(hub) = &self.hub {
            self.proofs.hubs.give_back(hub, self.now);
        }
    }
}

impl Default for Proofs {
    fn default() -> Proofs {
        Proofs {
            children: Budget::new("hub_child_proofs", PER_CHILD, HOUR),
            hubs: Budget::new("hub_proofs", PER_HUB, HOUR),
        }
    }
}

impl Proofs {
    /// Begins to look at a proof of this device, or of who it is said to be; `None` when too many have failed. Until it is
    /// over it counts as one that failed: as many at the same moment are looked at as may fail.
    pub(super) fn begin(&self, hub: &Device, serial: &str, child: Option<&Device>, now: i64) -> Option<Attempt<'_>> {
        let is_own = child.is_some_and(|child| child.parent() == Some(hub.id));
        let child = (hub.id, Claim::of(serial, child));
        let hub = (!is_own).then(|| (hub.id, hub.pardons()));
        if !self.children.take(&child, now) {
            return None;
        }
        if hub.as_ref().is_some_and(|hub| !self.hubs.take(hub, now)) {
            self.children.give_back(&child, now);
            return None;
        }
        Some(Attempt { proofs: self, child, hub, now, counts: false })
    }
}
