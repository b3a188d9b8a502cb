//! `vestibule event …`

mod follow;
mod list;

use clap::Subcommand;

use super::connect::Connect;
use super::out::Out;
use crate::client::Route;

/// Query and follow events
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule event list --device SN-0001 --from 1h
  vestibule event follow --json")]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(list::Args),
    Follow(follow::Args),
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let client = &args.connect.client()?;
    match args.command {
        Command::List(args) => list::run(args, client, out),
        Command::Follow(args) => follow::run(args, client, out),
    }
}

/// Which events a command is about.
#[derive(clap::Args)]
struct Filter {
    /// Only of this device (id or serial)
    #[arg(long, value_name = "D")]
    device: Option<String>,
    /// Only of this area
    #[arg(long)]
    area: Option<String>,
    /// Only of this type: the name of the event in its area
    #[arg(long = "type", value_name = "TYPE")]
    name: Option<String>,
}

impl Filter {
    fn apply(&self, route: Route) -> Route {
        route
            .query_if("device", self.device.as_deref())
            .query_if("area", self.area.as_deref())
            .query_if("type", self.name.as_deref())
    }
}
