//! `vestibule webhook disable`

use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words::printable;
use crate::client::Client;

/// Tell a webhook nothing for now; where it stands is kept
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule webhook disable 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10")]
pub(in super::super) struct Args {
    /// Id of the webhook
    id: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let webhook: Value = client.post(&super::route_of(&args.id).segment("disable"), &json!({}))?;
    if out.is_json() { out.json(&webhook) } else { out.line(format!("{} is disabled", printable(&args.id))) }
}
