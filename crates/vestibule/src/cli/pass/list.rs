//! `vestibule pass list`

use std::num::NonZeroUsize;

use serde_json::Value;

use super::super::out::Out;
use super::super::pages::all;
use super::super::table::Table;
use super::super::words::{text, time};
use super::{Filter, part, shown, way};
use crate::client::{Client, Route};

/// List messages that passed, newest first
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule pass list --limit 20
  vestibule pass list --device SN-0001 --json | jq -r '.items[0].base64' | base64 -d

A message that is no text shows its first bytes in hexadecimal; --json has all of it.")]
pub(in super::super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// List at most so many
    #[arg(long, value_name = "N", default_value = "100")]
    limit: NonZeroUsize,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let page = all(client, &args.filter.apply(Route::new("/v1/pass")), args.limit.get(), "messages")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&table(&page.items)) }
}

fn table(messages: &[Value]) -> Table {
    let mut table = Table::new(&["TIME", "DEVICE", "WAY", "PART", "TYPE", "BYTES", "MESSAGE"]);
    for message in messages {
        table.row([
            time(message, "/time"),
            text(message, "/device/serial"),
            way(message),
            part(message),
            text(message, "/media_type"),
            text(message, "/bytes"),
            shown(message),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_become_rows() {
        let up = json!({
            "position": 2, "device": {"id": "d", "serial": "SN-1"}, "resource": "Meter", "index": "0", "area": "Raw",
            "name": "Frame", "time": "2026-01-01T00:00:00Z", "direction": "up", "media_type": "text/plain", "bytes": 2,
            "base64": "MTc="
        });
        let down = json!({
            "position": 1, "device": {"id": "d", "serial": "SN-1"}, "resource": "Meter", "index": "0", "area": "Raw",
            "name": "Ask", "time": "2026-01-01T00:00:00Z", "direction": "down", "media_type": "a/b", "bytes": 1,
            "base64": "AA==", "by": "administrator", "outcome": "delivered"
        });
        assert_eq!(
            table(&[up, down]).to_string(),
            "TIME                  DEVICE  WAY             PART               TYPE        BYTES  MESSAGE\n\
             2026-01-01T00:00:00Z  SN-1    up              Meter/0/Raw/Frame  text/plain  2      17\n\
             2026-01-01T00:00:00Z  SN-1    down delivered  Meter/0/Raw/Ask    a/b         1      0x00\n"
        );
    }
}
