//! The socket of a connection, with the bytes of an incomplete frame.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use vestibule_mqtt_codec::{PacketType, frame_len};

use crate::end::EndReason;
use crate::link::Link;
use crate::scratch::{self, SCRATCH};
use crate::service::Service;
use crate::session::Session;
use crate::tls::{Tls, TlsFacts};

/// Bytes of a handshake that are read at once, and so what may come behind it unasked.
const HANDSHAKE: usize = 16 * 1024;

/// What a turn was about.
pub(crate) enum Turn {
    /// Somebody woke the task.
    Woken,
    /// The peer takes bytes again.
    Writable,
    /// Bytes of the peer were worked off; how many.
    Read(usize),
}

pub(crate) struct Socket {
    stream: TcpStream,
    tls: Option<Box<Tls>>,
    pub(crate) link: Arc<Link>,
    tail: Vec<u8>,
    max_frame: usize,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, link: Arc<Link>, max_frame: usize) -> Socket {
        Socket { stream, tls: None, link, tail: Vec::new(), max_frame }
    }

    /// Goes on over TLS: makes the handshake, and calls `heard` when its first word has come. What came behind it stays in the
    /// tail. An error is a short code.
    pub(crate) async fn secure(&mut self, tls: Tls, mut heard: impl FnMut()) -> Result<(), &'static str> {
        self.tls = Some(Box::new(tls));
        let mut silent = true;
        loop {
            if silent && self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
                silent = false;
                heard();
            }
            self.flush().map_err(|_| "connection_lost")?;
            let (stream, tail, link) = (&mut self.stream, &mut self.tail, &self.link);
            let Some(tls) = &mut self.tls else { return Ok(()) };
            if !tls.is_handshaking() {
                return Ok(());
            }
            let read = poll_fn(|context| {
                if link.take_wake(context) {
                    return Poll::Ready(None);
                }
                let read = poll_read(stream, context, HANDSHAKE, |bytes| {
                    tls.take_in(bytes, |plain| {
                        tail.extend_from_slice(plain);
                        ControlFlow::Continue(())
                    })
                });
                match read {
                    Poll::Ready(read) => Poll::Ready(Some(read)),
                    Poll::Pending if tls.wants_write() && stream.poll_write_ready(context).is_ready() => {
                        Poll::Ready(Some(Ok(ControlFlow::Continue(()))))
                    }
                    Poll::Pending => Poll::Pending,
                }
            });
            match read.await {
                Some(Ok(ControlFlow::Continue(()))) => {}
                Some(Ok(ControlFlow::Break(reason))) => {
                    // The alert says what was wrong.
                    let _ = self.flush();
                    return Err(code(reason));
                }
                Some(Err(())) => return Err("connection_lost"),
                None => match self.link.ending() {
                    Some(EndReason::KeepAlive) => return Err("tls_timeout"),
                    Some(other) => return Err(code(other)),
                    None => {}
                },
            }
        }
    }

    /// What the TLS handshake has shown.
    pub(crate) fn tls(&self) -> Option<TlsFacts<'_>> {
        self.tls.as_deref().map(Tls::facts)
    }

    /// Tries once to write what is left, and to say goodbye where the protocol below MQTT has a word for it.
    pub(crate) fn close(&mut self) {
        let _ = self.flush();
        if let Some(tls) = &mut self.tls {
            tls.close(&self.stream);
        }
    }

    /// The bytes of the first packet, which is a CONNECT; what came behind it stays in the tail.
    pub(crate) async fn first_frame(&mut self, max_connect: usize) -> Result<Vec<u8>, &'static str> {
        let max = max_connect.min(self.max_frame);
        loop {
            // Known from the first byte: nobody else's packet is waited for.
            if self.tail.first().is_some_and(|&first| PacketType::from_first_byte(first) != Ok(PacketType::Connect)) {
                return Err("not_connect");
            }
            match frame_len(&self.tail, max) {
                Ok(Some(len)) if self.tail.len() >= len => {
                    let rest = self.tail.split_off(len);
                    return Ok(std::mem::replace(&mut self.tail, rest));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(peer = %self.link.peer(), %error, "CONNECT refused");
                    return Err("malformed_connect");
                }
            }
            let (stream, tls, tail, link) = (&mut self.stream, &mut self.tls, &mut self.tail, &self.link);
            let room = max - tail.len().min(max - 1);
            let read = poll_fn(|context| {
                if link.take_wake(context) {
                    return Poll::Ready(None);
                }
                let keep = |bytes: &mut [u8]| {
                    tail.extend_from_slice(bytes);
                    ControlFlow::Continue(())
                };
                poll_take(stream, tls, context, room, keep).map(Some)
            });
            match read.await {
                Some(ControlFlow::Continue(_)) => {}
                Some(ControlFlow::Break(reason)) => {
                    let _ = self.flush();
                    return Err(code(reason));
                }
                None => match self.link.ending() {
                    Some(EndReason::KeepAlive) => return Err("connect_timeout"),
                    Some(other) => return Err(code(other)),
                    None => {}
                },
            }
        }
    }

    /// Waits for what is worth a turn; bytes of the peer are worked off in place, where they were read.
    ///
    /// Not an `async fn`: an idle connection waits here, and would hold its arguments twice.
    pub(crate) fn turn<S: Service>(
        &mut self,
        session: &mut Session<S>,
        listen: bool,
        write: bool,
    ) -> impl Future<Output = ControlFlow<EndReason, Turn>> {
        poll_fn(move |context| {
            if self.link.take_wake(context) {
                return Poll::Ready(ControlFlow::Continue(Turn::Woken));
            }
            if listen && let Poll::Ready(read) = self.poll_work(session, context) {
                return Poll::Ready(read.map_continue(Turn::Read));
            }
            // An error of readiness shows as the error of the write that follows.
            if write && self.stream.poll_write_ready(context).is_ready() {
                return Poll::Ready(ControlFlow::Continue(Turn::Writable));
            }
            Poll::Pending
        })
    }

    /// Reads once and works off every complete frame.
    fn poll_work<S: Service>(
        &mut self,
        session: &mut Session<S>,
        context: &mut Context<'_>,
    ) -> Poll<ControlFlow<EndReason, usize>> {
        let (tail, max_frame) = (&mut self.tail, self.max_frame);
        poll_take(&mut self.stream, &mut self.tls, context, SCRATCH, |bytes| {
            if tail.is_empty() {
                let used = session.work(bytes, max_frame)?;
                tail.extend_from_slice(&bytes[used..]);
            } else {
                tail.extend_from_slice(bytes);
                let used = session.work(tail, max_frame)?;
                drop_front(tail, used);
            }
            ControlFlow::Continue(())
        })
    }

    /// Works off complete frames that were left over while the session was held.
    pub(crate) fn work_off<S: Service>(&mut self, session: &mut Session<S>) -> ControlFlow<EndReason> {
        let used = session.work(&mut self.tail, self.max_frame)?;
        drop_front(&mut self.tail, used);
        ControlFlow::Continue(())
    }

    /// Whether the tail holds a complete frame.
    pub(crate) fn has_frame(&self) -> bool {
        match frame_len(&self.tail, self.max_frame) {
            Ok(len) => len.is_some_and(|len| self.tail.len() >= len),
            // The error is found, and named, by the session.
            Err(_) => true,
        }
    }

    /// Writes what is waiting, in one call. Returns how many bytes are left.
    pub(crate) fn flush(&mut self) -> io::Result<usize> {
        let mut out = self.link.take_out();
        if out.is_empty() && !self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            return Ok(0);
        }
        let (written, encrypted) = match &mut self.tls {
            None => match self.stream.try_write(&out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, 0),
                written => (written?, 0),
            },
            Some(tls) => (tls.write(&self.stream, &out)?, tls.unwritten()),
        };
        if written == out.len() {
            // An idle connection owns no buffer.
            out = Vec::new();
        } else {
            out.drain(..written);
        }
        Ok(self.link.settle(out, encrypted))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.link.retire();
    }
}

