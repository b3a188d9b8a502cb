//! TLS where pictures go.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Trust, tls};
use crate::keyring::Keyring;

/// Whom a device believes there: the same as everywhere.
pub(crate) struct Web {
    pub trust: Trust,
    pub keyring: Arc<Keyring>,
}

impl Web {
    /// Makes a TLS connection to the server of this name.
    pub(crate) async fn secure(&self, tcp: TcpStream, name: &str, now_ms: i64) -> io::Result<TlsStream<TcpStream>> {
        let config =
            self.trust.http(&self.keyring.modern(), now_ms).map_err(|fault| io::Error::other(fault.to_string()))?;
        tls::handshake(tcp, config, name).await.map_err(|end| match end {
            tls::End::Io(kind) => kind.into(),
            tls::End::Tls(fault) => io::Error::other(fault.to_string()),
        })
    }
}
