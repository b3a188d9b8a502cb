//! What an event costs: appends records of many devices and prints the CPU time each took, kernel accounting.
//!
//! `cargo run --release -p vestibule-store --example journal_load -- devices=5000 events=500000 batch=1000 [dir=PATH] [url=postgres://…]`
//!
//! `batch` records are appended at once and awaited until durable, so it is also the size of the commits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use uuid::Uuid;
use vestibule_store::{DeviceId, DevicePath, Flags, Position, Record, RecordKind, Store, StoreConfig};

struct Load {
    devices: usize,
    events: usize,
    batch: usize,
    rows: u64,
    dir: Option<String>,
    url: Option<String>,
}

fn arguments() -> Result<Load, String> {
    let mut load = Load { devices: 5_000, events: 500_000, batch: 1_000, rows: 1_000_000, dir: None, url: None };
    for argument in std::env::args().skip(1) {
        let (key, value) = argument.split_once('=').ok_or_else(|| format!("{argument}: expected key=value"))?;
        let number = || value.parse::<usize>().map_err(|error| format!("{argument}: {error}"));
        match key {
            "devices" => load.devices = number()?.max(1),
            "events" => load.events = number()?,
            "batch" => load.batch = number()?.max(1),
            "rows" => load.rows = number()? as u64,
            "dir" => load.dir = Some(value.to_owned()),
            "url" => load.url = Some(value.to_owned()),
            _ => return Err(format!("{key}: devices, events, batch, rows, dir or url")),
        }
    }
    Ok(load)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let load = arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(load))
}

async fn run(load: Load) -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let dir = load.dir.map_or_else(|| scratch.path().to_owned(), Into::into);
    let mut config = StoreConfig::new(&dir);
    config.url = load.url;
    config.segment_rows = load.rows;
    config.commit_records = load.batch;
    let now = config.now.clone();
    let store = Store::open(config).await?;
    let journal = &store.journal;

    let devices: Vec<(DeviceId, Arc<str>)> =
        (0..load.devices).map(|n| (DeviceId::mint(), Arc::from(format!("SIM-{n:08}")))).collect();
    let path = Arc::new(DevicePath {
        resource: "global".into(),
        index: "0".into(),
        area: "Detection".into(),
        name: "objectAppeared".into(),
    });
    let data = format!(
        r#"{{"targetType":"human","confidence":0.93,"region":[0.1,0.2,0.5,0.9],"note":"{}"}}"#,
        "x".repeat(120)
    );

    let mut durable = journal.watch_durable();
    let (cpu, wall) = (cpu(), Instant::now());
    let mut sent = 0;
    while sent < load.events {
        let count = load.batch.min(load.events - sent);
        let mut last = Position::START;
        for n in sent..sent + count {
            // A step coprime to most sizes: neighbours in the journal come from devices far apart.
            let (device, serial) = &devices[n.wrapping_mul(7_919) % devices.len()];
            let received = now();
            last = journal.append(Record {
                position: Position::START,
                device: *device,
                serial: serial.clone(),
                kind: RecordKind::Event,
                path: path.clone(),
                id: Some(Uuid::new_v4().to_string().into()),
                time: received,
                received,
                flags: Flags::NONE,
                data: data.as_str().into(),
            });
        }
        durable.wait_for(|position| *position >= last).await?;
        sent += count;
    }
    let (cpu, wall) = (cpu_since(cpu), wall.elapsed());
    println!(
        "{} events of {} bytes from {} devices, commits of {}: {:.2} us CPU an event, {:.0} events/s",
        load.events,
        data.len(),
        load.devices,
        load.batch,
        cpu.as_secs_f64() * 1e6 / load.events as f64,
        load.events as f64 / wall.as_secs_f64()
    );
    store.close().await;
    Ok(())
}

/// CPU time of all threads of this process.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn cpu_since(start: Duration) -> Duration {
    cpu().saturating_sub(start)
}
