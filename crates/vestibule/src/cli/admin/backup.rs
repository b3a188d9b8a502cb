//! `vestibule admin backup`

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::json;
use vestibule_store::{BackupPlan, back_up};

use super::super::out::Out;
use super::super::progress::Progress;
use super::super::settings::Settings;
use crate::config::KeyFrom;
use crate::up;

/// Copy the data directory, also while the platform runs
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin backup /backup/2026-01-31 --data /var/lib/vestibule
  vestibule admin backup /backup/2026-01-31 --with-key

The copy is what a crash would leave: the registry first, then the journal, which knows all that it knows. The key that opens its secrets (keys/envelope.key) is not in it unless --with-key is given:
keep it in another place, once; `vestibule admin restore` asks for it. A key that is not in the data directory (store.envelope_key_file and the like) is
never in it. After `vestibule admin rekey` a backup that is older needs the key of before. `sha256sum -c SHA256SUMS` checks a backup.
A registry in PostgreSQL (store.url) is not in it: pg_dump copies that one; the journal is.")]
pub(in super::super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Directory to make
    #[arg(value_name = "DIR")]
    into: PathBuf,
    /// Put the key beside what is sealed under it
    #[arg(long)]
    with_key: bool,
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let config = args.settings.load()?;
    let plan = BackupPlan {
        data: &config.data,
        into: &args.into,
        control_elsewhere: config.store.url.is_some(),
        with_key: args.with_key,
        now: Timestamp::now().as_millisecond(),
    };
    let mut progress = Progress::new("bytes");
    let mut bytes = 0;
    let copied = back_up(&plan, |file, more| {
        bytes += more;
        progress.says(|| format!("{bytes} bytes, {}", file.display()));
    });
    let backup = up::runtime()?.block_on(copied)?;
    drop(progress);
    let into = args.into.display();
    if out.is_json() {
        let (files, bytes, control, key) = (backup.files, backup.bytes, backup.control, backup.key);
        return out.json(&json!({
            "backup": into.to_string(), "files": files, "bytes": bytes, "control": control, "key": key,
        }));
    }
    out.line(format!("{into}: {} files, {} bytes", backup.files, backup.bytes))?;
    if !backup.control {
        out.line("The registry is in PostgreSQL and not in this backup: copy it there, with pg_dump.")?;
    }
    if !backup.key && backup.control {
        match config.store.key_from() {
            KeyFrom::Data => {
                let key = config.data.join("keys/envelope.key");
                out.line(format!("The key is not in it: keep {} in another place.", key.display()))?;
            }
            from => out.line(format!("The key is not in it: it is from elsewhere ({}).", from.as_str()))?,
        }
    }
    Ok(())
}
