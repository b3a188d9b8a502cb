//! The device access service: OSAP over MQTT (osap-wire 9 and 10.1).

mod children;
mod commands;
mod grant;
mod leases;
mod link;
mod login;
mod modern;
mod own;
mod proofs;
mod receipts;
mod sealing;
mod storage;
mod uplink;

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use osap::das::base::Ntp;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::{self, error::RecvError};
use vestibule_broker::codec::QoS;
use vestibule_broker::{
    Admitted, Denied, Disposition, EndReason, Inbound, ListenerConfig, Login, Profile, Refused, Service, Subscription,
    Ticket,
};
use vestibule_platform::{Connection, ConnectionId, Device, DeviceId, DeviceLink, Platform};

use crate::brake::Brake;
use crate::epochs::Epochs;
use crate::explain;
use crate::key_state::{KeyState, KeyStates};

use children::Children;
use grant::Channel;
use link::OsapLink;
use modern::{ModernDoor, ModernSession};
use proofs::Proofs;

/// The device access service.
pub struct Das {
    this: Weak<Das>,
    platform: Arc<Platform>,
    runtime: Handle,
    brake: Brake,
    keys: KeyStates,
    time: Option<Ntp>,
    /// Of hubs.
    proofs: Proofs,
    /// One permit for each question for storage that is looked into.
    storage_asked: Arc<Semaphore>,
    /// `None`: devices of the legacy suites come in here.
    modern: Option<ModernDoor>,
}

/// The limits of a listener for devices of the modern suites.
pub fn modern_das_listener(name: &'static str) -> ListenerConfig {
    ListenerConfig::new(name, Profile::OsapModern)
}

/// The limits of a listener for legacy devices.
pub fn das_listener(name: &'static str) -> ListenerConfig {
    ListenerConfig::new(name, Profile::OsapLegacy)
}

/// What a topic is for, and whom it speaks for.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The sub-device, unless it is the device that is connected.
    child: Option<Arc<Device>>,
    channel: Channel,
}

/// A device that is logged in. A connection keeps the key it logged in with until it ends (9.2).
pub struct DasSession {
    own: Speaker,
    children: Children,
    key: Arc<KeyState>,
    modern: Option<Box<ModernSession>>,
}

// The broker's test of what the task of a connection takes reckons with it.
const _: () = assert!(size_of::<DasSession>() <= 88);

/// One device that speaks over a connection: the one that logged in, or a sub-device behind it.
struct Speaker {
    device: Arc<Device>,
    line: Arc<OsapLink>,
    /// Once the session is the live one of its device.
    connection: Option<ConnectionId>,
    reporting: bool,
}

impl Speaker {
    fn peer(&self) -> Option<IpAddr> {
        Some(self.line.peer().ip())
    }
}

impl Das {
    /// A service over the platform; `runtime` writes what a session has to change in the store. Devices are told of the
    /// time server at each login.
    pub fn new(platform: Arc<Platform>, runtime: Handle, time: Option<Ntp>) -> Arc<Das> {
        Das::with_door(platform, runtime, time, None)
    }

    /// The same for devices of the modern suites: type 4 on a listener over `tls`, types 8 and 16 on one without. `epochs` is
    /// that of the LBS that sends them here.
    pub fn modern(
        platform: Arc<Platform>,
        runtime: Handle,
        time: Option<Ntp>,
        tls: bool,
        epochs: Arc<Epochs>,
    ) -> Arc<Das> {
        let door = ModernDoor::new(tls, epochs);
        door.keep_watch(&runtime, &platform);
        Das::with_door(platform, runtime, time, Some(door))
    }

    fn with_door(platform: Arc<Platform>, runtime: Handle, time: Option<Ntp>, modern: Option<ModernDoor>) -> Arc<Das> {
        let removals = platform.removals();
        let das = Arc::new_cyclic(|this| Das {
            this: Weak::clone(this),
            platform,
            runtime,
            brake: Brake::default(),
            keys: KeyStates::default(),
            time,
            proofs: Proofs::default(),
            storage_asked: Arc::new(Semaphore::new(storage::ASKED_AT_ONCE)),
            modern,
        });
        das.runtime.spawn(forget_removed(Arc::downgrade(&das), removals));
        das
    }

    fn forget(&self, device: DeviceId) {
        self.keys.forget(device);
        if let Some(door) = &self.modern {
            door.epochs.forget(device);
        }
    }

    /// Counts a message that does not open or does not parse. From outside all look alike: acknowledged as if
    /// accepted (13.2.5).
    fn not_opened(&self, session: &DasSession, reason: &'static str) -> Disposition {
        metrics::counter!("vestibule_das_messages_dropped_total", "reason" => reason).increment(1);
        self.platform.fact(&session.own.device, explain::report_refused("not_opened", session.own.peer()));
        if session.modern.is_some() {
            // It was sealed: this is no oracle but a device that says what cannot be read.
            return Disposition::Done;
        }
        // Closing alone would be the oracle again: the key goes too, at once in memory, then in the store.
        if !session.key.failed(self.platform.clock().steady_ms()) {
            return Disposition::Done;
        }
        if let Some(key) = session.key.session_key() {
            let (platform, device) = (Arc::clone(&self.platform), Arc::clone(&session.own.device));
            self.runtime.spawn(login::drop_session_key(platform, device, key.clone()));
        }
        Disposition::Close("too_many_errors")
    }

