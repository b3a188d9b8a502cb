//! The device access service: OSAP over MQTT (osap-wire 9 and 10.1).

mod login;
mod uplink;

use std::net::IpAddr;
use std::sync::Arc;

use osap::das::cipher::SessionCipher;
use tokio::runtime::Handle;
use vestibule_broker::codec::QoS;
use vestibule_broker::{
    Admitted, Denied, Disposition, EndReason, Inbound, Link, ListenerConfig, Login, Profile, Refused, Service,
    Subscription, Ticket,
};
use vestibule_platform::{ConnectionId, Device, DeviceLink, Platform};

use crate::brake::Brake;
use crate::explain;
use crate::key_state::{KeyState, KeyStates};

pub(crate) use uplink::Grant;

/// How many messages that do not open end a session, and in which time (13.2.5).
const ERRORS: u8 = 10;
const ERROR_WINDOW_MS: i64 = 60_000;

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
    connection: ConnectionId,
    peer: IpAddr,
    cipher: SessionCipher,
    key: Arc<KeyState>,
    errors: u8,
    errors_since: i64,
    reporting: bool,
}

impl Das {
    /// A service over the platform; `runtime` writes what a session has to change in the store.
    pub fn new(platform: Arc<Platform>, runtime: Handle) -> Arc<Das> {
        Arc::new(Das { platform, runtime, brake: Brake::default(), keys: KeyStates::default() })
    }

    /// Counts a message that does not open or does not parse. From outside all look alike: acknowledged as if
    /// accepted (13.2.5).
    fn not_opened(&self, session: &mut DasSession, reason: &'static str) -> Disposition {
        metrics::counter!("vestibule_das_messages_dropped_total", "reason" => reason).increment(1);
        self.platform.fact(&session.device, explain::report_refused("not_opened", Some(session.peer)));
        let now = self.platform.clock().now_ms();
        if now.saturating_sub(session.errors_since) > ERROR_WINDOW_MS {
            session.errors_since = now;
            session.errors = 0;
        }
        session.errors += 1;
        if session.errors < ERRORS {
            return Disposition::Done;
        }
        // Closing alone would be the oracle again: the key goes too, at once in memory, then in the store.
        session.key.give_up();
        self.runtime.spawn(login::drop_session_key(
            Arc::clone(&self.platform),
            Arc::clone(&session.device),
            session.key.key().clone(),
        ));
        Disposition::Close("too_many_errors")
    }

    fn dropped(&self, session: &DasSession, reason: &'static str) {
        metrics::counter!("vestibule_das_messages_dropped_total", "reason" => reason).increment(1);
        self.platform.fact(&session.device, explain::report_refused(reason, Some(session.peer)));
    }
}

impl Service for Das {
    type Session = DasSession;
    type Grant = Grant;

    async fn connect(&self, login: Login<'_>) -> Result<Admitted<DasSession>, Refused> {
        self.log_in(login).await
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
        self.platform.fact(&session.device, explain::ended(reason, Some(session.peer)));
        self.platform.disconnected(&session.device, session.connection, reason.as_str());
        if session.device.is_removed() {
            self.keys.forget(session.device.id);
            self.brake.accepted(session.device.id);
        }
    }

    fn has_room(&self) -> bool {
        self.platform.journal().has_room()
    }

    fn durable(&self) -> Ticket {
        Ticket(self.platform.journal().durable().get())
    }
}

/// The platform's way to a live connection.
struct OsapLink(Arc<Link>);

impl DeviceLink for OsapLink {
    fn close(&self, reason: &'static str) {
        self.0.close(reason);
    }
}
