//! The connection of one run: frames in, frames out, each in time (osap-wire 3).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use osap::lbs::frame::frame_len;
use osap::lbs::server::CloseReason;
use osap::modern;
use osap::modern::Exporter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

/// How a connection ended that did not get through.
pub(super) enum Failure {
    /// The machine closed it.
    Closed(CloseReason),
    /// The machine of the modern suites closed it.
    ModernClosed(modern::server::CloseReason),
    /// There was no conversation: what is below it failed, for this reason.
    Below(&'static str),
    /// The peer went away.
    Lost,
    /// The peer was too slow.
    TimedOut,
    /// The peer had shown no frame when somebody else needed its place.
    MadeRoom,
    /// The key agreement panicked.
    Panicked,
}

/// What a conversation with the LBS goes over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// The address of ours that the peer has reached.
    fn local(&self) -> io::Result<IpAddr>;

    /// Acknowledges at once what has come: the peer waits for that before it sends the rest.
    fn hurry(&self) {}

    /// Keying material of the connection (RFC 5705); `None` where there is none.
    fn export(&self, _label: &[u8], _context: &[u8]) -> Option<Exporter> {
        None
    }
}

impl Stream for TcpStream {
    fn local(&self) -> io::Result<IpAddr> {
        self.local_addr().map(|local| local.ip())
    }

    fn hurry(&self) {
        let _ = socket2::SockRef::from(self).set_tcp_quickack(true);
    }
}

impl Stream for TlsStream<TcpStream> {
    fn local(&self) -> io::Result<IpAddr> {
        self.get_ref().0.local()
    }

    fn export(&self, label: &[u8], context: &[u8]) -> Option<Exporter> {
        let room = Zeroizing::new([0; 48]);
        let material = self.get_ref().1.export_keying_material(room, label, Some(context)).ok()?;
        Exporter::from_bytes(material.as_slice()).ok()
    }
}

/// The stream with what was received and not used yet; at most one frame waits, of a modern device two (no pipelining, 3).
pub(super) struct Connection<S> {
    stream: S,
    received: Vec<u8>,
}

impl<S: Stream> Connection<S> {
    pub(super) fn new(stream: S) -> Connection<S> {
        Connection { stream, received: Vec::new() }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// The address of ours that the peer has reached.
    pub(super) fn local(&self) -> io::Result<IpAddr> {
        self.stream.local()
    }

    /// The next complete frame.
    pub(super) async fn read_frame(&mut self, max: usize, patience: Duration) -> Result<Vec<u8>, Failure> {
        let read = async {
            loop {
                match frame_len(&self.received, max) {
                    Ok(Some(len)) if self.received.len() >= len => return Ok(self.received[..len].to_vec()),
                    Ok(_) => {}
                    Err(error) => return Err(Failure::Closed(CloseReason::Frame(error))),
                }
                if !self.received.is_empty() {
                    // Devices send header and payload in separate writes and wait for us to acknowledge the first (3.4).
                    self.stream.hurry();
                }
                let mut chunk = [0u8; 512];
                let room = (2 * max).saturating_sub(self.received.len()).min(chunk.len());
                match self.stream.read(&mut chunk[..room]).await {
                    Ok(0) | Err(_) => return Err(Failure::Lost),
                    Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                }
            }
        };
        tokio::time::timeout(patience, read).await.unwrap_or(Err(Failure::TimedOut))
    }

    /// Says goodbye, so that the peer knows that nothing was cut off.
    pub(super) async fn close(&mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.stream.shutdown()).await;
    }

    pub(super) fn forget(&mut self, len: usize) {
        self.received.drain(..len);
    }

    pub(super) async fn write(&mut self, bytes: &[u8], patience: Duration) -> Result<(), Failure> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(patience, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failure::Lost),
            Err(_) => Err(Failure::TimedOut),
        }
    }
}
