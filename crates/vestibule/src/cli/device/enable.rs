//! `vestibule device enable`

use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words;
use crate::client::Client;

/// Let a device in that was disabled
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device enable SN-0001

It comes back by itself, within two minutes.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let device: Value = client.post(&super::route_of(&args.device).segment("enable"), &json!({}))?;
    if out.is_json() { out.json(&device) } else { out.line(format!("{} is enabled", words::printable(&args.device))) }
}
