//! `vestibule device provision`

use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words;
use crate::client::Client;

/// Give a device what it needs to come in without its code
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device provision SN-0001 --json > SN-0001.json

For devices without TLS, on the factory line or by the tool that installs them: identity, ticket and
secret are shown this once. What was agreed with the device is void and its connection ends.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let answer: Value = client.post(&super::route_of(&args.device).segment("provision"), &json!({}))?;
    if out.is_json() {
        return out.json(&answer);
    }
    out.line(format!("{} is provisioned; the secret is shown this once", words::printable(&args.device)))?;
    for (name, label) in [("dev_id", "DevID"), ("ticket", "ticket"), ("psk", "secret")] {
        out.line(format!("{label:<7} {}", answer[name].as_str().unwrap_or_default()))?;
    }
    Ok(())
}
