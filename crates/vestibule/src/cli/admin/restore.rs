//! `vestibule admin restore`

use std::path::PathBuf;

use serde_json::json;
use vestibule_store::restore;

use super::super::out::Out;
use super::super::progress::Progress;
use super::super::settings::Settings;
use crate::up;

/// Bring a backup back into an empty data directory
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin restore /backup/2026-01-31 --data /var/lib/vestibule --key envelope.key

The key has to be the one that the platform had when the backup was taken: before or after `vestibule admin rekey`. Where the
configuration gives it from elsewhere than the data directory, it is taken from there and not written down.
Every file is checked against the backup's digests. The administrator's token is made anew when the platform starts. What
happened after the backup was taken is not known any more: devices that enrolled since have to enrol again, operations
that waited for their device end as unknown, and a request that is repeated with its idempotency key may be carried out
again.")]
pub(in super::super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// The backup
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// The key its secrets are sealed under; not needed when it is in the backup
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let config = args.settings.load()?;
    let mut progress = Progress::new("bytes");
    let mut bytes = 0;
    let elsewhere = if args.key.is_some() { None } else { config.store.key()? };
    let restored = restore(&args.from, &config.data, args.key.as_deref(), elsewhere.as_ref(), |file, more| {
        bytes += more;
        progress.says(|| format!("{bytes} bytes, {}", file.display()));
    });
    let backup = up::runtime()?.block_on(restored)?;
    drop(progress);
    let data = config.data.display();
    if out.is_json() {
        let taken = jiff::Timestamp::from_millisecond(backup.taken).map(|taken| taken.to_string()).ok();
        return out.json(&json!({
            "data": data.to_string(), "files": backup.files, "bytes": backup.bytes, "control": backup.control,
            "taken": taken,
        }));
    }
    out.line(format!("{data}: {} files, {} bytes", backup.files, backup.bytes))?;
    if !backup.control {
        out.line("The registry was not in the backup: it is in PostgreSQL.")?;
    }
    Ok(())
}
