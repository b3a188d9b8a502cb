//! `[media]`: pictures and files of devices.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::capacity::Capacity;
use super::text;

/// What is kept of pictures and files, for how long and how much of it (media 13).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// What the addresses begin with that devices send to and people fetch from; `auto` is the HTTP listener's.
    pub url: String,
    /// How long pictures and files are kept.
    #[serde(with = "text::duration")]
    pub retention: Duration,
    /// Most bytes of all devices together, absolute or as a share of the volume.
    #[serde(with = "text::capacity")]
    pub max_bytes: Capacity,
    /// Most bytes of one device.
    #[serde(with = "text::bytes")]
    pub device_max_bytes: usize,
    /// Largest picture, in bytes.
    #[serde(with = "text::bytes")]
    pub picture_max_bytes: usize,
    /// Largest picture, in pixels.
    pub picture_max_pixels: u64,
    /// Largest file, in bytes.
    #[serde(with = "text::bytes")]
    pub file_max_bytes: usize,
    /// Uploads received at once.
    pub max_uploads: usize,
    /// How long an upload may take from its beginning, with all its interruptions.
    #[serde(with = "text::duration")]
    pub upload_ttl: Duration,
}

impl Default for Media {
    fn default() -> Self {
        Media {
            url: "auto".to_owned(),
            retention: Duration::from_secs(30 * 24 * 3_600),
            max_bytes: Capacity::Percent(10),
            device_max_bytes: 4 << 30,
            picture_max_bytes: 20 << 20,
            picture_max_pixels: 64_000_000,
            file_max_bytes: 2 << 30,
            max_uploads: 64,
            upload_ttl: Duration::from_secs(24 * 3_600),
        }
    }
}

impl Media {
    /// Whether the address is one that paths can be put behind.
    pub(super) fn has_url(&self) -> bool {
        let host = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"));
        self.url == "auto"
            || host.is_some_and(|host| {
                !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
            })
    }
}
