//! A platform over SQLite in a temporary directory, with LBS and DAS on ports of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use osap::das::base::Ntp;
use osap::{Random, SystemRandom};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use vestibule_access::{
    Assignment, Attempts, Das, DasNode, Epochs, Lbs, LbsConfig, LbsThreads, ModernLbs, ModernLbsConfig, RandomSource,
    das_listener, modern_das_listener,
};
use vestibule_broker::{Broker, ListenerConfig, ShardsConfig, TlsListener};
use vestibule_platform::{
    Caller, Clock, Credentials, Device, EventQuery, NewDevice, Platform, PlatformConfig, Record, Secret, TokenFile,
};
use vestibule_store::{Control, Store, StoreConfig};
use vestibule_tls::rustls::ServerConfig;

/// After this a test that waits has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// When the tests play: 2026-11-20T21:50:18Z, a moment after the recorded event.
pub const NOW: i64 = 1_795_211_418_000;
pub const SERIAL: &str = "SN0000001";
pub const CODE: &str = "ABCDEF";

/// A clock that only the test moves.
pub struct Hands {
    passed: AtomicI64,
    /// By how much somebody has set the wall clock.
    set: AtomicI64,
}

impl Hands {
    pub fn advance(&self, by: Duration) {
        self.passed.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }

    /// Sets the wall clock forward, or back.
    pub fn set(&self, by_ms: i64) {
        self.set.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        self.steady_ms() + self.set.load(Ordering::SeqCst)
    }

    fn steady_ms(&self) -> i64 {
        self.passed.load(Ordering::SeqCst)
    }
}

/// How a site differs from the usual one.
pub struct Plan {
    pub random: RandomSource,
    /// `None`: devices are sent to the site's own DAS.
    pub assignment: Option<Assignment>,
    pub limits: LbsConfig,
    /// Threads of the LBS, and how many devices may wait for a key agreement at each.
    pub lbs_threads: (usize, usize),
    pub time: Option<Ntp>,
}

impl Default for Plan {
    fn default() -> Plan {
        let random: RandomSource = Arc::new(|| Box::new(SystemRandom) as Box<dyn Random + Send>);
        Plan { random, assignment: None, limits: LbsConfig::default(), lbs_threads: (2, 64), time: None }
    }
}

/// Where the services for the modern suites are.
pub struct Modern {
    pub lbs: SocketAddr,
    pub das: SocketAddr,
}

pub struct Site {
    pub platform: Arc<Platform>,
    control: Control,
    pub clock: Arc<Hands>,
    pub assignment: Arc<Assignment>,
    attempts: Arc<Attempts>,
    pub epochs: Arc<Epochs>,
    pub lbs_threads: LbsThreads,
    pub lbs: SocketAddr,
    pub das: SocketAddr,
    broker: Option<Broker>,
    runtime: Runtime,
    dir: Option<TempDir>,
}

impl Site {
    pub fn new() -> Site {
        Site::with(Plan::default())
    }

    pub fn with(plan: Plan) -> Site {
        Site::open(tempfile::tempdir().expect("a directory"), plan, NOW)
    }

    fn open(dir: TempDir, plan: Plan, now: i64) -> Site {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let clock = Arc::new(Hands { passed: AtomicI64::new(now), set: AtomicI64::new(0) });
        let token = TokenFile::open(&dir.path().join("token")).expect("a token");
        let (platform, control) = runtime.block_on(async {
            let store = Store::open(StoreConfig::new(dir.path().join("data"))).await.expect("a store");
            let control = store.control.clone();
            let platform = Platform::open(store, PlatformConfig::default(), Arc::clone(&clock) as _, token).await;
            (platform.expect("a platform"), control)
        });
        let broker = Broker::start(&ShardsConfig { shards: 2, ..ShardsConfig::default() }).expect("shards");
        let shards = Arc::clone(broker.shards());
        let mut durable = platform.journal().watch_durable();
        runtime.spawn(async move {
            while durable.changed().await.is_ok() {
                shards.durable_advanced();
            }
        });
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let das = Das::new(Arc::clone(&platform), runtime.handle().clone(), plan.time);
        let das = broker.listen(anywhere, das_listener("das_legacy"), das).expect("a port");
        let node = DasNode { host: None, port: das.port(), server_id: "das1".to_owned() };
        let assignment = Arc::new(plan.assignment.unwrap_or_else(|| Assignment::single(node)));
        let lbs_threads = LbsThreads::start(plan.lbs_threads.0, plan.lbs_threads.1).expect("threads");
        let attempts = Arc::clone(&plan.limits.attempts);
        let lbs = Lbs::with_random(Arc::clone(&platform), Arc::clone(&assignment), plan.limits, plan.random);
        let serve = move |stream, peer, agreements| Arc::clone(&lbs).serve(stream, peer, agreements);
        let lbs = lbs_threads.listen(anywhere, 100, "lbs_legacy", serve).expect("a port");
        let epochs = Arc::default();
        Site {
            platform,
            control,
            clock,
            assignment,
            epochs,
            attempts,
            lbs_threads,
            lbs,
            das,
            broker: Some(broker),
            runtime,
            dir: Some(dir),
        }
    }

