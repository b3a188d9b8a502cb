//! What devices believe of the platform over TLS.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use vestibule_tls::rustls::ClientConfig;
use vestibule_tls::rustls::time_provider::DefaultTimeProvider;
use vestibule_tls::{Anchor, ClientTls};

/// The name in each certificate of the platform's own.
pub const LBS_NAME: &str = "localhost";

/// Configurations of TLS, shared by all devices.
#[derive(Debug, Clone)]
pub struct Trust {
    /// For the LBS.
    pub lbs: Arc<ClientConfig>,
    /// For the DAS.
    pub das: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts the roots in this file, up to two.
    ///
    /// # Errors
    /// When it holds none.
    pub fn of(file: &Path) -> anyhow::Result<Trust> {
        let text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let roots = vestibule_tls::read_pem(&text).with_context(|| file.display().to_string())?;
        Trust::in_anchors(roots.into_iter().take(2).map(Anchor::Ca))
    }

    /// Trusts these.
    ///
    /// # Errors
    /// When they are none, or more than two.
    pub fn in_anchors(anchors: impl IntoIterator<Item = Anchor>) -> anyhow::Result<Trust> {
        let tls = ClientTls::new(anchors, Arc::new(DefaultTimeProvider)).context("the devices trust nobody")?;
        Ok(Trust { lbs: tls.osap_lbs(), das: tls.osap_das() })
    }
}
