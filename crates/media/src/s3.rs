//! A bucket of an S3-compatible service as the place of pictures and files (media 7, 10).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};
use zeroize::Zeroizing;

/// How long the service may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may be silent. A whole request has no limit: a large object goes to a slow reader for as long as that takes.
const SILENT: Duration = Duration::from_secs(30);
/// How often a request is made again that a busy or restarting service did not answer well.
const RETRIES: usize = 3;
/// Past this no request is made again.
const RETRY: Duration = Duration::from_secs(20);

/// A bucket, and how it is reached.
#[derive(Clone)]
pub struct S3Config {
    /// Its name.
    pub bucket: String,
    /// The region it is in; services that have none take any.
    pub region: String,
    /// Scheme, host and port of the service; none: AWS, in the region.
    pub endpoint: Option<String>,
    /// Whose it is. None: the credentials of the machine, as AWS hands them out to its own.
    pub credentials: Option<S3Credentials>,
    /// What the names of all objects begin with; may be empty. Nobody else may keep anything there: what this platform does not
    /// know is removed.
    pub prefix: String,
    /// Whether an endpoint without TLS is taken.
    pub allow_http: bool,
    /// PEM of authorities that the service's certificate may be of, beside those of the system.
    pub authorities: Option<Vec<u8>>,
}

/// An access key. It has no `Debug` that prints the secret part.
#[derive(Clone)]
pub struct S3Credentials {
    /// The public part.
    pub access_key_id: String,
    /// The secret part.
    pub secret_access_key: Zeroizing<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl S3Config {
    /// The store in this bucket. Nothing is sent yet.
    pub(crate) fn open(&self) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
        let mut client = ClientOptions::new()
            .with_allow_http(self.allow_http)
            .with_connect_timeout(CONNECT)
            .with_read_timeout(SILENT)
            .with_timeout_disabled();
        if let Some(authorities) = &self.authorities {
            for authority in Certificate::from_pem_bundle(authorities)? {
                client = client.with_root_certificate(authority);
            }
        }
        let backoff = BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_client_options(client)
            .with_retry(RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY });
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(S3Credentials { access_key_id, secret_access_key }) = &self.credentials {
            builder = builder.with_access_key_id(access_key_id).with_secret_access_key(secret_access_key.as_str());
        }
        let bucket = builder.build()?;
        Ok(match self.prefix.as_str() {
            "" => Arc::new(bucket),
            prefix => Arc::new(PrefixStore::new(bucket, prefix)),
        })
    }

    /// What people are told while the bucket cannot be used.
    pub(crate) fn told(&self, error: &object_store::Error) -> String {
        let said = root(error).to_string();
        let is = |codes: &[&str]| codes.iter().any(|code| said.contains(code));
        // A listing is refused with the service's own code in the text.
        let what = if is(&["NoSuchBucket"]) {
            "is not there: make it, or correct media.s3.bucket".to_owned()
        } else if is(&["403 Forbidden", "401 Unauthorized"]) {
            "refuses this platform: correct media.s3.access_key_id and its secret, or permit listing, reading, writing and \
             deleting there"
                .to_owned()
        } else {
            // The first line says enough; answers of a service can be long.
            let said: String = said.lines().next().unwrap_or_default().chars().take(200).collect();
            let service = self.endpoint.as_deref().unwrap_or("AWS");
            format!("cannot be used ({said}): look at {service} and media.s3.endpoint")
        };
        format!(
            "Pictures and files are not stored and not shown, the bucket {} {what}. What has come of uploads is kept and they \
             can go on; it is tried again by itself.",
            self.bucket
        )
    }
}

/// What is behind an error.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> S3Config {
        S3Config {
            bucket: "pictures".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            credentials: Some(S3Credentials {
                access_key_id: "AKIA".to_owned(),
                secret_access_key: Zeroizing::new("do-not-show".to_owned()),
            }),
            prefix: "site-1".to_owned(),
            allow_http: true,
            authorities: None,
        }
    }

    #[test]
    fn the_secret_part_of_a_key_is_not_printed() {
        let config = config();
        let shown = format!(
            "{config:?} {:?} {:?}",
            config.credentials,
            crate::MediaConfig { s3: Some(config.clone()), ..crate::MediaConfig::new("media", "") }
        );
        assert!(!shown.contains("do-not-show"), "{shown}");
        assert!(shown.contains("AKIA"));
    }

    #[test]
    fn a_service_that_cannot_be_reached_is_told_by_name_and_by_what_to_change() {
        let told = config().told(&object_store::Error::Generic { store: "S3", source: "connection refused".into() });
        assert!(told.contains("connection refused") && told.contains("http://127.0.0.1:1"), "{told}");
        for (said, key) in [("404: NoSuchBucket", "media.s3.bucket"), ("403 Forbidden: no", "media.s3.access_key_id")] {
            let told = config().told(&object_store::Error::Generic { store: "S3", source: said.into() });
            assert!(told.contains(key), "{told}");
        }
    }
}
