//! `vestibule device disable`

use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words;
use crate::client::Client;

/// Shut a device out until it is enabled again
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device disable SN-0001

Its connection is ended, and it is refused by LBS and DAS. What is known of it stays.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let device: Value = client.post(&super::route_of(&args.device).segment("disable"), &json!({}))?;
    if out.is_json() { out.json(&device) } else { out.line(format!("{} is disabled", words::printable(&args.device))) }
}
