//! The fleet in the platform's registry: put in before, read back and taken out after, over the HTTP API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::event_id::RunId;
use super::ledger::Ledger;
use super::profile::{Habits, PRODUCT, Profile};
use super::state::{Code, StateDir};
use super::{MAX_CHILDREN, MAX_DEVICES};
use crate::client::{Client, ClientError, Route};

/// Requests that are under way at once: they share commits.
const LANES: usize = 8;
/// Events on one page.
const PAGE: &str = "1000";

/// A device with what hangs on it.
pub(crate) struct Registered {
    pub own: Arc<Enrolled>,
    pub profile: &'static Profile,
    /// The children of a hub, each of the kind that the profile names.
    pub children: Vec<Arc<Enrolled>>,
}

/// A row of the registry.
pub(crate) struct Enrolled {
    /// No other device of the simulation has it.
    pub number: u32,
    pub serial: String,
    pub code: Zeroizing<String>,
    /// The platform's id of it.
    pub id: Arc<str>,
    pub habits: &'static Habits,
}

impl Registered {
    /// The device and its children, in this order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Enrolled>> {
        std::iter::once(&self.own).chain(&self.children)
    }
}

/// How far a task is that goes through the fleet.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Devices that are through.
    pub done: AtomicUsize,
    /// Nothing new is begun.
    pub stop: AtomicBool,
}

/// Has the work done for every item, some at a time; what came out, in any order, up to the first failure.
pub(crate) fn each<I: Send, O: Send>(
    items: Vec<I>,
    progress: &Progress,
    work: impl Fn(I) -> anyhow::Result<O> + Sync,
) -> (Vec<O>, anyhow::Result<()>) {
    let waiting = Mutex::new(items.into_iter());
    let (results, failure) = (Mutex::new(Vec::new()), Mutex::new(Ok(())));
    let lane = || {
        while !progress.stop.load(Relaxed) {
            let Some(item) = waiting.lock().next() else { return };
            match work(item) {
                Ok(result) => results.lock().push(result),
                Err(error) => {
                    progress.stop.store(true, Relaxed);
                    let mut failure = failure.lock();
                    if failure.is_ok() {
                        *failure = Err(error);
                    }
                }
            }
            progress.done.fetch_add(1, Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(lane);
        }
    });
    (results.into_inner(), failure.into_inner())
}

/// Registers a device, and children where it is a hub; or takes over what an earlier run has left behind.
///
/// Nobody says whose children they are: the hub proves it by their codes.
pub(crate) fn register(
    client: &Client,
    number: u32,
    serial: String,
    profile: &'static Profile,
    children: u32,
    state: Option<&StateDir>,
) -> anyhow::Result<Registered> {
    let own = enrol(client, number, serial, &profile.habits, state)?;
    let mut device = Registered { own, profile, children: Vec::new() };
    for (index, child) in (0..children).zip(profile.child.into_iter().cycle()) {
        let serial = format!("{}-{}", device.own.serial, index + 1);
        match enrol(client, child_number(number, index), serial, &child.habits, state) {
            Ok(entry) => device.children.push(entry),
            Err(error) => {
                // Nobody would know of them any more.
                if let Err(left) = remove(client, &device) {
                    tracing::warn!(serial = device.own.serial, error = %left, "a simulated device is left registered");
                }
                return Err(error);
            }
        }
    }
    Ok(device)
}

/// Behind the numbers of all devices, and the same however many children another hub has.
fn child_number(hub: u32, index: u32) -> u32 {
    const { assert!(MAX_DEVICES * (1 + MAX_CHILDREN) < 1 << 24, "a number has 24 bits in the id of an event") };
    MAX_DEVICES + hub * MAX_CHILDREN + index
}

