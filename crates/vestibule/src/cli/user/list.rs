//! `vestibule user list`

use std::num::NonZeroUsize;

use serde_json::Value;

use super::super::out::Out;
use super::super::pages::all;
use super::super::table::Table;
use super::super::words::{text, time};
use crate::client::{Client, Route};

/// List users
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule user list
  vestibule user list --json | jq -r '.items[].name'")]
pub(in super::super) struct Args {
    /// List at most so many
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let page = all(client, &Route::new("/v1/users"), args.limit.map_or(usize::MAX, NonZeroUsize::get), "users")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&table(&page.items)) }
}

fn table(users: &[Value]) -> Table {
    let mut table = Table::new(&["NAME", "ROLE", "SUBTREE", "LAST USED", "CREATED BY", "ID"]);
    for user in users {
        table.row([
            text(user, "/name"),
            text(user, "/role"),
            text(user, "/subtree"),
            time(user, "/last_used"),
            text(user, "/created_by"),
            text(user, "/id"),
        ]);
    }
    table
}
