//! `vestibule webhook …`

mod add;
mod dead_letters;
mod disable;
mod enable;
mod list;
mod remove;
mod replay;
mod show;
mod test;

use clap::Subcommand;

use super::connect::Connect;
use super::out::Out;
use crate::client::Route;

/// Have programs elsewhere told what devices report
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule webhook add https://hall.example/in
  vestibule webhook list
  vestibule webhook replay 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10

Each record goes out as a CloudEvent, signed as Standard Webhooks has it, at least once
and in order for each device; see docs/webhooks.md.")]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Add(add::Args),
    List(list::Args),
    Show(show::Args),
    Test(test::Args),
    Enable(enable::Args),
    Disable(disable::Args),
    DeadLetters(dead_letters::Args),
    Replay(replay::Args),
    Remove(remove::Args),
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let client = &args.connect.client()?;
    match args.command {
        Command::Add(args) => add::run(args, client, out),
        Command::List(args) => list::run(args, client, out),
        Command::Show(args) => show::run(args, client, out),
        Command::Test(args) => test::run(args, client, out),
        Command::Enable(args) => enable::run(args, client, out),
        Command::Disable(args) => disable::run(args, client, out),
        Command::DeadLetters(args) => dead_letters::run(args, client, out),
        Command::Replay(args) => replay::run(args, client, out),
        Command::Remove(args) => remove::run(args, client, out),
    }
}

/// `/v1/webhooks/{id}`
fn route_of(id: &str) -> Route {
    Route::new("/v1/webhooks").segment(id)
}
