//! Limits of the HTTP server.

use std::time::Duration;

use crate::hooks::WebhookConfig;
use crate::network::Network;

/// Limits and times of the HTTP server, each from the configuration file.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Most connections at once; more are answered 503 and closed.
    pub max_connections: usize,
    /// Most event streams at once; more are answered 503.
    pub max_streams: usize,
    /// Longest request body in bytes; a longer one is answered 413.
    pub max_body_bytes: usize,
    /// Longest request head (request line and headers) in bytes; a longer one is answered 431.
    pub max_head_bytes: usize,
    /// Time for a complete request head, and so for an idle connection between two requests.
    pub head_timeout: Duration,
    /// Time for a complete request body.
    pub body_timeout: Duration,
    /// Time for the answer to begin.
    pub answer_timeout: Duration,
    /// Time in which a client has to take at least some of what is being sent to it.
    pub write_timeout: Duration,
    /// How often a quiet event stream says that it is alive.
    pub keep_alive: Duration,
    /// Time for connections to end after shutdown began; then they are cut.
    pub shutdown_timeout: Duration,
    /// Host names (without port) this server answers for; empty means any. Others are answered 421.
    pub allowed_hosts: Vec<String>,
    /// Proxies that are believed when they say whose request they pass on (`X-Forwarded-For`, `Forwarded`).
    pub trusted_proxies: Vec<Network>,
    /// How webhooks are told.
    pub webhooks: WebhookConfig,
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig {
            max_connections: 1_024,
            max_streams: 256,
            max_body_bytes: 1024 * 1024,
            max_head_bytes: 32 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            shutdown_timeout: Duration::from_secs(5),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            webhooks: WebhookConfig::default(),
        }
    }
}
