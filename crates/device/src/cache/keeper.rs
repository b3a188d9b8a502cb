//! Drives the [`Ledger`]: the calls of the device, and a task of its own that waits for the medium.

use std::sync::Arc;

use osap::das::topic::GLOBAL;
use osap::{Random, SystemRandom};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

use super::ledger::{Counts, Fate, Job, Ledger, Next, OpenLane};
use super::record::Loss;
use super::{CacheStatus, EventCache};
use crate::attribute::Message;
use crate::driver::now;
use crate::event::{self, Body, EventPath, ReportError};
use crate::outbox::{DEVICE, Outbox};
use crate::shared::{Shared, Token};
use crate::state::State;

/// Where the platform is told what was dropped: `global/0/sdk/events_dropped`.
const DROPPED: (&str, &str, &str) = ("global", "sdk", "events_dropped");

/// What the calls of the device and the keeper share.
pub(crate) struct Cache {
    /// Locked before the outbox and after the hub, never over a call of the medium.
    ledger: Mutex<Ledger>,
    /// Wakes the keeper.
    wake: Notify,
    /// Wakes reports that wait for room in memory.
    room: Notify,
}

impl Cache {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger: Mutex::new(ledger), wake: Notify::new(), room: Notify::new() }
    }

    /// Takes an event of the device or of a child, and waits until it is safe.
    pub(crate) async fn report(
        &self,
        shared: &Shared,
        sub: &str,
        message: Message,
    ) -> Result<watch::Receiver<Fate>, ReportError> {
        let mut fate = loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // From here on it notices what the keeper says.
            room.as_mut().enable();
            if self.ledger.lock().takes(message.cost())? {
                break self.enter(shared, sub, message)?;
            }
            room.await;
        };
        settled(&mut fate, |fate| fate != Fate::Pending).await?;
        Ok(fate)
    }

    fn enter(&self, shared: &Shared, sub: &str, message: Message) -> Result<watch::Receiver<Fate>, ReportError> {
        // Held until the event is entered: a child that is taken away leaves nothing behind.
        let hub = shared.hub.lock();
        if sub != GLOBAL && !hub.as_ref().and_then(|hub| hub.child(sub)).is_some_and(|child| child.is_wanted()) {
            return Err(ReportError::NoChild);
        }
        let fate = self.ledger.lock().report(now(), shared.clock.now_ms(), sub, message)?;
        drop(hub);
        self.with_open(shared, |ledger, open| feed(shared, ledger, open));
        shared.wake.notify_one();
        self.wake.notify_one();
        Ok(fate)
    }

    /// The platform has an event.
    pub(crate) fn acknowledge(&self, sub: &str, seq: u64) {
        self.ledger.lock().acknowledge(sub, seq);
    }

    /// The platform has the report of losses.
    pub(crate) fn acknowledge_losses(&self) {
        self.ledger.lock().handle_losses_told();
    }

    /// Something left the outbox, or a lane of it was opened.
    pub(crate) fn handle_room(&self) {
        self.ledger.lock().handle_room();
        self.wake.notify_one();
        self.room.notify_waiters();
    }

    /// Nothing that this child reported is sent any more. The outbox has dropped its part.
    pub(crate) fn give_up(&self, sub: &str) {
        self.ledger.lock().give_up(sub);
        self.handle_room();
    }

    /// What is unwritten is written, and the keeper ends.
    pub(crate) fn close(&self) {
        self.ledger.lock().close();
        self.wake.notify_one();
    }

    /// Events that are not acknowledged, without those in the outbox.
    pub(crate) fn waiting(&self) -> usize {
        let (events, handed) = self.ledger.lock().len();
        events - handed
    }

    pub(crate) fn status(&self) -> CacheStatus {
        let ledger = self.ledger.lock();
        CacheStatus { events: ledger.len().0, bytes: ledger.bytes(), failing: ledger.is_failing() }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.ledger.lock().counts
    }

    /// Does something while it is known which lanes are open.
    fn with_open<T>(&self, shared: &Shared, act: impl FnOnce(&mut Ledger, OpenLane<'_>) -> T) -> T {
        let hub = shared.hub.lock();
        let lanes = shared.outbox.lock().open_lanes();
        let open = |sub: &str| {
            let lane =
                if sub == GLOBAL { DEVICE } else { hub.as_ref()?.child(sub).filter(|child| child.is_wanted())?.lane };
            lanes.contains(lane).then_some(lane)
        };
        act(&mut self.ledger.lock(), &open)
    }
}

/// Waits for the fate of an event. The sender goes with the device.
pub(crate) async fn settled(
    fate: &mut watch::Receiver<Fate>,
    enough: impl Fn(Fate) -> bool,
) -> Result<(), ReportError> {
    match fate.wait_for(|fate| enough(*fate)).await.as_deref() {
        Ok(Fate::Pending | Fate::Cached | Fate::Delivered) => Ok(()),
        Ok(Fate::Dropped) => Err(ReportError::Dropped),
        Ok(Fate::GivenUp) => Err(ReportError::NoChild),
        Err(_) => Err(ReportError::Stopped),
    }
}

