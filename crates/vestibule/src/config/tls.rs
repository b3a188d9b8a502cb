//! `[tls]`: the certificates that listeners show.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::text;

/// The certificates of the listeners.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Names, hosts and addresses, of the platform's own certificate beside those of this machine.
    #[serde(with = "text::names")]
    pub names: Vec<String>,
    /// PEM file of a certificate of the operator's own, with its chain, for people and applications.
    #[serde(with = "text::file_or_none")]
    pub certificate_file: Option<PathBuf>,
    /// PEM file of its private key.
    #[serde(with = "text::file_or_none")]
    pub key_file: Option<PathBuf>,
}

impl Tls {
    /// The files of the operator's own certificate, when both are named.
    pub fn own(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.certificate_file.as_ref().zip(self.key_file.as_ref())
    }
}