    /// Opens an LBS and a DAS for the modern suites: over TLS with these configurations of theirs, or over plain TCP.
    pub fn open_modern(&self, tls: Option<(Arc<ServerConfig>, Arc<ServerConfig>)>) -> Modern {
        self.open_modern_at(tls.map(|(lbs, das)| (lbs, TlsListener::new(das))))
    }

    /// The same, with limits of its own at the DAS.
    pub fn open_modern_at(&self, tls: Option<(Arc<ServerConfig>, TlsListener)>) -> Modern {
        let broker = self.broker.as_ref().expect("a site that runs has its broker");
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let epochs = Arc::clone(&self.epochs);
        let (platform, handle) = (Arc::clone(&self.platform), self.runtime.handle().clone());
        let das = Das::modern(platform, handle, None, tls.is_some(), Arc::clone(&epochs));
        let (tls_lbs, das_tls) = tls.unzip();
        let listener = ListenerConfig { tls: das_tls.clone(), ..modern_das_listener("das") };
        let das = broker.listen(anywhere, listener, das).expect("a port");
        let node = DasNode { host: None, port: das.port(), server_id: "das1".to_owned() };
        let attempts = Arc::clone(&self.attempts);
        let config = ModernLbsConfig { tls: tls_lbs, das_tls, attempts, ..ModernLbsConfig::default() };
        let assignment = Arc::new(Assignment::single(node));
        let lbs = ModernLbs::new(Arc::clone(&self.platform), assignment, epochs, config);
        let serve = move |stream, peer, agreements| Arc::clone(&lbs).serve(stream, peer, agreements);
        let lbs = self.lbs_threads.listen(anywhere, 100, "lbs", serve).expect("a port");
        Modern { lbs, das }
    }

    /// Ends this platform and starts another one on the same data.
    pub fn restart(mut self) -> Site {
        self.stop();
        let dir = self.dir.take().expect("a site that runs has its directory");
        let now = self.clock.now_ms();
        drop(self);
        Site::open(dir, Plan::default(), now)
    }

    fn stop(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.block_on(async { tokio::join!(self.lbs_threads.shut_down(PATIENCE), broker.shut_down(PATIENCE)) });
            self.lbs_threads.stop();
            broker.shards().stop();
            self.block_on(self.platform.close());
        }
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.spawn(future)
    }

    /// The administrator's token.
    pub fn token(&self) -> String {
        let dir = self.dir.as_ref().expect("a site that runs has its directory");
        std::fs::read_to_string(dir.path().join("token")).expect("readable").trim().to_owned()
    }

    pub fn add(&self, serial: &str) -> Arc<Device> {
        let new = NewDevice {
            serial: serial.into(),
            code: Secret::new(CODE),
            one_time: false,
            product: None,
            name: None,
            parent: None,
            org: None,
            labels: Default::default(),
        };
        self.block_on(self.platform.add_device(new, &Caller::program())).expect("registered")
    }

    pub fn device(&self) -> Arc<Device> {
        self.platform.device_by_serial(SERIAL).expect("registered")
    }

    pub fn credentials(&self) -> Credentials {
        self.block_on(self.platform.secrets(&self.device())).expect("readable").credentials.clone()
    }

    /// Writes credentials of a device as another process would: the platform does not hear of it.
    pub fn store_behind(&self, device: &Device, credentials: &Credentials) {
        self.block_on(self.control.put_credentials(device.id, credentials)).expect("written");
    }

    /// Takes the store away under the platform: what is read from it or written to it fails from now on.
    pub fn break_store(&self) {
        self.block_on(self.platform.close());
    }

    /// Everything that is stored, newest first.
    pub fn events(&self) -> Vec<Arc<Record>> {
        let query = EventQuery { limit: 100, ..EventQuery::default() };
        self.block_on(self.platform.events(query, &Caller::program())).expect("readable").items
    }

    /// The reasons of the device's facts, oldest first.
    pub fn reasons(&self) -> Vec<String> {
        self.device().facts().iter().map(|fact| fact.reason.to_string()).collect()
    }

    /// Waits for a fact, which may follow the end of a connection.
    #[track_caller]
    pub fn expect_fact(&self, reason: &str) {
        eventually(reason, || self.reasons().iter().any(|known| known == reason));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// Waits for what other threads are about to do.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to: {what}");
        std::thread::yield_now();
    }
}
