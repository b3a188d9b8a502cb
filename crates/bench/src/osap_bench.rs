//! `bench osap`: what an OSAP device costs the platform.

mod figures;
mod measure;
mod modern;
mod modern_figures;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::TypedValueParser as _;
use osap::Suite;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::affinity::{self, Cores};
use crate::device::EVENT_LEN;
use crate::machine::Machine;
use crate::server;
use crate::storm;
use figures::{FleetFigures, Report, Settings};
use measure::{Bed, Effort, Run};
use modern::ModernRun;
pub use modern::made;
use modern_figures::ModernFigures;

/// A process may have 20,000 descriptors on many machines: one for each device, and what a round leaves behind.
pub const MAX_DEVICES: u64 = 8_000;
/// Sizes of the fleets of the modern suites, unless others are asked for.
const MODERN_DEVICES: [usize; 2] = [100, 2_000];
/// The same of a quick run.
const QUICK_MODERN_DEVICES: [usize; 1] = [100];

/// Starts the release binary of the platform for each fleet, drives it with simulated devices, and prints the CPU
/// time of its process for each unit of work.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench osap
  cargo xtask bench osap --devices 100,5000 --json osap.json
  cargo xtask bench osap --suites 4,16 --modern-devices 1000
  cargo xtask bench osap --storm
  cargo xtask bench osap --quick

docs/benchmarks.md tells how it measures and what the JSON means.")]
pub struct Args {
    /// Suites, by their protocol types: legacy (or 1), 4 (TLS), 8 (P-384), 16 (X25519)
    #[arg(long, value_name = "SUITE,…", value_delimiter = ',', default_value = "legacy,4,8,16", value_parser = suite)]
    pub suites: Vec<Suite>,
    /// Sizes of the fleets of the modern suites [default: 100,2000; of a quick run 100]
    #[arg(long, value_name = "N,…", value_delimiter = ',',
        value_parser = clap::value_parser!(u64).range(1..=MAX_DEVICES).map(|n| n as usize))]
    pub modern_devices: Vec<usize>,
    /// Also has 8,000 devices come back at once, as `bench storm` does
    #[arg(long)]
    pub storm: bool,
    /// Sizes of the fleets of the legacy suite, one measurement each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,100,5000",
        value_parser = clap::value_parser!(u64).range(1..=MAX_DEVICES).map(|n| n as usize))]
    pub devices: Vec<usize>,
    /// Windows of unacknowledged events for each device, one measurement each; targets look at the first
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "4,1",
        value_parser = clap::value_parser!(u64).range(1..=256))]
    pub windows: Vec<u64>,
    /// Events of one measurement, if they fit into its time
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub events: u64,
    /// Runs of everything, each on a fresh platform
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub repeat: u32,
    /// One run with less of everything: shows that it works, not what it costs
    #[arg(long)]
    pub quick: bool,
    /// Where the JSON goes; `-` is the standard output, and the table then goes to the standard error
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub json: PathBuf,
    /// The platform's binary [default: `vestibule` beside this program]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Directory in which the platform's data directories are made and removed
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
}

/// A suite by its protocol type.
fn suite(text: &str) -> Result<Suite, String> {
    let by_type = || Suite::from_protocol_type(text.parse().ok()?);
    Suite::from_name(text).or_else(by_type).ok_or_else(|| "it is legacy, 4, 8 or 16".to_owned())
}

/// One fleet, and what came out of its runs.
struct Measured {
    suite: Suite,
    devices: usize,
    legacy: Vec<Run>,
    modern: Vec<ModernRun>,
}

impl Args {
    /// The fleets, suite by suite.
    fn fleets(&self) -> Vec<Measured> {
        let modern: &[usize] = match (&*self.modern_devices, self.quick) {
            ([], true) => &QUICK_MODERN_DEVICES,
            ([], false) => &MODERN_DEVICES,
            (chosen, _) => chosen,
        };
        let suites = Suite::ALL.into_iter().filter(|suite| self.suites.contains(suite));
        let fleets = suites.flat_map(|suite| {
            let sizes = if suite.is_modern() { modern } else { &self.devices };
            sizes.iter().map(move |&devices| Measured { suite, devices, legacy: Vec::new(), modern: Vec::new() })
        });
        fleets.collect()
    }

    fn effort(&self) -> Effort {
        let full = Effort {
            authentications: 400,
            logins: 10,
            events: self.events,
            requests: 20_000,
            time: Duration::from_secs(10),
            idle: Duration::from_secs(3),
        };
        if !self.quick {
            return full;
        }
        Effort {
            authentications: 100,
            logins: 2,
            events: self.events.min(20_000),
            requests: 1_000,
            time: Duration::from_secs(2),
            idle: Duration::from_secs(1),
        }
    }
}

/// Measures, and prints what came out.
///
/// # Errors
/// When the platform or a device does not do what it should; no figure is printed then.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let binary = server::binary(args.binary.as_deref())?;
    let cores = Cores::pick()?;
    raise_descriptor_limit();
    let machine = Machine::this(&args.dir);
    if let Some(cores) = cores {
        affinity::pin(cores.generator)?;
    }
    let repeat = if args.quick { 1 } else { args.repeat };
    let effort = args.effort();
    let started = jiff::Timestamp::now();
    let mut measured = args.fleets();
    // The fleets take turns: what else the machine does meanwhile falls on all of them.
    for number in 1..=repeat {
        for fleet in &mut measured {
            let Measured { suite, devices, .. } = *fleet;
            let name = format!("type {}, fleet of {devices}, run {number} of {repeat}", suite.protocol_type());
            eprintln!("{name}");
            let bed = Bed { binary: &binary, dir: &args.dir, cores, devices };
            if suite.is_modern() {
                fleet.modern.push(modern::run(&bed, suite, &effort, &args.windows).context(name)?);
            } else {
                fleet.legacy.push(measure::run(&bed, &effort, &args.windows).context(name)?);
            }
        }
    }
    let of_suites = |modern| measured.iter().filter(move |fleet| fleet.suite.is_modern() == modern);
    let legacy = of_suites(false).map(|fleet| FleetFigures::of(fleet.devices, &fleet.legacy));
    let legacy = legacy.collect::<Option<_>>().context("there was no run")?;
    let modern = of_suites(true).map(|fleet| ModernFigures::of(fleet.suite, fleet.devices, &fleet.modern));
    let modern = modern.collect::<Option<_>>().context("there was no run")?;
    let storm = args.storm.then(|| storm::with_defaults(&binary, &args.dir, cores, args.quick)).transpose()?;
    let settings = Settings {
        event_bytes: EVENT_LEN,
        events: effort.events,
        lanes: measure::LANES,
        repeat,
        quick: args.quick,
        cores,
        binary: binary.display().to_string(),
    };
    print(&Report::new(started, machine, settings, (legacy, modern), storm), &args.json)
}

fn print(report: &Report, json: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report).context("the figures cannot be written as JSON")?;
    if json == Path::new("-") {
        eprint!("\n{report}");
        println!("{text}");
    } else {
        fs::write(json, text + "\n").with_context(|| format!("{} cannot be written", json.display()))?;
        print!("\n{report}");
    }
    Ok(())
}

/// The platform inherits the limit. Without the permission the soft limit stays, and a large fleet says so itself.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_named_by_its_type() {
        let named = ["legacy", "1", "4", "8", "16"].map(suite);
        assert_eq!(named, [Suite::Legacy, Suite::Legacy, Suite::Tls, Suite::P384, Suite::X25519].map(Ok));
        assert!(suite("2").is_err() && suite("tcp").is_err());
    }
}
