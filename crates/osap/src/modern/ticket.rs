//! What the platform keeps of a device that speaks a modern suite (osap-wire 13.3, "Tickets").
//!
//! A device comes back with a *ticket*. Two are kept on each side, so that whatever is lost between
//! the two, a crash, an answer, a last write, leaves one that both know.

use super::secret::{Psk, TicketId};
use crate::id::DevId;

/// How many names of dropped tickets are kept (rule 6).
pub const MAX_DROPPED: usize = 8;

/// What a device comes back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Its name.
    pub id: TicketId,
    /// The secret that goes with it.
    pub psk: Psk,
    /// When it ends, in Unix ms; `None`: never.
    pub expires: Option<i64>,
}

/// Which of the tickets of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// The one the device used last.
    Current,
    /// The one it was given last.
    Next,
    /// The one it was provisioned with (rule 8).
    Base,
}

/// What proved the device in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Used {
    /// A ticket.
    Ticket(Held),
    /// Its code.
    Code,
    /// Its certificate.
    Certificate,
}

impl Used {
    /// A short name for logs and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ticket(Held::Base) => "provisioned ticket",
            Self::Ticket(_) => "ticket",
            Self::Code => "code",
            Self::Certificate => "certificate",
        }
    }
}

/// The record of a device: its identity and its tickets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tickets {
    /// Its identity, once it was given one.
    pub dev_id: Option<DevId>,
    /// The ticket the device used last.
    pub current: Option<Ticket>,
    /// The ticket it was given last.
    pub next: Option<Ticket>,
    /// The ticket it was provisioned with.
    pub base: Option<Ticket>,
    /// Counts the changes: a run writes only over what it has read. 0 until a ticket was issued, or all were revoked.
    pub rev: u64,
    /// The device has said that it keeps what it was given (0x92): its enrolment is over.
    pub confirmed: bool,
    /// Names of the tickets that were dropped last, newest first. One that comes back is a copied storage, or a restored
    /// one.
    pub dropped: Vec<TicketId>,
}

/// What a run wants to be durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Keep the ticket that is about to be sent, if the record is still the one the run has read.
    Issue {
        /// [`Tickets::rev`] as it was read.
        rev: u64,
        /// The name of [`Tickets::next`] as it was read.
        over: Option<TicketId>,
        /// What proved the device.
        used: Used,
        /// Its identity; minted by this run if it had none.
        dev_id: DevId,
        /// The new ticket.
        ticket: Ticket,
    },
    /// The device keeps what it was given: its enrolment is over, a code that is good for one is spent, and the device is
    /// a modern one from now on (osap-wire 13.4). Only if the record still holds that ticket ([`Tickets::confirm`]).
    Confirm {
        /// What proved the device in this run.
        used: Used,
        /// The ticket it keeps.
        ticket: TicketId,
    },
    /// The session at the DAS, under a new epoch, if no other run has come between.
    Session {
        /// [`Tickets::rev`] as this run has left it.
        rev: u64,
        /// The DAS.
        server_id: String,
        /// Its secret.
        node: super::secret::Node,
        /// Whether its login is bound to the TLS connection.
        bind: bool,
        /// How long it lives, in seconds.
        expires_in: u32,
    },
}

impl Tickets {
    /// The ticket of this name, if it may be used now: `window` says whether an operator has opened one for the device.
    /// The provisioned one needs that once another was issued (rule 8), and stays closed when those were revoked.
    #[must_use]
    pub fn find(&self, id: TicketId, now: i64, window: bool) -> Option<(Held, &Ticket)> {
        let base = self.base.as_ref().filter(|base| !self.is_shut(base.id, window));
        [(Held::Next, self.next.as_ref()), (Held::Current, self.current.as_ref()), (Held::Base, base)]
            .into_iter()
            .find_map(|(held, ticket)| ticket.filter(|ticket| ticket.id == id).map(|ticket| (held, ticket)))
            .filter(|(_, ticket)| ticket.expires.is_none_or(|end| now < end))
    }

    /// Whether this is the provisioned ticket, and would need a window.
    pub(crate) fn is_shut(&self, id: TicketId, window: bool) -> bool {
        !window && self.rev > 0 && self.base.as_ref().is_some_and(|base| base.id == id)
    }

    /// Whether this was one of the device's tickets.
    #[must_use]
    pub fn was_dropped(&self, id: TicketId) -> bool {
        self.dropped.contains(&id)
    }

    /// Rule 2: `current` becomes what the run has used, `next` what it hands out. `false`, and nothing is changed, when
    /// another run came first: the record has not the revision `rev` any more, or its `next` is not `over`. A number alone
    /// would not do: a store that was set back counts up to it again.
    #[must_use]
    pub fn issue(&mut self, rev: u64, over: Option<TicketId>, used: Used, dev_id: DevId, ticket: Ticket) -> bool {
        if self.rev != rev || self.next.as_ref().map(|next| next.id) != over {
            return false;
        }
        let kept = match used {
            Used::Ticket(Held::Current) => self.current.take(),
            Used::Ticket(Held::Next) => self.next.take(),
            Used::Ticket(Held::Base) => self.base.clone(),
            Used::Code | Used::Certificate => None,
        };
        let still = |id: TicketId| kept.as_ref().is_some_and(|kept| kept.id == id);
        self.drop_all(still);
        (self.current, self.next) = (kept, Some(ticket));
        self.dev_id = Some(dev_id);
        self.rev += 1;
        true
    }

