//! What a device keeps (osap-wire 13.3, "Tickets").
//!
//! Two slots, newest first, and a third that is never written: what the device was provisioned
//! with. A new ticket goes over the slot that its run did *not* use, so a device that loses power in
//! the midst of it, or whose storage loses the last write, still holds one the platform accepts.

use super::secret::{Psk, TicketId};
use crate::id::DevId;

/// A ticket as a device keeps it. It does not know when it ends: the platform judges that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub ticket: TicketId,
    /// The secret that goes with it.
    pub psk: Psk,
}

/// What a device has to come in with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slots {
    /// Its identity, once it has one.
    pub dev_id: Option<DevId>,
    /// What it was given last.
    pub newest: Option<Slot>,
    /// What it used to get that.
    pub older: Option<Slot>,
    /// What it was provisioned with; read only.
    pub base: Option<Slot>,
}

/// One way to come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// The newest ticket.
    Newest,
    /// The one before it.
    Older,
    /// The certificate.
    Certificate,
    /// The code.
    Code,
    /// The ticket it was provisioned with.
    Base,
}

impl Way {
    /// All ways, in the order in which a device tries them (rules 5 and 8).
    pub const ALL: [Self; 5] = [Self::Newest, Self::Older, Self::Certificate, Self::Code, Self::Base];
}

/// What a device has beside its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Has {
    /// A certificate it may show: over TLS alone.
    pub certificate: bool,
    /// A code it may show: over TLS alone (osap-wire 13.4.3).
    pub code: bool,
}

impl Slots {
    /// The ticket of a way; `None` where it has none.
    #[must_use]
    pub fn slot(&self, way: Way) -> Option<&Slot> {
        match way {
            Way::Newest => self.newest.as_ref(),
            Way::Older => self.older.as_ref(),
            Way::Base => self.base.as_ref(),
            Way::Certificate | Way::Code => None,
        }
    }

    /// The first way after `last` that the device can go; `None`: it has tried them all, and waits.
    #[must_use]
    pub fn next_way(&self, last: Option<Way>, has: Has) -> Option<Way> {
        let from = last.and_then(|last| Way::ALL.iter().position(|way| *way == last)).map_or(0, |at| at + 1);
        Way::ALL[from..].iter().copied().find(|way| match way {
            Way::Newest | Way::Older | Way::Base => self.slot(*way).is_some() && self.dev_id.is_some(),
            Way::Certificate => has.certificate,
            Way::Code => has.code,
        })
    }

    /// The same without its identity: what the next attempt by certificate starts from when a sealed result 4 has said that
    /// the DevID is not this device's. It enrols anew then, and what is in storage stays as it is until that has led to
    /// something (osap-wire 13.3, "Sealed results").
    #[must_use]
    pub fn without_identity(&self) -> Self {
        Self { dev_id: None, ..self.clone() }
    }

    /// Rule 3: what the device holds once it has written what a run gave it. The slot that the run used stays.
    #[must_use]
    pub fn with_new(&self, used: Way, dev_id: DevId, new: Slot) -> Self {
        let kept = match used {
            Way::Older => self.older.clone(),
            // Neither slot was used: the newer of the two stays.
            Way::Newest | Way::Certificate | Way::Code | Way::Base => self.newest.clone(),
        };
        Self { dev_id: Some(dev_id), newest: Some(new), older: kept, base: self.base.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(n: u8) -> Slot {
        Slot { ticket: TicketId::new([n; 16]), psk: Psk::from_bytes(&[n; 48]).unwrap() }
    }

    fn dev_id() -> DevId {
        DevId::parse(&[b'd'; 32]).unwrap()
    }

    #[test]
    fn osap_13_3_rule_3_the_slot_that_was_used_stays() {
        let slots = Slots { dev_id: Some(dev_id()), newest: Some(slot(2)), older: Some(slot(1)), base: None };
        let by_newest = slots.with_new(Way::Newest, dev_id(), slot(3));
        assert_eq!((by_newest.newest, by_newest.older), (Some(slot(3)), Some(slot(2))));
        let by_older = slots.with_new(Way::Older, dev_id(), slot(3));
        assert_eq!((by_older.newest, by_older.older), (Some(slot(3)), Some(slot(1))));
    }

    #[test]
    fn osap_13_3_rule_5_each_way_is_tried_in_its_order() {
        let slots = Slots { dev_id: Some(dev_id()), newest: Some(slot(2)), older: Some(slot(1)), base: Some(slot(0)) };
        let has = Has { certificate: true, code: true };
        let mut way = None;
        let mut tried = Vec::new();
        while let Some(next) = slots.next_way(way, has) {
            tried.push(next);
            way = Some(next);
        }
        assert_eq!(tried, Way::ALL);
        assert_eq!(Slots::default().next_way(None, Has { certificate: false, code: true }), Some(Way::Code));
        assert_eq!(Slots::default().next_way(None, Has::default()), None);
    }
}
