//! `vestibule webhook list`

use serde_json::Value;

use super::super::out::Out;
use super::super::pages::Page;
use super::super::table::Table;
use super::super::words::{text, time};
use crate::client::{Client, Route};

/// List webhooks and how they are doing
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule webhook list
  vestibule webhook list --json | jq -r '.items[] | select(.failures > 0) | .url'")]
pub(in super::super) struct Args {}

pub(super) fn run(_: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let page: Page = client.get(&Route::new("/v1/webhooks"))?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&table(&page.items)) }
}

fn table(webhooks: &[Value]) -> Table {
    let mut table = Table::new(&["ID", "STATE", "BEHIND", "DEAD", "LAST SUCCESS", "NAME", "URL"]);
    for webhook in webhooks {
        let state = match (webhook["enabled"] == true, webhook["failures"].as_u64()) {
            (false, _) => "disabled",
            (true, Some(1..)) => "failing",
            (true, _) => "ok",
        };
        table.row([
            text(webhook, "/id"),
            state.to_owned(),
            format!("{} s", text(webhook, "/lag/seconds")),
            text(webhook, "/dead_letters"),
            time(webhook, "/last_success"),
            text(webhook, "/name"),
            text(webhook, "/url"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_webhook_is_a_row_with_its_state() {
        let webhook = |enabled: bool, failures: u32| {
            json!({
                "id": "w", "enabled": enabled, "failures": failures, "lag": {"seconds": 3}, "dead_letters": 2,
                "last_success": null, "name": null, "url": "https://hall.example/in",
            })
        };
        let shown = table(&[webhook(true, 0), webhook(true, 4), webhook(false, 4)]).to_string();
        let states: Vec<&str> = shown.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(states, ["ok", "failing", "disabled"]);
        assert!(shown.contains("3 s") && shown.contains("https://hall.example/in"), "{shown}");
    }
}
