//! A service that does what the topic says and remembers what it was asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use vestibule_broker::codec::QoS;
use vestibule_broker::{
    Admitted, Denied, Disposition, EndReason, Inbound, Link, Login, Refused, Service, SessionId, Subscription, Ticket,
};

/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the service was asked, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Opened { principal: String, number: i64 },
    Authorized(String),
    Published { topic: String, qos: QoS, dup: bool, payload: Vec<u8> },
    Subscribed(String),
    Acknowledged(u16),
    Ended { principal: String, number: i64, reason: EndReason },
}

/// What a login has seen of its TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub alpn: Option<Vec<u8>>,
    pub certificate: Option<Vec<u8>>,
    pub exported: [u8; 48],
}

/// What the service keeps with a connection.
pub struct Session {
    principal: String,
    number: i64,
}

/// The first level of a topic decides:
///
/// | level | what happens |
/// | --- | --- |
/// | `durable` | to be acknowledged after a ticket: 1, 2, 3 … in the order of receipt |
/// | `done` | acknowledged at once |
/// | `settle` | a guest takes its identity's place |
/// | `open` | the payload is changed in place, then routed |
/// | `close` | the connection is closed |
/// | `panic` | the handler panics |
/// | `stall` | the thread stands still until [`Probe::go_on`] |
/// | `deny` | not authorised, acknowledged |
/// | `forbid` | not authorised, closed |
/// | others | routed |
///
/// The user name of a CONNECT decides likewise: `refused`, `panic`, `greeted` (a message is sent from inside
/// the login), `panic-at-end`, `guest` (for a second). The identity is the client id.
#[derive(Default)]
pub struct Probe {
    asked: Mutex<Vec<Asked>>,
    changed: Condvar,
    sessions: AtomicI64,
    tickets: AtomicI64,
    mark: AtomicI64,
    full: AtomicBool,
    go_on: AtomicBool,
    links: Mutex<HashMap<String, Arc<Link>>>,
    shown: Mutex<HashMap<String, Option<Shown>>>,
}

impl Probe {
    fn note(&self, asked: Asked) {
        self.asked.lock().push(asked);
        self.changed.notify_all();
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// Waits until `look` finds what it looks for.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&[Asked]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut asked = self.asked.lock();
        loop {
            if let Some(found) = look(&asked) {
                return found;
            }
            let late = self.changed.wait_until(&mut asked, deadline).timed_out();
            assert!(!late, "{what} did not come; there was {asked:?}");
        }
    }

    /// Waits for so many messages and returns them.
    #[track_caller]
    pub fn wait_published(&self, count: usize) -> Vec<(String, Vec<u8>)> {
        self.wait(&format!("message {count}"), |asked| {
            let published = published(asked);
            (published.len() >= count).then_some(published)
        })
    }

    pub fn published(&self) -> Vec<(String, Vec<u8>)> {
        published(&self.asked.lock())
    }

    /// Waits for the end of a principal's session and returns its reason.
    #[track_caller]
    pub fn wait_ended(&self, principal: &str) -> EndReason {
        self.wait(&format!("the end of {principal}"), |asked| {
            asked.iter().find_map(|asked| match asked {
                Asked::Ended { principal: name, reason, .. } if name == principal => Some(*reason),
                _ => None,
            })
        })
    }

    pub fn count(&self, of: impl Fn(&Asked) -> bool) -> usize {
        self.asked.lock().iter().filter(|asked| of(asked)).count()
    }

    /// Moves the durable mark. The shards have to be told.
    pub fn set_mark(&self, mark: i64) {
        self.mark.store(mark, Ordering::Release);
    }

    /// The last ticket that was given.
    pub fn last_ticket(&self) -> i64 {
        self.tickets.load(Ordering::Acquire)
    }

    pub fn set_room(&self, room: bool) {
        self.full.store(!room, Ordering::Release);
    }

    /// Ends a stall.
    pub fn go_on(&self) {
        self.go_on.store(true, Ordering::Release);
    }

    /// What the TLS of the latest connection of `principal` has shown; `None` without TLS.
    pub fn shown(&self, principal: &str) -> Option<Shown> {
        self.shown.lock()[principal].clone()
    }

    /// The latest connection that logged in as `principal`.
    pub fn link(&self, principal: &str) -> Arc<Link> {
        Arc::clone(&self.links.lock()[principal])
    }
}

