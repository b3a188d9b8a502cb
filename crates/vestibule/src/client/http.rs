//! One request, one answer.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{Method, Request, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body, SendBody};
use vestibule_tls::rustls;
use zeroize::Zeroizing;

use super::problem::Refusal;
use super::uri::Route;

/// Longest time to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest time an ordinary request may take; the platform itself gives up after 30 s.
const ANSWER: Duration = Duration::from_secs(40);
/// A stream that shows no sign of life for so long is dead; the platform sends a comment far more often.
const SILENCE: Duration = Duration::from_secs(60);
/// Largest answer taken into memory.
const MAX_ANSWER: u64 = 64 << 20;

/// The secret of a token. It has no `Debug`.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes the secret as it stands in a file or a variable, without the white space around it.
    ///
    /// # Errors
    /// A sentence, when it is empty or cannot stand in a header.
    pub fn new(text: &str) -> Result<Token, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("the token is empty".to_owned());
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the token holds characters no token has; is it the right file?".to_owned());
        }
        Ok(Token(Zeroizing::new(text.to_owned())))
    }

    /// Reads the secret from a file.
    ///
    /// # Errors
    /// A sentence with the path, when it cannot be read or holds no token.
    pub fn read(path: &Path) -> Result<Token, String> {
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "; the platform writes it into its data directory, name it with --token-file or VESTIBULE_TOKEN_FILE",
                _ => "",
            };
            format!("the token file {} cannot be read: {error}{hint}", path.display())
        })?;
        Token::new(&text).map_err(|sentence| format!("{}: {sentence}", path.display()))
    }
}

/// Why a request brought no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The user: the address is none.
    #[error("`{0}` is not an address of a platform; write it as http://host:port or https://host:port")]
    Url(String),
    /// The user: there is no root to trust in the file.
    #[error("the roots to trust cannot be read: {0}")]
    Roots(String),
    /// The user or the network: nobody answers, or somebody who does not prove to be the platform.
    #[error(
        "no platform answers at {url}: {cause}\n  start one with `vestibule up`, or name another with --url or VESTIBULE_URL"
    )]
    Unreachable {
        /// The base address.
        url: String,
        /// What the attempt ended with.
        cause: Box<ureq::Error>,
    },
    /// The platform refuses.
    #[error("{0}")]
    Refused(Refusal),
    /// Something answers that is not the platform, or a platform of another time.
    #[error("the answer of {url} is not what this version understands: {what}")]
    Answer {
        /// The base address.
        url: String,
        /// What is wrong with it.
        what: String,
    },
}

/// What a request carries.
struct Sent<'a> {
    media_type: &'a str,
    /// Its idempotency key.
    key: Option<&'a str>,
    bytes: Vec<u8>,
}

impl Sent<'_> {
    fn json(body: &Value) -> Sent<'static> {
        Sent { media_type: "application/json", key: None, bytes: body.to_string().into_bytes() }
    }
}

/// The API of one platform. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    token: Token,
}

impl Client {
    /// A client of the platform at `base` (`http://host:port` or `https://host:port`, a path before `/v1` is kept), which over
    /// TLS has to show a certificate of a public authority. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Url`] when the address is none.
    pub fn new(base: &str, token: Token) -> Result<Client, ClientError> {
        Client::trusting(base, token, None)
    }

    /// The same, which trusts these roots, a PEM text, in place of the public ones.
    ///
    /// # Errors
    /// As [`Client::new`]; [`ClientError::Roots`] when the text holds no certificate.
    pub fn trusting(base: &str, token: Token, roots: Option<&[u8]>) -> Result<Client, ClientError> {
        let wrong = || ClientError::Url(base.to_owned());
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
            return Err(wrong());
        }
        let roots = match roots {
            None => RootCerts::WebPki,
            Some(text) => {
                let read = vestibule_tls::read_pem(text).map_err(|error| ClientError::Roots(error.to_string()))?;
                read.iter().map(|root| Certificate::from_der(root).to_owned()).collect::<Vec<_>>().into()
            }
        };
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(crypto)
            .root_certs(roots);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("vestibule/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .timeout_connect(Some(CONNECT));
        if is_this_machine(host) {
            // A proxy of the surroundings cannot reach this machine's own addresses.
            config = config.proxy(None);
        }
        Ok(Client { agent: config.build().into(), base: base.trim_end_matches('/').to_owned(), token })
    }

