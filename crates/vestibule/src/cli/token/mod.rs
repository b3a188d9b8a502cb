//! `vestibule token …`

mod add;
mod list;
mod remove;

use clap::{Subcommand, ValueEnum};

use super::connect::Connect;
use super::out::Out;

/// Make, list and remove tokens, by which programs use the platform
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule token add wall-display --role viewer --subtree /plant-1
  vestibule token add ci --role operator --expires-in 30d
  vestibule token list
  vestibule token remove wall-display

A program shows its token in the header `Authorization: Bearer …`, or this one takes it from VESTIBULE_TOKEN.")]
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
    Remove(remove::Args),
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let client = &args.connect.client()?;
    match args.command {
        Command::Add(args) => add::run(args, client, out),
        Command::List(args) => list::run(args, client, out),
        Command::Remove(args) => remove::run(args, client, out),
    }
}

/// What somebody may do.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Role {
    /// Sees
    Viewer,
    /// Sees, and has devices do something
    Operator,
    /// Does everything
    Admin,
}

impl Role {
    /// Its name in the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}
