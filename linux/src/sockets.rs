//! UDP at speed: many datagrams a system call, several sockets a port. Does I/O.
//!
//! A worker thread owns an [`UdpWorker`]: it receives a batch, answers in place, sends the batch, and waits without
//! cost when there is nothing. A [`Waker`] ends the waiting from another thread.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// How many datagrams a system call moves. More gains nothing measurable: the network stack dominates.
const BATCH: usize = 32;
/// Datagrams that arrive while a worker is busy; the kernel may give less.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A UDP socket whose port others may have too: the kernel spreads the clients over them.
pub fn udp_shared(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::sockopt::set_socket_reuseport(&fd, true)?;
    // Beyond the system's limit needs CAP_NET_ADMIN; without it the limit is what there is.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER).is_err() {
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER);
    }
    rustix::net::bind(&fd, &address)?;
    Ok(UdpSocket::from(fd))
}

/// Ends the waiting of the workers that were made with it.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// One that hasn't been used; its clones are the same one.
    pub fn new() -> io::Result<Self> {
        Ok(Waker(Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?)))
    }

    /// For good: there is no way back.
    pub fn wake(&self) {
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Waits until there is something to read; false when the waker was used.
    pub fn wait_for(&self, readable: impl AsFd) -> io::Result<bool> {
        let mut fds = [
            PollFd::from_borrowed_fd(readable.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => Ok(!fds[1].revents().contains(PollFlags::IN)),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }
}

/// Receives and answers datagrams in batches.
pub struct UdpWorker {
    socket: Arc<UdpSocket>,
    waker: Waker,
    incoming: Vec<Box<[u8]>>,
    lengths: [usize; BATCH],
    peers: [libc::sockaddr_storage; BATCH],
    peer_lengths: [libc::socklen_t; BATCH],
    replies: Vec<Vec<u8>>,
    received: usize,
}

impl UdpWorker {
    /// `largest` is the longest datagram that is taken whole; longer ones are cut.
    pub fn new(socket: Arc<UdpSocket>, waker: Waker, largest: usize) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // SAFETY: all zeros is a valid sockaddr_storage.
        let none: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
        Ok(UdpWorker {
            socket,
            waker,
            incoming: (0..BATCH).map(|_| vec![0; largest].into_boxed_slice()).collect(),
            lengths: [0; BATCH],
            peers: [none; BATCH],
            peer_lengths: [0; BATCH],
            replies: vec![Vec::new(); BATCH],
            received: 0,
        })
    }

    /// Waits for datagrams and receives a batch; false when the waker was used.
    pub fn receive(&mut self) -> io::Result<bool> {
        loop {
            match self.receive_now() {
                Ok(()) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !self.waker.wait_for(&*self.socket)? {
                        return Ok(false);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Calls `answer` with each datagram, its sender, and an empty buffer; what is put there is sent back.
    pub fn answer(&mut self, mut answer: impl FnMut(&[u8], SocketAddr, &mut Vec<u8>)) -> io::Result<()> {
        for i in 0..self.received {
            self.replies[i].clear();
            if let Some(peer) = address(&self.peers[i]) {
                answer(&self.incoming[i][..self.lengths[i]], peer, &mut self.replies[i]);
            }
        }
        self.send()
    }

    fn receive_now(&mut self) -> io::Result<()> {
        // SAFETY: all zeros is a valid mmsghdr and a valid iovec.
        let mut vectors: [libc::iovec; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        for i in 0..BATCH {
            let buffer = &mut self.incoming[i];
            vectors[i] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let header = &mut headers[i].msg_hdr;
            header.msg_name = (&raw mut self.peers[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut vectors[i];
            header.msg_iovlen = 1;
        }
        // SAFETY: each header points at a buffer, a vector and an address that live and are not otherwise used
        // until the call returns; their lengths are given.
        let count = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            self.received = 0;
            return Err(io::Error::last_os_error());
        }
        self.received = count as usize;
        for (i, header) in headers.iter().enumerate().take(self.received) {
            self.lengths[i] = header.msg_len as usize;
            self.peer_lengths[i] = header.msg_hdr.msg_namelen;
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        // SAFETY: all zeros is a valid mmsghdr and a valid iovec.
        let mut vectors: [libc::iovec; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut count = 0;
        for i in 0..self.received {
            let reply = &mut self.replies[i];
            if reply.is_empty() {
                continue;
            }
            vectors[count] = libc::iovec { iov_base: reply.as_mut_ptr().cast(), iov_len: reply.len() };
            let header = &mut headers[count].msg_hdr;
            header.msg_name = (&raw mut self.peers[i]).cast();
            header.msg_namelen = self.peer_lengths[i];
            header.msg_iov = &raw mut vectors[count];
            header.msg_iovlen = 1;
            count += 1;
        }
        let mut sent = 0;
        while sent < count {
            // SAFETY: the first `count` headers point at replies and addresses that live until the call returns.
            let done = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), headers[sent..].as_mut_ptr(), (count - sent) as libc::c_uint, 0)
            };
            match done {
                // The first could not be sent: its client is gone or the buffer is full. It will ask again.
                ..=0 => sent += 1,
                done => sent += done as usize,
            }
        }
        Ok(())
    }
}

/// The address that the kernel wrote.
pub(crate) fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in, which is smaller than the storage.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a sockaddr_in6, which is smaller than the storage.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

impl std::fmt::Debug for UdpWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UdpWorker").field("socket", &self.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_answers_batches_until_it_is_woken() {
        let socket = Arc::new(udp_shared("127.0.0.1:0".parse().unwrap()).unwrap());
        let to = socket.local_addr().unwrap();
        assert!(udp_shared(to).is_ok(), "a port is shared");
        let waker = Waker::new().unwrap();
        let mut worker = UdpWorker::new(socket, waker.clone(), 64).unwrap();
        let thread = std::thread::spawn(move || {
            while worker.receive().unwrap() {
                worker.answer(|question, _, reply| reply.extend(question.iter().rev())).unwrap();
            }
        });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        client.connect(to).unwrap();
        for word in ["abc", "xyz"] {
            client.send(word.as_bytes()).unwrap();
        }
        let mut buffer = [0; 16];
        for word in ["cba", "zyx"] {
            let read = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..read], word.as_bytes());
        }
        waker.wake();
        thread.join().unwrap();
    }
}
