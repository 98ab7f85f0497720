//! Sockets that take connections: TCP and unix. An accept that fails for want of descriptors closes a connection that
//! is missed least and pauses, instead of spinning. I/O: sockets. Callers: `http`, and servers of other protocols.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::crowd::From;
use crate::shares::Port;
use crate::table::{Connections, Slot};

/// Pause after an accept that failed for want of something (descriptors, memory).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Connections that the kernel holds until they are taken; it cuts this to `net.core.somaxconn`, whose default it is and
/// which Go's listeners take. Whose connection overflows a shorter queue tries again after a second.
const BACKLOG: u32 = 4096;
/// A peer that says nothing for so long is asked by the kernel whether it lives: upstream's listeners do the same.
const KEEPALIVE: Duration = Duration::from_secs(3 * 60);
/// How often it is asked again before the connection is given up, at the kernel's default of nine times.
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(20);

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A bound port with its limit.
pub struct Listener {
    socket: Socket,
    connections: Arc<Connections>,
}

impl Listener {
    /// Binds an address; the limit is that of this port in this process.
    pub async fn bind(port: Port, address: SocketAddr) -> io::Result<Listener> {
        Listener::bind_within(Connections::of(port), address).await
    }

    /// Binds an address that shares a limit with others.
    pub async fn bind_within(connections: Arc<Connections>, address: SocketAddr) -> io::Result<Listener> {
        let (socket, address) = socket_of(address, TcpSocket::new_v6)?;
        // Without it a port can't be bound again while connections of the last process end.
        socket.set_reuseaddr(true)?;
        if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            // Every address is also every one of IPv4, whatever net.ipv6.bindv6only says: as Go's listeners have it.
            sockopt::set_ipv6_v6only(&socket, false)?;
        }
        socket.bind(address)?;
        Ok(Listener { socket: Socket::Tcp(socket.listen(BACKLOG)?), connections })
    }

    /// Over a unix socket that is bound.
    pub fn unix(connections: Arc<Connections>, socket: UnixListener) -> Listener {
        Listener { socket: Socket::Unix(socket), connections }
    }

    /// Where it listens; fails for a unix socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr(),
            Socket::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The places of this port, which other listeners of the same port share.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// The next connection that has a place. It may be cancelled without losing one that has.
    pub async fn accept(&self) -> Connection {
        loop {
            match self.accept_any().await {
                Ok((stream, address, from)) => {
                    // Without a place it is closed: its client may try elsewhere or later.
                    if let Some(slot) = self.connections.enter(from).await {
                        return Connection { stream, slot, address };
                    }
                }
                Err(error) if only_this_one(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.connections.shed();
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    async fn accept_any(&self) -> io::Result<(Stream, Option<SocketAddr>, From)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                let local = stream.local_addr()?;
                stream.set_nodelay(true)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
                sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_AGAIN)?;
                Ok((Stream::Tcp(stream), Some(peer), From::of(peer.ip(), local.ip())))
            }
            Socket::Unix(socket) => Ok((Stream::Unix(socket.accept().await?.0), None, From::Host)),
        }
    }
}

/// A socket of an address's family, and the address: every one (`::`) is every one of IPv4 on a host without IPv6 (booted
/// with `ipv6.disable=1`), as Go's listeners have it.
fn socket_of(address: SocketAddr, new_v6: fn() -> io::Result<TcpSocket>) -> io::Result<(TcpSocket, SocketAddr)> {
    if address.is_ipv4() {
        return Ok((TcpSocket::new_v4()?, address));
    }
    match new_v6() {
        Err(error) if address.ip().is_unspecified() && Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => {
            Ok((TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, address.port()).into()))
        }
        socket => Ok((socket?, address)),
    }
}

/// The fault of one connection, gone before it was taken: the next may be well.
fn only_this_one(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(
        error.kind(),
        E::ConnectionAborted | E::ConnectionReset | E::NotConnected | E::InvalidInput | E::Interrupted | E::TimedOut
    )
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An accepted connection. Its place is free when it is dropped, whoever holds it then.
pub struct Connection {
    // Closed before its place is given to another.
    stream: Stream,
    slot: Arc<Slot>,
    /// Where it comes from, over TCP.
    pub address: Option<SocketAddr>,
}

impl Connection {
    /// Its place, for who takes the connection over: an upgrade keeps it.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

macro_rules! stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.stream {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = stream!(self, stream => Pin::new(stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.slot.heard();
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        stream!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        stream!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        stream!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        stream!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_descriptors_is_a_reason_to_pause_and_a_lost_client_is_none() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(!only_this_one(&errno.into()), "{errno}");
        }
        assert!(only_this_one(&Errno::CONNABORTED.into()));
    }

    #[tokio::test]
    async fn every_address_is_every_one_of_ipv4_where_there_is_no_ipv6() {
        let without = || Err(Errno::AFNOSUPPORT.into());
        let (socket, address) = socket_of("[::]:0".parse().unwrap(), without).unwrap();
        socket.bind(address).unwrap();
        assert_eq!(socket.local_addr().unwrap().ip(), Ipv4Addr::UNSPECIFIED);
        let one = socket_of("[::1]:0".parse().unwrap(), without).map(|(_, address)| address);
        assert_eq!(Errno::from_io_error(&one.unwrap_err()), Some(Errno::AFNOSUPPORT), "an address of its own is meant");
        let other = socket_of("[::]:0".parse().unwrap(), || Err(Errno::MFILE.into())).map(|(_, address)| address);
        assert_eq!(Errno::from_io_error(&other.unwrap_err()), Some(Errno::MFILE));
        assert!(socket_of("[::]:7".parse().unwrap(), TcpSocket::new_v4).unwrap().1.is_ipv6(), "with IPv6 it stays");
    }
}
