//! `vestibule admin ca retire`

use serde_json::{Value, json};

use super::super::super::out::Out;
use super::Purpose;
use crate::client::Client;

/// Take the older roots away, after a new one was made
///
/// Refused while devices know an older one only (`overdue`), or have certificates from below one: they would come in no more.
/// Refused, too, while devices are registered that have never been in: those whose firmware names an older root could not come in any more.
/// After a factory reset a device knows what its firmware names and nothing else: give it firmware with the newest root first.
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule admin ca retire servers")]
pub(in super::super::super) struct Args {
    /// Whose
    purpose: Purpose,
    /// Shut out the devices that need them
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = super::authority().segment("retire");
    let authority: Value = client.post(&route, &json!({ "purpose": args.purpose.as_str(), "force": args.force }))?;
    if out.is_json() { out.json(&authority) } else { out.table(&super::own(&authority)) }
}
