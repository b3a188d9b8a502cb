//! `vestibule admin ca …`

mod export;
mod issue;
mod overdue;
mod retire;
mod revoke;
mod roll;
mod show;

use clap::{Subcommand, ValueEnum};
use serde_json::Value;

use super::super::connect::Connect;
use super::super::out::Out;
use super::super::table::Table;
use super::super::words::{text, time};
use crate::client::Route;

/// The platform's certificates, and those of devices
///
/// These commands talk to a running platform, with the token of an administrator.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin ca show
  vestibule admin ca roll servers
  vestibule admin ca retire servers
  vestibule admin ca export servers > ca.pem
  vestibule admin ca issue SN0000001 --csr SN0000001.csr > SN0000001.pem
  vestibule admin ca revoke SN0000001
  vestibule admin ca overdue --within-days 60")]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Show(show::Args),
    Roll(roll::Args),
    Retire(retire::Args),
    Export(export::Args),
    Issue(issue::Args),
    Revoke(revoke::Args),
    Overdue(overdue::Args),
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let client = &args.connect.client()?;
    match args.command {
        Command::Show(args) => show::run(args, client, out),
        Command::Roll(args) => roll::run(args, client, out),
        Command::Retire(args) => retire::run(args, client, out),
        Command::Export(args) => export::run(args, client, out),
        Command::Issue(args) => issue::run(args, client, out),
        Command::Revoke(args) => revoke::run(args, client, out),
        Command::Overdue(args) => overdue::run(args, client, out),
    }
}

/// Whom certificates are for.
#[derive(Clone, Copy, ValueEnum)]
enum Purpose {
    /// The platform's own listeners
    Servers,
    /// Devices
    Devices,
}

impl Purpose {
    /// Its name in the API.
    fn as_str(self) -> &'static str {
        match self {
            Purpose::Servers => "servers",
            Purpose::Devices => "devices",
        }
    }
}

/// The platform's own certificates.
fn authority() -> Route {
    Route::new("/v1/authority")
}

/// The certificates of a device.
fn of_device(serial: &str) -> Route {
    Route::new("/v1/devices").segment(serial).segment("certificates")
}

/// The platform's own certificates for people.
fn own(authority: &Value) -> Table {
    let mut table = Table::new(&["KIND", "ENDS", "SUBJECT", "ISSUER", "SERIAL"]);
    let all = std::iter::once(&authority["server"]).chain(authority["authorities"].as_array().into_iter().flatten());
    for one in all {
        table.row([
            text(one, "/kind"),
            time(one, "/not_after"),
            text(one, "/subject"),
            text(one, "/issuer"),
            text(one, "/serial"),
        ]);
    }
    table
}

/// Devices that do not know the newest root, for people.
fn of_overdue(devices: &[Value]) -> Table {
    let mut table = Table::new(&["DEVICE", "KNOWS ROOT", "SINCE"]);
    for one in devices {
        table.row([text(one, "/serial"), text(one, "/root"), time(one, "/since")]);
    }
    table
}

/// Certificates of devices for people.
fn of_devices(certificates: &[Value]) -> Table {
    let mut table = Table::new(&["DEVICE", "ENDS", "REVOKED", "SERIAL"]);
    for one in certificates {
        table.row([text(one, "/device"), time(one, "/ends"), time(one, "/revoked"), text(one, "/serial")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_certificate_is_a_row() {
        let server = json!({"kind": "server", "not_after": "2026-04-01T00:00:00.000Z", "subject": "V", "issuer": "I", "serial": "4a"});
        let shown = own(&json!({"server": server, "authorities": []})).to_string();
        assert!(shown.ends_with("server  2026-04-01T00:00:00.000Z  V        I       4a\n"), "{shown}");
        let device = json!({"device": "SN1", "ends": "2026-04-01T00:00:00.000Z", "revoked": null, "serial": "4b"});
        let shown = of_devices(&[device]).to_string();
        assert!(shown.contains("SN1") && shown.contains(" - "), "{shown}");
    }
}
