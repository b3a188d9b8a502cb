//! One delivery: a POST of its own making, so that nothing of the surroundings (proxies, redirects, cookies) has a say.
//!
//! Each address is looked at after the name was resolved and before it is connected to, and exactly that one is connected
//! to: what a name resolves to later is of no use to whoever controls it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::authorities::Authorities;
use super::guard::Guard;
use super::target::{Host, Target};

/// Time to resolve, connect and agree on keys.
const CONNECT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;
/// Time for the rest of an answer that nobody reads.
const DRAIN: Duration = Duration::from_secs(1);
/// What is read of an answer's body, so that the connection can be used again.
const MAX_BODY: usize = 4 * 1024;
/// Longest head of an answer, and most headers.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// A connection that rested for so long is not used again: names are resolved anew now and then.
const REST: Duration = Duration::from_secs(30);

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error("the name cannot be resolved: {0}")]
    Resolve(io::Error),
    #[error("the address {0} is {1}, and webhooks.allow does not have it")]
    Refused(IpAddr, &'static str),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no secure connection: {0}")]
    Tls(io::Error),
    #[error("no connection within {} s", CONNECT.as_secs())]
    ConnectTimeout,
    #[error("no answer within {} s", .0.as_secs())]
    AnswerTimeout(Duration),
    #[error("the connection broke before there was an answer: {0}")]
    Broken(hyper::Error),
    #[error("the address is none any more: {0}")]
    Target(&'static str),
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<String>,
}

type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
type Resolve = dyn Fn(String, u16) -> Resolving + Send + Sync;

/// Makes connections and sends.
pub(crate) struct Poster {
    guard: Guard,
    tls: TlsConnector,
    resolve: Box<Resolve>,
    /// Time for the head of an answer.
    answer: Duration,
}

/// A connection, cut when dropped.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: Cut,
    used: Instant,
}

struct Cut(JoinHandle<()>);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connections of one webhook that rest.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<Connection>>);

impl Pool {
    fn take(&self) -> Option<Connection> {
        let mut resting = self.0.lock();
        resting.retain(|connection| connection.used.elapsed() < REST && !connection.sender.is_closed());
        resting.pop()
    }

    fn put(&self, connection: Connection) {
        let mut resting = self.0.lock();
        if resting.len() < super::window::PARALLEL {
            resting.push(connection);
        }
    }
}

impl Poster {
    /// Sends to addresses that the guard lets through, and trusts public authorities and these.
    pub(crate) fn new(guard: Guard, authorities: &Authorities, answer: Duration) -> Poster {
        Poster::resolving(guard, authorities, answer, |host, port| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
        })
    }

    fn resolving(
        guard: Guard,
        authorities: &Authorities,
        answer: Duration,
        resolve: impl Fn(String, u16) -> Resolving + Send + Sync + 'static,
    ) -> Poster {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        // What is no certificate was told when the file was read.
        roots.add_parsable_certificates(authorities.0.iter().cloned());
        let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Poster { guard, tls: TlsConnector::from(Arc::new(config)), resolve: Box::new(resolve), answer }
    }

    /// Whom the poster connects to.
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Posts a body and answers with the head of the answer; what follows the head is dropped.
    pub(crate) async fn post(
        &self,
        pool: &Pool,
        target: &Target,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Answered, PostError> {
        if let Some(connection) = pool.take() {
            match self.exchange(connection, pool, target, headers, body).await {
                // It may have been closed in the moment it was taken.
                Err(PostError::Broken(_)) => {}
                other => return other,
            }
        }
        let connection = timeout(CONNECT, self.connect(target)).await.map_err(|_| PostError::ConnectTimeout)??;
        self.exchange(connection, pool, target, headers, body).await
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        pool: &Pool,
        target: &Target,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Answered, PostError> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = axum::http::Method::POST;
        *request.uri_mut() =
            target.path.parse().map_err(|_| PostError::Target("must be written as https://host/path"))?;
        *request.headers_mut() = headers.clone();
        let host = target.authority.parse().map_err(|_| PostError::Target("must have a host"))?;
        request.headers_mut().insert(header::HOST, host);
        let exchange = async {
            connection.sender.ready().await?;
            connection.sender.send_request(request).await
        };
        let answer = timeout(self.answer, exchange).await.map_err(|_| PostError::AnswerTimeout(self.answer))?;
        let answer = answer.map_err(PostError::Broken)?;
        let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let answered = Answered { status: answer.status(), retry_after: retry_after.map(str::to_owned) };
        if drained(answer.into_body()).await {
            connection.used = Instant::now();
            pool.put(connection);
        }
        Ok(answered)
    }

    async fn connect(&self, target: &Target) -> Result<Connection, PostError> {
        let stream = self.reach(target).await?;
        // An error only costs time on the wire.
        let _ = stream.set_nodelay(true);
        if !target.tls {
            return shake_hands(stream).await;
        }
        let name = match &target.host {
            Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|_| PostError::Target("must have a host that a certificate can name"))?,
            Host::Address(address) => ServerName::IpAddress((*address).into()),
        };
        shake_hands(self.tls.connect(name, stream).await.map_err(PostError::Tls)?).await
    }

    /// Connects to the first address that may be connected to and answers.
    async fn reach(&self, target: &Target) -> Result<TcpStream, PostError> {
        let addresses = match &target.host {
            Host::Address(address) => vec![SocketAddr::new(*address, target.port)],
            Host::Name(name) => (self.resolve)(name.clone(), target.port).await.map_err(PostError::Resolve)?,
        };
        let mut failure = PostError::Resolve(io::Error::other("it has no address"));
        let mut tried = 0;
        for address in addresses {
            if let Some(what) = self.guard.refuses(address.ip()) {
                metrics::counter!("vestibule_webhook_addresses_refused_total").increment(1);
                if tried == 0 {
                    failure = PostError::Refused(address.ip(), what);
                }
                continue;
            }
            if tried == ADDRESSES {
                break;
            }
            tried += 1;
            // So that one that swallows everything leaves time for the others.
            let until = Instant::now() + CONNECT / ADDRESSES as u32;
            match timeout_at(until, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = PostError::Connect(error),
                Err(_) => failure = PostError::ConnectTimeout,
            }
        }
        Err(failure)
    }
}

async fn shake_hands<S>(stream: S) -> Result<Connection, PostError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.map_err(PostError::Broken)?;
    let driver = Cut(tokio::spawn(async move {
        // How it ended is told to whoever has sent something.
        let _ = driver.await;
    }));
    Ok(Connection { sender, _driver: driver, used: Instant::now() })
}

/// Reads and drops a short body; whether it has come to its end, so that the connection may be used again.
async fn drained(mut body: Incoming) -> bool {
    let reading = async {
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > MAX_BODY {
                return false;
            }
        }
        true
    };
    timeout(DRAIN, reading).await.unwrap_or(false)
}

#[cfg(test)]
mod tests;
