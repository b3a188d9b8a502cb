//! One webhook's courier: follows the journal from where the webhook was told up to, delivers, and notes how far it came.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use vestibule_platform::{Caller, DeadLetter, Followed, Position, Record, Secret, Webhook, WebhookPlace};

use super::post::Pool;
use super::status::{Status, Trouble};
use super::target::Target;
use super::window::{Key, SIZE, Start, Window};
use super::{Means, Outcome, backoff, cloud_event};

/// How often it is noted how far a webhook was told, and after how many deliveries at the latest.
const SAVE: Duration = Duration::from_secs(1);
const SAVE_AFTER: usize = 100;
/// How long to wait for a journal that cannot be read.
const PAUSE: Duration = Duration::from_secs(2);

/// What there is to deliver, as it is read.
enum Read {
    Record(Arc<Record>),
    /// Nothing up to here.
    Nothing(Position),
    /// Retention has taken what lies before.
    Lagged(Position),
}

/// A delivery that has ended.
struct Ended {
    key: Key,
    round: u64,
    outcome: Outcome,
}

pub(super) struct Courier {
    means: Arc<Means>,
    webhook: Webhook,
    secret: Arc<Secret>,
    target: Arc<Target>,
    status: Arc<Status>,
    pool: Arc<Pool>,
    window: Window,
    /// What was noted last, and how much was delivered since.
    saved: WebhookPlace,
    unsaved: usize,
    /// Positions that retention took, to be noted.
    missed: i64,
    underway: JoinSet<Ended>,
}

/// Why a courier ended by itself.
enum End {
    /// The receiver has said that it wants nothing more.
    Gone,
}

impl Courier {
    pub(super) fn new(
        means: Arc<Means>,
        webhook: Webhook,
        secret: Secret,
        target: Target,
        status: Arc<Status>,
    ) -> Courier {
        let place = webhook.place;
        Courier {
            means,
            webhook,
            secret: Arc::new(secret),
            target: Arc::new(target),
            status,
            pool: Arc::default(),
            window: Window::new(place),
            saved: place,
            unsaved: 0,
            missed: 0,
            underway: JoinSet::new(),
        }
    }

