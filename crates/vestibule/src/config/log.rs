//! `[log]`: what is said, and in which shape.

use serde::{Deserialize, Serialize};

use super::text;

/// Log output, always on standard error.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or a list such as `info,vestibule_access=debug`.
    #[serde(deserialize_with = "text::log_filter")]
    pub level: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".to_owned(), json: false }
    }
}
