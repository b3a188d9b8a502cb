//! Webhooks: tells programs elsewhere what the journal holds, as CloudEvents, one each request.
//!
//! A webhook is a position in the journal, not a queue. Its courier follows the journal from there and notes now and then
//! how far it came, so that a receiver misses nothing over a crash and is told some things twice, under the same id. While
//! a receiver is down its webhook stands still. Nothing is shared among webhooks but the number of deliveries at once, of
//! which each has its share.

mod authorities;
mod backoff;
mod cloud_event;
mod courier;
mod delivery;
mod guard;
mod post;
pub(crate) mod sign;
mod status;
mod target;
mod window;

pub use authorities::{Authorities, AuthoritiesError};
pub(crate) use status::Seen;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;
use vestibule_platform::{Platform, Secret, Webhook};

use courier::Courier;
use delivery::Outcome;
use guard::Guard;
use post::{Pool, Poster};
use status::Status;
use target::Target;

use crate::network::Network;

/// How long until the webhooks are looked at again when nobody said that they changed: a courier that has ended is made
/// anew, and a store that did not answer is asked again.
const LOOK: Duration = Duration::from_secs(10);
/// Dead letters that are told once more at a time, and tests, over all webhooks: beside what the journal comes to.
const LETTERS: usize = 8;
const TESTS: usize = 4;
/// The longest that somebody waits for what comes of a test.
const TEST: Duration = Duration::from_secs(20);

/// How webhooks are told, from the configuration file.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// Networks that may be delivered to although they are not public.
    pub allow: Vec<Network>,
    /// Authorities beside the public ones that receivers' certificates may be of.
    pub authorities: Authorities,
    /// Time for a receiver to answer, once it is connected to.
    pub timeout: Duration,
    /// How long one record is tried before it becomes a dead letter.
    pub give_up: Duration,
    /// Deliveries under way at once, over all webhooks.
    pub max_deliveries: usize,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        WebhookConfig {
            allow: Vec::new(),
            authorities: Authorities::default(),
            timeout: Duration::from_secs(10),
            give_up: Duration::from_secs(24 * 60 * 60),
            max_deliveries: 128,
        }
    }
}

/// What couriers share.
struct Means {
    platform: Arc<Platform>,
    config: WebhookConfig,
    poster: Poster,
    /// How many webhooks are told now.
    told: AtomicUsize,
    /// One for each delivery of what the journal comes to.
    turns: Semaphore,
    letters: Semaphore,
    tests: Semaphore,
}

impl Means {
    /// How many deliveries a webhook may have under way: what its receiver holds up by being slow is its own part, and
    /// nobody else's. There are no more webhooks than deliveries, so that each has one.
    fn share(&self) -> usize {
        (self.config.max_deliveries / self.told.load(Ordering::Relaxed).max(1)).max(1)
    }
}

/// The webhooks of one platform.
pub(crate) struct Hooks {
    means: Arc<Means>,
    /// How those are doing that have a courier, or had one.
    statuses: Mutex<HashMap<Uuid, Arc<Status>>>,
}

/// What came of a test.
pub(crate) struct Tested {
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) took: Duration,
}

/// A courier at work.
struct Working {
    version: i64,
    letters: Arc<Notify>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Working {
    async fn end(self) {
        self.stop.send_replace(true);
        // A panic was counted, and said, where it happened.
        let _ = self.task.await;
    }
}

impl Hooks {
    pub(crate) fn new(platform: Arc<Platform>, config: WebhookConfig) -> Hooks {
        let poster = Poster::new(Guard::new(config.allow.clone()), &config.authorities, config.timeout);
        let [turns, letters, tests] = [config.max_deliveries, LETTERS, TESTS].map(Semaphore::new);
        let means = Means { platform, config, poster, told: AtomicUsize::new(0), turns, letters, tests };
        Hooks { means: Arc::new(means), statuses: Mutex::default() }
    }

