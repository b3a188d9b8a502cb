//! `vestibule device redirect`

use serde_json::json;

use super::super::out::Out;
use super::super::words;
use crate::client::Client;

/// Send a device to another host
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device redirect SN-0001 hall.example

Devices answer nothing to this: that one obeys shows in what it does next.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// Name or IPv4 address of the host whose LBS it is to authenticate at
    host: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    client.tell(&super::route_of(&args.device).segment("redirect"), &json!({ "host": args.host }))?;
    if out.is_json() {
        return out.json(&json!({ "told": args.device }));
    }
    out.line(format!("{} is sent to {}", words::printable(&args.device), words::printable(&args.host)))
}