fn published(asked: &[Asked]) -> Vec<(String, Vec<u8>)> {
    asked
        .iter()
        .filter_map(|asked| match asked {
            Asked::Published { topic, payload, .. } => Some((topic.clone(), payload.clone())),
            _ => None,
        })
        .collect()
}

impl Service for Probe {
    type Session = Session;
    type Grant = ();

    async fn connect(&self, login: Login<'_>) -> Result<Admitted<Session>, Refused> {
        let user = login.connect.user.unwrap_or_default();
        match user {
            "refused" => return Err(Refused { code: 5, reason: "test_refused", delay: Duration::from_millis(20) }),
            "panic" => panic!("this login is meant to panic"),
            _ => {}
        }
        if user == "greeted" {
            login.link.publish("hello", QoS::AtMostOnce, 2, |out| out.extend_from_slice(b"hi")).expect("room");
        }
        // A legacy device has no client id; its user name is its serial (osap-wire 9.1).
        let name = if login.connect.client_id.is_empty() { user } else { login.connect.client_id };
        self.links.lock().insert(name.into(), Arc::clone(login.link));
        let shown = login.tls.map(|tls| Shown {
            alpn: tls.alpn().map(<[u8]>::to_vec),
            certificate: tls.peer_certificate().map(|certificate| certificate.to_vec()),
            exported: *tls.export(b"EXPERIMENTAL-test", b"context").expect("the handshake is complete"),
        });
        self.shown.lock().insert(name.into(), shown);
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let guest = (user == "guest").then_some(Duration::from_secs(1));
        let principal = if user == "panic-at-end" { user } else { name }.to_owned();
        Ok(Admitted {
            id: SessionId { realm: "test", principal: name.into() },
            session: Session { principal, number },
            guest,
        })
    }

    fn opened(&self, session: &mut Session) {
        // Widens the gap in which another login could come in between.
        for _ in 0..session.number % 3 * 50 {
            std::thread::yield_now();
        }
        self.note(Asked::Opened { principal: session.principal.clone(), number: session.number });
    }

    fn authorize(&self, _: &mut Session, topic: &str) -> Result<(), Denied> {
        self.note(Asked::Authorized(topic.into()));
        match first(topic) {
            "deny" => Err(Denied::Drop("test_denied")),
            "forbid" => Err(Denied::Close("test_forbidden")),
            _ => Ok(()),
        }
    }

    fn publish(&self, _: &mut Session, (): &(), message: Inbound<'_>) -> Disposition {
        self.note(Asked::Published {
            topic: message.topic.into(),
            qos: message.qos,
            dup: message.dup,
            payload: message.payload.to_vec(),
        });
        match first(message.topic) {
            "durable" => Disposition::After(Ticket(self.tickets.fetch_add(1, Ordering::AcqRel) + 1)),
            "done" => Disposition::Done,
            "settle" => Disposition::Settle(Ticket::READY),
            "open" => {
                message.payload.make_ascii_uppercase();
                Disposition::Route
            }
            "stall" => {
                while !self.go_on.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                Disposition::Done
            }
            "close" => Disposition::Close("test_closed"),
            "panic" => panic!("this message is meant to panic"),
            _ => Disposition::Route,
        }
    }

    fn subscribe(&self, _: &mut Session, filter: &str, qos: QoS) -> Subscription {
        self.note(Asked::Subscribed(filter.into()));
        match first(filter) {
            "deny" => Subscription::Refused,
            "granted" => Subscription::Granted(qos),
            _ => Subscription::Routed(qos),
        }
    }

    fn acknowledged(&self, _: &mut Session, packet_id: u16) {
        self.note(Asked::Acknowledged(packet_id));
    }

    fn ended(&self, session: Session, reason: EndReason) {
        let panics = session.principal == "panic-at-end";
        self.note(Asked::Ended { principal: session.principal, number: session.number, reason });
        assert!(!panics, "this end is meant to panic");
    }

    fn has_room(&self) -> bool {
        !self.full.load(Ordering::Acquire)
    }

    fn durable(&self) -> Ticket {
        Ticket(self.mark.load(Ordering::Acquire))
    }
}

fn first(topic: &str) -> &str {
    topic.split('/').next().unwrap_or(topic)
}