    /// Delivers until it is told to stop, or the receiver wants no more. What is under way then is told again by the next
    /// courier.
    pub(super) async fn run(mut self, letters: Arc<Notify>, mut stop: watch::Receiver<bool>) {
        let platform = Arc::clone(&self.means.platform);
        let (after, filter) = (self.webhook.place.position, self.webhook.filter.clone());
        // Only who sees all devices makes webhooks.
        let follow = platform.follow(Some(after), filter, &Caller::program()).with_batch(SIZE);
        let (sender, mut reads) = mpsc::channel(1);
        let mut reader = JoinSet::new();
        reader.spawn(read(follow, sender));
        let mut save = interval(SAVE);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut letters_due = true;
        loop {
            if letters_due && self.window.has_room() && !self.window.has_letters() {
                letters_due = self.take_letters().await;
            }
            self.begin();
            self.show();
            if self.unsaved >= SAVE_AFTER {
                self.save().await;
            }
            let wake = self.window.wake().map(|until| {
                let wait = until.saturating_sub(self.now());
                Instant::now() + Duration::from_millis(u64::try_from(wait).unwrap_or(0))
            });
            tokio::select! {
                () = told(&mut stop) => break,
                () = letters.notified() => letters_due = true,
                read = reads.recv(), if self.window.has_room() => match read {
                    Some(read) => self.take(read),
                    // The reader has panicked; a new courier is made.
                    None => break,
                },
                Some(ended) = self.underway.join_next() => match ended {
                    Ok(ended) => if let Some(End::Gone) = self.settle(ended).await { break },
                    // A delivery that panicked stays under way for this courier; another one is made.
                    Err(_) => break,
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                _ = save.tick() => self.save().await,
            }
        }
        self.underway.shutdown().await;
        self.save().await;
        self.lag_gauge().set(0.0);
    }

    fn now(&self) -> i64 {
        self.means.platform.clock().steady_ms()
    }

    fn take(&mut self, read: Read) {
        match read {
            Read::Record(record) => self.window.push(record),
            Read::Nothing(position) => self.window.reach(position),
            Read::Lagged(resume) => {
                let gap = resume.get().saturating_sub(self.window.reached().get()).max(0);
                self.missed = self.missed.saturating_add(gap);
                metrics::counter!("vestibule_webhook_missed_total").increment(gap.unsigned_abs());
                tracing::warn!(
                    webhook = %self.webhook.id, gap, "retention has taken what a webhook was not told yet"
                );
                self.window.reach(resume);
            }
        }
    }

    /// Puts dead letters that are to be told once more into the window; whether there may be more.
    async fn take_letters(&mut self) -> bool {
        let platform = &self.means.platform;
        let letters = match platform.dead_letters(self.webhook.id, None, true, SIZE / 2).await {
            Ok(letters) => letters,
            Err(error) => {
                tracing::warn!(webhook = %self.webhook.id, %error, "dead letters cannot be read");
                return false;
            }
        };
        // The newest come first, and are to be told last.
        for letter in letters.iter().rev() {
            match platform.record_at(letter.position).await {
                Ok(Some(record)) => self.window.push_letter(record),
                Ok(None) => {
                    let reason = "retention has taken the record; it cannot be told any more".to_owned();
                    let letter = DeadLetter { replay: false, reason, ..letter.clone() };
                    if let Err(error) = platform.bury_letter(letter).await {
                        tracing::warn!(webhook = %self.webhook.id, %error, "a dead letter cannot be written");
                        return false;
                    }
                }
                Err(error) => {
                    tracing::warn!(webhook = %self.webhook.id, %error, "the record of a dead letter cannot be read");
                    return false;
                }
            }
        }
        !letters.is_empty()
    }

    /// Begins what may be delivered now.
    fn begin(&mut self) {
        let now = self.now();
        while let Some(Start { key, record, round }) = self.window.start(now) {
            let (means, pool) = (Arc::clone(&self.means), Arc::clone(&self.pool));
            let (target, secret) = (Arc::clone(&self.target), Arc::clone(&self.secret));
            let id = format!("msg_{}_{}", self.webhook.id.simple(), key.position());
            self.underway.spawn(async move {
                let outcome = means.deliver(&pool, &target, &secret, &id, cloud_event::of(&record)).await;
                Ended { key, round, outcome }
            });
        }
    }

    async fn settle(&mut self, ended: Ended) -> Option<End> {
        let Ended { key, round, outcome } = ended;
        let at = self.means.platform.clock().now_ms();
        if let Some(trouble) = outcome.trouble(at) {
            tracing::debug!(webhook = %self.webhook.id, reason = trouble.reason, "a delivery failed");
            self.status.note(|seen| seen.last_error = Some(trouble));
        }
        match outcome {
            Outcome::Delivered { .. } => {
                self.status.note(|seen| seen.last_success = Some(at));
                self.unsaved += 1;
                if let Key::Letter(position) = key
                    && let Err(error) = self.means.platform.remove_letter(self.webhook.id, position).await
                {
                    // It is told again at the next start, as everything may be.
                    tracing::warn!(webhook = %self.webhook.id, %error, "a dead letter that was delivered stays");
                }
                self.window.done(key);
            }
            Outcome::Refused { status, reason } => {
                let attempts = self.window.attempts(key);
                if !self.bury(key, attempts, Some(status), &reason).await {
                    self.again(key, round, None);
                }
            }
            Outcome::Again { status, reason, asked } => {
                let failed = self.again(key, round, asked);
                let age = self.now().saturating_sub(failed.since);
                if u128::try_from(age).is_ok_and(|age| age >= self.means.config.give_up.as_millis()) {
                    self.bury(key, failed.attempts, status, &reason).await;
                }
            }
            Outcome::Gone => {
                let because = "the receiver answered 410: it wants nothing more";
                match self.means.platform.give_up_webhook(self.webhook.id, because).await {
                    Ok(()) => return Some(End::Gone),
                    Err(_) => {
                        self.again(key, round, None);
                    }
                }
            }
        }
        None
    }

    fn again(&mut self, key: Key, round: u64, asked: Option<Duration>) -> super::window::Failed {
        let now = self.now();
        self.window.failed((key, round), now, |failures| {
            let mut dice = [0; 4];
            aws_lc_rs::rand::fill(&mut dice).expect("the generator of the crypto library never runs dry");
            backoff::wait(failures, u32::from_ne_bytes(dice)).max(asked.unwrap_or_default())
        })
    }

    /// Makes a record a dead letter, durably; false: it cannot be written, and stays to be delivered.
    async fn bury(&mut self, key: Key, attempts: u32, status: Option<u16>, reason: &str) -> bool {
        let Some(record) = self.window.record(key) else { return true };
        let letter = DeadLetter {
            webhook: self.webhook.id,
            position: record.position,
            device: record.device,
            serial: record.serial.to_string(),
            kind: record.kind.as_str().to_owned(),
            died: self.means.platform.clock().now_ms(),
            attempts: attempts.into(),
            status: status.map(i64::from),
            reason: reason.to_owned(),
            replay: false,
        };
        if let Err(error) = self.means.platform.bury_letter(letter).await {
            tracing::warn!(webhook = %self.webhook.id, %error, "a dead letter cannot be written");
            return false;
        }
        metrics::counter!("vestibule_webhook_dead_letters_total").increment(1);
        self.window.done(key);
        true
    }

    /// Shows how far the webhook is.
    fn show(&self) {
        let place = self.window.place();
        let clock = self.means.platform.clock();
        let wait = self.window.wake().map(|until| clock.now_ms().saturating_add(until.saturating_sub(self.now())));
        let waiting_since = self.window.oldest().map(|record| record.received);
        let failures = self.window.failures();
        self.status.note(|seen| {
            seen.place = Some(place);
            seen.waiting_since = waiting_since;
            seen.failures = failures;
            seen.next_attempt = wait;
        });
    }

    /// Notes how far the webhook was told, if that is news.
    async fn save(&mut self) {
        // A store that does not answer is asked again by time, not by every delivery.
        self.unsaved = 0;
        let place = self.window.place();
        let durable = self.means.platform.journal().durable();
        self.lag_gauge().set(durable.get().saturating_sub(place.position.get()) as f64);
        if place == self.saved && self.missed == 0 {
            return;
        }
        match self.means.platform.place_webhook(self.webhook.id, place, self.missed).await {
            Ok(()) => (self.saved, self.missed) = (place, 0),
            // What it was told since then is told again if the process ends now.
            Err(error) => tracing::warn!(webhook = %self.webhook.id, %error, "how far a webhook was told is not noted"),
        }
    }

    fn lag_gauge(&self) -> metrics::Gauge {
        metrics::gauge!("vestibule_webhook_lag_positions", "webhook" => self.webhook.id.to_string())
    }
}

/// Waits until somebody says so, or nobody can any more.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Reads the journal ahead by a record.
async fn read(mut follow: vestibule_platform::Follow, sender: mpsc::Sender<Read>) {
    loop {
        let read = match follow.advance().await {
            Ok(Some(Followed::Record(record))) => Read::Record(record),
            Ok(Some(Followed::Lagged { resume })) => Read::Lagged(resume),
            Ok(None) => Read::Nothing(follow.position()),
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be read for a webhook");
                sleep(PAUSE).await;
                continue;
            }
        };
        if sender.send(read).await.is_err() {
            return;
        }
    }
}

