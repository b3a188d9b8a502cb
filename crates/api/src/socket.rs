//! A client's socket as hyper sees it.
//!
//! It ends with an error when the client takes nothing of what is being sent to it for too long. And it
//! replaces the empty answers that hyper gives by itself to requests it cannot parse by problem documents.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::problem::{Kind, Problem};

/// See the module.
pub(crate) struct Socket<S> {
    stream: S,
    write_timeout: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What is still to be sent of an answer of ours in place of hyper's.
    replaced: Vec<u8>,
    /// Whether all that was given to us is with the kernel, so that something may be appended.
    complete: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(crate) fn new(stream: S, write_timeout: Duration) -> Socket<S> {
        Socket { stream, write_timeout, stalled: None, replaced: Vec::new(), complete: true }
    }

    /// Whether the last answer went out whole.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    /// Writes to the socket; pending for too long becomes an error.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_in_time(cx, sent)
    }

    /// What the socket says, or an error when it has said nothing for too long.
    fn poll_in_time<T>(&mut self, cx: &mut Context<'_>, said: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match said {
            Poll::Ready(result) => {
                self.stalled = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                let timeout = self.write_timeout;
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
                ready!(stalled.as_mut().poll(cx));
                stalled.as_mut().reset(Instant::now() + timeout);
                metrics::counter!("vestibule_http_stalled_total").increment(1);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn poll_replaced(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replaced.is_empty() {
            let bytes = std::mem::take(&mut self.replaced);
            match self.poll_send(cx, &bytes) {
                Poll::Ready(sent) => self.replaced = bytes[sent?.min(bytes.len())..].to_vec(),
                Poll::Pending => {
                    self.replaced = bytes;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The problem that stands for hyper's own answer. Only hyper answers an error without a body: ours all have one.
fn replacement(bytes: &[u8]) -> Option<Problem> {
    let empty = b"content-length: 0\r\n";
    if !bytes.ends_with(b"\r\n\r\n") || !bytes.windows(empty.len()).any(|window| window == empty) {
        return None;
    }
    Some(match bytes.get(..12)? {
        b"HTTP/1.1 400" | b"HTTP/1.0 400" => Problem::new(Kind::MalformedRequest, "This is not a request of HTTP/1.1."),
        b"HTTP/1.1 414" | b"HTTP/1.0 414" => Problem::new(Kind::UriTooLong, "The address is too long."),
        b"HTTP/1.1 431" | b"HTTP/1.0 431" => {
            Problem::new(Kind::HeadTooLarge, "The request line and headers are too long or too many.")
        }
        _ => return None,
    })
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_replaced(cx))?;
        if let Some(problem) = replacement(bytes) {
            self.replaced = problem.to_http();
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = self.poll_send(cx, bytes);
        self.complete = matches!(result, Poll::Ready(Ok(sent)) if sent == bytes.len());
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replaced(cx))?;
        // TLS holds what is encrypted and not yet with the kernel.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.poll_in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replaced(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_without_a_body_is_replaced() {
        let hypers = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(replacement(hypers).map(|problem| problem.kind), Some(Kind::HeadTooLarge));
        for ours in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 10\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"",
        ] {
            assert_eq!(replacement(ours), None);
        }
    }
}