    /// GET, answered with JSON.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn get<T: DeserializeOwned>(&self, route: &Route) -> Result<T, ClientError> {
        self.json(self.call(Method::GET, route, None)?)
    }

    /// POST of JSON, answered with JSON.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn post<T: DeserializeOwned>(&self, route: &Route, body: &Value) -> Result<T, ClientError> {
        self.json(self.call(Method::POST, route, Some(Sent::json(body)))?)
    }

    /// POST of JSON, answered with JSON: under this idempotency key, so that it is carried out once however often it is
    /// sent.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn post_once<T: DeserializeOwned>(&self, route: &Route, key: &str, body: &Value) -> Result<T, ClientError> {
        self.json(self.call(Method::POST, route, Some(Sent { key: Some(key), ..Sent::json(body) }))?)
    }

    /// POST of bytes of this media type, answered with JSON.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn post_bytes<T: DeserializeOwned>(
        &self,
        route: &Route,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<T, ClientError> {
        self.json(self.call(Method::POST, route, Some(Sent { media_type, key: None, bytes }))?)
    }

    /// POST of what is read, however long it is and takes, answered with JSON. Nothing of it is kept.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn upload<T: DeserializeOwned>(
        &self,
        route: &Route,
        media_type: &str,
        from: impl io::Read + 'static,
    ) -> Result<T, ClientError> {
        let request = self.request(Method::POST, route).header("accept", "application/json");
        let body = SendBody::from_owned_reader(from);
        let request = self.sealed(request.header("content-type", media_type).body(body))?;
        self.json(self.checked(self.agent.run(request))?)
    }

    /// POST of JSON; the answer has no content of interest.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn tell(&self, route: &Route, body: &Value) -> Result<(), ClientError> {
        self.call(Method::POST, route, Some(Sent::json(body))).map(drop)
    }

    /// PUT of JSON, answered with JSON.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn put<T: DeserializeOwned>(&self, route: &Route, body: &Value) -> Result<T, ClientError> {
        self.json(self.call(Method::PUT, route, Some(Sent::json(body)))?)
    }

    /// PUT of JSON; the answer has no content of interest.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn put_only(&self, route: &Route, body: &Value) -> Result<(), ClientError> {
        self.call(Method::PUT, route, Some(Sent::json(body))).map(drop)
    }

    /// PATCH with a JSON Merge Patch, answered with JSON.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn patch<T: DeserializeOwned>(&self, route: &Route, change: &Value) -> Result<T, ClientError> {
        let sent = Sent { media_type: "application/merge-patch+json", ..Sent::json(change) };
        self.json(self.call(Method::PATCH, route, Some(sent))?)
    }

    /// DELETE; the answer has no content of interest.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn delete(&self, route: &Route) -> Result<(), ClientError> {
        self.call(Method::DELETE, route, None).map(drop)
    }

    /// Opens an event stream, from after `last_event_id` where one is given.
    ///
    /// # Errors
    /// As [`ClientError`] says; also when the answer is no event stream.
    pub(super) fn stream(&self, route: &Route, last_event_id: Option<&str>) -> Result<Body, ClientError> {
        let mut request = self.request(Method::GET, route).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let request =
            self.agent.configure_request(self.sealed(request.body(()))?).timeout_per_read(Some(SILENCE)).build();
        let answer = self.checked(self.agent.run(request))?;
        match answer.body().mime_type() {
            Some("text/event-stream") => Ok(answer.into_body()),
            other => Err(self.strange(format!("{} instead of an event stream", other.unwrap_or("no type")))),
        }
    }

    /// Opens a GET whose answer is read as it comes, however long it is. A read fails when it is cut off.
    ///
    /// # Errors
    /// As [`ClientError`] says.
    pub fn download(&self, route: &Route) -> Result<impl io::Read + use<>, ClientError> {
        let request = self.sealed(self.request(Method::GET, route).body(()))?;
        let request = self.agent.configure_request(request).timeout_per_read(Some(SILENCE)).build();
        Ok(self.checked(self.agent.run(request))?.into_body().into_with_config().limit(u64::MAX).reader())
    }

    fn call(&self, method: Method, route: &Route, sent: Option<Sent<'_>>) -> Result<Response<Body>, ClientError> {
        let mut request = self.request(method, route).header("accept", "application/json");
        let answer = match sent {
            Some(Sent { media_type, key, bytes }) => {
                if let Some(key) = key {
                    request = request.header("idempotency-key", key);
                }
                let request = self.sealed(request.header("content-type", media_type).body(bytes))?;
                self.agent.run(self.agent.configure_request(request).timeout_global(Some(ANSWER)).build())
            }
            None => {
                let request = self.sealed(request.body(()))?;
                self.agent.run(self.agent.configure_request(request).timeout_global(Some(ANSWER)).build())
            }
        };
        self.checked(answer)
    }

    fn request(&self, method: Method, route: &Route) -> ureq::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{}", self.base, route.as_str()))
            .header("authorization", format!("Bearer {}", self.token.0.as_str()))
    }

    /// A request that cannot be built has an address that cannot be one.
    fn sealed<B>(&self, request: Result<Request<B>, ureq::http::Error>) -> Result<Request<B>, ClientError> {
        request.map_err(|_| ClientError::Url(self.base.clone()))
    }

    fn checked(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, ClientError> {
        let mut answer =
            answer.map_err(|error| ClientError::Unreachable { url: self.base.clone(), cause: Box::new(error) })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let retry_after =
            answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = answer.body_mut().with_config().limit(1 << 20).read_to_string().unwrap_or_default();
        Err(ClientError::Refused(Refusal::new(answer.status().as_u16(), &body, retry_after)))
    }

    fn json<T: DeserializeOwned>(&self, mut answer: Response<Body>) -> Result<T, ClientError> {
        answer.body_mut().with_config().limit(MAX_ANSWER).read_json().map_err(|error| self.strange(error.to_string()))
    }

    pub(super) fn strange(&self, what: String) -> ClientError {
        ClientError::Answer { url: self.base.clone(), what }
    }
}

