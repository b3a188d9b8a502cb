//! `bench flood`: strangers at the LBS while good devices come back.

mod attack;
mod report;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::builder::TypedValueParser as _;

use crate::affinity::{self, Cores};
use crate::device::{self, Device};
use crate::fleet::Fleet;
use crate::server::{self, Server};
use attack::{Attack, Plan};
use report::Report;

/// Devices that are enrolled at the same time, before the flood.
const LANES: usize = 32;
/// Of so many devices one is new and has no keys yet.
const NEW: usize = 10;

/// Starts the release binary, floods its LBS with recorded AUTH-I and with wrong codes from many addresses, and has a
/// fleet of good devices come in meanwhile.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench flood
  cargo xtask bench flood --devices 50 --replays 200 --codes 50

docs/benchmarks.md tells what it does.")]
pub struct Args {
    /// Good devices; one in ten is new, the others hold their keys
    #[arg(long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=8_000).map(|n| n as usize))]
    pub devices: usize,
    /// Recorded AUTH-I of one device, a second: each that is looked at costs a key agreement
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub replays: u32,
    /// Wrong codes a second, for the good devices and for serials that nobody has
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub codes: u32,
    /// Addresses the replays come from, and as many for the codes; ten to a network
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=2_550))]
    pub addresses: u32,
    /// Seconds of the flood before the good devices come, all at once
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub before: u64,
    /// File for the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The platform's binary [default: `vestibule` beside this program]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Directory in which the platform's data directory is made and removed
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
}

/// How a good device came in.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// Tries, the last of which succeeded.
    attempts: u32,
    after: Duration,
    new: bool,
}

/// Floods, and prints what came out.
///
/// # Errors
/// When the platform does not start, or a good device is not let in.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let binary = server::binary(args.binary.as_deref())?;
    let cores = Cores::pick()?;
    crate::osap_bench::raise_descriptor_limit();
    if let Some(cores) = cores {
        affinity::pin(cores.generator)?;
    }
    let server = Server::start(&binary, &args.dir, cores)?;
    let report = flood(&server, args).with_context(|| server.log_end())?;
    server.stop()?;
    print!("{report}");
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report).context("the figures cannot be written as JSON")?;
        std::fs::write(file, text + "\n").with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

fn flood(server: &Server, args: &Args) -> anyhow::Result<Report> {
    let lbs = server.lbs()?;
    // One more than there are good ones: its code is known to the attacker.
    let leaked = args.devices;
    let names: Vec<_> = (0..=leaked).map(|number| (device::serial(number), device::CODE)).collect();
    eprintln!("  registration and enrolment");
    server.http().register(&names)?;
    let mut fleet = Fleet::new(0..args.devices)?;
    fleet.each(LANES, async move |device| {
        if is_new(device.number()) {
            return Ok(());
        }
        device.authenticate(lbs).await?;
        device.first_connect().await?;
        device.refresh(lbs).await
    })?;
    server.cpu().settle()?;
    let (memory_before, cpu_before) = (server.memory()?, server.cpu().read()?);

    eprintln!("  flood");
    let plan = Plan {
        lbs,
        recorded: Device::new(leaked)?.auth_i()?,
        serials: (0..args.devices).map(device::serial).collect(),
        replays: args.replays,
        codes: args.codes,
        addresses: args.addresses,
    };
    let begun = Instant::now();
    let attack = Attack::start(plan)?;
    std::thread::sleep(Duration::from_secs(args.before));
    let arrivals = Rc::new(RefCell::new(Vec::new()));
    let book = Rc::clone(&arrivals);
    let coming = Instant::now();
    fleet.each(args.devices, async move |device| {
        let new = is_new(device.number());
        let attempts = device.come_in(lbs).await?;
        book.borrow_mut().push(Arrival { attempts, after: coming.elapsed(), new });
        Ok(())
    })?;
    let strangers = attack.stop()?;
    let wall = begun.elapsed();
    let cpu = server.cpu().since(&cpu_before)?.cpu;
    let memory_after = server.memory()?;
    let arrivals = arrivals.take();
    Ok(Report::new(args, &arrivals, strangers, &server.http().metrics()?, (cpu, wall), (memory_before, memory_after)))
}

fn is_new(number: usize) -> bool {
    number % NEW == NEW - 1
}
