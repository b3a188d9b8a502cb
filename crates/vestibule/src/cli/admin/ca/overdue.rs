//! `vestibule admin ca overdue`

use super::super::super::out::Out;
use super::super::super::pages::all;
use crate::client::{Client, Route};

/// List devices whose newest certificate ends soon, or has just ended, and those that do not know the newest root of servers
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin ca overdue
  vestibule admin ca overdue --within-days 60 --json | jq -r '.items[].device'
  vestibule admin ca overdue --json | jq -r '.roots.items[].serial'")]
pub(in super::super::super) struct Args {
    /// Certificates that end within so many days
    #[arg(long, value_name = "N", default_value_t = 30)]
    within_days: u32,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = Route::new("/v1/certificates").query("ending_within_days", &args.within_days.to_string());
    let ending = all(client, &route, usize::MAX, "certificates")?;
    let roots = all(client, &super::authority().segment("overdue"), usize::MAX, "devices")?;
    if out.is_json() {
        let mut page = ending.into_json();
        page["roots"] = roots.into_json();
        return out.json(&page);
    }
    out.table(&super::of_devices(&ending.items))?;
    out.line(format!("\ndevices that do not know the newest root of servers: {}", roots.items.len()))?;
    if roots.items.is_empty() { Ok(()) } else { out.table(&super::of_overdue(&roots.items)) }
}