/// Reads at most `limit` bytes into the shard's buffer and lends them to `take`. An error is the end of the
/// peer's bytes.
///
/// A read that does not fill the buffer tells the runtime that the socket is empty, which saves the read that
/// would find nothing.
fn poll_read<T>(
    stream: &mut TcpStream,
    context: &mut Context<'_>,
    limit: usize,
    take: impl FnOnce(&mut [u8]) -> T,
) -> Poll<Result<T, ()>> {
    scratch::with(|buffer| {
        let limit = limit.min(buffer.len());
        let mut buffer = ReadBuf::new(&mut buffer[..limit]);
        match ready!(Pin::new(stream).poll_read(context, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => Poll::Ready(Ok(take(buffer.filled_mut()))),
            Ok(()) | Err(_) => Poll::Ready(Err(())),
        }
    })
}

/// As [`poll_read`], lending what the bytes say: themselves, or what TLS makes of them, which may be nothing yet.
fn poll_take(
    stream: &mut TcpStream,
    tls: &mut Option<Box<Tls>>,
    context: &mut Context<'_>,
    limit: usize,
    mut take: impl FnMut(&mut [u8]) -> ControlFlow<EndReason>,
) -> Poll<ControlFlow<EndReason, usize>> {
    let taken = ready!(poll_read(stream, context, limit, |bytes| {
        let length = bytes.len();
        match tls {
            None => take(bytes),
            Some(tls) => tls.take_in(bytes, take),
        }
        .map_continue(|()| length)
    }));
    Poll::Ready(taken.unwrap_or(ControlFlow::Break(EndReason::Lost)))
}

/// The short code of an end before there was a session.
fn code(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Protocol(code) => code,
        other => other.as_str(),
    }
}

fn drop_front(tail: &mut Vec<u8>, used: usize) {
    if used == tail.len() {
        // An idle connection owns no buffer.
        *tail = Vec::new();
    } else {
        tail.drain(..used);
    }
}
