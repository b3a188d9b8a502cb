//! `vestibule device get`

use jiff::Timestamp;
use serde_json::Value;

use super::super::moment::Moment;
use super::super::out::Out;
use super::super::pages::all;
use super::super::table::Table;
use super::super::words::{text, time};
use crate::client::Client;

/// Show the attributes of a device, or one of them
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device get SN-0001
  vestibule device get SN-0001 Lamp/0/Light/Power
  vestibule device get SN-0001 --at 2026-01-31T12:00:00Z")]
pub(in super::super) struct Args {
    /// Id or serial of the device
    device: String,
    /// The attribute: resource/index/area/name; area/name means the device itself (global/0)
    attribute: Option<String>,
    /// As they were at this time of receipt: 2026-01-31T12:00:00Z, 2026-01-31, or 15m (ago)
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = super::route_of(&args.device).segment("attributes");
    let at = args.at.map(|moment| moment.rfc3339(Timestamp::now()));
    if let Some(attribute) = &args.attribute {
        let route = super::part_of(route, attribute)?.query_if("at", at.as_deref());
        let attribute: Value = client.get(&route)?;
        if out.is_json() {
            return out.json(&attribute);
        }
        let past = attribute.get("past").cloned();
        out.table(&table(&[attribute]))?;
        return past.map_or(Ok(()), |past| out.line(known(&past)));
    }
    let page = all(client, &route.query_if("at", at.as_deref()), usize::MAX, "attributes")?;
    if out.is_json() {
        return out.json(&page.into_json());
    }
    out.table(&table(&page.items))?;
    page.past.map_or(Ok(()), |past| out.line(known(&past)))
}

/// Which moment was shown, and what cannot be known of it.
fn known(past: &Value) -> String {
    let (at, from) = (time(past, "/at"), time(past, "/known_from"));
    match from.as_str() {
        "" => format!("as of {at}; no reports are kept, so that only what was not reported since is known"),
        from => format!("as of {at}; of what was reported since, reports are known from {from} on"),
    }
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
    fn a_moment_says_from_when_on_it_is_known() {
        let past = json!({"at": "2026-01-02T00:00:00Z", "known_from": "2026-01-01T00:00:00Z"});
        assert!(known(&past).ends_with("reports are known from 2026-01-01T00:00:00Z on"));
        assert!(known(&json!({"at": "2026-01-02T00:00:00Z", "known_from": null})).contains("no reports are kept"));
    }

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
