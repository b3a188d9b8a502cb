//! Answers a listener.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::api::Api;
use crate::connection;

/// Pause after the system gave no connection, mostly for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Refused connections that are told so at once; more are closed without a word.
const REFUSALS: usize = 64;

/// Answers the listener until `shutdown` resolves, then ends the event streams, lets running requests finish
/// within the configured time and cuts the rest. Listeners of one API share its limits.
pub async fn serve(listener: TcpListener, api: Api, shutdown: impl Future<Output = ()>) {
    accept(listener, None, api, shutdown).await;
}

/// As [`serve`], over TLS.
pub async fn serve_tls(listener: TcpListener, tls: Arc<ServerConfig>, api: Api, shutdown: impl Future<Output = ()>) {
    accept(listener, Some(TlsAcceptor::from(tls)), api, shutdown).await;
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, api: Api, shutdown: impl Future<Output = ()>) {
    let name = if tls.is_some() { "https" } else { "http" };
    let mut shutdown = pin!(shutdown);
    let mut tasks = JoinSet::new();
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = tasks.join_next() => {
                note(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                metrics::counter!("vestibule_accept_errors_total", "listener" => name).increment(1);
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        if let Ok(permit) = Arc::clone(&api.shared.connections).try_acquire_owned() {
            let (api, tls) = (api.clone(), tls.clone());
            tasks.spawn(async move {
                let _open = Open::new();
                connection::run(stream, tls, api).await;
                drop(permit);
            });
        } else {
            metrics::counter!("vestibule_http_connections_refused_total").increment(1);
            // Over TLS it would take a handshake to say so.
            if tls.is_none()
                && let Ok(permit) = Arc::clone(&refusals).try_acquire_owned()
            {
                tasks.spawn(async move {
                    connection::refuse(stream).await;
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    api.shared.closing.send_replace(true);
    let finished = async {
        while let Some(ended) = tasks.join_next().await {
            note(ended);
        }
    };
    if timeout(api.shared.config.shutdown_timeout, finished).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections did not end in time and are cut");
    }
}

/// One open connection, counted while it lives.
struct Open;

impl Open {
    fn new() -> Open {
        metrics::gauge!("vestibule_http_connections").increment(1.0);
        Open
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("vestibule_http_connections").decrement(1.0);
    }
}

/// A panic costs its connection only; it is counted and logged.
fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        metrics::counter!("vestibule_http_panics_total").increment(1);
        tracing::error!(%error, "a request's handler panicked; its connection is gone");
    }
}
