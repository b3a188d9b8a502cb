//! `vestibule admin …`

mod backup;
mod ca;
mod doctor;
mod rekey;
mod restore;

use clap::Subcommand;

use super::out::Out;

/// Look after an installation
///
/// These commands work on the data directory itself, on the machine it is on; those of `ca` talk to a running platform.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin doctor --data /var/lib/vestibule
  vestibule admin backup /backup/2026-01-31 --data /var/lib/vestibule
  vestibule admin restore /backup/2026-01-31 --data /var/lib/vestibule --key envelope.key
  vestibule admin rekey --keep-old /safe/envelope.key.2026-01
  vestibule admin ca show")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Backup(backup::Args),
    Ca(ca::Args),
    Rekey(rekey::Args),
    Restore(restore::Args),
    Doctor(doctor::Args),
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    match args.command {
        Command::Backup(args) => backup::run(args, out),
        Command::Ca(args) => ca::run(args, out),
        Command::Rekey(args) => rekey::run(args, out),
        Command::Restore(args) => restore::run(args, out),
        Command::Doctor(args) => doctor::run(args, out),
    }
}