impl Means {
    /// Delivers a text once, when its turn among all webhooks has come.
    pub(super) async fn deliver(
        &self,
        pool: &Pool,
        target: &Target,
        secret: &Secret,
        id: &str,
        body: Bytes,
    ) -> Outcome {
        // Never closed.
        let _turn = self.turns.acquire().await;
        let begun = Instant::now();
        // Of now: a receiver refuses what was signed long ago.
        let timestamp = self.platform.clock().now_ms().div_euclid(1_000);
        let outcome = match headers(id, timestamp, secret, &body) {
            Some(headers) => {
                let answered = self.poster.post(pool, target, &headers, &body).await;
                Outcome::of(answered, self.platform.clock().now_ms())
            }
            None => Outcome::Again { status: None, reason: "the headers cannot be written".to_owned(), asked: None },
        };
        metrics::histogram!("vestibule_webhook_delivery_seconds").record(begun.elapsed().as_secs_f64());
        metrics::counter!("vestibule_webhook_deliveries_total", "outcome" => outcome.as_str()).increment(1);
        outcome
    }
}

fn headers(id: &str, timestamp: i64, secret: &Secret, body: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert("content-type", cloud_event::MEDIA_TYPE.parse().ok()?);
    headers.insert("user-agent", concat!("vestibule/", env!("CARGO_PKG_VERSION")).parse().ok()?);
    headers.insert("webhook-id", id.parse().ok()?);
    headers.insert("webhook-timestamp", timestamp.into());
    headers.insert("webhook-signature", super::sign::sign(secret, id, timestamp, body).parse().ok()?);
    Some(headers)
}

impl Outcome {
    /// What is shown of a delivery that did not work.
    fn trouble(&self, at: i64) -> Option<Trouble> {
        let (status, reason) = match self {
            Outcome::Delivered { .. } => return None,
            Outcome::Again { status, reason, .. } => (*status, reason.clone()),
            Outcome::Refused { status, reason } => (Some(*status), reason.clone()),
            Outcome::Gone => (Some(410), "the receiver wants nothing more".to_owned()),
        };
        Some(Trouble { at, status, reason })
    }
}
