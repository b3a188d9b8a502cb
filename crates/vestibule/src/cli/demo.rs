//! `vestibule demo`

use std::path::PathBuf;

use super::Out;
use crate::demo;

/// Run the platform with a small simulated site
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule demo
  vestibule demo --check --json

With --check every flow is driven from separate processes over real sockets and read back over
HTTP; the command ends with 0 only if each was seen. With --json it prints
{\"checks\": [{\"name\", \"ok\", \"detail\", \"ms\"}], \"passed\", \"failed\"}.")]
pub(super) struct Args {
    /// Drive every flow, report, and end
    #[arg(long)]
    check: bool,
    /// Data directory; a temporary one when absent
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Port of the API and the console on this machine; 0 picks a free one [default: 8080, or 0 with --check]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let port = args.port.unwrap_or(if args.check { 0 } else { 8080 });
    demo::run(demo::Options { check: args.check, data: args.data, port }, out)
}
