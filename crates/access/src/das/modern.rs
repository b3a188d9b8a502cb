//! The login of a device that speaks a modern suite (osap-wire 13.3, "DAS login").
//!
//! The CONNECT proves the device and the hello proves us, both under random values of this login. Until the device has
//! sealed its report under what follows from them it is a guest: its CONNECT may be a recording.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use osap::das::envelope;
use osap::das::login::LoginRecord;
use osap::modern::Exporter;
use osap::modern::envelope::{Broken, Opened, Opener, Sealer};
use osap::modern::login::{self, BootId, EXPORTER_LABEL, PROOF_LEN, Proof};
use osap::modern::seal::Direction;
use osap::suite::Suite;
use osap::{DevId, Random as _, Serial, SystemRandom};
use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use vestibule_broker::codec::QoS;
use vestibule_broker::{Admitted, Disposition, Link, Login, Refused, SessionId, Ticket};
use vestibule_platform::{Device, DeviceId, Platform};

use super::children::Children;
use super::leases::{self, Leases};
use super::link::OsapLink;
use super::login::{OUR_SDK, REALM, refuse};
use super::receipts::{self, Receipts, Round};
use super::sealing::Sealing;
use super::{Das, DasSession, Speaker};
use crate::epochs::Epochs;
use crate::explain;
use crate::key_state::{KeyState, Life};
use crate::nonces::Nonces;
use crate::tickets::{Modern, Session};

/// The application protocol of a DAS over TLS.
const ALPN: &[u8] = b"osap-das";
/// How long a guest may take for its report.
const GUEST: Duration = Duration::from_secs(6);
/// Guests of one device at the same time.
const GUESTS: usize = 4;

/// What a DAS for modern suites has beside what each has.
pub(super) struct ModernDoor {
    /// Whether it is the one over TLS: type 4 there, types 8 and 16 elsewhere.
    pub(super) tls: bool,
    pub(super) epochs: Arc<Epochs>,
    /// The nonces each session has shown.
    nonces: Nonces<(DeviceId, u64)>,
    guests: Arc<Guests>,
    leases: Arc<Leases>,
    round: Arc<Round>,
}

/// How many guests each device has.
#[derive(Default)]
struct Guests(Mutex<HashMap<DeviceId, usize>>);

/// One guest; none when dropped.
struct Place {
    guests: Arc<Guests>,
    device: DeviceId,
}

