//! Platform and devices are killed again and again on a network that fails, and nothing is lost or doubled.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::listen::counted;
use crate::support::{FaultProxy, Faults, Listener, Platform, Program};

const ROUNDS: usize = 50;
const DEVICES: usize = 6;
/// A device that met several faults in a row waits for its next try at the LBS.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the devices themselves say of their events, over all their lives.
struct Record {
    lines: BufReader<File>,
    /// The beginning of a line whose rest is not written yet.
    rest: String,
    made: HashSet<String>,
    safe: HashSet<String>,
    acknowledged: HashSet<String>,
}

#[derive(Deserialize)]
struct Line {
    id: String,
    is: String,
}

impl Record {
    fn open(path: &Path) -> Record {
        File::create(path).expect("a record");
        let lines = BufReader::new(File::open(path).expect("a record"));
        let (made, safe, acknowledged) = Default::default();
        Record { lines, rest: String::new(), made, safe, acknowledged }
    }

    /// Reads what has been written since.
    fn read(&mut self) {
        while self.lines.read_line(&mut self.rest).expect("it can be read") > 0 && self.rest.ends_with('\n') {
            let Line { id, is } = serde_json::from_str(&self.rest).expect("a line of the record");
            self.rest.clear();
            match is.as_str() {
                "made" => self.made.insert(id),
                "safe" => self.safe.insert(id),
                "acknowledged" => self.acknowledged.insert(id),
                other => panic!("{other} is not what can become of an event"),
            };
        }
    }

    /// Waits until so many more events are in one of the sets.
    #[track_caller]
    fn wait(&mut self, what: &str, of: fn(&Record) -> usize, more: usize) {
        let (begun, target) = (Instant::now(), of(self) + more);
        while of(self) < target {
            assert!(begun.elapsed() < PATIENCE, "{} of {target} events {what}", of(self));
            std::thread::sleep(Duration::from_millis(10));
            self.read();
        }
    }
}

/// A simulated fleet that goes on where an earlier one was killed.
fn fleet(platform: &Platform, lbs: &FaultProxy, dir: &Path) -> Program {
    let (lbs, state, record) = (lbs.address().to_string(), dir.join("state"), dir.join("record"));
    let (state, record) = (state.to_str().expect("UTF-8"), record.to_str().expect("UTF-8"));
    let devices = DEVICES.to_string();
    let flags = ["--json", "simulate", "--profile", "camera", "--events-per-minute", "1200", "--ramp", "50ms"];
    let own = ["--lbs", &lbs, "--devices", &devices, "--state", state, "--record", record];
    platform.command(&[&flags[..], &own].concat())
}

/// A number below `end` that nobody has chosen.
fn any(end: usize) -> usize {
    let (drawn, _) = uuid::Uuid::new_v4().as_u64_pair();
    drawn as usize % end
}

#[test]
fn fifty_rounds_of_kill_9_of_both_sides_on_a_failing_network_lose_and_double_nothing() {
    let to_das = Faults {
        delay: Duration::from_millis(1),
        pieces: 256,
        bandwidth: 500_000,
        breaks_after: Some(1_000..40_000),
        half_open: 6,
    };
    let to_lbs = Faults { breaks_after: Some(100..2_500), ..to_das.clone() };
    let (das, lbs) = (FaultProxy::start(17, to_das), FaultProxy::start(18, to_lbs));
    // Segments end in the midst of it.
    let mut platform =
        Platform::configured(&format!("[das]\nadvertise = \"{}\"\n[store]\nsegment_rows = 400\n", das.address()));
    das.lead_to(platform.address(Listener::Das));
    lbs.lead_to(platform.address(Listener::Lbs));
    let dir = tempfile::tempdir().expect("a directory");
    let mut record = Record::open(&dir.path().join("record"));
    let mut devices = fleet(&platform, &lbs, dir.path());
    let (mut platform_kills, mut device_kills) = (0, 0);
    for round in 0..ROUNDS {
        record.wait("acknowledged", |record| record.acknowledged.len(), 10 + any(60));
        // One, the other, or both, in either order.
        let (kills_platform, kills_devices) = [(true, false), (false, true), (true, true)][round % 3];
        let devices_first = any(2) == 0;
        if kills_devices && devices_first {
            devices.kill();
        }
        if kills_platform {
            platform.kill();
            platform_kills += 1;
            if !(kills_devices && devices_first) && any(2) == 0 {
                // What happens now goes into the caches.
                record.wait("safe", |record| record.safe.len(), 1 + any(20));
            }
        }
        if kills_devices {
            devices.kill();
            device_kills += DEVICES;
        }
        record.read();
        let acknowledged = record.acknowledged.clone();
        if kills_platform {
            platform.restart();
            let stored = counted(&platform);
            let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains_key(*id)).collect();
            assert!(lost.is_empty(), "round {round}: acknowledged and gone: {lost:?}");
            assert!(stored.values().all(|&count| count == 1), "round {round}: stored twice");
        }
        if kills_devices {
            devices = fleet(&platform, &lbs, dir.path());
        }
    }
    let (at_das, at_lbs) = (das.counts(), lbs.counts());
    das.heal();
    lbs.heal();
    let begun = Instant::now();
    loop {
        record.read();
        let stored = counted(&platform);
        let waiting = record.safe.iter().filter(|id| !stored.contains_key(*id)).count();
        // Those of the present fleet are always on their way.
        if waiting <= 4 * DEVICES {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{waiting} events that were safe have not arrived");
        std::thread::sleep(Duration::from_millis(200));
    }
    devices.interrupt();
    let summary = devices.finish().expect(0).json();
    assert_eq!(summary["ok"], true, "{summary}");
    record.read();

    let stored = counted(&platform);
    assert!(stored.values().all(|&count| count == 1), "stored twice");
    let stored: HashSet<String> = stored.into_keys().collect();
    let (Record { made, safe, acknowledged, .. }, cut_off) = (&record, made_and_never_safe(&record, &stored));
    println!(
        "{ROUNDS} rounds: {platform_kills} kills of the platform, {device_kills} of devices; {} events made, {} safe, {} seen \
         acknowledged, {} stored, {cut_off} cut off by a kill before they were safe; connections, cut, half-open: \
         DAS {at_das:?}, LBS {at_lbs:?}",
        made.len(),
        safe.len(),
        acknowledged.len(),
        stored.len(),
    );
    assert!(acknowledged.is_subset(&stored), "acknowledged and gone");
    assert_eq!(safe.difference(&stored).collect::<Vec<_>>(), Vec::<&String>::new(), "safe and gone");
    assert_eq!(stored.difference(made).collect::<Vec<_>>(), Vec::<&String>::new(), "stored and never made");
    assert_eq!(stored.len() + cut_off, made.len());
    // In the moment of a kill each device has few events that are neither acknowledged nor written.
    assert!(cut_off <= 10 * device_kills, "{cut_off} events were not safe at {device_kills} kills");
    assert!(at_das.1 > 0 && at_lbs.1 > 0 && at_das.2 > 0, "the network was a good one");
    platform.assert_no_panic();
}

/// Events whose device was killed before its program heard that they are safe, and that are not stored.
fn made_and_never_safe(record: &Record, stored: &HashSet<String>) -> usize {
    record.made.iter().filter(|id| !record.safe.contains(*id) && !stored.contains(*id)).count()
}
