//! `vestibule device get`

use serde_json::Value;

use super::super::out::Out;
use super::super::pages::all;
use super::super::table::Table;
use super::super::words::{text, time};
use crate::client::Client;

/// Show the attributes of a device, or one of them
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device get SN-0001
  vestibule device get SN-0001 Lamp/0/Light/Power")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// The attribute: resource/index/area/name; area/name means the device itself (global/0)
    attribute: Option<String>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = super::route_of(&args.device).segment("attributes");
    if let Some(attribute) = &args.attribute {
        let attribute: Value = client.get(&super::part_of(route, attribute)?)?;
        return if out.is_json() { out.json(&attribute) } else { out.table(&table(&[attribute])) };
    }
    let page = all(client, &route, usize::MAX, "attributes")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&table(&page.items)) }
}

/// Attributes as rows: what is reported, and what is desired where that is something else.
pub(super) fn table(attributes: &[Value]) -> Table {
    let mut table = Table::new(&["ATTRIBUTE", "REPORTED", "TIME", "DESIRED", "OUTCOME"]);
    for attribute in attributes {
        let levels = ["/resource", "/index", "/area", "/name"].map(|level| text(attribute, level));
        let member = |name: &str, of: &str| text(attribute, &format!("/{name}/{of}"));
        let reported_at =
            if attribute["reported"].is_null() { String::new() } else { time(attribute, "/reported/time") };
        table.row([
            levels.join("/"),
            member("reported", "value"),
            reported_at,
            member("desired", "value"),
            member("desired", "outcome"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_attribute_is_a_row() {
        let attribute = json!({
            "resource": "Lamp", "index": "0", "area": "Light", "name": "Power", "version": 2,
            "reported": {"value": false, "time": "2026-01-01T00:00:00Z"},
            "desired": {"value": true, "outcome": "pending"},
        });
        let shown = table(&[attribute]).to_string();
        let row: Vec<&str> = shown.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["Lamp/0/Light/Power", "false", "2026-01-01T00:00:00Z", "true", "pending"]);
    }
}
