//! The `vestibule` command.

use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;
use vestibule::cli::{self, Cli, Out};

/// A device comes in on one thread and stays on another. The system's allocator has a heap for each thread; what this one has
/// free in one thread's pages others may fill, and what is empty goes back to the system while others are taken.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut stdout = io::stdout().lock();
    let mut out = Out::new(&mut stdout, cli.json);
    match cli::run(cli, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::report(&error),
    }
}
