//! Drivers of the workshop: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`.

mod bench;
mod count;
mod demo;
mod node;
mod python;
mod report;
mod step;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, demonstrate, test and measure Vestibule
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the binary in release mode and run `vestibule demo`
    Demo {
        /// Arguments for `vestibule demo`, such as --check
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run everything that proves the platform; the last line is `N passed, N failed`
    Test(test::Args),
    /// Build the load generators in release mode and run them
    Bench {
        /// Arguments for the load generators
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo { arguments } => demo::run(&arguments),
        Command::Test(args) => test::run(&args),
        Command::Bench { arguments } => bench::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["cargo xtask", "demo", "--check", "--json", "--port", "0"]).expect("a command");
        assert!(
            matches!(cli.command, Command::Demo { arguments } if arguments == ["--check", "--json", "--port", "0"])
        );
    }
}
