//! What the platform says to one application, from one task: records as they become durable, changes of devices, and
//! replies.
//!
//! As with an event stream the journal is the queue: while the application does not take or acknowledge what it has, nothing
//! more is read for it.

use std::pin::pin;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use vestibule_broker::codec::QoS;
use vestibule_broker::{Link, SendError};
use vestibule_platform::{
    Caller, Change, Changes, Device, DeviceQuery, Filter as Records, Follow, Followed, Platform, Position, Record,
    RecordKind, StoreError,
};

use super::subscriptions::{Served, Subscriptions};
use super::topic::{Class, Filter, Topic};
use crate::shapes::{DeviceRef, DeviceShape, EventShape, ReportShape};

/// Devices that are looked at at once for what their presence is.
const PAGE: usize = 256;

/// The answer to a request, whose place is free once it is said.
pub(crate) struct Reply {
    pub(crate) request: Box<str>,
    pub(crate) payload: Vec<u8>,
    pub(crate) _place: Option<OwnedSemaphorePermit>,
}

/// What fills one connection.
pub(crate) struct Feed {
    pub(crate) platform: Arc<Platform>,
    pub(crate) caller: Caller,
    pub(crate) link: Arc<Link>,
    pub(crate) subscriptions: watch::Receiver<Arc<Subscriptions>>,
    pub(crate) replies: mpsc::Receiver<Reply>,
}

/// The connection is at its end.
struct Over;

impl Feed {
    /// Runs until the session is over.
    pub(crate) async fn run(mut self) {
        let (mut changes, mut greeted) = (None, 0);
        let mut served: Option<Served> = None;
        loop {
            let wanted = Arc::clone(&self.subscriptions.borrow_and_update());
            // Before what is the case is said, so that no change after it is missed.
            if !wanted.devices(&self.caller) {
                changes = None;
            } else if changes.is_none() {
                changes = Some(self.platform.changes(&self.caller));
            }
            for filter in wanted.new_of_presence(greeted) {
                if self.say_presence(&wanted, filter).await.is_err() {
                    return;
                }
            }
            let kinds = wanted.kinds(&self.caller);
            let mut follow = (!kinds.is_empty()).then(|| {
                // New ones may have begun before the others got as far as they are.
                let after = served.map(|served| served.to).into_iter().chain(wanted.since(greeted)).min();
                self.platform.follow(after, Records::all(kinds), &self.caller)
            });
            greeted = wanted.asked();
            let so_far = served.unwrap_or(Served { asked: 0, to: Position::START });
            if self.serve(&wanted, so_far, follow.as_mut(), changes.as_mut()).await.is_err() {
                return;
            }
            // Where it was interrupted before it had come so far again, some records are said twice, and none is left out.
            served = follow.map(|follow| Served { asked: greeted, to: follow.position() });
        }
    }

    /// Says what there is to say, until the subscriptions change.
    async fn serve(
        &mut self,
        wanted: &Subscriptions,
        served: Served,
        mut follow: Option<&mut Follow>,
        mut changes: Option<&mut Changes>,
    ) -> Result<(), Over> {
        loop {
            // Kept until it is there: a reading of the journal that began anew with every change might never end.
            let mut next = pin!(next_record(follow.as_deref_mut()));
            let followed = loop {
                tokio::select! {
                    // What was asked for first is in force before more is said.
                    biased;
                    changed = self.subscriptions.changed() => return changed.map_err(|_| Over),
                    // Records come last: of them there may always be more, of the others only as many as were made.
                    Some(reply) = self.replies.recv() => self.say_reply(wanted, reply).await?,
                    change = next_change(changes.as_deref_mut()) => self.say_change(wanted, change).await?,
                    followed = &mut next => break followed,
                }
            };
            match followed {
                Ok(Followed::Record(record)) => self.say_record(wanted, served, &record).await?,
                // MQTT has no other way to say that something is missing.
                Ok(Followed::Lagged { .. }) => return self.end("lagged"),
                Err(error) => {
                    tracing::warn!(%error, "an application is cut off: the journal cannot be read");
                    return self.end("store");
                }
            }
        }
    }

