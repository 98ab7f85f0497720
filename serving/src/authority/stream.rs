//! A connection read through the filter of odd authorities. I/O: passes bytes on. Caller: `http`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Filter;

/// See the module's head.
pub struct Filtered<I> {
    stream: I,
    filter: Filter,
}

impl<I> Filtered<I> {
    /// Over a connection that has been accepted, TLS taken off. HTTP/1 passes through as it is.
    pub fn new(stream: I) -> Filtered<I> {
        Filtered { stream, filter: Filter::default() }
    }

    /// Hands on what is ready; whether there was anything.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let ready = self.filter.ready();
        let length = ready.len().min(buf.remaining());
        buf.put_slice(&ready[..length]);
        ready.drain(..length);
        length > 0
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Filtered<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while buf.remaining() > 0 && !this.give(buf) {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let new = &buf.filled()[before..];
            if new.is_empty() {
                this.filter.end();
                this.give(buf);
                break;
            }
            let through = this.filter.take(new);
            buf.set_filled(before + through);
            if through > 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Filtered<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
