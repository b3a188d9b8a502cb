//! `vestibule device children`

use super::super::out::Out;
use super::super::pages::all;
use super::super::words;
use crate::client::Client;

/// List the devices that are reached through this one
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device children HUB-0001

A device is registered under a hub or gateway with `device add --parent`.")]
pub(in super::super) struct Args {
    /// Id or serial of the hub or gateway
    device: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let page = all(client, &super::route_of(&args.device).segment("children"), usize::MAX, "devices")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&words::devices(&page.items)) }
}
