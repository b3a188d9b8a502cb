//! `vestibule token list`

use std::num::NonZeroUsize;

use serde_json::Value;

use super::super::out::Out;
use super::super::pages::all;
use super::super::table::Table;
use super::super::words::{text, time};
use crate::client::{Client, Route};

/// List tokens, without their secrets
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule token list
  vestibule token list --json | jq -r '.items[] | select(.last_used == null) | .name'")]
pub(in super::super) struct Args {
    /// List at most so many
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let page = all(client, &Route::new("/v1/tokens"), args.limit.map_or(usize::MAX, NonZeroUsize::get), "tokens")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&table(&page.items)) }
}

fn table(tokens: &[Value]) -> Table {
    let mut table = Table::new(&["NAME", "ROLE", "SUBTREE", "EXPIRES", "LAST USED", "CREATED BY", "ID"]);
    for token in tokens {
        table.row([
            text(token, "/name"),
            text(token, "/role"),
            text(token, "/subtree"),
            time(token, "/expires"),
            time(token, "/last_used"),
            text(token, "/created_by"),
            text(token, "/id"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_a_row() {
        let token = json!({
            "id": "i", "name": "ci", "role": "viewer", "subtree": "/a", "created": "c", "created_by": "administrator",
            "expires": null, "last_used": "2026-01-01T00:00:00.000Z"
        });
        assert_eq!(
            table(&[token]).to_string(),
            "NAME  ROLE    SUBTREE  EXPIRES  LAST USED                 CREATED BY     ID\n\
             ci    viewer  /a       -        2026-01-01T00:00:00.000Z  administrator  i\n"
        );
    }
}
