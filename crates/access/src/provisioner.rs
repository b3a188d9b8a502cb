//! Credentials that a device is given where it is made or installed (osap-wire 13.3, ticket rule 8), and the end of those it
//! has.

use std::sync::Arc;

use osap::SystemRandom;
use osap::modern::client::provision;
use osap::modern::{Ticket, Tickets};
use vestibule_platform::{Credentials, DeviceId, Provisioned, Secret};

use crate::epochs::Epochs;
use crate::tickets::Modern;

/// Makes the first ticket of a device, with which it comes in over plain TCP, and voids what devices have.
pub struct Provisioner(Arc<Epochs>);

impl Provisioner {
    /// For the devices of an LBS and a DAS with these epochs: what is voided ends guests, too.
    pub fn new(epochs: Arc<Epochs>) -> Provisioner {
        Provisioner(epochs)
    }

    fn voided(&self, device: DeviceId, present: &Credentials) -> Modern {
        let mut modern = Modern::of(present);
        modern.void();
        // Before it is durable: should it not become so, the next session of the device has this epoch.
        self.0.raise(device, modern.epoch);
        modern
    }
}

impl vestibule_platform::Provisioner for Provisioner {
    /// It stays who it is, if it is somebody already; everything else that was agreed with it is void.
    fn provision(&self, device: DeviceId, present: &Credentials) -> (Credentials, Provisioned) {
        let (dev_id, slot) = provision(&mut SystemRandom);
        let Modern { tickets, epoch, certified, .. } = self.voided(device, present);
        let dev_id = tickets.dev_id.unwrap_or(dev_id);
        let base = Ticket { id: slot.ticket, psk: slot.psk.clone(), expires: None };
        // It is also the one it was given last: it comes in with it now, and needs a window for that once it has others.
        let tickets = Tickets { dev_id: Some(dev_id), next: Some(base.clone()), base: Some(base), ..tickets };
        let stored = Modern { tickets, epoch, session: None, certified }.encode();
        let credentials = Credentials { tickets: Some(stored), modern: present.modern, ..Credentials::default() };
        let provisioned = Provisioned {
            dev_id: dev_id.as_str().to_owned(),
            ticket: slot.ticket.as_bytes().to_vec(),
            psk: Secret::new(slot.psk.as_bytes().as_slice()),
        };
        (credentials, provisioned)
    }

    fn is_in(&self, present: &Credentials) -> bool {
        Modern::of(present).tickets.confirmed
    }

    fn void(&self, device: DeviceId, present: &Credentials, may_enrol: bool) -> Credentials {
        let mut modern = self.voided(device, present);
        if may_enrol {
            modern.tickets.confirmed = false;
            modern.tickets.base = None;
            modern.certified = false;
        }
        Credentials { tickets: Some(modern.encode()), modern: present.modern, ..Credentials::default() }
    }
}
