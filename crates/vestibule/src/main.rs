//! The `vestibule` command.

use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use vestibule::cli::{self, Cli, Out};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut stdout = io::stdout().lock();
    let mut out = Out::new(&mut stdout, cli.json);
    match cli::run(cli, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::report(&error),
    }
}
