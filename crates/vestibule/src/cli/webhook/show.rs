//! `vestibule webhook show`

use serde_json::Value;

use super::super::out::Out;
use super::super::words::printable;
use crate::client::Client;

/// Show a webhook and how it is doing
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule webhook show 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10")]
pub(in super::super) struct Args {
    /// Id of the webhook
    id: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let webhook: Value = client.get(&super::route_of(&args.id))?;
    if out.is_json() {
        return out.json(&webhook);
    }
    for (name, value) in webhook.as_object().into_iter().flatten() {
        let shown = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        out.line(format!("{name:<22}{}", printable(&shown)))?;
    }
    Ok(())
}
