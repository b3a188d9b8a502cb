//! The way to an ACME server: one connection for each request, over TLS, to whom the configured roots vouch for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use vestibule_tls::rustls::pki_types::{CertificateDer, ServerName};
use vestibule_tls::rustls::{ClientConfig, RootCertStore, crypto};

/// For a whole request.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer: a chain of certificates is some KiB.
const MAX_ANSWER: usize = 1024 * 1024;

/// Sends requests to an ACME server.
#[derive(Clone)]
pub(super) struct Transport(TlsConnector);

impl Transport {
    /// Trusts these roots; without any, the public ones.
    ///
    /// # Errors
    /// One of them is none.
    pub(super) fn new(roots: Option<Vec<CertificateDer<'static>>>) -> anyhow::Result<Transport> {
        let mut store = RootCertStore::empty();
        match roots {
            None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(roots) => roots.into_iter().try_for_each(|root| store.add(root))?,
        }
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(store).with_no_client_auth();
        Ok(Transport(TlsConnector::from(Arc::new(config))))
    }
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let tls = self.0.clone();
        Box::pin(async move {
            match timeout(PATIENCE, ask(tls, request)).await {
                Ok(answered) => answered.map_err(Error::Other),
                Err(_) => Err(Error::Other(Box::new(io::Error::from(io::ErrorKind::TimedOut)))),
            }
        })
    }
}

type Trouble = Box<dyn std::error::Error + Send + Sync>;

async fn ask(tls: TlsConnector, mut request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Trouble> {
    let uri = request.uri().clone();
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or("not an https:// address")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = tls.connect(name, tcp).await?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
    *request.uri_mut() = Uri::try_from(uri.path_and_query().map_or("/", |path| path.as_str()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok::<_, Trouble>(BytesResponse::from(Response::from_parts(head, Full::new(body))))
    };
    let answer = answer.await;
    driver.abort();
    answer
}
