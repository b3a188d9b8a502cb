//! Events of a device made with the SDK that cannot reach the platform, and outlive both programs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use vestibule_device::{Builder, Device, FileCache, FileStorage, State};

use crate::durability::disk::Disk;
use crate::listen::counted;
use crate::support::{Listener, Platform, Program, minted, until};

const CODE: &str = "ABCDEF";

/// After an outage a device may wait for its next try at the LBS.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where this test is the program of a device without a network: its serial and its directory.
const ORDER: &str = "VESTIBULE_TEST_CACHE_DEVICE";

/// The program of a device: its directory outlives it.
fn program(platform: &Platform, serial: &str, dir: &Path) -> Builder {
    program_at(platform.address(Listener::Lbs).to_string(), serial, dir)
}

fn program_at(lbs: String, serial: &str, dir: &Path) -> Builder {
    Device::builder(serial, CODE)
        .lbs(lbs)
        .legacy()
        .storage(FileStorage::new(dir.join("state")).expect("a storage"))
        .cache(FileCache::open(dir.join("cache")).expect("a cache"))
        .queue(64, 64 * 1024)
}

async fn patiently<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

async fn online(device: &Device) {
    patiently(device.watch_state().wait_for(|state| *state == State::Online)).await.expect("it runs");
}

/// Reports the numbers and gives the ids of those that are safe, which is all.
async fn report(device: &Device, numbers: std::ops::Range<usize>) -> Vec<String> {
    let event = device.event("Camera", 0, "Detection", "Motion");
    let mut ids = Vec::new();
    for number in numbers {
        ids.push(patiently(event.report(&json!({ "number": number }))).await.expect("safe").id);
    }
    ids
}

/// Waits until all that was reported before is stored.
async fn emptied(device: &Device) -> String {
    let (event, body) = (device.event("Camera", 0, "Detection", "Motion"), json!({ "number": 1_000_000 }));
    let receipt = patiently(event.report(&body)).await.expect("safe");
    let id = receipt.id.clone();
    patiently(receipt.delivered()).await.expect("stored");
    id
}

/// The numbers of the stored events, in the order in which they came.
fn numbers(platform: &Platform) -> Vec<u64> {
    let mut events = platform.events(None);
    events.sort_unstable_by_key(|event| event["position"].as_u64());
    events.iter().filter_map(|event| event["data"]["number"].as_u64()).collect()
}

#[test]
fn what_a_device_cached_is_stored_once_in_order_after_restarts_of_both() {
    let mut platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new().expect("a runtime");
    let mut ids = BTreeSet::new();
    let device = runtime.block_on(async {
        let device = program(&platform, &serial, dir.path()).start().expect("started");
        online(&device).await;
        ids.extend(report(&device, 0..20).await);
        device
    });
    platform.kill();
    runtime.block_on(async {
        ids.extend(report(&device, 20..400).await);
        // There is nobody to say goodbye to.
        let _ = device.stop().await;
    });
    assert!(device.counters().cached >= 380, "{:?}", device.counters());
    drop(device);

    platform.restart();
    let device = runtime.block_on(async {
        let device = program(&platform, &serial, dir.path()).start().expect("started");
        assert!(device.unacknowledged() >= 380);
        online(&device).await;
        device
    });
    // In the midst of it the platform goes once more.
    platform.kill();
    runtime.block_on(async { ids.extend(report(&device, 400..420).await) });
    platform.restart();
    runtime.block_on(async {
        ids.insert(emptied(&device).await);
        assert_eq!(device.unacknowledged(), 0);
        device.stop().await.expect("in order");
    });
    let stored = counted(&platform);
    assert_eq!(stored.keys().cloned().collect::<BTreeSet<_>>(), ids);
    assert!(stored.values().all(|&count| count == 1), "stored twice");
    assert!(numbers(&platform).is_sorted(), "in the order of their reports");
    platform.assert_no_panic();
}

