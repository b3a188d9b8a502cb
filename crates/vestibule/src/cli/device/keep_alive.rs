//! `vestibule device keep-alive`

use std::time::Duration;

use serde_json::json;

use super::super::out::Out;
use super::super::words;
use crate::client::Client;
use crate::config::{duration_from_text, duration_text};

/// Have a device show a sign of life more or less often
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device keep-alive SN-0001 60s

Devices answer nothing to this: that one obeys shows in what it does next.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// How often, 5s to 1h
    #[arg(value_parser = duration_from_text)]
    every: Duration,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    client.tell(&super::route_of(&args.device).segment("keep-alive"), &json!({ "seconds": args.every.as_secs() }))?;
    if out.is_json() {
        return out.json(&json!({ "told": args.device }));
    }
    out.line(format!("{} is to show itself every {}", words::printable(&args.device), duration_text(args.every)))
}