    /// Rule 4: the device keeps this ticket. `false`, and nothing is changed, when the record holds it no more. A store that
    /// was set back would otherwise close the enrolment of a device whose only ticket it has forgotten.
    #[must_use]
    pub fn confirm(&mut self, ticket: TicketId) -> bool {
        let held = [&self.current, &self.next].into_iter().flatten().any(|held| held.id == ticket);
        self.confirmed |= held;
        held
    }

    /// Forgets every ticket: the device's certificate was revoked, or an operator has said so.
    pub fn revoke(&mut self) {
        self.drop_all(|_| false);
        self.rev += 1;
    }

    /// Empties both places and remembers the names, but of those that stay somewhere: one that is kept, and the
    /// provisioned one, which a device shows again and again and which tells nothing of a copy.
    fn drop_all(&mut self, stays: impl Fn(TicketId) -> bool) {
        let base = self.base.as_ref().map(|base| base.id);
        for old in [self.current.take(), self.next.take()].into_iter().flatten() {
            if !stays(old.id) && Some(old.id) != base {
                self.dropped.insert(0, old.id);
            }
        }
        self.dropped.truncate(MAX_DROPPED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(n: u8) -> Ticket {
        Ticket { id: TicketId::new([n; 16]), psk: Psk::from_bytes(&[n; 48]).unwrap(), expires: None }
    }

    fn dev_id() -> DevId {
        DevId::parse(&[b'd'; 32]).unwrap()
    }

    fn id(n: u8) -> Option<TicketId> {
        Some(TicketId::new([n; 16]))
    }

    fn names(tickets: &Tickets) -> (Option<u8>, Option<u8>) {
        let name = |ticket: &Option<Ticket>| ticket.as_ref().map(|ticket| ticket.id.as_bytes()[0]);
        (name(&tickets.current), name(&tickets.next))
    }

    #[test]
    fn osap_13_3_rule_2_the_used_ticket_stays_beside_the_new_one() {
        let mut tickets = Tickets::default();
        assert!(tickets.issue(0, None, Used::Code, dev_id(), ticket(1)));
        assert_eq!((names(&tickets), tickets.rev), ((None, Some(1)), 1));
        assert!(tickets.issue(1, id(1), Used::Ticket(Held::Next), dev_id(), ticket(2)));
        assert_eq!(names(&tickets), (Some(1), Some(2)));
        // The answer with 2 was lost: the device comes with 1 again, and 2 is replaced.
        assert!(tickets.issue(2, id(2), Used::Ticket(Held::Current), dev_id(), ticket(3)));
        assert_eq!(names(&tickets), (Some(1), Some(3)));
        assert!(tickets.was_dropped(TicketId::new([2; 16])));
        assert!(!tickets.issue(2, id(2), Used::Ticket(Held::Next), dev_id(), ticket(4)), "another run came first");
        assert_eq!(names(&tickets), (Some(1), Some(3)));
    }

    #[test]
    fn a_store_that_was_set_back_takes_nothing_of_what_it_has_forgotten() {
        let mut tickets = Tickets::default();
        assert!(tickets.issue(0, None, Used::Code, dev_id(), ticket(1)));
        let before = tickets.clone();
        assert!(tickets.issue(1, id(1), Used::Ticket(Held::Next), dev_id(), ticket(2)));
        // A run that has read 2 is under way when the store is set back and another run counts up to the same revision.
        tickets = before;
        assert!(tickets.issue(1, id(1), Used::Ticket(Held::Next), dev_id(), ticket(3)));
        assert!(!tickets.issue(2, id(2), Used::Ticket(Held::Current), dev_id(), ticket(4)));
        assert_eq!(names(&tickets), (Some(1), Some(3)));
        assert!(!tickets.confirm(TicketId::new([2; 16])) && !tickets.confirmed);
        assert!(tickets.confirm(TicketId::new([3; 16])) && tickets.confirmed);
    }

    #[test]
    fn osap_13_3_rule_8_the_first_ticket_needs_a_window_once_another_was_issued() {
        let mut tickets = Tickets { dev_id: Some(dev_id()), base: Some(ticket(9)), ..Tickets::default() };
        let id = TicketId::new([9; 16]);
        assert_eq!(tickets.find(id, 0, false).map(|found| found.0), Some(Held::Base));
        assert!(tickets.issue(0, None, Used::Ticket(Held::Base), dev_id(), ticket(1)));
        // The answer may be lost: it is still what the device used last.
        assert_eq!(tickets.find(id, 0, false).map(|found| found.0), Some(Held::Current));
        assert!(tickets.issue(1, Some(TicketId::new([1; 16])), Used::Ticket(Held::Next), dev_id(), ticket(2)));
        assert_eq!(tickets.find(id, 0, false), None);
        assert_eq!(tickets.find(id, 0, true).map(|found| found.0), Some(Held::Base));
    }

    #[test]
    fn a_ticket_ends_and_eight_names_of_dropped_ones_are_kept() {
        let mut tickets = Tickets { next: Some(Ticket { expires: Some(100), ..ticket(1) }), ..Tickets::default() };
        assert!(tickets.find(TicketId::new([1; 16]), 99, false).is_some());
        assert!(tickets.find(TicketId::new([1; 16]), 100, false).is_none());
        for n in 2..30 {
            let (rev, over) = (tickets.rev, tickets.next.as_ref().map(|next| next.id));
            assert!(tickets.issue(rev, over, Used::Code, dev_id(), ticket(n)));
        }
        assert_eq!(tickets.dropped.len(), MAX_DROPPED);
        assert_eq!(tickets.dropped[0], TicketId::new([28; 16]));
    }
}
