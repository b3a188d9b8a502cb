//! Events that outlive the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use vestibule_device::{
    Builder, CacheError, Child, Device, EventCache, FileCache, FileStorage, MemoryStorage, ReportError, StartError,
    State, Storage,
};

use crate::children::judge;
use crate::server::{CODE, Event, SERIAL, Seen, Server};
use crate::{reach, soon};

mod away;
mod killed;

/// A device whose LBS is at an address.
fn builder(lbs: impl ToString, storage: impl Storage, cache: impl EventCache) -> Builder {
    Device::builder(SERIAL, CODE).lbs(lbs.to_string()).legacy().storage(storage).cache(cache).queue(32, 64 * 1024)
}

fn directory(dir: &Path) -> FileCache {
    FileCache::open(dir).expect("a cache")
}

/// An address nobody listens at: it was free a moment ago.
async fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Reports the numbers and gives their ids.
async fn report(device: &Device, numbers: std::ops::Range<usize>) -> Vec<String> {
    let event = device.event("Camera", 0, "Detection", "Motion");
    let mut ids = Vec::new();
    for number in numbers {
        ids.push(soon(event.report(&json!({ "number": number }))).await.expect("it is safe").id);
    }
    ids
}

/// The next event that the platform sees.
async fn next_event(server: &mut Server) -> Event {
    loop {
        if let Seen::Event(event) = server.next().await {
            return event;
        }
    }
}

/// Waits until everything that was reported before is acknowledged, because acknowledgements come in order.
async fn acknowledged(device: &Device) {
    let last = soon(device.event("Camera", 0, "Detection", "Last").report(&json!({}))).await.unwrap();
    soon(last.delivered()).await.unwrap();
}

#[tokio::test]
async fn events_of_a_device_without_a_network_arrive_in_order_after_a_restart() {
    const EVENTS: usize = 300;
    let storage = Arc::new(MemoryStorage::new());
    let dir = tempfile::tempdir().unwrap();
    let device = builder(nobody().await, Arc::clone(&storage), directory(dir.path())).start().unwrap();
    let mut ids = report(&device, 0..EVENTS / 2).await;
    // Some of them at the same time: they share their syncs.
    let together = tokio::task::JoinSet::from_iter((EVENTS / 2..EVENTS).map(|number| {
        let device = device.clone();
        async move { (number, report(&device, number..number + 1).await.remove(0)) }
    }));
    let together: BTreeMap<usize, String> = soon(together.join_all()).await.into_iter().collect();
    ids.extend(together.into_values());
    assert_eq!(device.unacknowledged(), EVENTS);
    assert_eq!(device.counters().cached, EVENTS as u64);
    let status = device.cache_status().expect("there is a cache");
    assert_eq!((status.events, status.failing), (EVENTS, false));
    soon(device.stop()).await.unwrap();

    let mut server = Server::start().await;
    let device = builder(server.lbs, storage, directory(dir.path())).start().unwrap();
    assert_eq!(device.unacknowledged(), EVENTS);
    let mut seen = Vec::new();
    while seen.len() < EVENTS {
        seen.push(next_event(&mut server).await.id);
    }
    assert_eq!(seen[..EVENTS / 2], ids[..EVENTS / 2]);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>(), ids.iter().collect(), "each once");
    let new = report(&device, EVENTS..EVENTS + 1).await;
    assert_eq!(next_event(&mut server).await.id, new[0]);
    acknowledged(&device).await;
    assert_eq!(device.unacknowledged(), 0);
    soon(device.stop()).await.unwrap();

    // Nothing is left.
    let device = builder(server.lbs, MemoryStorage::new(), directory(dir.path())).start().unwrap();
    assert_eq!(device.unacknowledged(), 0);
}

#[tokio::test]
async fn what_is_acknowledged_in_time_is_not_written() {
    let mut server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cache = directory(dir.path());
    let grace = Duration::from_secs(10);
    let device = builder(server.lbs, MemoryStorage::new(), cache).cache_grace(grace).start().unwrap();
    reach(&device, |state| *state == State::Online).await;
    let ids = report(&device, 0..20).await;
    for id in ids {
        assert_eq!(next_event(&mut server).await.id, id);
    }
    assert_eq!((device.counters().cached, device.counters().acknowledged), (0, 20));
    soon(device.stop()).await.unwrap();
    assert_eq!(directory(dir.path()).segments().unwrap(), [] as [u64; 0]);
}

