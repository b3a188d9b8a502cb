//! `vestibule device …`

mod add;
mod enrol;
mod list;
mod remove;
mod show;
mod watch;
mod why;

use clap::Subcommand;

use super::connect::Connect;
use super::out::Out;
use crate::client::Route;

/// Register, list and watch devices
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device add SN-0001 --code-file code.txt
  vestibule device list
  vestibule device why SN-0001

A device is addressed by its id or its serial.")]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Add(add::Args),
    Enrol(enrol::Args),
    List(list::Args),
    Show(show::Args),
    Watch(watch::Args),
    Why(why::Args),
    Remove(remove::Args),
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let client = &args.connect.client()?;
    match args.command {
        Command::Add(args) => add::run(args, client, out),
        Command::Enrol(args) => enrol::run(args, client, out),
        Command::List(args) => list::run(args, client, out),
        Command::Show(args) => show::run(args, client, out),
        Command::Watch(args) => watch::run(args, client, out),
        Command::Why(args) => why::run(args, client, out),
        Command::Remove(args) => remove::run(args, client, out),
    }
}

/// `/v1/devices/{device}`
fn route_of(device: &str) -> Route {
    Route::new("/v1/devices").segment(device)
}