/// Whether the platform at this base address is on this machine, by the name or number of the loopback.
pub fn is_on_this_machine(base: &str) -> bool {
    base.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(is_this_machine))
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::new(" secret\n").expect("a token")
    }

    #[test]
    fn addresses_that_cannot_be_asked_are_refused_before_anything_is_sent() {
        for url in ["", "localhost:8080", "https://", "http://", "ftp://x", "http://x/?a=b", "http://a b"] {
            assert!(matches!(Client::new(url, token()), Err(ClientError::Url(_))), "{url}");
        }
        for url in ["http://127.0.0.1:8080", "http://[::1]:8080/", "http://hall.example/iot", "https://[::1]:8443"] {
            assert!(Client::new(url, token()).is_ok(), "{url}");
        }
    }

    #[test]
    fn roots_have_to_be_certificates() {
        let none = Client::trusting("https://localhost", token(), Some(b"no PEM"));
        assert!(matches!(none, Err(ClientError::Roots(_))));
    }

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["192.0.2.1", "hall.example", "[2001:db8::1]"] {
            assert!(!is_this_machine(host), "{host}");
        }
        assert!(is_on_this_machine("http://localhost:8080/x") && !is_on_this_machine("http://hall.example"));
        assert!(!is_on_this_machine("no address"));
    }

    #[test]
    fn a_token_is_trimmed_and_must_fit_a_header() {
        assert_eq!(token().0.as_str(), "secret");
        assert!(Token::new(" \n").is_err());
        assert!(Token::new("two words").is_err());
        let missing = Token::read(Path::new("/no/such/token")).err().expect("missing");
        assert!(missing.contains("/no/such/token") && missing.contains("--token-file"), "{missing}");
    }
}
