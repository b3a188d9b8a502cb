//! `vestibule device enrol`

use std::time::Duration;

use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words;
use crate::client::Client;
use crate::config::{duration_from_text, duration_text};

/// Open a window in which a device may enrol anew with its code
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device enrol SN-0001 --window 15m
  vestibule device enrol SN-0002 --rearm

A device that has enrolled once proves itself by the keys it got then. One that was reset or
repaired has lost them and needs such a window.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// How long the window stays open
    #[arg(long, default_value = "15m", value_parser = duration_from_text)]
    window: Duration,
    /// A code that works once and is used up works once more
    #[arg(long)]
    rearm: bool,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = super::route_of(&args.device).segment("enrolment");
    let answer: Value =
        client.post(&route, &json!({ "window_seconds": args.window.as_secs(), "rearm": args.rearm }))?;
    if out.is_json() {
        return out.json(&answer);
    }
    let window = duration_text(Duration::from_secs(args.window.as_secs()));
    out.line(format!(
        "{} may enrol until {} ({window})",
        words::printable(&args.device),
        words::time(&answer, "/until")
    ))
}
