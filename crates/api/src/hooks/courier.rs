//! One webhook's courier: follows the journal from where the webhook was told up to, delivers, and notes how far it came.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use vestibule_platform::{Caller, DeadLetter, Followed, Position, Record, Secret, StoreError, Webhook, WebhookPlace};

use super::delivery::Outcome;
use super::post::Pool;
use super::status::Status;
use super::target::Target;
use super::window::{BYTES, Began, Failed, Key, LETTERS, SIZE, Start, Window};
use super::{Means, backoff, cloud_event};

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
    began: Began,
    outcome: Outcome,
}

/// What has become of a dead letter that was told once more, to be written down.
enum Told {
    /// The receiver has it.
    Delivered(Position),
    /// It stays, with what was wrong this time.
    NotDelivered(DeadLetter),
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
    /// Letters of which the store does not know yet; until it does no further ones are told, or these would be again.
    told: Vec<Told>,
    underway: JoinSet<Ended>,
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
            told: Vec::new(),
            underway: JoinSet::new(),
        }
    }

    /// Delivers until it is told to stop, or the receiver wants no more. What is under way then is told again by the next
    /// courier.
    pub(super) async fn run(mut self, letters: Arc<Notify>, mut stop: watch::Receiver<bool>) {
        let platform = Arc::clone(&self.means.platform);
        let (after, filter) = (self.webhook.place.position, self.webhook.filter.clone());
        // Only who sees all devices makes webhooks.
        let follow = platform.follow(Some(after), filter, &Caller::program()).with_batch(SIZE, BYTES);
        let (sender, mut reads) = mpsc::channel(1);
        let mut reader = JoinSet::new();
        reader.spawn(read(follow, sender));
        let mut save = interval(SAVE);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut letters_due = true;
        loop {
            if letters_due && self.told.is_empty() && !self.window.has_letters() {
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
                    Ok(ended) => if self.settle(ended).await { break },
                    // A delivery that panicked stays under way for this courier; another one is made.
                    Err(_) => break,
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                _ = save.tick() => {
                    self.note_letters().await;
                    self.save().await;
                }
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
        let letters = match platform.dead_letters(self.webhook.id, None, true, LETTERS).await {
            Ok(letters) => letters,
            Err(error) => {
                tracing::warn!(webhook = %self.webhook.id, %error, "dead letters cannot be read");
                return false;
            }
        };
        // The newest come first, and are to be told last.
        let any = !letters.is_empty();
        for letter in letters.into_iter().rev() {
            let reason = match platform.record_at(letter.position).await {
                // It may have been changed since the letter was buried.
                Ok(Some(record)) if !self.webhook.filter.wants(&record) => {
                    "the webhook is not told of such records any more"
                }
                Ok(Some(record)) => {
                    self.window.push_letter(record);
                    continue;
                }
                Ok(None) => "retention has taken the record; it cannot be told any more",
                Err(error) => {
                    tracing::warn!(webhook = %self.webhook.id, %error, "the record of a dead letter cannot be read");
                    return false;
                }
            };
            self.told.push(Told::NotDelivered(DeadLetter { replay: false, reason: reason.to_owned(), ..letter }));
        }
        self.note_letters().await;
        any
    }

    /// Begins what may be delivered now.
    fn begin(&mut self) {
        let (now, share) = (self.now(), self.means.share());
        while let Some(Start { began, record }) = self.window.start(now, share) {
            let (means, pool) = (Arc::clone(&self.means), Arc::clone(&self.pool));
            let (target, secret) = (Arc::clone(&self.target), Arc::clone(&self.secret));
            let id = format!("msg_{}_{}", self.webhook.id.simple(), began.key.position());
            self.underway.spawn(async move {
                let turns = match began.key {
                    Key::Journal(_) => &means.turns,
                    Key::Letter(_) => &means.letters,
                };
                // Never closed.
                let _turn = turns.acquire().await;
                let outcome = means.deliver(&pool, &target, &secret, &id, cloud_event::of(&record)).await;
                Ended { began, outcome }
            });
        }
    }

    /// Does what follows from the end of a delivery; whether the courier has to end.
    async fn settle(&mut self, ended: Ended) -> bool {
        let Ended { began, outcome } = ended;
        let at = self.means.platform.clock().now_ms();
        if let Some(trouble) = outcome.trouble(at) {
            tracing::debug!(webhook = %self.webhook.id, reason = trouble.reason, "a delivery failed");
            self.status.note(|seen| seen.last_error = Some(trouble));
        }
        match (began.key, outcome) {
            (_, Outcome::Gone) => {
                let because = "the receiver answered 410: it wants nothing more";
                // What was changed meanwhile is not what the receiver has answered to.
                let Webhook { id, version, .. } = self.webhook;
                if self.means.platform.give_up_webhook(id, version, because).await.is_ok() {
                    return true;
                }
                match began.key {
                    Key::Journal(_) => drop(self.again(began, None)),
                    // It is read again with the next ones.
                    Key::Letter(_) => self.window.done(began),
                }
            }
            (_, Outcome::Delivered { .. }) => {
                self.status.note(|seen| seen.last_success = Some(at));
                self.window.done(began);
                match began.key {
                    Key::Journal(_) => self.unsaved += 1,
                    Key::Letter(position) => {
                        self.told.push(Told::Delivered(position));
                        self.note_letters().await;
                    }
                }
            }
            (Key::Journal(position), Outcome::Refused { status, reason }) => {
                let attempts = self.window.attempts(position);
                if !self.bury(began, attempts, Some(status), reason).await {
                    self.again(began, None);
                }
            }
            (Key::Journal(_), Outcome::Again { status, reason, asked }) => {
                let failed = self.again(began, asked);
                let age = self.now().saturating_sub(failed.since);
                if u128::try_from(age).is_ok_and(|age| age >= self.means.config.give_up.as_millis()) {
                    self.bury(began, failed.attempts, status, reason).await;
                }
            }
            // It was asked for once more, and was tried once more.
            (Key::Letter(_), Outcome::Refused { status, reason }) => {
                self.letter_stays(began, Some(status), reason).await;
            }
            (Key::Letter(_), Outcome::Again { status, reason, .. }) => self.letter_stays(began, status, reason).await,
        }
        false
    }

    fn again(&mut self, began: Began, asked: Option<Duration>) -> Failed {
        self.window.failed(began, self.now(), asked, |failures| {
            let mut dice = [0; 4];
            aws_lc_rs::rand::fill(&mut dice).expect("the generator of the crypto library never runs dry");
            backoff::wait(failures, u32::from_ne_bytes(dice))
        })
    }

    async fn letter_stays(&mut self, began: Began, status: Option<u16>, reason: String) {
        if let Some(record) = self.window.record(began.key) {
            self.told.push(Told::NotDelivered(self.letter(record, 1, status, reason)));
        }
        self.window.done(began);
        self.note_letters().await;
    }

    /// Has the store know what has become of letters; what it does not take is tried again by time.
    async fn note_letters(&mut self) {
        while let Some(told) = self.told.last() {
            let platform = &self.means.platform;
            let noted: Result<(), StoreError> = match told {
                Told::Delivered(position) => platform.remove_letter(self.webhook.id, *position).await,
                Told::NotDelivered(letter) => platform.bury_letter(letter.clone()).await,
            };
            if let Err(error) = noted {
                // Should the process end before, it is told again, as everything may be.
                tracing::warn!(webhook = %self.webhook.id, %error, "what became of a dead letter is not written yet");
                return;
            }
            self.told.pop();
        }
    }

    /// Makes a record a dead letter, durably; false: it cannot be written, and stays to be delivered.
    async fn bury(&mut self, began: Began, attempts: u32, status: Option<u16>, reason: String) -> bool {
        let Some(record) = self.window.record(began.key) else { return true };
        let letter = self.letter(record, attempts, status, reason);
        if let Err(error) = self.means.platform.bury_letter(letter).await {
            tracing::warn!(webhook = %self.webhook.id, %error, "a dead letter cannot be written");
            return false;
        }
        metrics::counter!("vestibule_webhook_dead_letters_total").increment(1);
        self.window.done(began);
        true
    }

    fn letter(&self, record: &Record, attempts: u32, status: Option<u16>, reason: String) -> DeadLetter {
        DeadLetter {
            webhook: self.webhook.id,
            position: record.position,
            device: record.device,
            serial: record.serial.to_string(),
            kind: record.kind.as_str().to_owned(),
            died: self.means.platform.clock().now_ms(),
            attempts: attempts.into(),
            status: status.map(i64::from),
            reason,
            replay: false,
        }
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
        match self.means.platform.place_webhook(self.webhook.id, self.webhook.version, place, self.missed).await {
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