fn enrol(
    client: &Client,
    number: u32,
    serial: String,
    habits: &'static Habits,
    state: Option<&StateDir>,
) -> anyhow::Result<Arc<Enrolled>> {
    let Code { code, is_new } = state.map_or_else(|| Ok(Code::drawn()), |state| state.code(&serial))?;
    let body = json!({
        "serial": serial, "code": code.as_str(), "product": habits.product(),
        "name": format!("Simulated {} {serial}", habits.name),
    });
    let device: Value = match client.post(&Route::new("/v1/devices"), &body) {
        Ok(device) => device,
        Err(ClientError::Refused(refusal)) if refusal.status == 409 => {
            take_over(client, &serial, is_new.then_some(&code))?
        }
        Err(error) => return Err(error).with_context(|| format!("{serial} cannot be registered")),
    };
    let id = device["id"].as_str().context("the platform gave a device no id")?.into();
    Ok(Arc::new(Enrolled { number, serial, code, id, habits }))
}

/// Another's device is never touched: only one that a simulation registered, and that nobody is using. One that still has
/// its code is the same device, come back.
fn take_over(client: &Client, serial: &str, code: Option<&Zeroizing<String>>) -> anyhow::Result<Value> {
    let route = Route::new("/v1/devices").segment(serial);
    let device: Value = client.get(&route)?;
    if !device["product"].as_str().is_some_and(|product| product.starts_with(PRODUCT)) {
        bail!("{serial} is registered already and is not a simulated device\n  name other serials with --prefix");
    }
    let Some(code) = code else { return Ok(device) };
    if device["presence"]["state"] == "online" {
        bail!("{serial} is online: another simulation is using it\n  name other serials with --prefix");
    }
    let _: Value = client.post(&route.segment("rotate"), &json!({ "code": code.as_str() }))?;
    Ok(device)
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Stored>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Stored {
    id: Option<String>,
}

/// Enters into the ledger which events of this run the platform has stored for the device.
pub(crate) fn read_back(client: &Client, run: RunId, entry: &Enrolled, ledger: &mut Ledger) -> anyhow::Result<()> {
    let mut cursor: Option<String> = None;
    loop {
        let route = Route::new("/v1/events").query("device", &entry.id).query("limit", PAGE);
        let page: Page = client.get(&route.query_if("cursor", cursor.as_deref()))?;
        let ours = page.items.iter().filter_map(|event| run.read(event.id.as_deref()?));
        let mut any = false;
        for (_, event) in ours.filter(|(device, _)| *device == entry.number) {
            ledger.find(event);
            any = true;
        }
        // The newest come first: behind a page without any of this run are only those of earlier ones.
        match page.next {
            Some(next) if any || page.items.is_empty() => cursor = Some(next),
            _ => return Ok(()),
        }
    }
}

/// Takes a device out, after its children; what is gone already is fine.
pub(crate) fn remove(client: &Client, device: &Registered) -> anyhow::Result<()> {
    for entry in device.children.iter().chain([&device.own]) {
        let Enrolled { serial, id, .. } = &**entry;
        match client.delete(&Route::new("/v1/devices").segment(id)) {
            Err(ClientError::Refused(refusal)) if refusal.status == 404 => {}
            other => other.with_context(|| format!("{serial} cannot be removed"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_devices_have_the_same_number() {
        let last = MAX_DEVICES - 1;
        assert!(child_number(0, 0) > last);
        assert!(child_number(0, MAX_CHILDREN - 1) < child_number(1, 0));
        assert!(child_number(last, MAX_CHILDREN - 1) < 1 << 24);
    }

    #[test]
    fn every_item_is_worked_on_once() {
        let progress = Progress::default();
        let (mut results, end) = each((0..100).collect(), &progress, |n: u32| Ok(n * 2));
        results.sort_unstable();
        assert!(end.is_ok() && results == (0..100).map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(progress.done.load(Relaxed), 100);
    }

    #[test]
    fn a_failure_stops_the_rest_and_keeps_what_was_done() {
        let begun = AtomicUsize::new(0);
        let (results, end) = each((0..1_000).collect(), &Progress::default(), |n: u32| {
            begun.fetch_add(1, Relaxed);
            if n == 0 { bail!("the first one fails") } else { Ok(n) }
        });
        assert!(end.is_err());
        assert!(results.len() < begun.load(Relaxed) && results.len() <= 999);
    }

    #[test]
    fn nothing_is_begun_after_a_stop() {
        let progress = Progress::default();
        progress.stop.store(true, Relaxed);
        let (results, end) = each(vec![1, 2, 3], &progress, Ok);
        assert!(end.is_ok() && results.is_empty());
    }
}
