//! Applications over plain MQTT: whoever has a token with the right to may publish and subscribe.
//!
//! Topics that begin with `$` and the topics of devices are the platform's own: an application that could publish
//! there would speak for a device.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use vestibule_broker::codec::QoS;
use vestibule_broker::{
    Admitted, Denied, Disposition, EndReason, Inbound, Link, Login, Refused, Service, SessionId, Subscription,
};
use vestibule_platform::{Caller, Permission, Platform};

/// MQTT 3.1.1, 3.2.2.3.
const SERVER_UNAVAILABLE: u8 = 3;
const NOT_AUTHORISED: u8 = 5;

/// First levels that belong to the platform.
const RESERVED: [&str; 3] = ["iot", "oneM2M", "v1"];

/// How often connections are looked through for those whose rights have ended.
const LOOK: Duration = Duration::from_secs(1);
const ENDED: &str = "rights_ended";

/// The service behind the listener for applications.
pub(crate) struct Applications {
    platform: Arc<Platform>,
    unnamed: AtomicU64,
    numbers: AtomicU64,
    /// The connections that are open, by a number.
    open: Mutex<HashMap<u64, (Weak<Link>, Caller)>>,
}

/// One connection.
pub(crate) struct Session {
    number: u64,
    caller: Caller,
}

impl Applications {
    pub(crate) fn new(platform: Arc<Platform>) -> Arc<Applications> {
        let (unnamed, numbers, open) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
        let applications = Arc::new(Applications { platform, unnamed, numbers, open });
        tokio::spawn(Applications::look(Arc::downgrade(&applications)));
        applications
    }

    /// Ends the connections of those whose rights have ended, for as long as there is a listener.
    async fn look(this: Weak<Applications>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(applications) = this.upgrade() else { return };
            let now = applications.platform.clock().now_ms();
            let ended: Vec<Arc<Link>> = {
                let mut open = applications.open.lock();
                // One that never came to be a session is gone as well.
                open.retain(|_, (link, _)| link.strong_count() > 0);
                let ended = open.values().filter(|(_, caller)| !caller.is_current(now));
                ended.filter_map(|(link, _)| link.upgrade()).collect()
            };
            ended.iter().for_each(|link| link.close(ENDED));
        }
    }
}

impl Service for Applications {
    type Session = Session;
    type Grant = ();

    async fn connect(&self, login: Login<'_>) -> Result<Admitted<Session>, Refused> {
        let refused = |code, reason| Refused { code, reason, delay: Duration::ZERO };
        let password = login.connect.password.and_then(|password| std::str::from_utf8(password).ok());
        let Some(caller) = password.and_then(|token| self.platform.authorize(token)) else {
            return Err(refused(NOT_AUTHORISED, "bad_token"));
        };
        if !caller.may(Permission::MqttUse) {
            return Err(refused(NOT_AUTHORISED, "no_permission"));
        }
        if !login.connect.clean_session {
            // Saying yes would promise to keep messages while the application is away.
            return Err(refused(SERVER_UNAVAILABLE, "durable_session"));
        }
        if login.connect.will.as_ref().is_some_and(|will| is_reserved(will.topic)) {
            return Err(refused(NOT_AUTHORISED, "will_topic"));
        }
        let principal = match login.connect.client_id {
            // The server names a client that has no name (3.1.3.1).
            "" => format!("\0{}", self.unnamed.fetch_add(1, Ordering::Relaxed)),
            client_id => client_id.to_owned(),
        };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, (Arc::downgrade(login.link), caller.clone()));
        let session = Session { number, caller };
        Ok(Admitted { id: SessionId { realm: "mqtt", principal: principal.into() }, session })
    }

    fn authorize(&self, _: &mut Session, topic: &str) -> Result<(), Denied> {
        if is_reserved(topic) { Err(Denied::Drop("reserved_topic")) } else { Ok(()) }
    }

    fn publish(&self, session: &mut Session, (): &(), _message: Inbound<'_>) -> Disposition {
        if session.caller.is_revoked() { Disposition::Close(ENDED) } else { Disposition::Route }
    }

    fn subscribe(&self, session: &mut Session, filter: &str, qos: QoS) -> Subscription {
        if is_reserved(filter) || session.caller.is_revoked() {
            Subscription::Refused
        } else {
            Subscription::Routed(qos)
        }
    }

    fn ended(&self, session: Session, _reason: EndReason) {
        self.open.lock().remove(&session.number);
    }
}

fn is_reserved(topic: &str) -> bool {
    let first = topic.trim_start_matches('/').split('/').next().unwrap_or_default();
    topic.starts_with('$') || RESERVED.contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platforms_topics_are_not_for_applications() {
        for topic in ["$SYS/x", "/iot/SN1/#", "iot/a", "/oneM2M/req/a/b/json", "/v1/events"] {
            assert!(is_reserved(topic), "{topic}");
        }
        for topic in ["hall/door", "#", "+/x", "iothings/a", ""] {
            assert!(!is_reserved(topic), "{topic}");
        }
    }
}
