//! `vestibule device strangers`

use serde_json::Value;

use super::super::out::Out;
use super::super::table::Table;
use super::super::words;
use crate::client::{Client, Route};

/// List serials that have asked to be let in and that nobody has registered
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule device strangers

Whoever installs a device finds it here; `vestibule device add` claims it, with its code. It asks again
by itself.")]
pub(in super::super) struct Args {}

pub(super) fn run(_: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let answer: Value = client.get(&Route::new("/v1/strangers"))?;
    if out.is_json() {
        return out.json(&answer);
    }
    let mut table = Table::new(&["SERIAL", "ADDRESS", "SUITE", "FIRST", "LAST", "TIMES"]);
    for stranger in answer["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
        table.row([
            words::text(stranger, "/serial"),
            words::text(stranger, "/address"),
            words::text(stranger, "/suite"),
            words::time(stranger, "/first"),
            words::time(stranger, "/last"),
            stranger["count"].to_string(),
        ]);
    }
    out.table(&table)
}
