//! One delivery of one text, and how it ends.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use tokio::time::Instant;
use vestibule_platform::Secret;

use super::post::{Answered, Pool, PostError};
use super::status::Trouble;
use super::target::Target;
use super::{Means, backoff, cloud_event};

/// How a delivery ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The receiver has taken it.
    Delivered { status: u16 },
    /// It is to be tried again.
    Again { status: Option<u16>, reason: String, asked: Option<Duration> },
    /// The receiver will not take it, however often it is tried.
    Refused { status: u16, reason: String },
    /// The receiver wants nothing any more.
    Gone,
}

impl Outcome {
    fn of(answered: Result<Answered, PostError>, now: i64) -> Outcome {
        let Answered { status, retry_after } = match answered {
            Ok(answered) => answered,
            Err(error) => return Outcome::Again { status: None, reason: error.to_string(), asked: None },
        };
        let code = status.as_u16();
        let again = |reason: String, asked| Outcome::Again { status: Some(code), reason, asked };
        match code {
            200..=299 => Outcome::Delivered { status: code },
            410 => Outcome::Gone,
            408 | 429 | 500.. => again(
                format!("the receiver answered {code}"),
                retry_after.as_deref().and_then(|text| backoff::asked(text, now)),
            ),
            300..=399 => again(format!("the receiver answered {code}; redirects are not followed"), None),
            400..=499 => Outcome::Refused { status: code, reason: format!("the receiver answered {code}") },
            _ => again(format!("the receiver answered {code}, which ends no request"), None),
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Outcome::Delivered { .. } => "delivered",
            Outcome::Again { .. } => "failed",
            Outcome::Refused { .. } => "refused",
            Outcome::Gone => "gone",
        }
    }

    /// What is shown of a delivery that did not work.
    pub(super) fn trouble(&self, at: i64) -> Option<Trouble> {
        let (status, reason) = match self {
            Outcome::Delivered { .. } => return None,
            Outcome::Again { status, reason, .. } => (*status, reason.clone()),
            Outcome::Refused { status, reason } => (Some(*status), reason.clone()),
            Outcome::Gone => (Some(410), "the receiver wants nothing more".to_owned()),
        };
        Some(Trouble { at, status, reason })
    }
}

impl Means {
    /// Delivers a text once. Whose turn it is the caller knows.
    pub(super) async fn deliver(
        &self,
        pool: &Pool,
        target: &Target,
        secret: &Secret,
        id: &str,
        body: Bytes,
    ) -> Outcome {
        let begun = Instant::now();
        // Of now: a receiver refuses what was signed long ago.
        let timestamp = self.platform.clock().now_ms().div_euclid(1_000);
        let outcome = match headers(id, timestamp, secret, &body) {
            Some(headers) => {
                let answered = self.poster.post(pool, target, &headers, &body).await;
                Outcome::of(answered, self.platform.clock().now_ms())
            }
            None => Outcome::Again { status: None, reason: "the headers cannot be written".to_owned(), asked: None },
        };
        metrics::histogram!("vestibule_webhook_delivery_seconds").record(begun.elapsed().as_secs_f64());
        metrics::counter!("vestibule_webhook_deliveries_total", "outcome" => outcome.as_str()).increment(1);
        outcome
    }
}

fn headers(id: &str, timestamp: i64, secret: &Secret, body: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert("content-type", cloud_event::MEDIA_TYPE.parse().ok()?);
    headers.insert("user-agent", concat!("vestibule/", env!("CARGO_PKG_VERSION")).parse().ok()?);
    headers.insert("webhook-id", id.parse().ok()?);
    headers.insert("webhook-timestamp", timestamp.into());
    headers.insert("webhook-signature", super::sign::sign(secret, id, timestamp, body).parse().ok()?);
    Some(headers)
}
