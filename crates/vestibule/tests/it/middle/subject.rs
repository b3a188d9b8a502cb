//! A device made with the SDK, with somebody on each of its ways.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use vestibule_device::{
    Anchor, Builder, Credentials, DevId, Device, Dial, Dialing, MemoryStorage, ModernCredentials, Psk, Reason, Serial,
    Slot, State, Storage, StorageError, Suite, TicketId,
};

use super::line::{Ended, Line, Speech};
use crate::support::{Platform, minted, until};

/// A code of 64 bits, which needs no window.
pub const CODE: &str = "ABCDEFGHJKMNP";
/// For what a device does in its own time: two intervals, and some back-off.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds between two signs of life: the least that is allowed.
pub const KEEP_ALIVE: u16 = 5;

/// Credentials that a test can look at.
#[derive(Clone, Default)]
pub struct Kept(Arc<MemoryStorage>);

impl Storage for Kept {
    fn load(&self, serial: &Serial) -> Result<Option<Credentials>, StorageError> {
        self.0.load(serial)
    }

    fn store(&self, serial: &Serial, credentials: &Credentials) -> Result<(), StorageError> {
        self.0.store(serial, credentials)
    }
}

/// Leads the device over whoever stands there.
struct Detour(Vec<(SocketAddr, SocketAddr)>);

impl Dial for Detour {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(async move {
            let wanted: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
            let led = self.0.iter().find(|(target, _)| wanted.contains(target)).map(|(_, address)| *address);
            TcpStream::connect(led.unwrap_or(wanted[0])).await
        })
    }
}

/// A device, and who is on its ways.
pub struct Subject {
    pub serial: String,
    pub lbs: Line,
    pub das: Line,
    pub device: Arc<Device>,
    kept: Kept,
    states: Arc<Mutex<Vec<State>>>,
    reported: Arc<Mutex<BTreeSet<String>>>,
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("text");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("digits")).collect()
}

pub fn listener(platform: &Platform, name: &str) -> SocketAddr {
    platform.ready()["listeners"][name].as_str().expect("it listens").parse().expect("an address")
}

/// A platform that serves every suite.
pub fn platform() -> Platform {
    Platform::configured("[lbs]\nplain_listen = \"127.0.0.1:0\"\n[das]\nplain_listen = \"127.0.0.1:0\"\n")
}

impl Subject {
    /// A device over plain TCP with the ticket it was provisioned with, and with whom nobody interferes yet.
    pub async fn plain(platform: &Platform) -> Subject {
        Subject::plain_with(platform, |builder| builder).await
    }

    pub async fn plain_with(platform: &Platform, with: impl FnOnce(Builder) -> Builder) -> Subject {
        let serial = minted("SN");
        platform.add(&serial, CODE);
        let given = platform.http().post(&format!("/v1/devices/{serial}/provision"), &json!({})).ok();
        let dev_id = DevId::parse(given["dev_id"].as_str().expect("text").as_bytes()).expect("a DevID");
        let ticket = TicketId::new(unhex(&given["ticket"]).try_into().expect("sixteen bytes"));
        let slot = Slot { ticket, psk: Psk::from_bytes(&unhex(&given["psk"])).expect("48 bytes") };
        let lbs = Line::start(listener(platform, "lbs_plain"), Speech::Lbs, None).await;
        let das = Line::start(listener(platform, "das_plain"), Speech::Mqtt, None).await;
        Subject::start(serial, "osap", lbs, das, |builder| {
            with(builder.suites([Suite::X25519, Suite::P384]).provisioned(dev_id, slot))
        })
    }

    /// One over TLS that enrols with its code and trusts these; TLS may be ended on its way to the LBS, and to the DAS. What
    /// `begin` has them do there, they do from the first connection on.
    pub async fn over_tls(
        platform: &Platform,
        anchors: Vec<Anchor>,
        lbs: Option<Ended>,
        das: Option<Ended>,
        begin: impl FnOnce(&Line, &Line),
    ) -> Subject {
        let serial = minted("SN");
        platform.add(&serial, CODE);
        let lbs = Line::start(listener(platform, "lbs"), Speech::Lbs, lbs).await;
        let das = Line::start(listener(platform, "das"), Speech::Mqtt, das).await;
        begin(&lbs, &das);
        Subject::start(serial, "osaps", lbs, das, |builder| builder.anchors(anchors))
    }

