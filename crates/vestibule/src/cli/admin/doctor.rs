//! `vestibule admin doctor`

use anyhow::bail;
use serde_json::json;

use super::super::out::Out;
use super::super::progress::Progress;
use super::super::settings::Settings;
use crate::doctor::{Verdict, examine};
use crate::up;

/// See whether this machine and the data directory are fit for the platform
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin doctor
  vestibule admin doctor -c /etc/vestibule.toml --data /var/lib/vestibule --deep

Run it as the user the platform runs as. Exit status 1 when something is wrong; what is only doubtful is said.")]
pub(in super::super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Read the databases to the last byte: every page of the journal against its seal, every row
    /// against its checksum. Safe while the platform runs
    #[arg(long)]
    deep: bool,
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let config = args.settings.load()?;
    let mut progress = Progress::new("files");
    let findings = up::runtime()?.block_on(examine(&config, args.deep, &mut |words| progress.says(|| words)));
    drop(progress);
    let wrong = findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
    if out.is_json() {
        let findings: Vec<_> = findings
            .iter()
            .map(|found| {
                json!({
                    "part": found.part, "verdict": found.verdict.as_str(), "words": found.words, "cure": found.cure,
                })
            })
            .collect();
        out.json(&json!({"ok": wrong == 0, "findings": findings}))?;
    } else {
        for found in &findings {
            out.line(format!("{:<8}  {:<14}  {}", found.verdict.as_str(), found.part, found.words))?;
            if let Some(cure) = &found.cure {
                out.line(format!("{:26}→ {cure}", ""))?;
            }
        }
    }
    match wrong {
        0 => Ok(()),
        1 => bail!("1 thing is wrong"),
        many => bail!("{many} things are wrong"),
    }
}
