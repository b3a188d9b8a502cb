//! The command line: one module per noun, one file per command.

mod admin;
mod audit;
mod connect;
mod demo;
mod device;
mod event;
mod export;
mod moment;
mod out;
mod pages;
mod pass;
mod progress;
mod settings;
mod simulate;
mod table;
mod token;
mod up;
mod user;
mod webhook;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use out::{Out, OutputClosed};

use crate::config::Problems;

/// Exit status of a wrong command line or configuration.
const USAGE: u8 = 2;

/// The entrance hall for IoT devices.
#[derive(Parser)]
#[command(name = "vestibule", version, about, long_about = LONG_ABOUT, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// Print JSON: one document, or one a line where a command follows something
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "The entrance hall for IoT devices: one platform that lets any smart device in.\n\n\
    Exit status: 0 done, 1 failed, 2 wrong command line or configuration.";

const EXAMPLES: &str = "Examples:
  vestibule demo                                     a running platform with a simulated site
  vestibule up --data /var/lib/vestibule             the platform itself
  vestibule device add SN-0001 --code-file code.txt  let a device in
  vestibule event follow                             see what devices report
  vestibule webhook add https://hall.example/in      have a program elsewhere told of it
  vestibule audit --from 1d                          see who did what
  vestibule token add ci --role viewer               let a program in
  vestibule admin doctor                             see whether this machine is fit for it
  vestibule simulate --devices 100                   load it with devices that do not exist";

#[derive(Subcommand)]
enum Command {
    Up(up::Args),
    Demo(demo::Args),
    /// A device process of `demo --check`
    #[command(hide = true)]
    DemoDevice(crate::demo::child::Args),
    Device(device::Args),
    Event(event::Args),
    Export(export::Args),
    Pass(pass::Args),
    Webhook(webhook::Args),
    Audit(audit::Args),
    Token(token::Args),
    User(user::Args),
    Admin(admin::Args),
    Simulate(simulate::Args),
}

/// Runs a command and prints its result to `out`.
///
/// # Errors
/// What [`report`] turns into words and an exit status.
pub fn run(cli: Cli, out: &mut Out<'_>) -> anyhow::Result<()> {
    match cli.command {
        Command::Up(args) => up::run(args, cli.json),
        Command::Demo(args) => demo::run(args, out),
        Command::DemoDevice(args) => crate::demo::child::run(args, out),
        Command::Device(args) => device::run(args, out),
        Command::Event(args) => event::run(args, out),
        Command::Export(args) => export::run(args, out),
        Command::Pass(args) => pass::run(args, out),
        Command::Webhook(args) => webhook::run(args, out),
        Command::Audit(args) => audit::run(args, out),
        Command::Token(args) => token::run(args, out),
        Command::User(args) => user::run(args, out),
        Command::Admin(args) => admin::run(args, out),
        Command::Simulate(args) => simulate::run(args, out),
    }
}

/// Says on standard error what went wrong and answers with the exit status: 2 for a configuration that cannot be used, 1 for all else. A
/// reader that closed our output (`| head`) has seen enough, which is no failure.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<OutputClosed>() {
        return ExitCode::SUCCESS;
    }
    eprintln!("vestibule: {error:#}");
    if error.is::<Problems>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests;
