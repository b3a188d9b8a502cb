//! One connection, from its first byte to its last.

use std::future::poll_fn;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::api::Api;
use crate::extract::ThePeer;
use crate::problem::{Kind, Problem};
use crate::proxies;
use crate::request::OverTls;
use crate::socket::Socket;

/// How long a client that has its answer may go on sending before it is cut.
const LINGER: Duration = Duration::from_secs(2);

/// Answers a client, over TLS where there is one to accept, which has the time of a request's head.
pub(crate) async fn run(stream: TcpStream, tls: Option<TlsAcceptor>, api: Api) {
    // Only fails on a socket that is gone already, which the first read tells as well.
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().ok().map(|peer| peer.ip().to_canonical());
    let Some(tls) = tls else { return answer(stream, peer, false, api).await };
    let shaken = timeout(api.shared.config.head_timeout, tls.accept(stream)).await;
    let result = match &shaken {
        Ok(Ok(_)) => "ok",
        Ok(Err(_)) => "tls_error",
        Err(_) => "tls_timeout",
    };
    metrics::counter!("vestibule_tls_handshakes_total", "listener" => "https", "result" => result).increment(1);
    match shaken {
        Ok(Ok(stream)) => answer(stream, peer, true, api).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake did not end in time"),
    }
}

/// Answers requests until the client ends the connection, breaks a limit or the server shuts down.
async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Option<IpAddr>,
    secure: bool,
    api: Api,
) {
    let config = &api.shared.config;
    let router = api.router.clone();
    let proxies = &config.trusted_proxies;
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        if let Some(peer) = peer {
            let client = proxies::client(proxies, peer, request.headers());
            request.extensions_mut().insert(ThePeer(client));
        }
        if secure {
            request.extensions_mut().insert(OverTls);
        }
        Box::pin(router.clone().oneshot(request))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_header_size(config.max_head_bytes)
        .max_buf_size(config.max_head_bytes.max(16 * 1024))
        .serve_connection(TokioIo::new(Socket::new(stream, config.write_timeout)), service);

    let mut closing = api.shared.closing.subscribe();
    let mut draining = false;
    let result = loop {
        tokio::select! {
            result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break result,
            _ = closing.wait_for(|closing| *closing), if !draining => {
                draining = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let parts = connection.into_parts();
    let socket = parts.io.into_inner();
    let complete = socket.is_complete();
    let stream = socket.into_inner();
    match result {
        Ok(()) => end(stream, &[], draining).await,
        Err(error) if error.is_timeout() => {
            metrics::counter!("vestibule_http_timeouts_total").increment(1);
            // A client that has begun a request is told; one that was silent is just let go.
            let begun = complete && !parts.read_buf.is_empty();
            let answer = begun.then(|| Problem::new(Kind::Timeout, "The headers did not arrive in time.").to_http());
            end(stream, &answer.unwrap_or_default(), draining).await;
        }
        Err(error) if error.is_parse() => end(stream, &[], draining).await,
        Err(error) => tracing::debug!(%error, "a connection broke"),
    }
}

/// Tells a client that there is no room for its connection.
pub(crate) async fn refuse(stream: TcpStream) {
    let answer = Problem::new(Kind::TooManyConnections, "As many connections as allowed are open.").to_http();
    end(stream, &answer, false).await;
}

/// Sends the last words and ends the connection. What the client is still sending is read for a moment, because
/// closing on unread bytes would reset the connection and take the answer away from the client.
async fn end(mut stream: impl AsyncRead + AsyncWrite + Unpin, last_words: &[u8], at_once: bool) {
    let goodbye = async {
        stream.write_all(last_words).await?;
        stream.shutdown().await?;
        let mut ignored = [0; 4096];
        while !at_once && stream.read(&mut ignored).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whether the client heard it is the client's affair.
    let _ = timeout(LINGER, goodbye).await;
}
