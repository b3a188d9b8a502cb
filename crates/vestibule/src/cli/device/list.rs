//! `vestibule device list`

use std::num::NonZeroUsize;

use super::super::out::Out;
use super::super::pages::all;
use super::super::words;
use crate::client::{Client, Route};

/// List devices
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device list
  vestibule device list --json | jq -r '.items[].serial'")]
pub(in super::super) struct Args {
    /// List at most so many
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Only at this place in the organisation, or below
    #[arg(long, value_name = "PATH")]
    org: Option<String>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = Route::new("/v1/devices").query_if("org", args.org.as_deref());
    let page = all(client, &route, args.limit.map_or(usize::MAX, NonZeroUsize::get), "devices")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&words::devices(&page.items)) }
}
