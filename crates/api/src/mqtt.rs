//! Applications over MQTT 3.1.1: whoever has a token or is a user listens to what the platform says, asks it for something,
//! and speaks with other applications.
//!
//! Topics below `/v1` are the platform's ([`topic`]); those of devices, and what begins with `$`, are nobody's here: an
//! application that could publish there would speak for a device. All others belong to the applications.

mod call;
mod feed;
mod subscriptions;
mod topic;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderValue;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use vestibule_broker::codec::QoS;
use vestibule_broker::{
    Admitted, Denied, Disposition, EndReason, Inbound, Link, Login, Refused, Service, SessionId, Subscription,
};
use vestibule_platform::{Caller, LoginError, Permission, Platform, Secret};

use self::feed::{Feed, Reply};
use self::subscriptions::Subscriptions;
use self::topic::{Class, Filter, Request};
use crate::api::Api;
use crate::problem::{Kind, Problem};

/// MQTT 3.1.1, 3.2.2.3.
const SERVER_UNAVAILABLE: u8 = 3;
const NOT_AUTHORISED: u8 = 5;

/// First levels that belong to the platform and its devices.
const RESERVED: [&str; 3] = ["iot", "oneM2M", "v1"];

/// What tokens begin with: they are no passwords.
const TOKENS: [&str; 2] = ["vst_", "vss_"];

/// Connections of one user, logged in with name and password, at once.
const LOGINS: usize = 16;

/// Requests of one connection that are under way at once.
const CALLS: usize = 32;

/// How often connections are looked through for those whose rights have ended.
const LOOK: Duration = Duration::from_secs(1);
const ENDED: &str = "rights_ended";

/// The service behind the listener for applications.
pub struct Applications {
    platform: Arc<Platform>,
    router: Router,
    /// A host name that the API answers for.
    host: HeaderValue,
    runtime: Handle,
    unnamed: AtomicU64,
    numbers: AtomicU64,
    /// The connections that are open, by a number.
    open: Mutex<HashMap<u64, (Weak<Link>, Caller)>>,
}

/// One connection.
pub struct Session {
    number: u64,
    caller: Caller,
    /// It is logged in for this connection only.
    is_login: bool,
    link: Arc<Link>,
    /// From the first time on that the platform has something to say.
    voice: Option<Voice>,
}

/// How the platform speaks on one connection.
struct Voice {
    subscriptions: watch::Sender<Arc<Subscriptions>>,
    replies: mpsc::Sender<Reply>,
    places: Arc<Semaphore>,
}

/// What an application may publish.
#[derive(Clone)]
pub enum Grant {
    /// A message to other applications.
    Message,
    /// A request to the platform.
    Request(Arc<Asked>),
}

/// A request, as its topic says.
pub struct Asked(Request);

impl Applications {
    /// The service in front of an API. To be made on the runtime that answers its requests.
    pub fn new(api: &Api) -> Arc<Applications> {
        let host = api.shared.config.allowed_hosts.first().map_or("localhost", String::as_str);
        let applications = Arc::new(Applications {
            platform: Arc::clone(&api.shared.platform),
            router: api.router.clone(),
            host: HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static("localhost")),
            runtime: Handle::current(),
            unnamed: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            open: Mutex::default(),
        });
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

    /// Who connects: whose token the password is, or the user of this name and password; with whether a login was made for it.
    async fn recognise(&self, login: &Login<'_>) -> Result<(Caller, bool), Refused> {
        let password =
            login.connect.password.and_then(|password| std::str::from_utf8(password).ok()).unwrap_or_default();
        if let Some(caller) = self.platform.authorize(password) {
            return Ok((caller, false));
        }
        let user = login.connect.user.filter(|user| !user.is_empty());
        let is_token = TOKENS.iter().any(|prefix| password.starts_with(prefix));
        let (Some(user), false, false) = (user, password.is_empty(), is_token) else {
            return Err(refused(NOT_AUTHORISED, "bad_token"));
        };
        // Past as many sessions as a user may have, the oldest ends: some are left for other ways in.
        let open = self.open.lock().values().filter(|(_, caller)| caller.is_user() && caller.name() == user).count();
        if open >= LOGINS {
            return Err(refused(NOT_AUTHORISED, "too_many_logins"));
        }
        let peer = login.link.peer().ip().to_canonical();
        let session = self.platform.log_in(user, Secret::new(password.as_bytes().to_vec()), peer).await;
        let session = session.map_err(|error| match error {
            LoginError::TooManyFailures { .. } => refused(NOT_AUTHORISED, "too_many_logins"),
            LoginError::Busy | LoginError::Store(_) => refused(SERVER_UNAVAILABLE, "login_unavailable"),
            _ => refused(NOT_AUTHORISED, "bad_login"),
        })?;
        let caller = self.platform.authorize(&session.token).ok_or(refused(NOT_AUTHORISED, "bad_login"))?;
        Ok((caller, true))
    }