impl Guests {
    fn enter(self: &Arc<Self>, device: DeviceId) -> Option<Place> {
        let mut guests = self.0.lock();
        let here = guests.entry(device).or_default();
        (*here < GUESTS).then(|| {
            *here += 1;
            Place { guests: Arc::clone(self), device }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut guests = self.guests.0.lock();
        if let Some(here) = guests.get_mut(&self.device) {
            *here -= 1;
            if *here == 0 {
                guests.remove(&self.device);
            }
        }
    }
}

/// What a connection of a modern suite keeps.
pub(super) struct ModernSession {
    opener: Opener,
    guest: Option<Box<Guest>>,
    epoch: u64,
    /// Over plain TCP, once the session is a settled one.
    receipts: Option<Arc<Receipts>>,
}

/// A connection whose report has not come.
struct Guest {
    dev_id: DevId,
    epoch: u64,
    expires: i64,
    sealing: Arc<Sealing>,
    link: Arc<Link>,
    report: String,
    keep_alive: u16,
    _place: Place,
}

impl ModernSession {
    pub(super) fn is_guest(&self) -> bool {
        self.guest.is_some()
    }

    /// Notes for the next receipt what became of the message that was opened last.
    pub(super) fn taken(&self, disposition: Disposition, acknowledged: bool) {
        let Some(receipts) = &self.receipts else { return };
        match disposition {
            Disposition::After(ticket) => receipts.came(self.opener.seq(), Some(ticket), acknowledged),
            Disposition::Done | Disposition::Settle(_) => receipts.came(self.opener.seq(), None, acknowledged),
            Disposition::Route | Disposition::Close(_) => {}
        }
    }

    /// A receipt of the device came.
    pub(super) fn receipt_heard(&self, now: i64) {
        if let Some(receipts) = &self.receipts {
            receipts.heard(now);
        }
    }

    /// Whether its session is the newest of the device still.
    pub(super) fn is_newest(&self, door: &ModernDoor, device: DeviceId) -> bool {
        door.epochs.is_newest(device, self.epoch)
    }

    /// Whether a guest may publish there.
    pub(super) fn takes(&self, topic: &str) -> bool {
        self.guest.as_ref().is_none_or(|guest| guest.report == topic)
    }
}

impl ModernDoor {
    pub(super) fn new(tls: bool, epochs: Arc<Epochs>) -> ModernDoor {
        let (nonces, guests, leases, round) = (Nonces::default(), Arc::default(), Arc::default(), Arc::default());
        ModernDoor { tls, epochs, nonces, guests, leases, round }
    }

    /// Ends sessions whose time has come, and sends receipts, for as long as there is a door.
    pub(super) fn keep_watch(&self, runtime: &Handle, platform: &Arc<Platform>) {
        let (leases, platform_of_leases) = (Arc::downgrade(&self.leases), Arc::clone(platform));
        runtime.spawn(async move {
            while let Some(leases) = leases.upgrade() {
                leases.end(platform_of_leases.clock().now_ms());
                drop(leases);
                tokio::time::sleep(leases::LOOK).await;
            }
        });
        if self.tls {
            return;
        }
        let (round, platform) = (Arc::downgrade(&self.round), Arc::clone(platform));
        runtime.spawn(async move {
            while let Some(round) = round.upgrade() {
                round.look(platform.clock().steady_ms(), Ticket(platform.journal().durable().get()));
                drop(round);
                tokio::time::sleep(receipts::LOOK).await;
            }
        });
    }

    fn serves(&self, suite: Suite) -> bool {
        suite.is_modern() && (suite == Suite::Tls) == self.tls
    }
}

impl Das {
    pub(super) async fn log_in_modern(
        &self,
        door: &ModernDoor,
        login: Login<'_>,
    ) -> Result<Admitted<DasSession>, Refused> {
        let user = login.connect.user.unwrap_or_default();
        let Some(device) = self.platform.device_by_serial(user) else {
            self.look_up_in_vain(user).await;
            return Err(refuse("unknown_serial", self.brake.refused(user, self.platform.clock().steady_ms())));
        };
        let ip = login.peer.ip();
        if device.is_disabled() {
            return Err(self.refuse(&device, "disabled", ip));
        }
        if let Some(tls) = &login.tls {
            if tls.alpn() != Some(ALPN) {
                return Err(self.refuse(&device, "alpn", ip));
            }
            // A certificate is shown again at the DAS; it has to be this device's.
            let owner = tls.peer_certificate().map(vestibule_tls::device_serial);
            if owner.is_some_and(|owner| owner.ok().as_deref() != Some(&*device.serial)) {
                return Err(self.refuse(&device, "foreign_certificate", ip));
            }
        }
        let secrets = match self.platform.secrets(&device).await {
            Ok(secrets) => secrets,
            Err(error) => {
                tracing::warn!(serial = user, %error, "the credentials cannot be read");
                return Err(self.refuse(&device, "unavailable", ip));
            }
        };
        let Modern { tickets, epoch, session, .. } = Modern::of(&secrets.credentials);
        let (Some(dev_id), Some(session)) = (tickets.dev_id, session) else {
            return Err(self.refuse(&device, "no_session", ip));
        };
        match self.prove(door, &device, &login, dev_id, (epoch, session)) {
            Ok(admitted) => Ok(admitted),
            Err(reason) => Err(self.refuse(&device, reason, ip)),
        }
    }

    /// An error is why the device is sent back to the LBS.
    fn prove(
        &self,
        door: &ModernDoor,
        device: &Arc<Device>,
        login: &Login<'_>,
        dev_id: DevId,
        (epoch, session): (u64, Session),
    ) -> Result<Admitted<DasSession>, &'static str> {
        let Session { suite, node, bind, expires } = session;
        if self.platform.clock().now_ms() >= expires || !door.serves(suite) {
            return Err("no_session");
        }
        if device.is_tls_only() && !door.tls {
            return Err("plain_closed");
        }
        let password = login.connect.password.and_then(Proof::decode).ok_or("wrong_proof")?;
        if login.connect.client_id.as_bytes() != dev_id.as_bytes() || login.connect.will.is_some() {
            return Err("wrong_proof");
        }
        let bound = match (bind, &login.tls) {
            (false, _) => None,
            (true, Some(tls)) => {
                let material = tls.export(EXPORTER_LABEL, &[]).map_err(|_| "wrong_proof")?;
                Some(Exporter::from_bytes(material.as_slice()).map_err(|_| "wrong_proof")?)
            }
            (true, None) => return Err("wrong_proof"),
        };
        let challenge = login::login_hash(bound.as_ref(), &dev_id, &password.nonce);
        if !login::proves_device(&node, &challenge, &password) {
            return Err("wrong_proof");
        }
        if !door.nonces.is_fresh((device.id, epoch), &password.nonce) {
            self.platform.misdeed(device, "device.replayed", json!({"address": login.peer.ip().to_string()}));
            return Err("replayed");
        }
        let place = door.guests.enter(device.id).ok_or("too_many_guests")?;
        let serial = Serial::new(&device.serial).map_err(|_| "unknown_serial")?;

        let mut nonce = [0; 32];
        SystemRandom.fill(&mut nonce);
        let answer = login::hello_hash(&challenge, &nonce);
        let hello = login::hello(&node, &answer, nonce).encode();
        let topic = login::topic(&serial, "hello");
        let write = |out: &mut Vec<u8>| out.extend_from_slice(&hello);
        login.link.publish(&topic, QoS::AtMostOnce, PROOF_LEN, write).map_err(|_| "connection_lost")?;
        let key = |direction| login::record_key(&node, &answer, direction);
        let sealer = Sealer::new(suite, Direction::Down, key(Direction::Down));
        let sealing = Arc::new(Sealing::modern(suite, sealer));
        // Before the report nobody knows which start of the device this is.
        let state = Arc::new(KeyState::new(Life::boot(dev_id, BootId::draw(&mut SystemRandom))));
        let line = OsapLink::new(Arc::clone(device), Arc::clone(login.link), Arc::clone(&state), Arc::clone(&sealing));
        let guest = Guest {
            dev_id,
            epoch,
            expires,
            sealing,
            link: Arc::clone(login.link),
            report: login::topic(&serial, "report"),
            keep_alive: login.connect.keep_alive,
            _place: place,
        };
        let opener = Opener::new(suite, Direction::Up, key(Direction::Up));
        Ok(Admitted {
            id: SessionId { realm: REALM, principal: (&*device.serial).into() },
            session: DasSession {
                own: Speaker { device: Arc::clone(device), line: Arc::new(line), connection: None, reporting: false },
                children: Children::default(),
                key: state,
                modern: Some(Box::new(ModernSession { opener, guest: Some(Box::new(guest)), epoch, receipts: None })),
            },
            guest: Some(GUEST),
        })
    }

    /// The first message of a guest: its report. What is wrong with it ends the connection.
    pub(super) fn report_in(
        &self,
        door: &ModernDoor,
        session: &mut DasSession,
        topic: &str,
        payload: &mut [u8],
    ) -> Disposition {
        let Some(modern) = &mut session.modern else { return Disposition::Close("not_modern") };
        let text = match modern.opener.open(topic, payload) {
            Ok(Opened::Next(text)) => text,
            Ok(Opened::Repeated) => return Disposition::Done,
            // Who has recorded a CONNECT gets this far and no further.
            Err(_) => return Disposition::Close("no_report"),
        };
        let read = envelope::read(text).ok().and_then(|opened| LoginRecord::decode(opened.application).ok());
        let Some(record) = read else { return Disposition::Close("no_report") };
        let Some(boot) = record.boot_id.as_deref().and_then(BootId::parse) else {
            return Disposition::Close("no_report");
        };
        let Some(guest) = modern.guest.take() else { return Disposition::Done };
        let device = Arc::clone(&session.own.device);
        if record.sub_serial != *device.serial || record.device_id != guest.dev_id.as_str() {
            return Disposition::Close("no_report");
        }
        let is_closed = device.is_disabled() || device.is_removed() || (device.is_tls_only() && !door.tls);
        if is_closed || !door.epochs.is_newest(device.id, guest.epoch) {
            return Disposition::Close("outdated");
        }
        let Some(state) = self.keys.get(device.id, &Life::boot(guest.dev_id, boot)) else {
            return Disposition::Close("outdated");
        };
        if record.details.is_some_and(|details| details.sdk_main_version.starts_with(OUR_SDK)) {
            state.set_ours();
        }
        modern.epoch = guest.epoch;
        let line = OsapLink::new(Arc::clone(&device), Arc::clone(&guest.link), Arc::clone(&state), guest.sealing);
        session.own.line = Arc::new(line);
        session.key = state;
        if !door.tls {
            let now = self.platform.clock().steady_ms();
            let receipts = Arc::new(Receipts::new(Arc::clone(&session.own.line), guest.keep_alive, now));
            session.own.line.set_receipts(&receipts);
            door.round.enter(&receipts);
            modern.receipts = Some(receipts);
        }
        door.leases.enter(guest.expires, &guest.link);
        self.brake.accepted(&device.serial);
        metrics::counter!("vestibule_das_logins_total", "result" => "ok").increment(1);
        self.fact(&device, explain::logged_in(session.own.peer()));
        Disposition::Settle(Ticket::READY)
    }

    /// Opens a message of a settled session, in place. An error is what becomes of it instead.
    pub(super) fn open_modern<'a>(
        &self,
        session: &mut DasSession,
        topic: &str,
        payload: &'a mut [u8],
    ) -> Result<&'a [u8], Disposition> {
        let own = &session.own;
        let Some(modern) = &mut session.modern else { return Err(Disposition::Close("not_modern")) };
        match modern.opener.open(topic, payload) {
            Ok(Opened::Next(text)) => Ok(text),
            Ok(Opened::Repeated) => {
                metrics::counter!("vestibule_das_messages_dropped_total", "reason" => "repeated").increment(1);
                // Acknowledged once the original is durable, which lies at or before the last position given out.
                Err(Disposition::After(Ticket(self.platform.journal().appended().get())))
            }
            Err(Broken::Exhausted(_)) => Err(Disposition::Close("renew")),
            Err(broken) => {
                // TCP loses nothing and changes no order: somebody else did.
                metrics::counter!("vestibule_das_tampered_total").increment(1);
                let detail = json!({"what": broken.to_string(), "address": own.line.peer().ip().to_string()});
                self.platform.misdeed(&own.device, "device.tampered", detail);
                Err(Disposition::Close("tampered"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn osap_13_3_a_device_has_four_guests_at_most() {
        let guests = Arc::new(Guests::default());
        let (device, other) = (DeviceId::mint(), DeviceId::mint());
        let mut here: Vec<Place> = (0..GUESTS).map_while(|_| guests.enter(device)).collect();
        assert_eq!(here.len(), GUESTS);
        assert!(guests.enter(device).is_none());
        assert!(guests.enter(other).is_some());
        here.pop();
        assert!(guests.enter(device).is_some());
        here.clear();
        assert!(guests.0.lock().is_empty(), "nothing is kept of who has gone");
    }
}
