//! `vestibule device force-offline`

use serde_json::json;

use super::super::out::Out;
use super::super::words;
use crate::client::Client;

/// Have a device go, and stay away until it is started again
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device force-offline SN-0001

Devices answer nothing to this: that one obeys shows in what it does next.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    client.tell(&super::route_of(&args.device).segment("force-offline"), &json!({}))?;
    if out.is_json() {
        return out.json(&json!({ "told": args.device }));
    }
    out.line(format!("{} is told to go", words::printable(&args.device)))
}