/// Hands to the outbox what is in memory and may be sent, and takes out of it what was dropped.
fn feed(shared: &Shared, ledger: &mut Ledger, open: OpenLane<'_>) {
    let mut outbox = shared.outbox.lock();
    let closed = ledger.retract(open);
    if !closed.is_empty() {
        outbox.forget(|token| matches!(token, Token::Cached { sub, .. } if closed.contains(sub)));
        ledger.handle_room();
    }
    evict(ledger, &mut outbox);
    while let Some(Next::Memory { sub, seq, lane, message }) = ledger.next(open) {
        let (cost, token) = (message.cost(), Token::Cached { sub: Arc::clone(&sub), seq });
        match outbox.push(lane, message.topic.clone(), message.body.clone(), token) {
            Ok(()) => ledger.handle_handed(&sub, seq, cost),
            Err(_) => ledger.handle_full(),
        }
    }
    if let Some((id, loss)) = ledger.losses()
        && let Some(Message { topic, body }) = report_of(shared, id, loss)
    {
        match outbox.push(DEVICE, topic, body, Token::Losses) {
            Ok(()) => ledger.handle_losses_handed(),
            Err(_) => ledger.handle_full(),
        }
    }
}

fn evict(ledger: &mut Ledger, outbox: &mut Outbox<Token>) {
    let evicted = ledger.take_evicted();
    if !evicted.is_empty() {
        outbox.forget(|token| matches!(token, Token::Cached { seq, .. } if evicted.contains(seq)));
        ledger.handle_room();
    }
}

/// The event that tells the platform what it will not get.
fn report_of(shared: &Shared, id: &str, Loss { count, from, to }: Loss) -> Option<Message> {
    let (resource, area, name) = DROPPED;
    let path =
        EventPath { sub: GLOBAL.into(), resource: resource.into(), index: 0, area: area.into(), name: name.into() };
    let topic = path.topic(&shared.profile.serial).ok()?;
    let (from, to) = (event::date_time(from), event::date_time(to));
    let body = json!({ "count": count, "from": from, "to": to, "basic": { "UUID": id } });
    let Body { json, .. } = Body::compose(&body, &*shared.clock, &mut SystemRandom).ok()?;
    Some(Message { topic, body: json.into() })
}

/// Carries out what the ledger wants of the medium.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    medium: Arc<Mutex<Box<dyn EventCache>>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(cache) = &self.shared.cache {
            cache.ledger.lock().abandon();
            cache.room.notify_waiters();
        }
    }
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>, medium: Box<dyn EventCache>) -> Self {
        Self { shared, medium: Arc::new(Mutex::new(medium)) }
    }

    /// Runs until the cache is closed and everything written, or one attempt to do that failed.
    pub(crate) async fn run(self) {
        let Some(cache) = &self.shared.cache else { return };
        let mut states = self.shared.state.subscribe();
        loop {
            let (job, deadline, closing) = self.step(cache, &mut SystemRandom);
            let Some(job) = job else {
                if closing {
                    return;
                }
                let timer = async {
                    match deadline {
                        Some(deadline) => sleep_until(deadline.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = cache.wake.notified() => {}
                    // The sender lives in `shared`.
                    _ = states.changed() => {}
                    () = timer => {}
                }
                continue;
            };
            match self.carry_out(cache, job).await {
                Some(true) if closing => return,
                Some(_) => {}
                None => return,
            }
        }
    }

    fn step(&self, cache: &Cache, random: &mut dyn Random) -> (Option<Job>, Option<std::time::Instant>, bool) {
        let shared = &*self.shared;
        let (now, now_ms) = (now(), shared.clock.now_ms());
        let online = *shared.state.borrow() == State::Online;
        cache.with_open(shared, |ledger, open| {
            if online {
                ledger.tell_losses(|| event::mint_id(now_ms, random).into());
            }
            // Before, because what is taken back makes room; after, because something may have been dropped.
            feed(shared, ledger, open);
            let job = ledger.plan(now, now_ms, online, open);
            feed(shared, ledger, open);
            (job, ledger.deadline(now, online), ledger.is_closing())
        })
    }

    /// Whether something went wrong; `None` when the runtime goes away.
    async fn carry_out(&self, cache: &Cache, job: Job) -> Option<bool> {
        let medium = Arc::clone(&self.medium);
        let work = move || job.carry_out(&mut **medium.lock());
        let outcome = tokio::task::spawn_blocking(work).await.ok()?;
        let failed = outcome.has_failed();
        let shared = &*self.shared;
        cache.with_open(shared, |ledger, open| {
            if outcome.has_loaded() {
                shared.outbox.lock().forget(|token| matches!(token, Token::Cached { .. }));
            }
            let read = ledger.handle_outcome(now(), outcome);
            let mut outbox = shared.outbox.lock();
            for event in read {
                let cost = event.message.cost();
                let Some(lane) = open(&event.sub).filter(|_| ledger.is_next(&event.sub, event.seq, cost)) else {
                    continue;
                };
                let token = Token::Cached { sub: Arc::clone(&event.sub), seq: event.seq };
                match outbox.push(lane, event.message.topic, event.message.body, token) {
                    Ok(()) => ledger.handle_handed(&event.sub, event.seq, cost),
                    Err(_) => ledger.handle_full(),
                }
            }
            drop(outbox);
            feed(shared, ledger, open);
        });
        shared.wake.notify_one();
        cache.room.notify_waiters();
        Some(failed)
    }
}
