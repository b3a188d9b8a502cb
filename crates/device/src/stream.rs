//! The connection to a DAS: TCP, or TLS over it, written and read without waiting.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;
use vestibule_tls::rustls::ClientConnection;

/// How long the server may take to close after DISCONNECT.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// TLS whose handshake is complete.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    tls: ClientConnection,
    /// Bytes that are decrypted and not read yet: no readiness of the socket tells of them.
    decrypted: usize,
}

/// What a stream is ready for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub readable: bool,
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl Stream {
    /// Of a handshake that is over.
    pub(crate) fn secured(tcp: TcpStream, tls: ClientConnection) -> io::Result<Self> {
        let mut stream = TlsStream { tcp, tls, decrypted: 0 };
        // What came with the end of the handshake is decrypted already.
        stream.process()?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Whether what was written before is not out yet.
    pub(crate) fn is_behind(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.tls.wants_write(),
        }
    }

    /// Waits until there is something to be read, or, if that is wanted, room to write. Cancel safe.
    pub(crate) async fn ready(&self, read: bool, write: bool) -> io::Result<Ready> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) if read && stream.decrypted > 0 => return Ok(Ready { readable: true }),
            Self::Tls(stream) => &stream.tcp,
        };
        let interest = match (read, write) {
            (true, false) => Interest::READABLE,
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, _) => Interest::WRITABLE,
        };
        let ready = tcp.ready(interest).await?;
        Ok(Ready { readable: ready.is_readable() || ready.is_read_closed() })
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when there is nothing, or what went wrong.
    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_read(buffer),
            Self::Tls(stream) => stream.try_read(buffer),
        }
    }

    /// Writes as much as there is room for. With TLS that is all or nothing, and a part may be on its way only with
    /// [`try_flush`](Self::try_flush).
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when there is no room, or what went wrong.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write(bytes),
            Self::Tls(stream) => {
                stream.try_flush()?;
                let written = stream.tls.writer().write(bytes)?;
                match stream.try_flush() {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                    _ => Ok(written),
                }
            }
        }
    }

    /// Writes what is behind.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when there is no room for all of it, or what went wrong.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.try_flush(),
        }
    }

    /// Closes so that what was written last arrives: a socket with unread bytes would be reset.
    pub(crate) async fn close(&mut self) {
        let close = async {
            if let Self::Tls(stream) = self {
                stream.tls.send_close_notify();
            }
            loop {
                match self.try_flush() {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => _ = self.ready(false, true).await?,
                    other => break other?,
                }
            }
            let mut tcp = match self {
                Self::Plain(tcp) => tcp,
                Self::Tls(stream) => &mut stream.tcp,
            };
            tokio::io::AsyncWriteExt::shutdown(&mut tcp).await?;
            let mut scratch = [0; 256];
            while tokio::io::AsyncReadExt::read(&mut tcp, &mut scratch).await? > 0 {}
            io::Result::Ok(())
        };
        // However this ends, the goodbye has been said.
        let _ = timeout(CLOSE_TIMEOUT, close).await;
    }
}

impl TlsStream {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.decrypted = 0,
                read => {
                    self.decrypted = self.decrypted.saturating_sub(*read.as_ref().unwrap_or(&0));
                    return read;
                }
            }
            self.tls.read_tls(&mut Now(&self.tcp))?;
            if let Err(error) = self.process() {
                // The alert that says so, if there is room for it.
                let _ = self.try_flush();
                return Err(error);
            }
        }
    }

    fn process(&mut self) -> io::Result<()> {
        let state = self.tls.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        self.decrypted = state.plaintext_bytes_to_read();
        Ok(())
    }

    fn try_flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut Now(&self.tcp))? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

/// The socket without waiting.
struct Now<'a>(&'a TcpStream);

impl Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