    async fn say_record(&self, wanted: &Subscriptions, served: Served, record: &Record) -> Result<(), Over> {
        let Some(topic) = Topic::of_record(record.kind, &record.serial, &record.path) else { return Ok(()) };
        let Some(qos) = wanted.qos_of_record(&topic, record.position, served) else { return Ok(()) };
        match record.kind {
            RecordKind::Attribute => self.say(&topic, qos, &ReportShape::from(record)).await,
            _ => self.say(&topic, qos, &EventShape::from(record)).await,
        }
    }

    async fn say_reply(&self, wanted: &Subscriptions, reply: Reply) -> Result<(), Over> {
        let topic = Topic::of_reply(&reply.request);
        match wanted.qos(&topic) {
            Some(qos) => self.publish(&topic, qos, &reply.payload).await,
            // It does not want to know.
            None => Ok(()),
        }
    }

    async fn say_change(&self, wanted: &Subscriptions, change: Change) -> Result<(), Over> {
        match change {
            Change::Device(device) => self.say_device(&device, |topic| wanted.qos(topic)).await,
            Change::Gone(device) => {
                let topic = Topic::of_device(Class::Removed, &device.serial);
                match wanted.qos(&topic) {
                    Some(qos) => self.say(&topic, qos, &DeviceRef::new(device.id, &device.serial)).await,
                    None => Ok(()),
                }
            }
            // What is gone cannot be said anew, and MQTT has no way to say that something is missing.
            Change::Lagged(_) if wanted.removals() => self.end("lagged"),
            Change::Lagged(_) => {
                for filter in wanted.new_of_presence(0) {
                    self.say_presence(wanted, filter).await?;
                }
                Ok(())
            }
        }
    }

    /// Says what the presence of each device is that a filter is about.
    async fn say_presence(&self, wanted: &Subscriptions, filter: &Filter) -> Result<(), Over> {
        let qos = |topic: &Topic<'_>| wanted.qos(topic).filter(|_| filter.matches(topic));
        if let Some(serial) = filter.serial() {
            let device = self.platform.device_by_serial(&serial).filter(|device| self.caller.sees(device));
            return match device {
                Some(device) => self.say_device(&device, qos).await,
                None => Ok(()),
            };
        }
        let (all, mut cursor) = (DeviceQuery::default(), None);
        loop {
            let page = self.platform.find_devices(&all, cursor.as_deref(), PAGE, &self.caller).await;
            let Ok(page) = page.inspect_err(|error| tracing::error!(%error, "presence is not said")) else {
                return self.end("store");
            };
            for device in &page.items {
                self.say_device(device, qos).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn say_device(&self, device: &Device, qos: impl Fn(&Topic<'_>) -> Option<QoS>) -> Result<(), Over> {
        let topic = Topic::of_device(Class::Presence, &device.serial);
        match qos(&topic).filter(|_| Class::Presence.is_for(&self.caller)) {
            Some(qos) => self.say(&topic, qos, &DeviceShape::of(&self.platform, device, &self.caller)).await,
            None => Ok(()),
        }
    }

    async fn say(&self, topic: &Topic<'_>, qos: QoS, shape: &impl Serialize) -> Result<(), Over> {
        // Shapes are strings, numbers and checked JSON: they always have a JSON text.
        let payload = serde_json::to_vec(shape).unwrap_or_default();
        self.publish(topic, qos, &payload).await
    }

    /// Waits until the application takes it.
    async fn publish(&self, topic: &Topic<'_>, qos: QoS, payload: &[u8]) -> Result<(), Over> {
        let topic = topic.text();
        loop {
            match self.link.publish(&topic, qos, payload.len(), |out| out.extend_from_slice(payload)) {
                Ok(_) => return Ok(()),
                Err(SendError::BufferFull | SendError::InflightFull) => self.link.room().await,
                Err(SendError::Ending) => return Err(Over),
                Err(error) => {
                    metrics::counter!("vestibule_messages_dropped_total", "reason" => error.as_str()).increment(1);
                    return Ok(());
                }
            }
        }
    }

    fn end(&self, reason: &'static str) -> Result<(), Over> {
        self.link.close(reason);
        Err(Over)
    }
}

async fn next_record(follow: Option<&mut Follow>) -> Result<Followed, StoreError> {
    match follow {
        Some(follow) => follow.next().await,
        None => std::future::pending().await,
    }
}

async fn next_change(changes: Option<&mut Changes>) -> Change {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}