#[test]
fn the_platform_learns_how_many_events_a_full_cache_has_dropped() {
    let mut platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = Runtime::new().expect("a runtime");
    let small = |platform: &Platform| {
        program(platform, &serial, dir.path()).cache_bounds(50, 1 << 20, Duration::from_secs(3600))
    };
    platform.stop();
    let reported = runtime.block_on(async {
        let device = small(&platform).start().expect("started");
        let ids = report(&device, 0..80).await;
        let _ = device.stop().await;
        ids
    });
    platform.restart();
    let device = runtime.block_on(async { small(&platform).start().expect("started") });
    let stored = until("the kept events and the report", || Some(counted(&platform)).filter(|ids| ids.len() > 50));
    runtime.block_on(device.stop()).expect("in order");
    let (dropped, kept) = reported.split_at(30);
    assert!(dropped.iter().all(|id| !stored.contains_key(id)));
    assert!(kept.iter().all(|id| stored.get(id) == Some(&1)));
    let events = platform.events(Some(&serial));
    let told: Vec<&Value> = events.iter().filter(|event| event["name"] == "events_dropped").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["resource"], &told[0]["area"]), (&json!("global"), &json!("sdk")));
    assert_eq!(told[0]["data"]["count"], 30);
}

/// The program: says the id of each event that is safe.
#[test]
fn device_without_a_network() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let (serial, dir) = order.split_once(' ').expect("an order");
    println!("\npid {}", std::process::id());
    Runtime::new().expect("a runtime").block_on(async {
        // Nobody listens there.
        let device = program_at("127.0.0.1:1".to_owned(), serial, Path::new(dir)).start().expect("started");
        let event = device.event("Camera", 0, "Detection", "Motion");
        for number in 0.. {
            // Large ones, so that there are several segments.
            let body = json!({ "number": number, "padding": "x".repeat(12_000) });
            println!("\nsafe {}", event.report(&body).await.expect("safe").id);
        }
    });
}

#[test]
fn a_disk_that_loses_what_was_not_synced_keeps_every_event_that_was_safe() {
    const EVENTS: usize = 70;
    let platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let dir = tempfile::tempdir().expect("a directory");
    let trace_file = dir.path().join("trace");
    let calls = "trace=openat,write,pwrite64,pwritev,writev,ftruncate,fallocate,rename,renameat,renameat2,\
                 unlink,unlinkat,mkdir,mkdirat,fsync,fdatasync";
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-y", "-xx", "-s", "1000000", "-e", calls, "-o"]).arg(&trace_file);
    strace.arg(std::env::current_exe().expect("a program"));
    strace.args(["--exact", "cache::device_without_a_network", "--nocapture"]);
    strace.env(ORDER, format!("{serial} {}", dir.path().display()));
    let mut strace = Program::of(strace);
    let word = |line: String| line.split(' ').nth(1).expect("two words").to_owned();
    let pid = word(strace.line_with("pid "));
    let mut safe: Vec<String> = (0..EVENTS).map(|_| word(strace.line_with("safe "))).collect();
    let pid = pid.parse().ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::KILL).expect("it runs");
    safe.extend(strace.finish().stdout.lines().filter(|line| line.starts_with("safe ")).map(|line| word(line.into())));

    let cache = dir.path().join("cache");
    let disk = Disk::after(&fs::read_to_string(&trace_file).expect("a trace"), &cache);
    assert!(fs::read_dir(&cache).expect("a directory").count() > 3, "there are several segments");
    fs::remove_dir_all(&cache).expect("removed");
    disk.write(&cache);
    Runtime::new().expect("a runtime").block_on(async {
        let device = program(&platform, &serial, dir.path()).start().expect("started");
        emptied(&device).await;
        device.stop().await.expect("in order");
    });
    let stored = counted(&platform);
    let lost: Vec<_> = safe.iter().filter(|id| stored.get(*id) != Some(&1)).collect();
    assert!(lost.is_empty(), "safe and lost: {lost:?}");
    assert!(numbers(&platform).is_sorted(), "in the order of their reports");
}
