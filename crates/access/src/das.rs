//! The device access service: OSAP over MQTT (osap-wire 9 and 10.1).

mod link;
mod login;
mod uplink;

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use osap::suite::Suite;
use tokio::runtime::Handle;
use tokio::sync::broadcast::{self, error::RecvError};
use vestibule_broker::codec::QoS;
use vestibule_broker::{
    Admitted, Denied, Disposition, EndReason, Inbound, ListenerConfig, Login, Profile, Refused, Service, Subscription,
    Ticket,
};
use vestibule_platform::{Connection, ConnectionId, Device, DeviceId, DeviceLink, Platform};

use crate::brake::Brake;
use crate::explain;
use crate::key_state::{KeyState, KeyStates};

use link::OsapLink;
pub(crate) use uplink::Grant;

/// The suite of every session at a legacy listener.
const SUITE: Suite = Suite::Legacy;

/// The device access service.
pub struct Das {
    platform: Arc<Platform>,
    runtime: Handle,
    brake: Brake,
    keys: KeyStates,
}

/// The limits of a listener for legacy devices.
pub fn das_listener(name: &'static str) -> ListenerConfig {
    ListenerConfig::new(name, Profile::OsapLegacy)
}

/// A device that is logged in. A connection keeps the key it logged in with until it ends (9.2).
pub struct DasSession {
    device: Arc<Device>,
    line: Arc<OsapLink>,
    /// Once the session is the live one of its device.
    connection: Option<ConnectionId>,
    key: Arc<KeyState>,
    reporting: bool,
}

impl DasSession {
    fn peer(&self) -> Option<IpAddr> {
        Some(self.line.peer().ip())
    }
}

impl Das {
    /// A service over the platform; `runtime` writes what a session has to change in the store.
    pub fn new(platform: Arc<Platform>, runtime: Handle) -> Arc<Das> {
        let changes = platform.presence_changes();
        let das = Arc::new(Das { platform, runtime, brake: Brake::default(), keys: KeyStates::default() });
        das.runtime.spawn(forget_removed(Arc::downgrade(&das), changes));
        das
    }

    fn forget(&self, device: DeviceId) {
        self.keys.forget(device);
        self.brake.accepted(device);
    }

    /// Counts a message that does not open or does not parse. From outside all look alike: acknowledged as if
    /// accepted (13.2.5).
    fn not_opened(&self, session: &DasSession, reason: &'static str) -> Disposition {
        metrics::counter!("vestibule_das_messages_dropped_total", "reason" => reason).increment(1);
        self.platform.fact(&session.device, explain::report_refused("not_opened", session.peer()));
        // Closing alone would be the oracle again: the key goes too, at once in memory, then in the store.
        if !session.key.failed(self.platform.clock().now_ms()) {
            return Disposition::Done;
        }
        self.runtime.spawn(login::drop_session_key(
            Arc::clone(&self.platform),
            Arc::clone(&session.device),
            session.key.key().clone(),
        ));
        Disposition::Close("too_many_errors")
    }

    /// Counts a message that is not taken.
    fn dropped(&self, session: &DasSession, reason: &'static str) {
        metrics::counter!("vestibule_das_messages_dropped_total", "reason" => reason).increment(1);
        self.platform.fact(&session.device, explain::report_refused(reason, session.peer()));
    }
}

/// What is remembered of a device goes with it.
async fn forget_removed(das: Weak<Das>, mut changes: broadcast::Receiver<Arc<Device>>) {
    loop {
        match changes.recv().await {
            Ok(device) if device.is_removed() => match das.upgrade() {
                Some(das) => das.forget(device.id),
                None => return,
            },
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

impl Service for Das {
    type Session = DasSession;
    type Grant = Grant;

    async fn connect(&self, login: Login<'_>) -> Result<Admitted<DasSession>, Refused> {
        self.log_in(login).await
    }

    /// Presence follows the broker's order of take-overs: were it told in [`Service::connect`], two logins at the
    /// same moment could each close the other.
    fn opened(&self, session: &mut DasSession) {
        let connection = Connection {
            suite: SUITE.as_str(),
            confidential: SUITE.is_confidential(),
            peer: session.line.peer(),
            link: Arc::clone(&session.line) as Arc<dyn DeviceLink>,
        };
        session.connection = Some(self.platform.connected(&session.device, connection));
        if session.key.uses_shadow() {
            // It comes back under a key it has: by a light login, after which it does not ask.
            self.runtime.spawn(uplink::send_pending(Arc::clone(&self.platform), Arc::clone(&session.device)));
        }
    }

    fn authorize(&self, session: &mut DasSession, topic: &str) -> Result<Grant, Denied> {
        Grant::of(topic, &session.device.serial).map_err(|reason| {
            self.dropped(session, reason);
            Denied::Drop(reason)
        })
    }

    fn publish(&self, session: &mut DasSession, grant: &Grant, message: Inbound<'_>) -> Disposition {
        if message.qos == QoS::ExactlyOnce {
            // Legacy devices send QoS 0 and 1 (9.5); a QoS 2 exchange would never be completed.
            return Disposition::Close("qos2");
        }
        self.take(session, grant, message.payload)
    }

    /// A device owns exactly two filters, whether or not it subscribes (9.4).
    fn subscribe(&self, session: &mut DasSession, filter: &str, qos: QoS) -> Subscription {
        let serial = &*session.device.serial;
        let below =
            filter.strip_prefix("/iot/").or_else(|| filter.strip_prefix('/')).and_then(|f| f.strip_suffix("/#"));
        if below == Some(serial) {
            Subscription::Granted(qos.min(QoS::AtLeastOnce))
        } else {
            metrics::counter!("vestibule_das_subscriptions_refused_total").increment(1);
            Subscription::Refused
        }
    }

    fn ended(&self, session: DasSession, reason: EndReason) {
        session.line.lost();
        self.platform.fact(&session.device, explain::ended(reason, session.peer()));
        if let Some(connection) = session.connection {
            self.platform.disconnected(&session.device, connection, reason.as_str());
        }
        if session.device.is_removed() {
            self.forget(session.device.id);
        }
    }

    fn has_room(&self) -> bool {
        self.platform.journal().has_room()
    }

    fn durable(&self) -> Ticket {
        Ticket(self.platform.journal().durable().get())
    }
}
