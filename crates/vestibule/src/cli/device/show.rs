//! `vestibule device show`

use serde_json::Value;

use super::super::out::Out;
use super::super::words;
use crate::client::Client;

/// Show one device
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device show SN-0001")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let device: Value = client.get(&super::route_of(&args.device))?;
    if out.is_json() {
        return out.json(&device);
    }
    print(&device, out)
}

/// A device for people.
pub(super) fn print(device: &Value, out: &mut Out<'_>) -> anyhow::Result<()> {
    let members = words::device(device);
    let width = members.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    members.iter().try_for_each(|(name, value)| out.line(format!("{name:<width$}  {value}")))
}
