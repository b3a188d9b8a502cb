//! Credentials that a device is given where it is made or installed (osap-wire 13.3, ticket rule 8).

use osap::SystemRandom;
use osap::modern::client::provision;
use osap::modern::{Ticket, Tickets};
use vestibule_platform::{Credentials, Provisioned, Secret};

use crate::tickets::Modern;

/// Makes the first ticket of a device, with which it comes in over plain TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct Provisioner;

impl vestibule_platform::Provisioner for Provisioner {
    /// It stays who it is, if it is somebody already; everything else that was agreed with it is void.
    fn provision(&self, present: &Credentials) -> (Credentials, Provisioned) {
        let (dev_id, slot) = provision(&mut SystemRandom);
        let mut tickets = Modern::of(present).tickets;
        tickets.revoke();
        let dev_id = tickets.dev_id.unwrap_or(dev_id);
        let base = Ticket { id: slot.ticket, psk: slot.psk.clone(), expires: None };
        // It is also the one it was given last: it comes in with it now, and needs a window for that once it has others.
        let tickets = Tickets { dev_id: Some(dev_id), next: Some(base.clone()), base: Some(base), ..tickets };
        let stored = Modern { tickets, session: None }.encode();
        let credentials = Credentials { tickets: Some(stored), modern: present.modern, ..Credentials::default() };
        let provisioned = Provisioned {
            dev_id: dev_id.as_str().to_owned(),
            ticket: slot.ticket.as_bytes().to_vec(),
            psk: Secret::new(slot.psk.as_bytes().as_slice()),
        };
        (credentials, provisioned)
    }

    fn void(&self, present: &Credentials) -> Credentials {
        let mut modern = Modern::of(present);
        modern.tickets.revoke();
        modern.session = None;
        let tickets = present.tickets.as_ref().map(|_| modern.encode());
        Credentials { tickets, modern: present.modern, ..Credentials::default() }
    }
}
