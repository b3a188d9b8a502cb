//! Limits of pictures and files.

use std::path::PathBuf;
use std::time::Duration;

use crate::s3::S3Config;

/// Limits and places, each from the configuration file (media 13).
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// Directory of what is under way, and of what is here unless that is in a bucket.
    pub dir: PathBuf,
    /// The bucket of what is here; none: the directory.
    pub s3: Option<S3Config>,
    /// What the addresses of tickets begin with, for everybody: scheme, host and port, without a slash at the end. None: they
    /// follow where whoever asks came in.
    pub url: Option<String>,
    /// The same for who came in without TLS.
    pub plain_url: String,
    /// The same for devices that came in over TLS.
    pub device_url: String,
    /// How long pictures and files are kept.
    pub retention: Duration,
    /// Most bytes of all devices together.
    pub max_bytes: u64,
    /// Most bytes of one device.
    pub device_max_bytes: u64,
    /// Most bytes of a picture.
    pub picture_max_bytes: u64,
    /// Most pixels of a picture.
    pub picture_max_pixels: u64,
    /// Most bytes of a file.
    pub file_max_bytes: u64,
    /// Uploads that are received at once, an eighth of them of one device at most; more wait for a moment, then they are told to come again.
    pub max_uploads: usize,
    /// How long an upload that was begun may take, with all its interruptions.
    pub upload_ttl: Duration,
}

impl MediaConfig {
    /// The defaults, in this directory and under this address for who does not come over HTTPS.
    pub fn new(dir: impl Into<PathBuf>, url: impl Into<String>) -> MediaConfig {
        let url = url.into();
        MediaConfig {
            dir: dir.into(),
            s3: None,
            url: None,
            plain_url: url.clone(),
            device_url: url,
            retention: Duration::from_secs(30 * 24 * 3_600),
            max_bytes: 20 << 30,
            device_max_bytes: 4 << 30,
            picture_max_bytes: 20 << 20,
            picture_max_pixels: 64_000_000,
            file_max_bytes: 2 << 30,
            max_uploads: 64,
            upload_ttl: Duration::from_secs(24 * 3_600),
        }
    }
}
