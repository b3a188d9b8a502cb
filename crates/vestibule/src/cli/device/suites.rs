//! `vestibule device suites`

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::super::out::Out;
use super::super::words;
use crate::client::Client;

/// Open suites to a device, or close them
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device suites SN-0001 --legacy open
  vestibule device suites SN-0001 --plain closed

A device that has come in by a modern suite is refused by the legacy ones, which are not
confidential: somebody may stand between. Opened again, they stay so until it comes in by a modern
one the next time.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// The legacy suites
    #[arg(long, required_unless_present = "plain")]
    legacy: Option<State>,
    /// The suites over plain TCP
    #[arg(long)]
    plain: Option<State>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    Open,
    Closed,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let named = [("legacy", args.legacy), ("plain", args.plain)];
    let body: Map<String, Value> = named
        .into_iter()
        .filter_map(|(name, state)| state.map(|state| (name.to_owned(), Value::Bool(state == State::Open))))
        .collect();
    let device: Value = client.put(&super::route_of(&args.device).segment("suites"), &Value::Object(body))?;
    if out.is_json() {
        return out.json(&device);
    }
    let state = |name: &str| if device["suites"][name] == true { "open" } else { "closed" };
    out.line(format!(
        "{}: legacy suites {}, plain TCP {}",
        words::printable(&args.device),
        state("legacy"),
        state("plain")
    ))
}
