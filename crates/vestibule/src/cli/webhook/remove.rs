//! `vestibule webhook remove`

use serde_json::json;

use super::super::out::Out;
use super::super::words::printable;
use crate::client::Client;

/// Remove a webhook with its dead letters
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule webhook remove 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10")]
pub(in super::super) struct Args {
    /// Id of the webhook
    id: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    client.delete(&super::route_of(&args.id))?;
    if out.is_json() {
        return out.json(&json!({ "removed": args.id }));
    }
    out.line(format!("{} is removed", printable(&args.id)))
}
