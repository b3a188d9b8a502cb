//! `vestibule device queue`

use serde_json::{Value, json};

use super::super::out::Out;
use super::super::pages::Page;
use super::super::table::Table;
use super::super::words::{printable, text, time};
use crate::client::Client;

/// Show which operations wait for a device, or take one back
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device queue SN-0001
  vestibule device queue SN-0001 --cancel 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10

An operation waits when it was asked for with `device invoke --queue` while the device was away.")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// Take back the operation with this id; it is not sent any more
    #[arg(long, value_name = "ID")]
    cancel: Option<String>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = super::route_of(&args.device).segment("queue");
    if let Some(id) = args.cancel {
        client.delete(&route.segment(&id))?;
        if out.is_json() {
            return out.json(&json!({ "cancelled": id }));
        }
        return out.line(format!("{} does not wait any more", printable(&id)));
    }
    let page: Page = client.get(&route)?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&table(&page.items)) }
}

fn table(waiting: &[Value]) -> Table {
    let mut table = Table::new(&["ID", "OPERATION", "INPUT", "ASKED", "EXPIRES", "BY"]);
    for operation in waiting {
        let levels = ["/resource", "/index", "/area", "/name"].map(|level| text(operation, level));
        table.row([
            text(operation, "/operation_id"),
            levels.join("/"),
            operation.get("input").map(Value::to_string).unwrap_or_default(),
            time(operation, "/created"),
            time(operation, "/expires"),
            text(operation, "/by"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_a_row() {
        let operation = json!({
            "operation_id": "o1", "resource": "Lamp", "index": "0", "area": "Light", "name": "Blink", "input": {"n": 3},
            "created": "2026-01-01T00:00:00Z", "expires": "2026-01-01T00:10:00Z", "by": "administrator",
        });
        let shown = table(&[operation]).to_string();
        let row: Vec<&str> = shown.lines().nth(1).expect("a row").split_whitespace().collect();
        let times = ["2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"];
        assert_eq!(row, ["o1", "Lamp/0/Light/Blink", "{\"n\":3}", times[0], times[1], "administrator"]);
    }
}
