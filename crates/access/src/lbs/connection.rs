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

/// What one read takes at most; the frames of good devices are shorter.
const CHUNK: usize = 512;

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
        Connection { stream, received: Vec::with_capacity(CHUNK) }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// The address of ours that the peer has reached.
    pub(super) fn local(&self) -> io::Result<IpAddr> {
        self.stream.local()
    }

    /// The next complete frame; to be [forgotten](Connection::forget) once it was looked at.
    pub(super) async fn read_frame(&mut self, max: usize, patience: Duration) -> Result<&[u8], Failure> {
        let len = tokio::time::timeout(patience, self.fill(max)).await.unwrap_or(Err(Failure::TimedOut))?;
        Ok(&self.received[..len])
    }

    /// Reads until a complete frame is there, and says how long it is.
    async fn fill(&mut self, max: usize) -> Result<usize, Failure> {
        loop {
            match frame_len(&self.received, max) {
                Ok(Some(len)) if self.received.len() >= len => return Ok(len),
                Ok(_) => {}
                Err(error) => return Err(Failure::Closed(CloseReason::Frame(error))),
            }
            if !self.received.is_empty() {
                // Devices send header and payload in separate writes and wait for us to acknowledge the first (3.4).
                self.stream.hurry();
            }
            let room = (2 * max).saturating_sub(self.received.len()).min(CHUNK);
            match (&mut self.stream).take(room as u64).read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return Err(Failure::Lost),
                Ok(_) => {}
            }
        }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::DuplexStream;

    use super::*;

    const MAX: usize = 1024;
    const PATIENCE: Duration = Duration::from_secs(10);

    impl Stream for DuplexStream {
        fn local(&self) -> io::Result<IpAddr> {
            Ok(Ipv4Addr::LOCALHOST.into())
        }
    }

    fn ends() -> (DuplexStream, Connection<DuplexStream>) {
        let (peer, stream) = tokio::io::duplex(64 << 10);
        (peer, Connection::new(stream))
    }

    /// A frame with so much behind its two bytes of length.
    fn frame(len: usize) -> Vec<u8> {
        let mut frame = vec![0x1A, (len & 0x7F) as u8 | 0x80, (len >> 7) as u8];
        frame.extend((0..len).map(|n| n as u8));
        frame
    }

    async fn read(connection: &mut Connection<DuplexStream>) -> Result<Vec<u8>, Failure> {
        let read = connection.read_frame(MAX, PATIENCE).await?.to_vec();
        connection.forget(read.len());
        Ok(read)
    }

    #[tokio::test]
    async fn frames_are_read_however_they_come() {
        let (mut peer, mut connection) = ends();
        let (short, long) = (frame(200), frame(1_000));
        // Two at once, of which the second takes more than one read.
        peer.write_all(&[short.as_slice(), &long].concat()).await.expect("there is room");
        assert!(read(&mut connection).await.is_ok_and(|read| read == short));
        assert!(read(&mut connection).await.is_ok_and(|read| read == long));
        let in_bytes = async {
            for byte in &long {
                peer.write_all(&[*byte]).await.expect("there is room");
                tokio::task::yield_now().await;
            }
        };
        let (read, ()) = tokio::join!(read(&mut connection), in_bytes);
        assert!(read.is_ok_and(|read| read == long));
    }

    #[tokio::test]
    async fn no_more_is_kept_of_what_a_peer_sends_than_two_frames_take() {
        let (mut peer, mut connection) = ends();
        let many = frame(200).repeat(100);
        peer.write_all(&many).await.expect("there is room");
        for _ in 0..100 {
            assert!(connection.read_frame(MAX, PATIENCE).await.is_ok());
            assert!(connection.received.len() <= 2 * MAX);
            connection.forget(203);
        }
        peer.write_all(&frame(MAX)).await.expect("there is room");
        assert!(matches!(connection.read_frame(MAX, PATIENCE).await, Err(Failure::Closed(CloseReason::Frame(_)))));
    }

    #[tokio::test]
    async fn a_peer_that_is_slow_or_goes_away_gives_no_frame() {
        let (mut peer, mut connection) = ends();
        peer.write_all(&frame(200)[..100]).await.expect("there is room");
        assert!(matches!(connection.read_frame(MAX, Duration::ZERO).await, Err(Failure::TimedOut)));
        drop(peer);
        assert!(matches!(connection.read_frame(MAX, PATIENCE).await, Err(Failure::Lost)));
    }
}
