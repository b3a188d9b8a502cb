//! `vestibule device list`

use std::num::NonZeroUsize;

use super::super::out::Out;
use super::super::pages::all;
use super::super::words;
use super::filter::Filter;
use crate::client::{Client, Route};

/// List devices
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule device list
  vestibule device list --presence offline --org /plant-1 --order -seen
  vestibule device list --label floor=2 --label door --text entrance
  vestibule device list --json | jq -r '.items[].serial'")]
pub(in super::super) struct Args {
    /// List at most so many
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// As the view of this name says; what is said beside it counts before that
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// In this order; with a `-` before it from its end [default: added, or that of the view]
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true,
        value_parser = ["added", "-added", "serial", "-serial", "name", "-name", "seen", "-seen"])]
    order: Option<String>,
    #[command(flatten)]
    filter: Filter,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = args.filter.added_to(Route::new("/v1/devices"));
    let route = route.query_if("view", args.view.as_deref()).query_if("order", args.order.as_deref());
    let page = all(client, &route, args.limit.map_or(usize::MAX, NonZeroUsize::get), "devices")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&words::devices(&page.items)) }
}
