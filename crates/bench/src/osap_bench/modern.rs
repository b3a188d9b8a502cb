//! One run with devices of a modern suite: a fresh platform, a fleet, every phase once.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use osap::Suite;

use super::measure::{Bed, Effort, Events, LANES, Phase, WARM_UP};
use super::measure::{idle, leave, log_in, measured, measured_with_floor, progress, report};
use crate::bare;
use crate::device::{self, Device, Plan};
use crate::fleet::Fleet;
use crate::memory::Memory;
use crate::server::{PLAIN, Server};

/// What came out of one run.
#[derive(Debug, Clone)]
pub struct ModernRun {
    /// What its cryptography costs, beside the returns by ticket.
    pub bare: bare::Bare,
    /// Enrolments by the code; over TLS alone.
    pub enrolment: Option<Phase>,
    /// Returns by ticket.
    pub back: Phase,
    /// Logins with hello, report and both subscriptions.
    pub login: Phase,
    /// Events, for each window.
    pub events: Vec<Events>,
    /// CPU time of the platform while the fleet was connected and silent, for each second.
    pub idle_us_per_second: f64,
    /// With the fleet registered, and provisioned where it is.
    pub registered: Memory,
    /// With the fleet authenticated.
    pub authenticated: Memory,
    /// With the fleet connected and silent.
    pub connected: Memory,
}

/// Runs every phase.
///
/// # Errors
/// When anything does not go as it should.
pub fn run(bed: &Bed<'_>, suite: Suite, effort: &Effort, windows: &[u64]) -> anyhow::Result<ModernRun> {
    let settings: &[&str] = if suite == Suite::Tls { &[] } else { &PLAIN };
    let (server, ()) = Server::prepared(bed.binary, bed.dir, bed.cores, settings, |_| Ok(()))?;
    let measured = phases(&server, bed, suite, effort, windows).with_context(|| server.log_end())?;
    server.stop()?;
    Ok(measured)
}

fn phases(server: &Server, bed: &Bed<'_>, suite: Suite, effort: &Effort, windows: &[u64]) -> anyhow::Result<ModernRun> {
    let lbs = server.lbs_of(suite)?;
    progress("registration and warm-up, not measured");
    let mut devices = made(server, suite, bed.devices + WARM_UP)?;
    warm_up(server, suite, devices.split_off(bed.devices))?;
    server.cpu().settle()?;

    let mut fleet = Fleet::made_of(devices)?;
    let registered = server.memory()?;
    let core = bed.cores.map(|cores| cores.server);
    let rounds = |units: usize| units.div_ceil(bed.devices);

    let enrolment = match suite {
        // Once each: a device that is enrolled comes back by its tickets.
        Suite::Tls => Some(measured(server, "enrolment", || {
            fleet.each(LANES, async move |device| device.authenticate(lbs).await)
        })?),
        _ => None,
    };
    let (back, bare) = measured_with_floor(server, "return by ticket", core, suite, || {
        let round = |_| fleet.each(LANES, async move |device| device.refresh(lbs).await);
        (0..rounds(effort.authentications)).map(round).sum()
    })?;

    let authenticated = server.memory()?;
    let mut login = log_in(server, &mut fleet)?;
    let connected = server.memory()?;
    let idle_us_per_second = idle(server, effort.idle)?;
    let mut events = Vec::new();
    for &window in windows {
        events.push(report(server, &mut fleet, effort, window)?);
        await_receipts(suite, &mut fleet)?;
    }
    // Further rounds come last, as with the legacy suite.
    for _ in 1..rounds(effort.logins) {
        leave(server, &mut fleet)?;
        login += log_in(server, &mut fleet)?;
    }
    leave(server, &mut fleet)?;
    Ok(ModernRun { bare, enrolment, back, login, events, idle_us_per_second, registered, authenticated, connected })
}

/// Registers so many devices, and gives those without TLS what they need.
///
/// # Errors
/// When the platform refuses one.
pub fn made(server: &Server, suite: Suite, count: usize) -> anyhow::Result<Vec<Device>> {
    let serials: Vec<String> = (0..count).map(device::serial).collect();
    let names: Vec<_> = serials.iter().map(|serial| (serial.clone(), device::LONG_CODE)).collect();
    server.http().register(&names)?;
    if suite == Suite::Tls {
        let trust = server.trust()?;
        return (0..count).map(|number| Device::over_tls(number, &trust)).collect();
    }
    let given = server.http().provision(&serials)?;
    given.iter().enumerate().map(|(number, given)| Device::over_tcp(number, suite, given)).collect()
}

/// The whole life of some devices, so that everything has happened once.
fn warm_up(server: &Server, suite: Suite, devices: Vec<Device>) -> anyhow::Result<()> {
    let lbs = server.lbs_of(suite)?;
    let mut visitors = Fleet::made_of(devices)?;
    let plan = Rc::new(Plan::new(WARM_UP as u64, Duration::from_secs(10), 1));
    visitors.each(LANES, async move |device| {
        if suite == Suite::Tls {
            device.authenticate(lbs).await?;
        }
        device.refresh(lbs).await?;
        device.log_in().await?;
        device.report(&plan).await?;
        device.leave().await
    })?;
    Ok(())
}

/// Over plain TCP an acknowledgement proves nothing: each device is told by a receipt that everything is durable.
fn await_receipts(suite: Suite, fleet: &mut Fleet) -> anyhow::Result<()> {
    if suite != Suite::Tls {
        let lanes = fleet.devices().len();
        fleet.each(lanes, async |device| device.await_receipt().await)?;
    }
    Ok(())
}
