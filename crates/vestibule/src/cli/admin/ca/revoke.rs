//! `vestibule admin ca revoke`

use serde_json::{Value, json};

use super::super::super::out::Out;
use super::super::super::words::printable;
use crate::client::Client;

/// Revoke certificates of a device, and end its connection
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin ca revoke SN0000001
  vestibule admin ca revoke SN0000001 --serial 4a5b6c")]
pub(in super::super::super) struct Args {
    /// Serial or id of the device
    device: String,
    /// The certificate with this serial number only
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
}

pub(super) fn run(args: Args, client: &Client, out: &mut Out<'_>) -> anyhow::Result<()> {
    let route = super::of_device(&args.device).segment("revoke");
    let revoked: Value = client.post(&route, &json!({ "serial": args.serial }))?;
    if out.is_json() {
        return out.json(&revoked);
    }
    out.line(format!("{} certificates of {} are revoked", revoked["revoked"], printable(&args.device)))
}
