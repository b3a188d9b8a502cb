//! `vestibule webhook replay`

use serde_json::{Value, json};

use super::super::out::Out;
use super::super::words::text;
use crate::client::Client;

/// Have a webhook told once more what it could not be told
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule webhook replay 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10
  vestibule webhook replay 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10 --position 17 --position 23

Letters that are delivered are gone; the others can be told once more again.")]
pub(in super::super) struct Args {
    /// Id of the webhook
    id: String,
    /// Only the letter at this position of the journal; several times for several
    #[arg(long = "position", value_name = "POSITION")]
    positions: Vec<u64>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let body = if args.positions.is_empty() { json!({}) } else { json!({ "positions": args.positions }) };
    let answer: Value = client.post(&super::route_of(&args.id).segment("dead-letters").segment("replay"), &body)?;
    if out.is_json() {
        return out.json(&answer);
    }
    out.line(format!("{} dead letters are told once more", text(&answer, "/replayed")))
}
