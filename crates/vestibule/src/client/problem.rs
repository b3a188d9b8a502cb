//! What the platform refuses, in words (RFC 9457).

use std::fmt;

use serde::Deserialize;

/// A refused request: the problem document of the answer, or what can be said without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// What kind of problem.
    pub title: String,
    /// This case of it.
    pub detail: Option<String>,
    /// Seconds after which another try makes sense, where the platform said so.
    pub retry_after: Option<u64>,
}

#[derive(Deserialize)]
struct Document {
    title: Option<String>,
    detail: Option<String>,
}

impl Refusal {
    /// Reads an answer that is not a success. A body that is no problem document (of a proxy, say) is left out.
    pub fn new(status: u16, body: &str, retry_after: Option<u64>) -> Refusal {
        let document: Option<Document> = serde_json::from_str(body).ok();
        let (title, detail) = document.map_or((None, None), |document| (document.title, document.detail));
        Refusal {
            status,
            title: title.filter(|title| !title.is_empty()).unwrap_or_else(|| format!("the answer was HTTP {status}")),
            detail: detail.filter(|detail| !detail.is_empty()),
            retry_after,
        }
    }

    /// What the user can do about it, where there is something.
    fn cure(&self) -> Option<String> {
        match self.status {
            401 => Some("name the token of this platform with --token-file FILE or VESTIBULE_TOKEN_FILE".to_owned()),
            403 => Some("the token does not permit this; use one with a wider role".to_owned()),
            429 | 503 => self.retry_after.map(|seconds| format!("try again in {seconds} s")),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        match self.cure() {
            Some(cure) => write!(f, "\n  {cure}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_document_is_shown_with_its_cure() {
        let body = r#"{"type":"about:blank","title":"Not signed in","status":401,"detail":"the token is unknown"}"#;
        assert_eq!(
            Refusal::new(401, body, None).to_string(),
            "Not signed in: the token is unknown\n  name the token of this platform with --token-file FILE or VESTIBULE_TOKEN_FILE"
        );
        let body = r#"{"title":"Too many requests"}"#;
        assert_eq!(Refusal::new(429, body, Some(3)).to_string(), "Too many requests\n  try again in 3 s");
        let body = r#"{"title":"Serial taken","detail":"SN-1 is registered already"}"#;
        assert_eq!(Refusal::new(409, body, None).to_string(), "Serial taken: SN-1 is registered already");
    }

    #[test]
    fn an_answer_of_something_else_is_told_by_its_status() {
        assert_eq!(Refusal::new(502, "<html>Bad gateway</html>", None).to_string(), "the answer was HTTP 502");
        assert_eq!(Refusal::new(500, "", None).to_string(), "the answer was HTTP 500");
        assert_eq!(Refusal::new(500, r#"{"title":""}"#, None).to_string(), "the answer was HTTP 500");
    }
}