#[tokio::test]
async fn an_event_without_acknowledgement_is_cached_and_sent_again_with_its_id() {
    let mut server = Server::start().await;
    let storage = Arc::new(MemoryStorage::new());
    let dir = tempfile::tempdir().unwrap();
    let device = builder(server.lbs, Arc::clone(&storage), directory(dir.path())).start().unwrap();
    reach(&device, |state| *state == State::Online).await;
    server.world.lock().swallow = 1;
    let event = device.event("Camera", 0, "Detection", "Motion");
    let receipt = soon(event.report(&json!({}))).await.expect("it is in the cache");
    let first = next_event(&mut server).await;
    assert_eq!(first.id, receipt.id);
    soon(device.stop()).await.unwrap();
    assert!(matches!(soon(receipt.delivered()).await, Err(ReportError::Stopped)));
    let late = event.report(&json!({})).await;
    assert!(matches!(late, Err(ReportError::Stopped)));

    let device = builder(server.lbs, storage, directory(dir.path())).start().unwrap();
    let second = next_event(&mut server).await;
    assert_eq!((&second.id, &second.json, second.dup), (&first.id, &first.json, false));
    let receipt = soon(device.event("Camera", 0, "Detection", "Motion").report(&json!({}))).await.unwrap();
    soon(receipt.delivered()).await.unwrap();
}

#[tokio::test]
async fn the_platform_is_told_what_was_dropped() {
    let storage = Arc::new(MemoryStorage::new());
    let dir = tempfile::tempdir().unwrap();
    let start = |lbs| {
        let builder = builder(lbs, Arc::clone(&storage), directory(dir.path()));
        builder.cache_bounds(10, 1 << 20, Duration::from_secs(3600)).start().unwrap()
    };
    let device = start(nobody().await);
    let event = device.event("Camera", 0, "Detection", "Motion");
    let mut receipts = Vec::new();
    for number in 0..15 {
        receipts.push(soon(event.report(&json!({ "number": number }))).await.unwrap());
    }
    let kept = receipts.split_off(5);
    for receipt in receipts {
        assert!(matches!(soon(receipt.delivered()).await, Err(ReportError::Dropped)));
    }
    assert_eq!((device.counters().dropped, device.unacknowledged()), (5, 10));
    soon(device.stop()).await.unwrap();

    let mut server = Server::start().await;
    let device = start(server.lbs);
    let mut seen = Vec::new();
    let mut told = Vec::new();
    while seen.len() < 10 || told.is_empty() {
        let event = next_event(&mut server).await;
        if event.topic.ends_with("/global/0-global/model/event/report/sdk/events_dropped") {
            told.push(serde_json::from_str::<Value>(&event.json).unwrap());
        } else {
            seen.push(event.id);
        }
    }
    assert_eq!(seen, kept.iter().map(|receipt| receipt.id.clone()).collect::<Vec<_>>());
    assert_eq!((told.len(), &told[0]["count"]), (1, &json!(5)));
    let time = |member: &str| told[0][member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("from") <= time("to"));
    acknowledged(&device).await;
    // Another connection does not hear of it again.
    server.kill.notify_one();
    let id = report(&device, 15..16).await;
    assert!(next_event(&mut server).await.topic.ends_with("/Last"));
    assert_eq!(next_event(&mut server).await.id, id[0]);
}

#[tokio::test]
async fn what_a_child_reported_waits_for_the_child() {
    let storage = Arc::new(MemoryStorage::new());
    let dir = tempfile::tempdir().unwrap();
    let hub = |lbs| builder(lbs, Arc::clone(&storage), directory(dir.path()));
    let device = hub(nobody().await).child(Child::builder("SUB1", "ABCDEF")).start().unwrap();
    let child = device.child("SUB1").unwrap();
    let of_child = soon(child.event("Lamp", 0, "Alarm", "Smoke").report(&json!({}))).await.unwrap();
    let own = report(&device, 0..1).await;
    soon(device.stop()).await.unwrap();

    let mut server = Server::start().await;
    let device = hub(server.lbs).hub().start().unwrap();
    assert_eq!(next_event(&mut server).await.id, own[0]);
    acknowledged(&device).await;
    assert_eq!(device.unacknowledged(), 1);
    // The child is there again, and the platform takes it.
    let child = device.add_child(Child::builder("SUB1", "ABCDEF")).unwrap();
    loop {
        // The question whether it may (osap-wire 10.6).
        if let Seen::Command(command) = server.next().await
            && command.topic == "/7002/16"
        {
            break;
        }
    }
    judge(&mut server, "SUB1", 0).await;
    let event = next_event(&mut server).await;
    assert_eq!((event.id, event.topic.contains("/SUB1/")), (of_child.id, true));
    acknowledged(&device).await;

    // A child that is taken away takes along what is not acknowledged.
    server.world.lock().swallow = 1;
    let last = soon(child.event("Lamp", 0, "Alarm", "Smoke").report(&json!({}))).await.unwrap();
    assert!(device.remove_child("SUB1"));
    assert!(matches!(soon(last.delivered()).await, Err(ReportError::NoChild)));
    let counters = device.counters();
    assert_eq!((device.unacknowledged(), counters.dropped, counters.given_up), (0, 0, 1));
}

