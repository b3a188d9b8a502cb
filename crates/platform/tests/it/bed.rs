//! What a test stands on.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::broadcast;
use vestibule_platform::{
    Caller, Clock, Connection, ConnectionId, Device, DeviceFilter, DeviceLink, DevicePath, DeviceQuery, Directive,
    NewDevice, NotSent, Operate, OrgPath, PassMessage, Platform, PlatformConfig, Position, RecordKind, Reply, Report,
    Secret, SetAttribute, TokenFile,
};
use vestibule_store::{Control, Store, StoreConfig};

/// After this a test that waits has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// 2026-02-03T12:00:00Z.
pub const NOON: i64 = 1_770_120_000_000;

struct Hands(Arc<AtomicI64>);

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// How a bed differs from the usual one.
#[derive(Default)]
pub struct Plan {
    pub platform: PlatformConfig,
    pub tail_records: Option<usize>,
    pub segment_rows: Option<u64>,
    pub retention: Option<Duration>,
}

pub struct Bed {
    pub platform: Arc<Platform>,
    clock: Arc<AtomicI64>,
    dir: TempDir,
}

impl Bed {
    pub async fn new() -> Bed {
        Bed::with(Plan::default()).await
    }

    pub async fn with(plan: Plan) -> Bed {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(AtomicI64::new(NOON));
        let platform = open(dir.path(), &clock, plan).await;
        Bed { platform, clock, dir }
    }

    /// Closes the platform and opens another one on the same data.
    pub async fn restart(self) -> Bed {
        self.restart_with(Plan::default()).await
    }

    pub async fn restart_with(self, plan: Plan) -> Bed {
        self.platform.close().await;
        let Bed { platform, clock, dir } = self;
        drop(platform);
        let platform = open(dir.path(), &clock, plan).await;
        Bed { platform, clock, dir }
    }

    /// Closes the platform, has the control database changed, and opens another platform on it.
    pub async fn restart_after(self, change: impl AsyncFnOnce(&Control)) -> Bed {
        self.platform.close().await;
        let Bed { platform, clock, dir } = self;
        drop(platform);
        let store = Store::open(config(dir.path(), &clock)).await.expect("a store");
        change(&store.control).await;
        store.close().await;
        let platform = open(dir.path(), &clock, Plan::default()).await;
        Bed { platform, clock, dir }
    }

    /// Opens another platform on what is on the disk now; the present one has no time to close.
    pub async fn crash(self) -> Bed {
        let Bed { platform, clock, dir } = self;
        let copy = tempfile::tempdir().expect("a directory");
        copy_all(dir.path(), copy.path()).expect("copied");
        drop((platform, dir));
        let platform = open(copy.path(), &clock, Plan::default()).await;
        Bed { platform, clock, dir: copy }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The administrator's token, as it stands in its file.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("token")).expect("readable").trim().to_owned()
    }

    /// Who may do everything.
    pub fn caller(&self) -> Caller {
        self.platform.authorize(&self.token()).expect("the administrator")
    }

    pub fn now(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub fn advance(&self, by: Duration) {
        self.clock.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }

    /// The clock is set back.
    pub fn set_back(&self, by: Duration) {
        self.clock.fetch_sub(by.as_millis() as i64, Ordering::SeqCst);
    }

    pub async fn add(&self, serial: &str) -> Arc<Device> {
        self.platform.add_device(new_device(serial), &self.caller()).await.expect("registered")
    }

    /// The devices at a place or below that somebody sees, in the order of their registration.
    pub async fn below(&self, org: &OrgPath, by: &Caller) -> Vec<Arc<Device>> {
        let filter = DeviceFilter { org: Some(org.clone()), ..DeviceFilter::default() };
        let query = DeviceQuery { filter, ..DeviceQuery::default() };
        self.platform.find_devices(&query, None, 1_000, by).await.expect("a page").items
    }

    /// Reports an event and waits until it is durable.
    pub async fn event(&self, device: &Arc<Device>, name: &str, id: Option<&str>) -> Position {
        let position = self.report(device, name, id, Some(self.now()));
        self.durable(position).await;
        position
    }

    pub fn report(&self, device: &Arc<Device>, name: &str, id: Option<&str>, time: Option<i64>) -> Position {
        let report = Report { kind: RecordKind::Event, path: path(name), id, time, data: r#"{"level":1}"# };
        self.platform.report(device, report).expect("taken")
    }

    pub async fn durable(&self, position: Position) {
        let mut durable = self.platform.journal().watch_durable();
        let reached = tokio::time::timeout(PATIENCE, durable.wait_for(|durable| *durable >= position)).await;
        reached.expect("in time").expect("the journal is open");
    }
}

/// Copies what is in a directory. Not by a program: while one is started it has the locks of all other tests, too.
fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy_all(&entry.path(), &target)?;
        } else {
            match std::fs::copy(entry.path(), target) {
                // It went in this moment, as it may in the moment of a crash.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied?),
            }
        }
    }
    Ok(())
}

