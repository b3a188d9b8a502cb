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
    pub(crate) link: Arc<Link>,
    tail: Vec<u8>,
    max_frame: usize,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, link: Arc<Link>, max_frame: usize) -> Socket {
        Socket { stream, link, tail: Vec::new(), max_frame }
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
            let (stream, tail, link) = (&mut self.stream, &mut self.tail, &self.link);
            let room = max - tail.len().min(max - 1);
            let read = poll_fn(|context| {
                if link.take_wake(context) {
                    return Poll::Ready(None);
                }
                poll_read(stream, context, room, |bytes| tail.extend_from_slice(bytes)).map(Some)
            });
            match read.await {
                Some(Ok(())) => {}
                Some(Err(())) => return Err("connection_lost"),
                None => match self.link.ending() {
                    Some(EndReason::KeepAlive) => return Err("connect_timeout"),
                    Some(other) => return Err(other.as_str()),
                    None => {}
                },
            }
        }
    }

    /// Waits for what is worth a turn; bytes of the peer are worked off in place, where they were read.
    pub(crate) async fn turn<S: Service>(
        &mut self,
        session: &mut Session<S>,
        listen: bool,
        write: bool,
    ) -> ControlFlow<EndReason, Turn> {
        poll_fn(|context| {
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
        .await
    }

    /// Reads once and works off every complete frame.
    fn poll_work<S: Service>(
        &mut self,
        session: &mut Session<S>,
        context: &mut Context<'_>,
    ) -> Poll<ControlFlow<EndReason, usize>> {
        let (tail, max_frame) = (&mut self.tail, self.max_frame);
        let worked = ready!(poll_read(&mut self.stream, context, SCRATCH, |bytes| {
            if tail.is_empty() {
                let used = session.work(bytes, max_frame)?;
                tail.extend_from_slice(&bytes[used..]);
            } else {
                tail.extend_from_slice(bytes);
                let used = session.work(tail, max_frame)?;
                drop_front(tail, used);
            }
            ControlFlow::Continue(bytes.len())
        }));
        Poll::Ready(worked.unwrap_or(ControlFlow::Break(EndReason::Lost)))
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
    pub(crate) fn flush(&self) -> io::Result<usize> {
        let mut out = self.link.take_out();
        if out.is_empty() {
            return Ok(0);
        }
        let written = match self.stream.try_write(&out) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            written => written?,
        };
        if written == out.len() {
            // An idle connection owns no buffer.
            out = Vec::new();
        } else {
            out.drain(..written);
        }
        Ok(self.link.settle(out))
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

fn drop_front(tail: &mut Vec<u8>, used: usize) {
    if used == tail.len() {
        // An idle connection owns no buffer.
        *tail = Vec::new();
    } else {
        tail.drain(..used);
    }
}
