//! TLS of one connection: rustls, driven over the bytes of the socket.

use std::io::{self, Read as _, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::end::EndReason;
use crate::scratch;

/// Bytes that are encrypted at once: what is encrypted and not taken by the peer yet cannot be taken back.
const WINDOW: usize = 64 * 1024;

/// What the TLS handshake of a peer has shown.
#[derive(Clone, Copy)]
pub struct TlsFacts<'a>(&'a ServerConnection);

impl<'a> TlsFacts<'a> {
    /// The protocol that both ends agreed on, if any (RFC 7301).
    pub fn alpn(&self) -> Option<&'a [u8]> {
        self.0.alpn_protocol()
    }

    /// The peer's own certificate, DER, if it has shown one: the listener's configuration has verified it.
    pub fn peer_certificate(&self) -> Option<&'a CertificateDer<'a>> {
        self.0.peer_certificates()?.first()
    }

    /// Exports 48 bytes that both ends of this connection know and nobody else (RFC 5705, RFC 8446, 7.5).
    ///
    /// # Errors
    /// The library has none to give.
    pub fn export(&self, label: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; 48]>, rustls::Error> {
        let mut material = Zeroizing::new([0; 48]);
        self.0.export_keying_material(&mut material[..], label, Some(context))?;
        Ok(material)
    }
}

impl std::fmt::Debug for TlsFacts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsFacts").field("alpn", &self.alpn()).finish_non_exhaustive()
    }
}

/// The server's end.
pub(crate) struct Tls {
    connection: ServerConnection,
    /// Bytes of ours that are encrypted and not all written.
    encrypted: usize,
}

impl Tls {
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Result<Tls, rustls::Error> {
        let mut connection = ServerConnection::new(Arc::clone(config))?;
        connection.set_buffer_limit(Some(WINDOW));
        Ok(Tls { connection, encrypted: 0 })
    }

    pub(crate) fn facts(&self) -> TlsFacts<'_> {
        TlsFacts(&self.connection)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether TLS itself has something to say.
    pub(crate) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Works off bytes of the socket; what they held is lent to `take`, at once if it fits. A peer that says it is done,
    /// or breaks TLS, is at its end.
    pub(crate) fn take_in(
        &mut self,
        mut input: &[u8],
        mut take: impl FnMut(&mut [u8]) -> ControlFlow<EndReason>,
    ) -> ControlFlow<EndReason> {
        scratch::with_plain(|plain| {
            let mut filled = 0;
            while !input.is_empty() {
                let state = match self.connection.read_tls(&mut input) {
                    // It takes nothing after the peer's close_notify.
                    Ok(0) => {
                        let _ = take_filled(plain, filled, &mut take)?;
                        return ControlFlow::Break(EndReason::Lost);
                    }
                    Ok(_) => self.connection.process_new_packets(),
                    Err(error) => {
                        tracing::debug!(%error, "TLS record refused");
                        return ControlFlow::Break(EndReason::Protocol("tls_error"));
                    }
                };
                let state = match state {
                    Ok(state) => state,
                    Err(error) => {
                        tracing::debug!(%error, "TLS ended by an error");
                        return ControlFlow::Break(EndReason::Protocol("tls_error"));
                    }
                };
                let mut left = state.plaintext_bytes_to_read();
                while left > 0 {
                    if filled == plain.len() {
                        filled = take_filled(plain, filled, &mut take)?;
                    }
                    match self.connection.reader().read(&mut plain[filled..]) {
                        Ok(n) if n > 0 => {
                            filled += n;
                            left = left.saturating_sub(n);
                        }
                        _ => break,
                    }
                }
                if state.peer_has_closed() {
                    let _ = take_filled(plain, filled, &mut take)?;
                    return ControlFlow::Break(EndReason::Lost);
                }
            }
            take_filled(plain, filled, &mut take).map_continue(|_| ())
        })
    }

    /// Encrypts and writes as much as the peer takes; returns how many bytes of `plain` were encrypted.
    pub(crate) fn write(&mut self, stream: &TcpStream, plain: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            while self.connection.wants_write() {
                match self.connection.write_tls(&mut Direct(stream)) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                    Err(error) => return Err(error),
                }
            }
            self.encrypted = 0;
            if taken == plain.len() {
                return Ok(taken);
            }
            let end = plain.len().min(taken + WINDOW);
            let encrypted = self.connection.writer().write(&plain[taken..end])?;
            if encrypted == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            taken += encrypted;
            self.encrypted = encrypted;
        }
    }

    /// Bytes of ours that are encrypted and not all written; one, when it is TLS's own word that waits.
    pub(crate) fn unwritten(&self) -> usize {
        if self.wants_write() { self.encrypted.max(1) } else { 0 }
    }

    /// Says goodbye, as far as the peer takes it at once.
    pub(crate) fn close(&mut self, stream: &TcpStream) {
        self.connection.send_close_notify();
        let _ = self.write(stream, &[]);
    }
}

fn take_filled(
    plain: &mut [u8],
    filled: usize,
    take: &mut impl FnMut(&mut [u8]) -> ControlFlow<EndReason>,
) -> ControlFlow<EndReason, usize> {
    if filled > 0 {
        take(&mut plain[..filled])?;
    }
    ControlFlow::Continue(0)
}

/// The socket as the library writes to it: all records in one call, and never waiting.
struct Direct<'a>(&'a TcpStream);

impl Write for Direct<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
