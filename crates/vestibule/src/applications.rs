//! Applications over plain MQTT: whoever has a token with the right to may publish and subscribe.
//!
//! Topics that begin with `$` and the topics of devices are the platform's own: an application that could publish
//! there would speak for a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vestibule_broker::codec::QoS;
use vestibule_broker::{
    Admitted, Denied, Disposition, EndReason, Inbound, Login, Refused, Service, SessionId, Subscription,
};
use vestibule_platform::{Permission, Platform};

/// MQTT 3.1.1, 3.2.2.3.
const SERVER_UNAVAILABLE: u8 = 3;
const NOT_AUTHORISED: u8 = 5;

/// First levels that belong to the platform.
const RESERVED: [&str; 3] = ["iot", "oneM2M", "v1"];

/// The service behind the listener for applications.
pub(crate) struct Applications {
    platform: Arc<Platform>,
    unnamed: AtomicU64,
}

impl Applications {
    pub(crate) fn new(platform: Arc<Platform>) -> Arc<Applications> {
        Arc::new(Applications { platform, unnamed: AtomicU64::new(0) })
    }
}

impl Service for Applications {
    type Session = ();
    type Grant = ();

    async fn connect(&self, login: Login<'_>) -> Result<Admitted<()>, Refused> {
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
        Ok(Admitted { id: SessionId { realm: "mqtt", principal: principal.into() }, session: () })
    }

    fn authorize(&self, (): &mut (), topic: &str) -> Result<(), Denied> {
        if is_reserved(topic) { Err(Denied::Drop("reserved_topic")) } else { Ok(()) }
    }

    fn publish(&self, (): &mut (), (): &(), _message: Inbound<'_>) -> Disposition {
        Disposition::Route
    }

    fn subscribe(&self, (): &mut (), filter: &str, qos: QoS) -> Subscription {
        if is_reserved(filter) { Subscription::Refused } else { Subscription::Routed(qos) }
    }

    fn ended(&self, (): (), _reason: EndReason) {}
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
