//! `vestibule audit`

use std::num::NonZeroUsize;

use jiff::Timestamp;
use serde_json::Value;

use super::connect::Connect;
use super::moment::Moment;
use super::out::Out;
use super::pages::all;
use super::table::Table;
use super::words::{text, time};
use crate::client::Route;

/// Show who did what, newest first
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule audit --limit 20
  vestibule audit --device SN-0001 --from 1d
  vestibule audit --action operation.invoke --actor administrator --json")]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    /// Only of this device (id or serial)
    #[arg(long, value_name = "D")]
    device: Option<String>,
    /// Only what this one did; `device` stands for what devices did by themselves
    #[arg(long)]
    actor: Option<String>,
    /// Only this, such as device.disable
    #[arg(long)]
    action: Option<String>,
    /// From this time on: 2026-01-31T12:00:00Z, 2026-01-31, or 15m (ago)
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Up to, and not including, this time
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
    /// List at most so many
    #[arg(long, value_name = "N", default_value = "100")]
    limit: NonZeroUsize,
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let client = args.connect.client()?;
    let now = Timestamp::now();
    let time_of = |moment: Option<Moment>| moment.map(|moment| moment.rfc3339(now));
    let route = Route::new("/v1/audit")
        .query_if("device", args.device.as_deref())
        .query_if("actor", args.actor.as_deref())
        .query_if("action", args.action.as_deref())
        .query_if("from", time_of(args.from).as_deref())
        .query_if("to", time_of(args.to).as_deref());
    let page = all(&client, &route, args.limit.get(), "rows")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&table(&page.items)) }
}

fn table(rows: &[Value]) -> Table {
    let mut table = Table::new(&["TIME", "ACTOR", "ACTION", "DEVICE", "OK", "DETAIL"]);
    for row in rows {
        let ok = if row["ok"] == true { "yes" } else { "no" };
        let detail = match text(row, "/detail") {
            nothing if nothing == "{}" => String::new(),
            detail => detail,
        };
        table.row([
            time(row, "/time"),
            text(row, "/actor"),
            text(row, "/action"),
            text(row, "/device/serial"),
            ok.to_owned(),
            detail,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_done_is_a_row() {
        let row = |ok: bool, detail: Value, device: Value| {
            json!({
                "id": 1, "time": "2026-01-01T00:00:00Z", "actor": "administrator", "action": "device.disable",
                "device": device, "detail": detail, "ok": ok,
            })
        };
        let rows =
            [row(true, json!({}), json!({"id": "d", "serial": "SN-1"})), row(false, json!({"a": 1}), Value::Null)];
        assert_eq!(
            table(&rows).to_string(),
            "TIME                  ACTOR          ACTION          DEVICE  OK   DETAIL\n\
             2026-01-01T00:00:00Z  administrator  device.disable  SN-1    yes  -\n\
             2026-01-01T00:00:00Z  administrator  device.disable  -       no   {\"a\":1}\n"
        );
    }
}