    /// Delivers until closing becomes true.
    pub(crate) async fn run(&self, mut closing: watch::Receiver<bool>) {
        let mut changes = self.means.platform.webhook_changes();
        let mut working = HashMap::new();
        while !*closing.borrow_and_update() {
            // Seen before reading, so that a change in between has them read again.
            changes.borrow_and_update();
            match self.means.platform.webhooks().await {
                Ok(webhooks) => self.reconcile(&mut working, webhooks).await,
                Err(error) => tracing::warn!(%error, "the webhooks cannot be read"),
            }
            tokio::select! {
                // The platform outlives us.
                _ = changes.changed() => {}
                _ = closing.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
        working.values().for_each(|courier: &Working| {
            courier.stop.send_replace(true);
        });
        for (_, courier) in working {
            courier.end().await;
        }
    }

    /// Has a courier at work for each webhook that is enabled, and for no other.
    async fn reconcile(&self, working: &mut HashMap<Uuid, Working>, webhooks: Vec<Webhook>) {
        let current = |id: &Uuid, courier: &Working| {
            let same = |webhook: &&Webhook| webhook.id == *id && webhook.version == courier.version && webhook.enabled;
            webhooks.iter().find(same).is_some() && !courier.task.is_finished()
        };
        let outdated: Vec<Uuid> =
            working.iter().filter(|(id, courier)| !current(id, courier)).map(|(id, _)| *id).collect();
        for courier in outdated.iter().filter_map(|id| working.remove(id)).collect::<Vec<_>>() {
            courier.end().await;
        }
        self.means.told.store(webhooks.iter().filter(|webhook| webhook.enabled).count(), Ordering::Relaxed);
        self.statuses.lock().retain(|id, _| webhooks.iter().any(|webhook| webhook.id == *id));
        for webhook in webhooks.into_iter().filter(|webhook| webhook.enabled) {
            let (id, version) = (webhook.id, webhook.version);
            if let Some(courier) = working.get(&id) {
                courier.letters.notify_one();
            } else if let Some(courier) = self.courier(id).await {
                let (stop, stopped) = watch::channel(false);
                let letters = Arc::new(Notify::new());
                let task = tokio::spawn(courier.run(Arc::clone(&letters), stopped));
                working.insert(id, Working { version, letters, stop, task });
            }
        }
    }

    /// A courier for a webhook, from where the last one has left it; none when that cannot be known now.
    async fn courier(&self, id: Uuid) -> Option<Courier> {
        // Read anew: what was read before may be older than what the last courier has noted.
        let webhook = self.means.platform.webhook(id).await.ok()?;
        let secret = match self.means.platform.webhook_secret(id).await {
            Ok(secret) => secret?,
            Err(error) => {
                tracing::error!(webhook = %id, %error, "the secret of a webhook cannot be read");
                return None;
            }
        };
        let status = Arc::clone(self.statuses.lock().entry(id).or_default());
        let target = Target::parse(&webhook.url).ok()?;
        Some(Courier::new(Arc::clone(&self.means), webhook, secret, target, status))
    }

    /// How a webhook is doing.
    pub(crate) fn seen(&self, id: Uuid) -> Seen {
        self.statuses.lock().get(&id).map(|status| status.seen()).unwrap_or_default()
    }

    /// Whether an address can be told anything.
    ///
    /// # Errors
    /// What is wrong with it: the rest of a sentence that begins with its name.
    pub(crate) fn check(&self, url: &str) -> Result<(), &'static str> {
        Target::wanted(url, self.means.poster.guard()).map(drop)
    }

    /// Delivers a test to a webhook, once, beside what its courier does; none when too many others are being tried.
    pub(crate) async fn test(&self, webhook: &Webhook, secret: &Secret) -> Option<Tested> {
        let _turn = self.means.tests.try_acquire().ok()?;
        let begun = Instant::now();
        let again = |reason| Outcome::Again { status: None, reason, asked: None };
        let outcome = match Target::parse(&webhook.url) {
            Ok(target) => {
                let id = format!("msg_{}_test_{}", webhook.id.simple(), Uuid::now_v7().simple());
                let body = cloud_event::test(&id, webhook.id, self.means.platform.clock().now_ms());
                let pool = Pool::default();
                let delivered = timeout(TEST, self.means.deliver(&pool, &target, secret, &id, body)).await;
                delivered.unwrap_or_else(|_| again(format!("no answer within {} s", TEST.as_secs())))
            }
            Err(wrong) => again(format!("the address {wrong}")),
        };
        let (status, error) = match outcome {
            Outcome::Delivered { status } => (Some(status), None),
            Outcome::Again { status, reason, .. } => (status, Some(reason)),
            Outcome::Refused { status, reason } => (Some(status), Some(reason)),
            Outcome::Gone => (Some(410), Some("the receiver wants nothing more".to_owned())),
        };
        Some(Tested { status, error, took: begun.elapsed() })
    }
}
