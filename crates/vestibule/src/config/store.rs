//! `[store]`: databases, retention and the write queue.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::capacity::Capacity;
use super::envelope_key::EnvelopeKey;
use super::text;

/// Where records are kept, for how long, and how many may wait.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// PostgreSQL address of the registry and of the journal's copy; `None` keeps everything in SQLite files in the data
    /// directory.
    #[serde(with = "text::store_url")]
    pub url: Option<StoreUrl>,
    /// A file with the key that secrets are sealed under; without one it is made in the data directory.
    #[serde(with = "text::file_or_none")]
    pub envelope_key_file: Option<PathBuf>,
    /// A program with its arguments that says the key; there is no shell.
    pub envelope_key_command: Vec<String>,
    /// The key itself. No key of the configuration, which anybody may read, but a variable of the environment.
    #[serde(skip)]
    pub envelope_key: Option<EnvelopeKey>,
    /// How long events are kept.
    #[serde(with = "text::duration")]
    pub retention: Duration,
    /// How long the audit is kept.
    #[serde(with = "text::duration")]
    pub audit_retention: Duration,
    /// Cap of the journal, absolute or as a share of the volume; at the cap devices are not acknowledged any more.
    #[serde(with = "text::capacity")]
    pub max_bytes: Capacity,
    /// Rows after which a new journal segment begins.
    pub segment_rows: u64,
    /// Records that may wait for their commit.
    pub queue_records: usize,
    /// Bytes of records that may wait for their commit.
    #[serde(with = "text::bytes")]
    pub queue_bytes: usize,
    /// Records in one commit at most.
    pub commit_records: usize,
    /// Longest time a record waits for companions before its commit.
    #[serde(with = "text::duration")]
    pub commit_delay: Duration,
    /// Committed records kept in memory for followers.
    pub tail_records: usize,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            url: None,
            envelope_key_file: None,
            envelope_key_command: Vec::new(),
            envelope_key: None,
            retention: Duration::from_secs(30 * 24 * 3_600),
            audit_retention: Duration::from_secs(400 * 24 * 3_600),
            max_bytes: Capacity::DEFAULT,
            segment_rows: 1_000_000,
            queue_records: 65_536,
            queue_bytes: 64 << 20,
            commit_records: 1_000,
            commit_delay: Duration::from_millis(2),
            tail_records: 4_096,
        }
    }
}

/// A database address. It usually holds a password, so that it has no `Debug` that prints it.
#[derive(Clone)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// Takes an address that begins with `postgres://` or `postgresql://`.
    pub fn new(url: &str) -> Option<StoreUrl> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
        (!rest.is_empty()).then(|| StoreUrl(url.to_owned()))
    }

    /// The address, for the driver only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreUrl(..)")
    }
}
