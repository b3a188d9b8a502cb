//! `vestibule admin ca show`

use serde_json::Value;

use super::super::super::out::Out;
use super::super::super::words::printable;
use crate::client::Client;

/// Show the platform's certificates, and when they end
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin ca show
  vestibule admin ca show --json | jq -r .server.spki_sha256")]
pub(in super::super::super) struct Args {}

pub(super) fn run(_: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let authority: Value = client.get(&super::authority())?;
    if out.is_json() {
        return out.json(&authority);
    }
    out.table(&super::own(&authority))?;
    let names = authority["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let names: Vec<_> = names.map(printable).collect();
    out.line(format!("\nnames: {}", names.join(", ")))?;
    let pin = authority["server"]["spki_sha256"].as_str().unwrap_or_default();
    out.line(format!("pin of the server's key (SHA-256): {}", printable(pin)))
}
