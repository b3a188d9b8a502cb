//! `vestibule event list`

use std::num::NonZeroUsize;

use jiff::Timestamp;
use serde_json::Value;

use super::super::moment::Moment;
use super::super::out::Out;
use super::super::pages::all;
use super::super::table::Table;
use super::super::words::{text, time};
use super::Filter;
use crate::client::{Client, Route};

/// List events, newest first
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule event list --limit 20
  vestibule event list --device SN-0001 --from 2026-01-31 --to 2026-02-01 --json
  vestibule event list --type opened --from 15m")]
pub(in super::super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// From this device time on: 2026-01-31T12:00:00Z, 2026-01-31, or 15m (ago)
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Up to, and not including, this device time
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// Received from this time on, by the platform's clock: what came late, or from a device whose clock is wrong
    #[arg(long, value_name = "TIME")]
    received_from: Option<Moment>,
    /// Received up to, and not including, this time
    #[arg(long, value_name = "TIME")]
    received_to: Option<Moment>,
    /// List at most so many
    #[arg(long, value_name = "N", default_value = "100")]
    limit: NonZeroUsize,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let time_of = |moment: Option<Moment>| moment.map(|moment| moment.rfc3339(now));
    let route = args
        .filter
        .apply(Route::new("/v1/events"))
        .query_if("from", time_of(args.from).as_deref())
        .query_if("to", time_of(args.to).as_deref())
        .query_if("received_from", time_of(args.received_from).as_deref())
        .query_if("received_to", time_of(args.received_to).as_deref());
    let page = all(client, &route, args.limit.get(), "events")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&table(&page.items)) }
}

fn table(events: &[Value]) -> Table {
    let mut table = Table::new(&["TIME", "DEVICE", "PLACE", "TYPE", "FLAGS", "DATA"]);
    for event in events {
        let flags: Vec<&str> =
            event.get("flags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        table.row([
            time(event, "/time"),
            text(event, "/device/serial"),
            format!("{}/{}/{}", text(event, "/resource"), text(event, "/index"), text(event, "/area")),
            text(event, "/name"),
            flags.join(","),
            text(event, "/data"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_become_rows() {
        let event = json!({
            "position": 1, "id": "e", "device": {"id": "d", "serial": "SN-1"}, "resource": "global", "index": "0", "area": "alarm",
            "name": "opened", "time": "2026-01-01T00:00:00Z", "received": "2026-01-01T00:00:00Z", "data": {"door": 1}, "flags": []
        });
        assert_eq!(
            table(&[event]).to_string(),
            "TIME                  DEVICE  PLACE           TYPE    FLAGS  DATA\n\
             2026-01-01T00:00:00Z  SN-1    global/0/alarm  opened  -      {\"door\":1}\n"
        );
    }
}
