//! Devices made with the SDK that report as fast as they are acknowledged, and remember what they sent.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use vestibule_device::{Device, MemoryStorage};

use super::platform::{Listener, Platform};

/// Reports that wait for their acknowledgement in each device.
const LANES: usize = 4;
/// In seconds: what devices have, and the shortest they may have.
const KEEP_ALIVE: u16 = 30;
const SHORTEST_KEEP_ALIVE: u16 = 5;
/// After an outage a device may wait for its next try at the LBS.
const DRAIN: Duration = Duration::from_secs(60);

/// Devices at work.
pub struct Load {
    runtime: Runtime,
    devices: Vec<Device>,
    lanes: Vec<JoinHandle<()>>,
    book: Arc<Book>,
}

#[derive(Default)]
struct Book {
    over: AtomicBool,
    ids: Mutex<Ids>,
    changed: Condvar,
}

#[derive(Default, Clone)]
struct Ids {
    sent: HashSet<String>,
    acknowledged: HashSet<String>,
}

impl Load {
    /// Registers and starts so many devices.
    pub fn start(platform: &Platform, devices: usize) -> Load {
        Load::launch(platform, devices, platform.address(Listener::Lbs), KEEP_ALIVE)
    }

    /// The same on a network of their own: this is how they reach the LBS. They notice within seconds that a connection is
    /// dead.
    pub fn through(platform: &Platform, devices: usize, lbs: SocketAddr) -> Load {
        Load::launch(platform, devices, lbs, SHORTEST_KEEP_ALIVE)
    }

    fn launch(platform: &Platform, devices: usize, lbs: SocketAddr, keep_alive: u16) -> Load {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let book = Arc::<Book>::default();
        let devices: Vec<Device> = (0..devices)
            .map(|number| {
                let (serial, code) = (format!("LOAD-{number:03}"), "LOADED");
                platform.add(&serial, code);
                let _inside = runtime.enter();
                Device::builder(&serial, code)
                    .lbs(lbs.to_string())
                    .legacy()
                    .keep_alive(keep_alive)
                    .storage(MemoryStorage::new())
                    .device_type("load")
                    .start()
                    .expect("a device")
            })
            .collect();
        let lanes = devices
            .iter()
            .flat_map(|device| std::iter::repeat_n(device, LANES))
            .map(|device| runtime.spawn(Arc::clone(&book).work(device.clone())))
            .collect();
        Load { runtime, devices, lanes, book }
    }

    /// Waits until so many more events are acknowledged.
    #[track_caller]
    pub fn acknowledges(&self, more: usize) {
        let ids = self.book.ids.lock().expect("no reporter panicked");
        let target = ids.acknowledged.len() + more;
        let waited = self.book.changed.wait_timeout_while(ids, DRAIN, |ids| ids.acknowledged.len() < target);
        let (ids, timeout) = waited.expect("no reporter panicked");
        assert!(!timeout.timed_out(), "{} of {target} events acknowledged: {:?}", ids.acknowledged.len(), self.devices);
    }

    /// The ids of everything sent so far, acknowledged or not.
    pub fn sent(&self) -> HashSet<String> {
        self.book.ids.lock().expect("no reporter panicked").sent.clone()
    }

    /// The ids of everything acknowledged so far.
    pub fn acknowledged(&self) -> HashSet<String> {
        self.book.ids.lock().expect("no reporter panicked").acknowledged.clone()
    }

    /// Reports nothing new, waits until everything sent is acknowledged, has the devices leave, and answers with the
    /// ids of everything that was sent.
    #[track_caller]
    pub fn finish(self) -> HashSet<String> {
        self.book.over.store(true, Ordering::Release);
        let states = self.devices.clone();
        self.runtime.block_on(async {
            let drained = tokio::time::timeout(DRAIN, async {
                for lane in self.lanes {
                    lane.await.expect("no reporter panicked");
                }
            });
            assert!(drained.await.is_ok(), "events stay unacknowledged: {states:?}");
            for device in &self.devices {
                device.stop().await.expect("the device leaves in order");
            }
        });
        let ids = self.book.ids.lock().expect("no reporter panicked");
        assert_eq!(ids.sent, ids.acknowledged);
        ids.sent.clone()
    }
}

impl Book {
    async fn work(self: Arc<Self>, device: Device) {
        let event = device.event("Load", 0, "Test", "Tick");
        while !self.over.load(Ordering::Acquire) {
            let id = uuid::Uuid::new_v4().simple().to_string();
            self.ids.lock().expect("no reporter panicked").sent.insert(id.clone());
            let body = json!({ "level": 1, "basic": { "UUID": id, "dateTime": jiff::Timestamp::now().to_string() } });
            let receipt = event.report(&body).await.expect("the device works until it is stopped");
            assert_eq!(*receipt.id, *id);
            self.ids.lock().expect("no reporter panicked").acknowledged.insert(id);
            self.changed.notify_all();
        }
    }
}
