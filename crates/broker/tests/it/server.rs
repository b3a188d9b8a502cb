//! A broker with one listener and a [`Probe`] behind it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;
use vestibule_broker::{Broker, ListenerConfig, Profile, ShardsConfig};

use crate::client::Client;
use crate::probe::Probe;

pub struct Server {
    pub broker: Broker,
    pub probe: Arc<Probe>,
    pub address: SocketAddr,
}

impl Server {
    /// One shard and the strict profile.
    pub fn start() -> Server {
        Server::with(1, Profile::Strict, |_| {})
    }

    pub fn with(shards: usize, profile: Profile, configure: impl FnOnce(&mut ListenerConfig)) -> Server {
        install_counters();
        let broker = Broker::start(&ShardsConfig { shards, ..ShardsConfig::default() }).expect("the shards start");
        let probe = Arc::new(Probe::default());
        let mut config = ListenerConfig::new("test", profile);
        configure(&mut config);
        let address = broker
            .listen(SocketAddr::from(([127, 0, 0, 1], 0)), config, Arc::clone(&probe))
            .expect("a port of the loopback interface");
        Server { broker, probe, address }
    }

    /// A connection that has said nothing yet.
    pub fn dial(&self) -> Client {
        Client::dial(self.address)
    }

    /// A session without keep-alive.
    pub fn login(&self, id: &str) -> Client {
        self.dial().log_in(id)
    }

    /// Moves the durable mark as a store does after a commit.
    pub fn advance(&self, mark: i64) {
        self.probe.set_mark(mark);
        self.broker.shards().durable_advanced();
    }

    pub fn open_room(&self) {
        self.probe.set_room(true);
        self.broker.shards().durable_advanced();
    }

    /// Shuts the broker down on a thread of its own.
    pub fn shut_down(self: Arc<Self>, patience: Duration) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            runtime.block_on(self.broker.shut_down(patience));
        })
    }
}

/// Sum of a counter over its listeners, for the labels given.
pub fn counted(name: &str, label: &str) -> u64 {
    let counters = COUNTERS.lock();
    counters
        .iter()
        .flatten()
        .filter(|((n, l), _)| n == name && l.contains(label))
        .map(|(_, v)| v.load(Ordering::Relaxed))
        .sum()
}

type Counters = HashMap<(String, String), Arc<AtomicU64>>;
static COUNTERS: Mutex<Option<Counters>> = Mutex::new(None);

struct Count;

impl Recorder for Count {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels = key.labels().map(|label| format!("{}={};", label.key(), label.value())).collect();
        let mut counters = COUNTERS.lock();
        let value = counters.get_or_insert_default().entry((key.name().to_owned(), labels)).or_default();
        Counter::from_arc(Arc::clone(value))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn install_counters() {
    // The first test of the process installs it for all.
    let _ = metrics::set_global_recorder(Count);
}
