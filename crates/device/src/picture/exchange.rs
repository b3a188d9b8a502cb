//! One request over HTTP or HTTPS, on a connection of its own.

use std::io;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::shared::Shared;
use crate::socket;

/// Time for an answer, beside what the bytes take on the slowest line that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes in a second of that line.
const SLOWEST: u64 = 16 * 1024;

/// What is sent.
pub(super) struct Sent {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Bytes,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// How much of an upload is there.
    pub(super) offset: Option<u64>,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// Over TLS.
    pub(super) secure: bool,
}

/// Where a URL leads, if that is spoken here.
pub(super) fn authority(url: &Uri) -> Option<Authority<'_>> {
    let (secure, usual) = match url.scheme_str()? {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return None,
    };
    let host = url.host()?;
    // An address of version 6 is in brackets there, and nowhere else.
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some(Authority { host, port: url.port_u16().unwrap_or(usual), secure })
}

/// Sends a request and waits for the head of its answer.
pub(super) async fn exchange(shared: &Shared, url: &Uri, sent: Sent) -> io::Result<Answered> {
    let Authority { host, port, secure } = authority(url).ok_or(io::ErrorKind::Unsupported)?;
    let limit = PATIENCE + Duration::from_secs(sent.bytes.len() as u64 / SLOWEST);
    let exchanged = timeout(limit, async {
        let tcp = socket::connect(&*shared.dial, host, port).await?;
        if !secure {
            return request(tcp, url, sent).await;
        }
        let web = shared.web.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        request(web.secure(tcp, host, shared.clock.now_ms()).await?, url, sent).await
    });
    exchanged.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn request<S>(stream: S, url: &Uri, sent: Sent) -> io::Result<Answered>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let _driver = Cut(tokio::spawn(async move {
        // How it ends is seen where the request is.
        let _ = connection.await;
    }));
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Full::new(sent.bytes));
    *request.method_mut() = sent.method;
    *request.uri_mut() = path.parse::<Uri>().map_err(io::Error::other)?;
    *request.headers_mut() = sent.headers;
    if let Some(authority) = url.authority() {
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(io::Error::other)?);
    }
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let offset = answer.headers().get("upload-offset").and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(Answered { status: answer.status().as_u16(), offset })
}

/// The task of a connection, cut when dropped.
struct Cut(JoinHandle<()>);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_and_https_are_spoken_and_nothing_else() {
        let at = |url: &str| {
            let url = url.parse().expect("a URI");
            authority(&url).map(|Authority { host, port, secure }| (host.to_owned(), port, secure))
        };
        assert_eq!(at("http://127.0.0.1:8080/x?ticket=y"), Some(("127.0.0.1".into(), 8080, false)));
        assert_eq!(at("http://vestibule.example/x"), Some(("vestibule.example".into(), 80, false)));
        assert_eq!(at("https://vestibule.example/x"), Some(("vestibule.example".into(), 443, true)));
        assert_eq!(at("https://[::1]:81/x"), Some(("::1".into(), 81, true)));
        for other in ["/media/v1/upload", "ftp://x/y"] {
            assert_eq!(at(other), None, "{other}");
        }
    }
}