    /// The voice of a session, which is there from the first use on.
    fn voice<'a>(&self, session: &'a mut Session) -> &'a Voice {
        session.voice.get_or_insert_with(|| {
            let (subscriptions, wanted) = watch::channel(Arc::default());
            let (replies, to_say) = mpsc::channel(CALLS);
            let feed = Feed {
                platform: Arc::clone(&self.platform),
                caller: session.caller.clone(),
                link: Arc::clone(&session.link),
                subscriptions: wanted,
                replies: to_say,
            };
            self.runtime.spawn(feed.run());
            Voice { subscriptions, replies, places: Arc::new(Semaphore::new(CALLS)) }
        })
    }

    /// Has the API answer a request, and the answer said.
    fn ask(&self, session: &mut Session, asked: &Arc<Asked>, body: Bytes) {
        let (caller, peer) = (session.caller.clone(), session.link.peer().ip().to_canonical());
        let (router, host, asked) = (self.router.clone(), self.host.clone(), Arc::clone(asked));
        let voice = self.voice(session);
        let replies = voice.replies.clone();
        let Ok(place) = Arc::clone(&voice.places).try_acquire_owned() else {
            let detail = "32 requests of this connection are under way. Wait for an answer before the next.";
            let payload = call::refusal(Problem::new(Kind::TooManyRequests, detail));
            let refusal = Reply { request: asked.0.id.clone(), payload, _place: None };
            if replies.try_send(refusal).is_err() {
                metrics::counter!("vestibule_messages_dropped_total", "reason" => "reply_full").increment(1);
            }
            return;
        };
        self.runtime.spawn(async move {
            let payload = call::answer(router, host, caller, peer, &asked.0, body).await;
            let reply = Reply { request: asked.0.id.clone(), payload, _place: Some(place) };
            // An error means that the session is over, and there is nobody to tell.
            let _ = replies.send(reply).await;
        });
    }
}

impl Service for Applications {
    type Session = Session;
    type Grant = Grant;

    async fn connect(&self, login: Login<'_>) -> Result<Admitted<Session>, Refused> {
        if !login.connect.clean_session {
            // Saying yes would promise to keep messages while the application is away.
            return Err(refused(SERVER_UNAVAILABLE, "durable_session"));
        }
        let (caller, is_login) = self.recognise(&login).await?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let session = Session { number, caller, is_login, link: Arc::clone(login.link), voice: None };
        if login.connect.will.as_ref().is_some_and(|will| !session.may_speak(will.topic)) {
            self.leave(session);
            return Err(refused(NOT_AUTHORISED, "will_topic"));
        }
        // Two that call themselves the same are one only if they are the same.
        let principal = match login.connect.client_id {
            // The server names a client that has no name (3.1.3.1).
            "" => format!("\0{}", self.unnamed.fetch_add(1, Ordering::Relaxed)),
            client_id => format!("{}\0{client_id}", session.caller.name()),
        };
        self.open.lock().insert(number, (Arc::downgrade(login.link), session.caller.clone()));
        Ok(Admitted { id: SessionId { realm: "mqtt", principal: principal.into() }, session, guest: None })
    }

    fn authorize(&self, session: &mut Session, topic: &str) -> Result<Grant, Denied> {
        if let Some(request) = Request::parse(topic) {
            return Ok(Grant::Request(Arc::new(Asked(request))));
        }
        match session.may_speak(topic) {
            true => Ok(Grant::Message),
            false if is_reserved(topic) => Err(Denied::Drop("reserved_topic")),
            false => Err(Denied::Drop("no_permission")),
        }
    }

    fn publish(&self, session: &mut Session, grant: &Grant, message: Inbound<'_>) -> Disposition {
        if session.caller.is_revoked() {
            return Disposition::Close(ENDED);
        }
        match grant {
            Grant::Message => Disposition::Route,
            Grant::Request(asked) => {
                self.ask(session, asked, Bytes::copy_from_slice(message.payload));
                Disposition::Done
            }
        }
    }

    fn subscribe(&self, session: &mut Session, filter: &str, qos: QoS) -> Subscription {
        // Each may have the presence of all devices said.
        if session.caller.is_revoked() || self.platform.count_request(&session.caller).is_err() {
            return Subscription::Refused;
        }
        let caller = &session.caller;
        let meets =
            |filter: &Filter| Class::ALL.into_iter().any(|class| filter.may_meet(class) && class.is_for(caller));
        let others = !is_reserved(filter) && caller.may(Permission::MqttUse);
        let Some(platforms) = Filter::parse(filter).filter(meets) else {
            return if others { Subscription::Routed(qos) } else { Subscription::Refused };
        };
        let (qos, since) = (qos.min(QoS::AtLeastOnce), self.platform.journal().durable());
        let mut is_added = false;
        self.voice(session).subscriptions.send_modify(|held| {
            is_added = Arc::make_mut(held).add(platforms, qos, since);
        });
        match (is_added, others) {
            (false, _) => Subscription::Refused,
            // As many mean other applications, too.
            (true, true) => Subscription::Routed(qos),
            (true, false) => Subscription::Granted(qos),
        }
    }

    fn unsubscribe(&self, session: &mut Session, filter: &str) {
        if let Some(voice) = &session.voice {
            voice.subscriptions.send_if_modified(|held| Arc::make_mut(held).remove(filter));
        }
    }

    fn ended(&self, session: Session, _reason: EndReason) {
        self.open.lock().remove(&session.number);
        self.leave(session);
    }
}

impl Applications {
    /// Logs out who was logged in for the connection.
    fn leave(&self, session: Session) {
        if session.is_login {
            let platform = Arc::clone(&self.platform);
            self.runtime.spawn(async move {
                if let Err(error) = platform.log_out(&session.caller).await {
                    tracing::warn!(%error, "a session of MQTT stays until its time is over");
                }
            });
        }
    }
}

impl Session {
    /// Whether it may publish to other applications on this topic.
    fn may_speak(&self, topic: &str) -> bool {
        !is_reserved(topic) && self.caller.may(Permission::MqttUse)
    }
}

fn refused(code: u8, reason: &'static str) -> Refused {
    Refused { code, reason, delay: Duration::ZERO }
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
