//! `bench osap`: what an OSAP device costs the platform.

mod figures;
mod measure;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::TypedValueParser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::affinity::{self, Cores};
use crate::device::EVENT_LEN;
use crate::machine::Machine;
use crate::server;
use figures::{FleetFigures, Report, Settings};
use measure::{Bed, Effort, Run};

/// A process may have 20,000 descriptors on many machines: one for each device, and what a round leaves behind.
const MAX_DEVICES: u64 = 8_000;

/// Starts the release binary of the platform for each fleet, drives it with simulated devices, and prints the CPU
/// time of its process for each unit of work.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench osap
  cargo xtask bench osap --devices 100,5000 --json osap.json
  cargo xtask bench osap --quick

docs/benchmarks.md tells how it measures and what the JSON means.")]
pub struct Args {
    /// Sizes of the fleets, one measurement each
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

impl Args {
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
    let mut runs: Vec<Vec<Run>> = args.devices.iter().map(|_| Vec::new()).collect();
    // The fleets take turns: what else the machine does meanwhile falls on all of them.
    for number in 1..=repeat {
        for (&devices, runs) in args.devices.iter().zip(&mut runs) {
            eprintln!("fleet of {devices}, run {number} of {repeat}");
            let bed = Bed { binary: &binary, dir: &args.dir, cores, devices };
            let run = measure::run(&bed, &effort, &args.windows);
            runs.push(run.with_context(|| format!("fleet of {devices}, run {number}"))?);
        }
    }
    let fleets = args.devices.iter().zip(&runs).map(|(&devices, runs)| FleetFigures::of(devices, runs));
    let fleets = fleets.collect::<Option<_>>().context("there was no run")?;
    let settings = Settings {
        event_bytes: EVENT_LEN,
        events: effort.events,
        lanes: measure::LANES,
        repeat,
        quick: args.quick,
        cores,
        binary: binary.display().to_string(),
    };
    print(&Report::new(started, machine, settings, fleets), &args.json)
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
