//! `[media]`: pictures and files of devices.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use vestibule_media::{S3Config, S3Credentials};
use zeroize::Zeroizing;

use super::capacity::Capacity;
use super::text;

/// What is kept of pictures and files, for how long and how much of it (media 13).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// What the addresses begin with that devices send to and people fetch from; `auto` is the
    /// host that was asked over HTTPS, the HTTPS listener's for devices over TLS, and the HTTP listener's for others.
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
    /// A bucket to keep them in.
    pub s3: S3,
}

/// `[media.s3]`: a bucket of an S3-compatible service.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// Its name; `None` keeps everything in the data directory.
    #[serde(with = "text::text_or_none")]
    pub bucket: Option<String>,
    /// The region it is in.
    pub region: String,
    /// Scheme, host and port of the service; `auto` is AWS.
    #[serde(with = "text::text_or_auto")]
    pub endpoint: Option<String>,
    /// The public part of the access key; `auto` are the credentials of the machine.
    #[serde(with = "text::text_or_auto")]
    pub access_key_id: Option<String>,
    /// The secret part.
    #[serde(with = "text::secret_or_none")]
    pub secret_access_key: Option<Secret>,
    /// A file with the secret part.
    #[serde(with = "text::file_or_none")]
    pub secret_access_key_file: Option<PathBuf>,
    /// What the names of all objects begin with.
    #[serde(with = "text::text_or_none")]
    pub prefix: Option<String>,
    /// Permits an endpoint without TLS.
    pub allow_http: bool,
    /// PEM file of authorities that the service's certificate may be of, beside those of the system.
    #[serde(with = "text::file_or_none")]
    pub ca_file: Option<PathBuf>,
}

impl Default for S3 {
    fn default() -> Self {
        S3 {
            bucket: None,
            region: "us-east-1".to_owned(),
            endpoint: None,
            access_key_id: None,
            secret_access_key: None,
            secret_access_key_file: None,
            prefix: None,
            allow_http: false,
            ca_file: None,
        }
    }
}

/// A secret in the configuration. It has no `Debug` that prints it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text as a secret.
    pub fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// The secret, for whoever signs with it only.
    pub fn expose(&self) -> &Zeroizing<String> {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
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
            s3: S3::default(),
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

impl S3 {
    /// The bucket with what the files say; `None` when there is none.
    ///
    /// # Errors
    /// A sentence with the key, when a file cannot be read or holds nothing.
    pub fn read(&self) -> anyhow::Result<Option<S3Config>> {
        let Some(bucket) = self.bucket.clone() else { return Ok(None) };
        let secret = match &self.secret_access_key_file {
            None => self.secret_access_key.as_ref().map(|secret| secret.expose().clone()),
            Some(file) => {
                let text = std::fs::read_to_string(file).map(Zeroizing::new);
                let text = text.with_context(|| format!("media.s3.secret_access_key_file: {}", file.display()))?;
                let secret = Zeroizing::new(text.trim().to_owned());
                ensure!(!secret.is_empty(), "media.s3.secret_access_key_file: {} is empty", file.display());
                Some(secret)
            }
        };
        let credentials = self.access_key_id.clone().zip(secret);
        let authorities = self
            .ca_file
            .as_ref()
            .map(|file| std::fs::read(file).with_context(|| format!("media.s3.ca_file: {}", file.display())));
        Ok(Some(S3Config {
            bucket,
            region: self.region.clone(),
            endpoint: self.endpoint.clone(),
            credentials: credentials
                .map(|(access_key_id, secret_access_key)| S3Credentials { access_key_id, secret_access_key }),
            prefix: self.prefix.clone().unwrap_or_default(),
            allow_http: self.allow_http,
            authorities: authorities.transpose()?,
        }))
    }
}
