//! `vestibule webhook dead-letters`

use std::num::NonZeroUsize;

use serde_json::Value;

use super::super::out::Out;
use super::super::pages::all;
use super::super::table::Table;
use super::super::words::{text, time};
use crate::client::Client;

/// List what a webhook could not be told, newest first
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule webhook dead-letters 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10 --limit 20")]
pub(in super::super) struct Args {
    /// Id of the webhook
    id: String,
    /// List at most so many
    #[arg(long, value_name = "N", default_value = "100")]
    limit: NonZeroUsize,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let page = all(client, &super::route_of(&args.id).segment("dead-letters"), args.limit.get(), "letters")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&table(&page.items)) }
}

fn table(letters: &[Value]) -> Table {
    let mut table = Table::new(&["POSITION", "DEVICE", "KIND", "GIVEN UP", "TRIES", "STATUS", "REPLAY", "REASON"]);
    for letter in letters {
        let replay = if letter["replay"] == true { "waits" } else { "" };
        table.row([
            text(letter, "/position"),
            text(letter, "/device/serial"),
            text(letter, "/kind"),
            time(letter, "/died"),
            text(letter, "/attempts"),
            text(letter, "/status"),
            replay.to_owned(),
            text(letter, "/reason"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_letter_is_a_row() {
        let letter = json!({
            "position": 7, "device": {"id": "d", "serial": "SN-1"}, "kind": "event", "died": "2026-01-01T00:00:00Z",
            "attempts": 3, "status": null, "reason": "no answer", "replay": true,
        });
        let shown = table(&[letter]).to_string();
        let row: Vec<&str> = shown.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["7", "SN-1", "event", "2026-01-01T00:00:00Z", "3", "-", "waits", "no", "answer"]);
    }
}
