//! `[webhooks]`: programs elsewhere that are told what devices report.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vestibule_api::Network;

use super::text;

/// How webhooks are told, and how many there may be.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// Networks that may be delivered to although they are not public.
    #[serde(with = "text::networks")]
    pub allow: Vec<Network>,
    /// PEM file of authorities that receivers' certificates may be of, beside the public ones.
    #[serde(with = "text::file_or_none")]
    pub ca_file: Option<PathBuf>,
    /// Time for a receiver to answer.
    #[serde(with = "text::duration")]
    pub timeout: Duration,
    /// How long a record is tried before it becomes a dead letter.
    #[serde(with = "text::duration")]
    pub give_up_after: Duration,
    /// Webhooks there may be.
    pub max_webhooks: usize,
    /// Deliveries under way at once, over all webhooks.
    pub max_deliveries: usize,
    /// Dead letters that are kept of one webhook.
    pub max_dead_letters: usize,
}

impl Default for Webhooks {
    fn default() -> Self {
        Webhooks {
            allow: Vec::new(),
            ca_file: None,
            timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(24 * 60 * 60),
            max_webhooks: 100,
            max_deliveries: 128,
            max_dead_letters: 1_000,
        }
    }
}
