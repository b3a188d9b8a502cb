//! `vestibule device history`

use std::num::NonZeroUsize;

use jiff::Timestamp;
use serde_json::Value;

use super::super::moment::Moment;
use super::super::out::Out;
use super::super::pages::all;
use super::super::table::Table;
use super::super::words::{text, time};
use crate::client::Client;

/// Show what an attribute was reported as, newest first
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device history SN-0001 Lamp/0/Light/Power --from 1d
  vestibule device history SN-0001 Info/Temperature --limit 20 --json")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// The attribute: resource/index/area/name; area/name means the device itself (global/0)
    attribute: String,
    /// From this device time on: 2026-01-31T12:00:00Z, 2026-01-31, or 15m (ago)
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Up to, and not including, this device time
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value = "100")]
    limit: NonZeroUsize,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let route = super::part_of(super::route_of(&args.device).segment("attributes"), &args.attribute)?
        .segment("history")
        .query_if("from", args.from.map(|moment| moment.rfc3339(now)).as_deref())
        .query_if("to", args.to.map(|moment| moment.rfc3339(now)).as_deref());
    let page = all(client, &route, args.limit.get(), "reports")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&table(&page.items)) }
}

fn table(reports: &[Value]) -> Table {
    let mut table = Table::new(&["TIME", "VALUE", "FLAGS"]);
    for report in reports {
        let flags: Vec<&str> =
            report.get("flags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        table.row([time(report, "/time"), text(report, "/value"), flags.join(",")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_a_row() {
        let report = json!({"time": "2026-01-01T00:00:00Z", "value": {"on": true}, "flags": ["no_time"]});
        let shown = table(&[report]).to_string();
        let row: Vec<&str> = shown.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["2026-01-01T00:00:00Z", "{\"on\":true}", "no_time"]);
    }
}
