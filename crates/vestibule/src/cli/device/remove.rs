//! `vestibule device remove`

use serde_json::json;

use super::super::out::Out;
use super::super::words;
use crate::client::Client;

/// Remove a device: it is disconnected and no longer let in
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device remove SN-0001")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    client.delete(&super::route_of(&args.device))?;
    if out.is_json() {
        return out.json(&json!({ "removed": args.device }));
    }
    out.line(format!("{} is removed", words::printable(&args.device)))
}
