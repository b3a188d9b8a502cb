//! A journal that has grown: written through the store before the platform starts, and asked over HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Builder;
use vestibule_store::{
    DeviceId, DevicePath, DeviceRow, Flags, Position, Record, RecordKind, Secret, Store, StoreConfig,
};

use super::{micros, wait};
use crate::server::Server;

/// Devices that have reported.
const DEVICES: usize = 1_000;
/// Kinds of events; each device reports all of them.
const KINDS: usize = 10;
/// Over how long they were reported.
const SPAN_MS: i64 = 24 * 3_600 * 1_000;
/// How long one question may be asked again and again.
const ASKED: Duration = Duration::from_secs(20);

/// What was written.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Past {
    /// Events; fewer than asked for when the time was up.
    pub events: u64,
    /// When the first and the last were received, milliseconds since 1970.
    from: i64,
    to: i64,
    /// How long writing them took, in seconds.
    pub seconds: f64,
}

/// Writes events of registered devices into a fresh data directory, as many as fit into the time.
///
/// # Errors
/// When the store does not take them.
pub fn write(data: &Path, events: u64, time: Duration) -> anyhow::Result<Past> {
    let runtime = Builder::new_current_thread().enable_all().build().context("a runtime for the store")?;
    runtime.block_on(async {
        let store = Store::open(StoreConfig::new(data)).await.context("the store cannot be opened")?;
        let now = jiff::Timestamp::now().as_millisecond();
        let devices: Vec<(DeviceRow, Secret)> =
            (0..DEVICES).map(|number| (device(number, now - SPAN_MS), Secret::new("ABCDEF"))).collect();
        store.control.enlist(&devices, Vec::new(), None).await.context("the devices cannot be registered")?;
        let kinds: Vec<Arc<DevicePath>> = (0..KINDS).map(|kind| Arc::new(path(kind))).collect();
        let serials: Vec<Arc<str>> = devices.iter().map(|(row, _)| row.serial.as_str().into()).collect();
        let (begun, mut written, mut last) = (Instant::now(), 0, Position::START);
        let received = |n: u64| now - SPAN_MS + (n as f64 / events.max(1) as f64 * SPAN_MS as f64) as i64;
        for n in 0..events {
            store.journal.room().await;
            if n % 1_024 == 0 {
                // The one thread is the writer's as well.
                tokio::task::yield_now().await;
                if begun.elapsed() > time {
                    break;
                }
            }
            let (at, number) = (n as usize % DEVICES, n as usize / DEVICES);
            let (Some((row, _)), Some(serial), Some(path)) =
                (devices.get(at), serials.get(at), kinds.get(number % KINDS))
            else {
                bail!("there is no device {at}");
            };
            let time = received(n);
            last = store.journal.append(Record {
                position: Position::START,
                device: row.id,
                serial: Arc::clone(serial),
                kind: RecordKind::Event,
                path: Arc::clone(path),
                id: Some(format!("{n:032x}").into()),
                time,
                received: time,
                flags: Flags::NONE,
                data: format!(
                    "{{\"level\":{},\"area\":\"hall-{}\",\"text\":\"an event of the bench\"}}",
                    n % 4,
                    n % 97
                )
                .into(),
            });
            written += 1;
        }
        let mut durable = store.journal.watch_durable();
        durable.wait_for(|durable| *durable >= last).await.context("the journal has ended")?;
        store.close().await;
        Ok(Past { events: written, from: now - SPAN_MS, to: received(written), seconds: begun.elapsed().as_secs_f64() })
    })
}

fn device(number: usize, created: i64) -> DeviceRow {
    DeviceRow {
        id: DeviceId::mint(),
        serial: format!("EVENT-{number:04}"),
        family: "osap".to_owned(),
        product: None,
        name: None,
        org: "/".to_owned(),
        labels: "{}".to_owned(),
        version: 1,
        created,
        enrol_until: 0,
        disabled: false,
        modern: false,
        tls_only: false,
        code_use: vestibule_store::CodeUse::Lasting,
        certificate: None,
        parent: None,
        last_failure: None,
        presence: None,
    }
}

fn path(kind: usize) -> DevicePath {
    DevicePath {
        resource: "Camera".into(),
        index: "0".into(),
        area: "Detection".into(),
        name: format!("Kind{kind}").into(),
    }
}

/// A question that was asked again and again.
#[derive(Debug, Serialize)]
pub struct EventFigure {
    name: &'static str,
    query: String,
    /// How often it was asked, each time for the page after the last.
    requests: u32,
    /// CPU time of the platform for one page.
    pub cpu_us: f64,
    /// How long its client waited for one: half of the time, and 99 times out of a hundred, not longer.
    pub median_us: u64,
    pub p99_us: u64,
    /// Events of a page.
    pub rows: f64,
}

impl EventFigure {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// Asks for events in each way.
///
/// # Errors
/// When the platform does not answer, or finds what is not there.
pub fn ask(server: &Server, past: &Past, requests: u32) -> anyhow::Result<Vec<EventFigure>> {
    let tenth = (past.to - past.from) / 10;
    let (from, to) = (past.from + 4 * tenth, past.from + 5 * tenth);
    let questions = [
        ("all, newest first", String::new(), true),
        ("of a device (1 in 1,000)", "device=EVENT-0007".to_owned(), true),
        ("of a device and a kind", "device=EVENT-0007&type=Kind3".to_owned(), true),
        ("of a kind (1 in 10)", "type=Kind3".to_owned(), true),
        ("of a tenth of the time", format!("from={from}&to={to}"), true),
        ("of a device in a tenth of the time", format!("device=EVENT-0007&from={from}&to={to}"), true),
        ("received in a tenth of the time", format!("received_from={from}&received_to={to}"), true),
        ("of a kind that nobody has", "type=Nothing".to_owned(), false),
    ];
    questions.into_iter().map(|(name, query, finds)| question(server, name, query, finds, requests)).collect()
}

fn question(
    server: &Server,
    name: &'static str,
    query: String,
    finds: bool,
    requests: u32,
) -> anyhow::Result<EventFigure> {
    let (mut waits, mut rows, mut cursor) = (Vec::new(), 0_u64, None::<String>);
    let (before, begun) = (server.cpu().read()?, Instant::now());
    while waits.len() < requests as usize && (waits.is_empty() || begun.elapsed() < ASKED) {
        let asked = Instant::now();
        let next = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page: Value = server.http().get(&format!("/v1/events?limit=100&{query}{next}"))?;
        waits.push(asked.elapsed());
        rows += page["items"].as_array().map_or(0, |items| items.len() as u64);
        cursor = page["next"].as_str().map(str::to_owned);
    }
    let spent = server.cpu().since(&before)?;
    if (rows > 0) != finds {
        bail!("events {name}: {rows} were found");
    }
    waits.sort_unstable();
    let asked = u32::try_from(waits.len()).unwrap_or(u32::MAX);
    Ok(EventFigure {
        name,
        query,
        requests: asked,
        cpu_us: micros(spent.cpu) / f64::from(asked),
        median_us: wait(&waits, 50),
        p99_us: wait(&waits, 99),
        rows: rows as f64 / f64::from(asked),
    })
}
