//! The connection of one run: frames in, frames out, each in time (osap-wire 3).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use osap::lbs::frame::frame_len;
use osap::lbs::server::CloseReason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How a connection ended that did not get through.
pub(super) enum Failure {
    /// The machine closed it.
    Closed(CloseReason),
    /// The peer went away.
    Lost,
    /// The peer was too slow.
    TimedOut,
    /// The peer had shown no frame when somebody else needed its place.
    MadeRoom,
    /// The key agreement panicked.
    Panicked,
}

/// The socket with what was received and not used yet; never more than one frame may wait (no pipelining, 3).
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Connection {
        Connection { stream, received: Vec::new() }
    }

    /// The address of ours that the peer has reached.
    pub(super) fn local(&self) -> io::Result<IpAddr> {
        self.stream.local_addr().map(|local| local.ip())
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
                    let _ = socket2::SockRef::from(&self.stream).set_tcp_quickack(true);
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

    pub(super) fn forget(&mut self, len: usize) {
        self.received.drain(..len);
    }

    pub(super) async fn write(&mut self, bytes: &[u8], patience: Duration) -> Result<(), Failure> {
        match tokio::time::timeout(patience, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failure::Lost),
            Err(_) => Err(Failure::TimedOut),
        }
    }
}
