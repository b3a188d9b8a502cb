//! Limits of the platform.

use std::time::Duration;

/// Limits the platform enforces, each from the configuration file.
#[derive(Debug, Clone)]
pub struct PlatformConfig {
    /// Most devices the registry takes.
    pub max_devices: usize,
    /// Longest JSON text of one report, in bytes.
    pub max_report_bytes: usize,
    /// Requests a second that each token or user may make, ten times as many at once; 0: as many as they like.
    pub requests_per_second: u32,
    /// Records that one page of the past looks at in vain, about: then it ends early, with a cursor.
    pub max_look: u64,
    /// How long the audit is kept.
    pub audit_retention: Duration,
    /// Most webhooks.
    pub max_webhooks: usize,
    /// Most dead letters of one webhook.
    pub max_dead_letters: usize,
    /// Names, hosts and addresses, of the platform's own certificate beside those of this machine.
    pub server_names: Vec<String>,
}

impl Default for PlatformConfig {
    fn default() -> Self {
        PlatformConfig {
            max_devices: 100_000,
            max_report_bytes: 64 * 1024,
            requests_per_second: 100,
            max_look: 1_000_000,
            audit_retention: Duration::from_secs(400 * 24 * 3600),
            max_webhooks: 100,
            max_dead_letters: 1_000,
            server_names: Vec::new(),
        }
    }
}
