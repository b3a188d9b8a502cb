//! A client of the HTTP API.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The JSON document; null where there was none.
    pub body: Value,
}

impl Answer {
    /// The document of a request that has to succeed.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.body);
        self.body
    }
}

/// A client with a token.
pub struct Http {
    agent: Agent,
    base: String,
    bearer: String,
}

impl Http {
    pub fn new(address: SocketAddr, token: impl AsRef<str>) -> Http {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        let bearer = format!("Bearer {}", token.as_ref().trim());
        Http { agent: config.into(), base: format!("http://{address}"), bearer }
    }

    /// The client of a platform that has not started.
    pub fn nowhere() -> Http {
        Http::new(SocketAddr::from(([127, 0, 0, 1], 9)), "")
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        let request = self.agent.get(self.url(path)).header("authorization", &self.bearer);
        answer(path, request.call())
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.agent.post(self.url(path)).header("authorization", &self.bearer);
        answer(path, request.send_json(body))
    }

    /// Bytes that are no JSON.
    #[track_caller]
    pub fn post_as(&self, path: &str, media_type: &str, body: &[u8]) -> Answer {
        let request = self.agent.post(self.url(path)).header("authorization", &self.bearer);
        answer(path, request.header("content-type", media_type).send(body))
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        let request = self.agent.put(self.url(path)).header("authorization", &self.bearer);
        answer(path, request.send_json(body))
    }

    /// An answer that is no JSON.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        let request = self.agent.get(self.url(path)).header("authorization", &self.bearer);
        let mut response = request.call().unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(response.status(), 200, "{path}");
        response.body_mut().read_to_string().expect("text")
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

#[track_caller]
fn answer(path: &str, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = response.body_mut().with_config().limit(64 << 20).read_to_string().expect("text");
    let body = serde_json::from_str(&text).unwrap_or_else(|_| if text.is_empty() { Value::Null } else { text.into() });
    Answer { status: response.status().as_u16(), body }
}
