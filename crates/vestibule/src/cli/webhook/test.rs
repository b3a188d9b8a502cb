//! `vestibule webhook test`

use anyhow::bail;
use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words::{printable, text};
use crate::client::Client;

/// Send a webhook a test, once, and say what came of it
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule webhook test 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10")]
pub(in super::super) struct Args {
    /// Id of the webhook
    id: String,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let tested: Value = client.post(&super::route_of(&args.id).segment("test"), &json!({}))?;
    if out.is_json() {
        out.json(&tested)?;
    } else if tested["delivered"] == true {
        out.line(format!("taken with {} in {} ms", text(&tested, "/status"), text(&tested, "/took_ms")))?;
    }
    if tested["delivered"] != true {
        bail!("not taken: {}", printable(&text(&tested, "/error")));
    }
    Ok(())
}
