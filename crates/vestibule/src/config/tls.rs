//! `[tls]`: the certificates that listeners show.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::media::Secret;
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
    /// A certificate from an ACME server.
    pub acme: Acme,
}

/// A certificate for people and applications from an ACME server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Acme {
    /// Where the server's directory is; none: no certificate is ordered.
    #[serde(with = "text::text_or_none")]
    pub directory: Option<String>,
    /// The hosts that the certificate is for.
    #[serde(with = "text::names")]
    pub names: Vec<String>,
    /// Whether the operator agrees to the terms of the server.
    pub accept_terms: bool,
    /// Whom the server may turn to.
    #[serde(with = "text::text_or_none")]
    pub contact: Option<String>,
    /// Where the server looks for what proves the names.
    #[serde(with = "text::listen")]
    pub challenge_listen: SocketAddr,
    /// PEM file of the roots by which the server is trusted.
    #[serde(with = "text::file_or_none")]
    pub ca_file: Option<PathBuf>,
    /// The name of the key that binds the account to one elsewhere.
    #[serde(with = "text::text_or_none")]
    pub eab_key_id: Option<String>,
    /// That key, base64url.
    #[serde(with = "text::secret_or_none")]
    pub eab_key: Option<Secret>,
}

impl Default for Acme {
    fn default() -> Self {
        Acme {
            directory: None,
            names: Vec::new(),
            accept_terms: false,
            contact: None,
            challenge_listen: SocketAddr::from(([0, 0, 0, 0], 80)),
            ca_file: None,
            eab_key_id: None,
            eab_key: None,
        }
    }
}

impl Tls {
    /// The files of the operator's own certificate, when both are named.
    pub fn own(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.certificate_file.as_ref().zip(self.key_file.as_ref())
    }
}