    /// Counts a message that is not taken.
    fn dropped(&self, speaker: &Speaker, reason: &'static str) {
        metrics::counter!("vestibule_das_messages_dropped_total", "reason" => reason).increment(1);
        self.platform.fact(&speaker.device, explain::report_refused(reason, speaker.peer()));
    }
}

/// What is remembered of a device goes with it.
async fn forget_removed(das: Weak<Das>, mut removals: broadcast::Receiver<DeviceId>) {
    loop {
        match removals.recv().await {
            Ok(device) => match das.upgrade() {
                Some(das) => das.forget(device),
                None => return,
            },
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

impl Service for Das {
    type Session = DasSession;
    type Grant = Grant;

    async fn connect(&self, login: Login<'_>) -> Result<Admitted<DasSession>, Refused> {
        match &self.modern {
            Some(door) => self.log_in_modern(door, login).await,
            None => self.log_in(login).await,
        }
    }

    /// Presence follows the broker's order of take-overs: were it told in [`Service::connect`], two logins at the
    /// same moment could each close the other.
    fn opened(&self, session: &mut DasSession) {
        let connection = Connection {
            suite: session.own.line.suite().as_str(),
            confidential: session.own.line.suite().is_confidential(),
            peer: session.own.line.peer(),
            link: Arc::clone(&session.own.line) as Arc<dyn DeviceLink>,
        };
        if let Some(time) = &self.time {
            self.tell_time(session, time);
        }
        session.own.connection = Some(self.platform.connected(&session.own.device, connection));
        if let (Some(door), Some(modern)) = (&self.modern, &session.modern)
            && !modern.is_newest(door, session.own.device.id)
        {
            // What it stands for was voided, or replaced, since its report was looked at.
            session.own.line.end("outdated");
        }
        if session.key.uses_shadow() {
            // It comes back under a key it has: by a light login, after which it does not ask.
            self.runtime.spawn(uplink::send_pending(Arc::clone(&self.platform), Arc::clone(&session.own.device)));
        }
    }

    fn authorize(&self, session: &mut DasSession, topic: &str) -> Result<Grant, Denied> {
        if session.modern.as_ref().is_some_and(|modern| !modern.takes(topic)) {
            return Err(Denied::Close("no_report"));
        }
        let own = &session.own;
        let judged = Channel::of(topic, &own.device.serial).and_then(|(sub, channel)| {
            let child = sub.map(|serial| {
                let child = self.child_by_serial(&own.device, serial);
                child.inspect_err(|_| self.foreign_child(&own.device, serial))
            });
            Ok(Grant { child: child.transpose()?, channel })
        });
        judged
            .inspect_err(|reason| {
                if *reason == "foreign_serial" {
                    self.platform.misdeed(&own.device, "device.foreign_serial", json!({"topic": topic}));
                }
                self.dropped(own, reason);
            })
            .or_else(|reason| match session.modern {
                // Opened all the same, or its number would be missing.
                Some(_) => Ok(Grant { child: None, channel: Channel::Denied }),
                None => Err(Denied::Drop(reason)),
            })
    }

    fn publish(&self, session: &mut DasSession, grant: &Grant, message: Inbound<'_>) -> Disposition {
        if message.qos == QoS::ExactlyOnce {
            // Legacy devices send QoS 0 and 1 (9.5); a QoS 2 exchange would never be completed.
            return Disposition::Close("qos2");
        }
        if let Some(door) = &self.modern
            && session.modern.as_ref().is_some_and(|modern| modern.is_guest())
        {
            return self.report_in(door, session, message.topic, message.payload);
        }
        let acknowledged = message.qos != QoS::AtMostOnce;
        let taken = self.take(session, grant, message.topic, message.payload);
        if let Some(modern) = &session.modern {
            modern.taken(taken, acknowledged);
        }
        taken
    }

    /// A device owns exactly two filters, whether or not it subscribes (9.4).
    fn subscribe(&self, session: &mut DasSession, filter: &str, qos: QoS) -> Subscription {
        let serial = &*session.own.device.serial;
        let below =
            filter.strip_prefix("/iot/").or_else(|| filter.strip_prefix('/')).and_then(|f| f.strip_suffix("/#"));
        if below == Some(serial) {
            Subscription::Granted(qos.min(QoS::AtLeastOnce))
        } else {
            metrics::counter!("vestibule_das_subscriptions_refused_total").increment(1);
            Subscription::Refused
        }
    }

    fn acknowledged(&self, session: &mut DasSession, packet_id: u16) {
        session.own.line.delivered(packet_id);
        Das::children_delivered(session, packet_id);
    }

    fn ended(&self, mut session: DasSession, reason: EndReason) {
        if session.modern.as_ref().is_some_and(|modern| modern.is_guest()) {
            // It may have been anybody with a recording: it is no part of the device's story.
            metrics::counter!("vestibule_das_guests_gone_total").increment(1);
            return;
        }
        self.children_lost(&mut session);
        let own = session.own;
        own.line.lost();
        self.platform.fact(&own.device, explain::ended(reason, own.peer()));
        if let Some(connection) = own.connection {
            self.platform.disconnected(&own.device, connection, reason.as_str());
        }
        if own.device.is_removed() {
            self.forget(own.device.id);
        }
    }

    fn has_room(&self) -> bool {
        self.platform.journal().has_room()
    }

    fn durable(&self) -> Ticket {
        Ticket(self.platform.journal().durable().get())
    }
}
