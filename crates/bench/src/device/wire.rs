//! What a device talks over: TCP, with or without TLS.

use std::io;
use std::sync::Arc;

use osap::modern::Exporter;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vestibule_tls::rustls::ClientConfig;
use vestibule_tls::rustls::pki_types::ServerName;

/// An open connection.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Wire {
        Wire::Plain(stream)
    }
}

impl Wire {
    /// Makes the TLS handshake with the server of this name, which has to speak the protocol of the configuration.
    pub(super) async fn secure(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> io::Result<Wire> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let stream = Box::pin(TlsConnector::from(Arc::clone(config)).connect(name, stream)).await?;
        // A library may go on without one when the peer offers none.
        if stream.get_ref().1.alpn_protocol() != config.alpn_protocols.first().map(Vec::as_slice) {
            return Err(io::Error::other("the server speaks another protocol"));
        }
        Ok(Wire::Tls(Box::new(stream)))
    }

    /// Keying material of the connection; `None` without TLS.
    pub(super) fn export(&self, label: &[u8], context: &[u8]) -> Option<Exporter> {
        let Wire::Tls(stream) = self else { return None };
        let material = stream.get_ref().1.export_keying_material([0; 48], label, Some(context)).ok()?;
        Exporter::from_bytes(&material).ok()
    }

    /// Appends what comes next; 0 at the end.
    pub(super) async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read_buf(into).await,
            Wire::Tls(stream) => stream.read_buf(into).await,
        }
    }

    /// Writes all of it.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.write_all(bytes).await,
            Wire::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Says that nothing more comes.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.shutdown().await,
            Wire::Tls(stream) => stream.shutdown().await,
        }
    }
}
