//! `vestibule admin ca overdue`

use super::super::super::out::Out;
use super::super::super::pages::all;
use crate::client::{Client, Route};

/// List devices whose newest certificate ends soon, or has just ended
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin ca overdue
  vestibule admin ca overdue --within-days 60 --json | jq -r '.items[].device'")]
pub(in super::super::super) struct Args {
    /// Within so many days
    #[arg(long, value_name = "N", default_value_t = 30)]
    within_days: u32,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = Route::new("/v1/certificates").query("ending_within_days", &args.within_days.to_string());
    let page = all(client, &route, usize::MAX, "certificates")?;
    if out.is_json() { out.json(&page.into_json()) } else { out.table(&super::of_devices(&page.items)) }
}