fn config(dir: &Path, clock: &Arc<AtomicI64>) -> StoreConfig {
    let mut config = StoreConfig::new(dir.join("data"));
    let now = Arc::clone(clock);
    config.now = Arc::new(move || now.load(Ordering::SeqCst));
    config.elapsed = Arc::clone(&config.now);
    config
}

async fn open(dir: &Path, clock: &Arc<AtomicI64>, plan: Plan) -> Arc<Platform> {
    let token = TokenFile::open(&dir.join("token")).expect("a token");
    let mut config = config(dir, clock);
    config.tail_records = plan.tail_records.unwrap_or(config.tail_records);
    config.segment_rows = plan.segment_rows.unwrap_or(config.segment_rows);
    config.retention = plan.retention.unwrap_or(config.retention);
    let store = Store::open(config).await.expect("a store");
    let clock = Arc::new(Hands(Arc::clone(clock)));
    Platform::open(store, plan.platform, clock, token).await.expect("a platform")
}

pub fn new_device(serial: &str) -> NewDevice {
    NewDevice {
        serial: serial.into(),
        code: Secret::new("ABCDEF"),
        one_time: false,
        product: None,
        name: None,
        parent: None,
        org: None,
        labels: Default::default(),
    }
}

pub fn path(name: &str) -> Arc<DevicePath> {
    let level = |text: &str| text.into();
    Arc::new(DevicePath { resource: level("Lamp"), index: level("0"), area: level("Alarm"), name: level(name) })
}

/// An adapter's end of a connection that notes why it was closed.
#[derive(Default)]
pub struct Line {
    closed: Mutex<Vec<&'static str>>,
    operations: Mutex<VecDeque<Sent>>,
    refusal: Mutex<Option<NotSent>>,
    directives: Mutex<Vec<Directive>>,
    refused: AtomicUsize,
}

/// An operation or a desired value that reached the device.
pub struct Sent {
    pub path: DevicePath,
    pub input: Option<String>,
    pub reply: Reply,
}

impl Line {
    pub fn closed(&self) -> Vec<&'static str> {
        self.closed.lock().clone()
    }

    /// From now on nothing can be sent.
    pub fn refuse(&self, reason: NotSent) {
        *self.refusal.lock() = Some(reason);
    }

    /// From now on everything can be sent.
    pub fn accept(&self) {
        *self.refusal.lock() = None;
    }

    /// How often something could not be sent.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// What the connection was directed to do.
    pub fn directives(&self) -> Vec<Directive> {
        self.directives.lock().clone()
    }

    /// Operations sent and not taken yet.
    pub fn waiting(&self) -> usize {
        self.operations.lock().len()
    }

    /// The oldest operation the device was sent and that is not taken yet.
    pub fn take(&self) -> Option<Sent> {
        self.operations.lock().pop_front()
    }

    /// The next operation the device was sent.
    pub async fn operation(&self) -> Sent {
        eventually("an operation is sent", || self.waiting() > 0).await;
        self.operations.lock().pop_front().expect("one is there")
    }
}

impl DeviceLink for Line {
    fn close(&self, reason: &'static str) {
        self.closed.lock().push(reason);
    }

    fn operate(&self, operation: Operate<'_>) -> Result<(), NotSent> {
        if let Some(reason) = *self.refusal.lock() {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(reason);
        }
        let (path, input) = (operation.path.clone(), operation.input.map(str::to_owned));
        self.operations.lock().push_back(Sent { path, input, reply: operation.reply });
        Ok(())
    }

    fn set(&self, set: SetAttribute<'_>) -> Result<(), NotSent> {
        let (path, input, ttl) = (set.path, Some(set.value), set.ttl);
        self.operate(Operate { path, input, ttl, reply: set.reply })
    }

    fn pass(&self, message: PassMessage<'_>) -> Result<(), NotSent> {
        let body = String::from_utf8_lossy(message.body);
        let input = format!("{} {body}", message.media_type);
        self.operate(Operate { path: message.path, input: Some(&input), ttl: message.ttl, reply: message.reply })
    }

    fn direct(&self, directive: &Directive) -> Result<(), NotSent> {
        if let Some(reason) = *self.refusal.lock() {
            return Err(reason);
        }
        self.directives.lock().push(directive.clone());
        Ok(())
    }
}

pub fn peer(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 5_000))
}

/// The device logs in from this peer.
pub fn connect(platform: &Arc<Platform>, device: &Arc<Device>, n: u8) -> (ConnectionId, Arc<Line>) {
    let line = Arc::new(Line::default());
    let connection = Connection {
        suite: "legacy",
        confidential: false,
        peer: peer(n),
        link: Arc::clone(&line) as Arc<dyn DeviceLink>,
    };
    (platform.connected(device, connection), line)
}

/// The next change of presence.
pub async fn changed(changes: &mut broadcast::Receiver<Arc<Device>>) -> Arc<Device> {
    tokio::time::timeout(PATIENCE, changes.recv()).await.expect("in time").expect("a change")
}

/// Waits for what other tasks are about to do.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to: {what}");
        tokio::task::yield_now().await;
    }
}
