//! Which configuration a command works with: that of `vestibule up`.

use std::path::PathBuf;

use crate::config::{self, Config, ConfigFile, Problems, Sources};

/// Flags of the commands that read the configuration.
#[derive(clap::Args)]
pub(super) struct Settings {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Set one key of the configuration; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Settings {
    /// The configuration: the file, the environment over it, these flags over both.
    pub(super) fn load(self) -> Result<Config, Problems> {
        let Sources { file, .. } = Sources::default();
        let mut sources = Sources {
            file: self.config.map_or(file, ConfigFile::Required),
            environment: std::env::vars_os().collect(),
            set: self.set,
            data: self.data,
        };
        let config = config::load(&sources);
        sources.wipe();
        config
    }
}
