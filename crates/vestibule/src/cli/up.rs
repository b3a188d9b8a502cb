//! `vestibule up`

use std::path::PathBuf;

use super::settings::Settings;
use crate::{logging, up};

/// Run the platform until it is told to stop
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vestibule up
  vestibule up -c /etc/vestibule.toml --data /var/lib/vestibule
  vestibule up --set http.listen=127.0.0.1:0 --ready-file ready.json

Without -c, ./vestibule.toml is read when it is there; nothing has to be set to start.
The environment overrides the file (VESTIBULE_HTTP__LISTEN=127.0.0.1:9000),
these flags override both.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Write addresses and paths as JSON to this file once everything listens
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// With `--json` the log is JSON whatever the configuration says: it is all this command prints.
pub(super) fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let mut config = args.settings.load()?;
    config.log.json |= json;
    logging::init(&config.log)?;
    up::run(config, args.ready_file)
}
