//! Events that name pictures. An event is delivered at once, whether or not its pictures have arrived.
//!
//! The journal keeps what the device has sent. How its pictures stand is folded in whenever an event is read, whoever reads
//! it: a picture that has not arrived gets `"pending": true`, one that is here its address and its size. When one arrives,
//! an amendment is journalled for each event that names it, so that whoever follows events is told.

mod reference;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use uuid::Uuid;
use vestibule_store::{
    Control, DeviceId, Flags, MediaKind, MediaRow, MediaState, Order, Position, Record, RecordKind, Scan, StoreError,
};

use crate::platform::Platform;
use crate::storage::MediaStorage;
use reference::{Reference, Standing, references, rewritten};

/// Pictures whose standing is remembered.
const KNOWN: usize = 4_096;
/// How many of a device's newest events are looked through for those that name a picture.
const LOOKED_THROUGH: usize = 1_000;

/// Who keeps pictures, and what is known of them.
#[derive(Default)]
pub(crate) struct Pictures {
    storage: OnceLock<Weak<dyn MediaStorage>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Counts arrivals and removals: what was read before one is not remembered after it.
    changes: u64,
    standings: HashMap<Uuid, Option<Arrived>>,
}

/// A picture that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Arrived {
    device: DeviceId,
    standing: Standing,
}

impl Arrived {
    fn of(row: &MediaRow) -> Option<Arrived> {
        let standing = match row.state {
            MediaState::Here => Standing::Here(row.size),
            MediaState::Gone => Standing::Gone,
            MediaState::Offered | MediaState::Receiving => return None,
        };
        (row.kind == MediaKind::Picture).then_some(Arrived { device: row.device, standing })
    }
}

impl Pictures {
    /// Where the adapter that keeps pictures and files is entered.
    pub(crate) fn storage(&self) -> &OnceLock<Weak<dyn MediaStorage>> {
        &self.storage
    }

    /// The standing of this picture is another one from now on.
    fn changed(&self, id: Uuid) {
        let mut known = self.known.lock();
        known.changes += 1;
        known.standings.remove(&id);
    }

    /// Adds to each event that names pictures how those stand.
    pub(crate) async fn fold(
        &self,
        control: &Control,
        now: i64,
        mut records: Vec<Arc<Record>>,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        let Some(storage) = self.storage.get().and_then(Weak::upgrade) else { return Ok(records) };
        let named: Vec<(usize, Vec<Reference>)> = records
            .iter()
            .enumerate()
            .filter(|(_, record)| record.kind == RecordKind::Event)
            .map(|(n, record)| (n, references(&record.data)))
            .filter(|(_, references)| !references.is_empty())
            .collect();
        if named.is_empty() {
            return Ok(records);
        }
        let ids = named.iter().flat_map(|(_, references)| references.iter().map(|reference| reference.id));
        let standings = self.standings(control, ids.collect()).await?;
        for (n, references) in named {
            let record = &records[n];
            // What was here and had its time does not come again, and neither does what nobody has sent for so long.
            let is_awaited = now.saturating_sub(record.received) < millis(storage.kept_for());
            let standing = |id: Uuid| {
                let arrived = standings.get(&id).and_then(Option::as_ref);
                match arrived.filter(|arrived| arrived.device == record.device) {
                    Some(arrived) => arrived.standing,
                    None if is_awaited => Standing::Pending,
                    None => Standing::Gone,
                }
            };
            let data = rewritten(&record.data, &references, standing);
            records[n] = Arc::new(Record { data: data.into(), ..Record::clone(record) });
        }
        Ok(records)
    }

    async fn standings(&self, control: &Control, ids: Vec<Uuid>) -> Result<HashMap<Uuid, Option<Arrived>>, StoreError> {
        let mut standings = HashMap::with_capacity(ids.len());
        let (mut missing, changes) = (Vec::new(), {
            let known = self.known.lock();
            for id in &ids {
                if let Some(standing) = known.standings.get(id) {
                    standings.insert(*id, standing.clone());
                }
            }
            known.changes
        });
        missing.extend(ids.into_iter().filter(|id| !standings.contains_key(id)));
        if missing.is_empty() {
            return Ok(standings);
        }
        missing.sort_unstable();
        missing.dedup();
        let rows: HashMap<Uuid, Arrived> = control
            .media_of(&missing)
            .await?
            .into_iter()
            .filter_map(|row| Some((row.id, Arrived::of(&row)?)))
            .collect();
        let mut known = self.known.lock();
        for id in missing {
            let standing = rows.get(&id).cloned();
            if known.changes == changes {
                if known.standings.len() >= KNOWN {
                    known.standings.clear();
                }
                known.standings.insert(id, standing.clone());
            }
            standings.insert(id, standing);
        }
        Ok(standings)
    }
}

impl Platform {
    /// A picture has arrived, durably. Tells everybody who follows events: for each of the device's newest events that names
    /// the picture an amendment is journalled. Returns how many there were, when they are durable.
    ///
    /// # Errors
    /// When the store does not answer; then it is to be told again.
    pub async fn picture_arrived(&self, row: &MediaRow) -> Result<usize, StoreError> {
        // Before the journal is read: an event that becomes durable after that is read with the picture there.
        self.pictures().changed(row.id);
        let now = self.clock().now_ms();
        let kept_for = self.media_storage().map_or(Duration::ZERO, |storage| storage.kept_for());
        let scan = Scan {
            device: Some(row.device),
            kind: Some(RecordKind::Event),
            received_from: Some(now.saturating_sub(millis(kept_for))),
            order: Order::Newest,
            limit: LOOKED_THROUGH,
            ..Scan::default()
        };
        let events = self.journal().scan(&scan).await?;
        let names = |event: &&Arc<Record>| references(&event.data).iter().any(|reference| reference.id == row.id);
        let mut last = Position::START;
        let mut count = 0;
        for event in events.iter().rev().filter(names) {
            self.journal().room().await;
            // With an identity of its own: one that was stored before a crash is not stored again.
            last = self.journal().append(amendment(event, row, now));
            count += 1;
        }
        let durable = self.journal().watch_durable().wait_for(|durable| *durable >= last).await.is_ok();
        if durable { Ok(count) } else { Err(StoreError::Closed) }
    }

    /// A picture is no longer here.
    pub fn picture_gone(&self, id: Uuid) {
        self.pictures().changed(id);
    }
}

/// What tells that a picture of this event has arrived. It stands where the event belongs, so that whoever follows such
/// events gets it.
fn amendment(event: &Record, row: &MediaRow, now: i64) -> Record {
    let (width, height) = row.size.unzip();
    let data = json!({
        "amends": {"position": event.position.get(), "id": event.id},
        "picture": {
            "id": row.id, "url": path(row.id), "type": row.media_type, "bytes": row.bytes, "w": width, "h": height,
        },
    });
    Record {
        position: Position::START,
        device: event.device,
        serial: Arc::clone(&event.serial),
        kind: RecordKind::Amendment,
        path: Arc::clone(&event.path),
        id: Some(format!("amendment of {} by {}", event.position.get(), row.id).into()),
        time: now,
        received: now,
        flags: Flags::NONE,
        data: data.to_string().into(),
    }
}

/// Where a picture is shown.
fn path(id: Uuid) -> String {
    format!("/media/v1/picture/{id}")
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