/// A medium that fails when it is told to, and one that hangs.
#[derive(Clone, Default)]
struct Fickle {
    full: Arc<AtomicBool>,
    /// Nothing answers.
    away: Arc<AtomicBool>,
    hanging: Arc<(Mutex<bool>, Condvar)>,
    segments: Arc<Mutex<BTreeMap<u64, Vec<u8>>>>,
}

impl Fickle {
    fn hang(&self, hanging: bool) {
        *self.hanging.0.lock() = hanging;
        self.hanging.1.notify_all();
    }

    fn answers(&self) -> Result<(), CacheError> {
        if self.away.load(SeqCst) { Err(CacheError::Other("nobody there".into())) } else { Ok(()) }
    }
}

impl EventCache for Fickle {
    fn segments(&mut self) -> Result<Vec<u64>, CacheError> {
        self.answers()?;
        Ok(self.segments.lock().keys().copied().collect())
    }

    fn read(&mut self, segment: u64, offset: u64, len: usize) -> Result<Vec<u8>, CacheError> {
        self.answers()?;
        let segments = self.segments.lock();
        let bytes = segments.get(&segment).into_iter().flatten();
        Ok(bytes.skip(offset as usize).take(len).copied().collect())
    }

    fn append(&mut self, segment: u64, bytes: &[u8]) -> Result<(), CacheError> {
        let mut hanging = self.hanging.0.lock();
        while *hanging {
            self.hanging.1.wait(&mut hanging);
        }
        self.answers()?;
        if self.full.load(SeqCst) {
            return Err(CacheError::Other("no room".into()));
        }
        self.segments.lock().entry(segment).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn remove(&mut self, segment: u64) -> Result<(), CacheError> {
        self.answers()?;
        self.segments.lock().remove(&segment);
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_does_not_keep_events_from_the_platform() {
    let mut server = Server::start().await;
    let fickle = Fickle::default();
    fickle.full.store(true, SeqCst);
    let device = builder(server.lbs, MemoryStorage::new(), fickle.clone()).cache_grace(Duration::ZERO).start().unwrap();
    let ids = report(&device, 0..50).await;
    for id in ids {
        assert_eq!(next_event(&mut server).await.id, id);
    }
    assert!(device.counters().cache_failures > 0 && device.cache_status().unwrap().failing);
    assert_eq!(device.counters().cached, 0);

    // Room again: the next one that waits is written.
    fickle.full.store(false, SeqCst);
    server.world.lock().swallow = usize::MAX;
    report(&device, 50..51).await;
    assert!(!device.cache_status().unwrap().failing);
    assert_eq!(device.counters().cached, 1);
    soon(device.stop()).await.unwrap();
}

#[tokio::test]
async fn without_network_and_cache_memory_is_bounded() {
    let fickle = Fickle::default();
    fickle.full.store(true, SeqCst);
    let device = builder(nobody().await, MemoryStorage::new(), fickle).start().unwrap();
    let mut reports = tokio::task::JoinSet::new();
    for number in 0..40 {
        let device = device.clone();
        reports.spawn(async move { device.event("Camera", 0, "A", "B").report(&json!({ "number": number })).await });
    }
    // As many as there is room for wait; the others are refused.
    for _ in 0..8 {
        let refused = soon(reports.join_next()).await.unwrap().unwrap();
        assert!(matches!(refused, Err(ReportError::Full { events: 32, .. })), "{refused:?}");
    }
    soon(device.stop()).await.unwrap();
    for report in soon(reports.join_all()).await {
        assert!(matches!(report, Err(ReportError::Stopped)));
    }
}

#[tokio::test]
async fn a_medium_that_hangs_blocks_no_connection() {
    let mut server = Server::start().await;
    let fickle = Fickle::default();
    fickle.hang(true);
    let device = builder(server.lbs, MemoryStorage::new(), fickle.clone()).cache_grace(Duration::ZERO).start().unwrap();
    let ids = report(&device, 0..100).await;
    for id in ids {
        assert_eq!(next_event(&mut server).await.id, id);
    }
    fickle.hang(false);
    soon(device.stop()).await.unwrap();
}

#[tokio::test]
async fn the_cache_of_another_device_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let device = builder(nobody().await, MemoryStorage::new(), directory(dir.path())).start().unwrap();
    report(&device, 0..1).await;
    assert!(matches!(FileCache::open(dir.path()), Err(CacheError::InUse { .. })));
    soon(device.stop()).await.unwrap();
    let other =
        Device::builder("SN0000002", CODE).lbs("127.0.0.1:1").legacy().storage(FileStorage::new(dir.path()).unwrap());
    let error = other.cache(directory(dir.path())).start().unwrap_err();
    assert!(matches!(error, StartError::Cache(CacheError::Foreign { .. })), "{error}");
}
