//! `vestibule admin ca roll`

use serde_json::{Value, json};

use super::super::super::out::Out;
use super::Purpose;
use crate::client::Client;

/// Replace a root
///
/// The new root is in force at once. The older one stays trusted until it ends or is retired (`retire`), and vouches for the newer one of
/// servers, so that clients which know the older root alone go on. Devices of our SDK are told the new one when they come in (`overdue` lists
/// who is left); bring it to other clients (`export`) before the older one goes.
#[derive(clap::Args)]
#[command(after_help = "Example:
  vestibule admin ca roll servers")]
pub(in super::super::super) struct Args {
    /// Whose
    purpose: Purpose,
    /// Also if the oldest of four roots goes and devices need it
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = super::authority().segment("roll");
    let authority: Value = client.post(&route, &json!({ "purpose": args.purpose.as_str(), "force": args.force }))?;
    if out.is_json() { out.json(&authority) } else { out.table(&super::own(&authority)) }
}
