//! Load generators and side-by-side measurements: what a unit of work costs the platform, in CPU time of its
//! process as the kernel accounts it. Linux only.

mod affinity;
mod api_bench;
mod bare;
mod cpu;
mod device;
mod fleet;
mod flood;
mod http;
mod machine;
mod memory;
mod metrics;
mod osap_bench;
mod server;
mod spread;
mod storm;
mod table;
mod trust;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measure what the platform costs
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// OSAP devices of each suite: authentication, login, events, attributes, operations, desired values, memory
    Osap(osap_bench::Args),
    /// Lists of devices at a large registry, import and export
    Api(api_bench::Args),
    /// A flood of strangers at the LBS while good devices come back
    Flood(flood::Args),
    /// All devices come back at once over TLS, to a platform that was started anew
    Storm(storm::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Osap(args) => osap_bench::run(&args),
        Command::Api(args) => api_bench::run(&args),
        Command::Flood(args) => flood::run(&args),
        Command::Storm(args) => storm::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
        let Command::Osap(args) =
            Cli::try_parse_from(["bench", "osap", "--devices", "1,100", "--quick"]).expect("a command").command
        else {
            panic!("another command");
        };
        assert_eq!((args.devices, args.quick, args.suites.len()), (vec![1, 100], true, 4));
    }

    #[test]
    fn a_fleet_of_nobody_is_refused() {
        assert!(Cli::try_parse_from(["bench", "osap", "--devices", "0"]).is_err());
        assert!(Cli::try_parse_from(["bench", "osap", "--devices", "8001"]).is_err());
    }
}
