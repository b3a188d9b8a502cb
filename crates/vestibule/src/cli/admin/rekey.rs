//! `vestibule admin rekey`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;
use vestibule_store::{EnvelopeKey, NewKey, RekeyStep, rekey};
use zeroize::Zeroizing;

use super::super::out::Out;
use super::super::progress::Progress;
use super::super::settings::Settings;
use crate::config::KeyFrom;
use crate::running::store_config;
use crate::up;

/// Who did it, in the audit: somebody at the machine itself.
const CONSOLE: &str = "console";

/// Seal every secret under another envelope key; the platform is stopped for it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule admin rekey --data /var/lib/vestibule --keep-old /safe/envelope.key.2026-01
  vestibule admin rekey -c /etc/vestibule.toml --new-key /etc/vestibule/envelope.key.next
  kms-decrypt next.enc | vestibule admin rekey --new-key -

Without --new-key a new key is made in the data directory and takes the place of keys/envelope.key. A key that is given with --new-key
stays where it is: store.envelope_key_file, store.envelope_key_command or VESTIBULE_ENVELOPE_KEY has to give it from then on.
It is all or nothing, also when the power fails: the database is under the old key or under the new one, and says which. A
backup that was taken before needs the old key for ever: --keep-old writes it down, else the one in the data directory is gone.")]
pub(in super::super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// File with the new key, or - for the standard input: 64 hexadecimal digits, or base64 of 32 bytes
    #[arg(long, value_name = "FILE", conflicts_with = "in_data_directory")]
    new_key: Option<PathBuf>,
    /// Make the new key in the data directory although the present one is from elsewhere
    #[arg(long)]
    in_data_directory: bool,
    /// File to write the present key to; one that exists has to hold that key already
    #[arg(long, value_name = "FILE")]
    keep_old: Option<PathBuf>,
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let config = args.settings.load()?;
    let from = config.store.key_from();
    let (new, is_given) = match &args.new_key {
        Some(path) if path == Path::new("-") => (NewKey::Given(from_input()?), true),
        Some(path) => (NewKey::Given(EnvelopeKey::read(path)?), true),
        None if from != KeyFrom::Data && !args.in_data_directory => bail!(
            "the present key is from elsewhere ({}), where no new one can be made: name it with --new-key, or have it made in the \
             data directory with --in-data-directory",
            from.as_str()
        ),
        None => (NewKey::Kept, false),
    };
    let mut progress = Progress::new("values");
    let told = |step| {
        progress.says(|| match step {
            RekeyStep::Sealed(values) => format!("{values} values"),
            _ => "the keys".to_owned(),
        });
    };
    let store = store_config(&config)?;
    let done = up::runtime()?.block_on(rekey(&store, new, args.keep_old.as_deref(), CONSOLE, told))?;
    drop(progress);
    if out.is_json() {
        let kept = if is_given { "elsewhere" } else { "data" };
        return out.json(&json!({"from": done.from, "to": done.to, "values": done.values, "key": kept}));
    }
    out.line(format!(
        "{} secrets are sealed under the key {}, none under {} any more.",
        done.values, done.to, done.from
    ))?;
    let file = config.data.join("keys/envelope.key");
    if is_given {
        out.line("From now on the platform needs this key: store.envelope_key_file, store.envelope_key_command or VESTIBULE_ENVELOPE_KEY gives it.")?;
        if from == KeyFrom::Data {
            out.line(format!("The old one still is in {}: move it away.", file.display()))?;
        }
    } else if from != KeyFrom::Data {
        out.line(format!("It is in {}: take the old one out of the configuration.", file.display()))?;
    }
    match &args.keep_old {
        Some(path) => out.line(format!("Backups of before need the old key: it is in {}.", path.display())),
        None if !is_given && from == KeyFrom::Data => {
            out.line("The old key is gone from here: what was backed up before opens with a copy of it only.")
        }
        None => out.line("Backups of before need the old key."),
    }
}

fn from_input() -> anyhow::Result<EnvelopeKey> {
    let mut written = Zeroizing::new(Vec::with_capacity(1_025));
    std::io::stdin().lock().take(1_024).read_to_end(&mut written).context("the standard input cannot be read")?;
    Ok(EnvelopeKey::parse(&written, "the standard input")?)
}