    fn start(serial: String, scheme: &str, lbs: Line, das: Line, with: impl FnOnce(Builder) -> Builder) -> Subject {
        let kept = Kept::default();
        let detour = Detour([&lbs, &das].map(|line| (line.target, line.address)).to_vec());
        let builder = Device::builder(&serial, CODE)
            .lbs(format!("{scheme}://{}", lbs.target))
            .dial(detour)
            .keep_alive(KEEP_ALIVE)
            .storage(kept.clone())
            .operation("Lamp", 0, "Light", "Blink", |input: Value| async move { Ok(input) });
        let device = with(builder).start().expect("it starts");
        let states = Arc::new(Mutex::new(Vec::new()));
        let (mut watched, into) = (device.watch_state(), Arc::clone(&states));
        tokio::spawn(async move {
            loop {
                into.lock().push(watched.borrow_and_update().clone());
                if watched.changed().await.is_err() {
                    return;
                }
            }
        });
        Subject { serial, lbs, das, device: Arc::new(device), kept, states, reported: Arc::default() }
    }

    /// Waits until the device is there.
    #[track_caller]
    pub fn online(&self) -> impl Future<Output = ()> + '_ {
        let at = std::panic::Location::caller();
        async move {
            let mut state = self.device.watch_state();
            let there = state.wait_for(|state| *state == State::Online);
            let there = timeout(PATIENCE, there).await;
            assert!(matches!(there, Ok(Ok(_))), "{at}: {} is not there: {:?}", self.serial, self.states.lock());
        }
    }

    /// Waits until the device waits, and says why it does.
    #[track_caller]
    pub fn waits(&self) -> impl Future<Output = Reason> + '_ {
        let at = std::panic::Location::caller();
        async move {
            let mut state = self.device.watch_state();
            let waiting = state.wait_for(|state| matches!(state, State::Waiting { .. }));
            match timeout(PATIENCE, waiting).await.map(|state| state.map(|state| state.clone())) {
                Ok(Ok(State::Waiting { reason, .. })) => reason,
                _ => panic!("{at}: {} does not wait: {:?}", self.serial, self.states.lock()),
            }
        }
    }

    /// Waits until the device waits for this reason; a slow machine may give it others before.
    #[track_caller]
    pub fn waits_for(&self, wanted: Reason) -> impl Future<Output = ()> + '_ {
        let at = std::panic::Location::caller();
        async move {
            let mut state = self.device.watch_state();
            let waiting = state.wait_for(|state| matches!(state, State::Waiting { reason, .. } if *reason == wanted));
            let waiting = timeout(PATIENCE, waiting).await;
            assert!(matches!(waiting, Ok(Ok(_))), "{at}: {} does not: {:?}", self.serial, self.states.lock());
        }
    }

    /// How often a DAS has let the device in so far.
    pub fn logins(&self) -> u64 {
        self.device.counters().logins
    }

    /// What the device keeps.
    pub fn kept(&self) -> ModernCredentials {
        let serial = Serial::new(&self.serial).expect("a serial");
        self.kept.load(&serial).expect("memory").and_then(|kept| kept.modern).unwrap_or_default()
    }

    /// Reports so many events at once, without waiting for them.
    pub fn report(&self, many: usize) -> JoinHandle<()> {
        let (device, into) = (Arc::clone(&self.device), Arc::clone(&self.reported));
        tokio::spawn(async move {
            let mut told = JoinSet::new();
            for level in 0..many {
                let device = Arc::clone(&device);
                told.spawn(async move {
                    device.event("Lamp", 0, "Alarm", "Smoke").report(&json!({ "level": level })).await
                });
            }
            while let Some(receipt) = told.join_next().await {
                into.lock().insert(receipt.expect("it runs").expect("stored").id);
            }
        })
    }

    /// Every event of which the device was told that it is stored.
    pub fn reported(&self) -> BTreeSet<String> {
        self.reported.lock().clone()
    }
}

/// Waits for reports.
#[track_caller]
pub fn done(reports: JoinHandle<()>) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    async move {
        let told = timeout(PATIENCE, reports).await;
        assert!(matches!(told, Ok(Ok(()))), "{at}: events were not told as stored: {told:?}");
    }
}

/// A runtime on which some may wait for the platform while others go on.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build().expect("a runtime")
}

/// Waits for what the platform tells, without being in anybody's way.
#[track_caller]
pub fn eventually(what: &str, look: impl FnMut() -> Option<()>) {
    tokio::task::block_in_place(|| until(what, look));
}

/// The identities of the stored events of a device, each as often as it is stored.
pub fn stored(platform: &Platform, serial: &str) -> Vec<String> {
    let events = platform.events(Some(serial));
    let mut ids: Vec<String> = events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    ids
}

/// The actions in the audit of a device.
pub fn audited(platform: &Platform, serial: &str) -> Vec<String> {
    let rows = platform.http().get(&format!("/v1/audit?limit=100&device={serial}")).ok();
    let rows = rows["items"].as_array().expect("a list").iter();
    rows.map(|row| row["action"].as_str().expect("an action").to_owned()).collect()
}
