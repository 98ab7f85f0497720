//! A blocking netlink socket: requests with an acknowledgement, dumps, batches. Does I/O.
//!
//! The kernel handles a request inside the sender's system call, so the answer is there when sending
//! returns. A socket belongs to the network namespace of the thread that opened it, for good.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::Error;
use super::message::{Message, Writer, attr, messages, split, text, u32_at};

/// NLM_F_*: what a request asks for.
pub mod flags {
    pub const REQUEST: u16 = 0x1;
    pub const ACK: u16 = 0x4;
    pub const DUMP: u16 = 0x300;
    pub const REPLACE: u16 = 0x100;
    pub const EXCL: u16 = 0x200;
    pub const CREATE: u16 = 0x400;
    pub const APPEND: u16 = 0x800;
    /// On an error: attributes follow the header that failed.
    pub const ACK_TLVS: u16 = 0x200;
    /// On an error: the failed message is not echoed after its header.
    pub const CAPPED: u16 = 0x100;
    /// On a dump: it changed under the reader.
    pub const DUMP_INTR: u16 = 0x10;
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The kernel cuts dumps at 32 KiB a datagram or at what the reader offers; this holds either.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// How often a dump that changed under us is taken again before what we have is used.
const DUMP_RETRIES: usize = 8;

/// A netlink socket of one protocol.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

/// One refusal in answer to a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The number of the message that it answers.
    pub seq: u32,
    /// 0 is an acknowledgement.
    pub errno: i32,
    /// The kernel's explanation.
    pub message: Option<String>,
}

impl Socket {
    /// For links, addresses, routes, neighbours.
    pub fn route() -> Result<Self, Error> {
        // NETLINK_ROUTE is protocol 0, which is what no protocol means.
        Socket::open(None, "opening a routing netlink socket")
    }

    /// For nftables and connection tracking.
    pub fn netfilter() -> Result<Self, Error> {
        Socket::open(Some(netlink::NETFILTER), "opening a netfilter netlink socket")
    }

    /// For what registers a family of its own: WireGuard.
    pub fn generic() -> Result<Self, Error> {
        Socket::open(Some(netlink::GENERIC), "opening a generic netlink socket")
    }

    fn open(protocol: Option<rustix::net::Protocol>, what: &str) -> Result<Self, Error> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(|e| io(what, e))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            let on: libc::c_int = 1;
            // SAFETY: the pointer and length describe `on`, which outlives the call. A kernel without the
            // option refuses it and nothing else changes.
            unsafe {
                libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), 4);
            }
        }
        Ok(Socket { fd, seq: 1, buffer: Vec::new() })
    }

    /// The address that the kernel gave it; 0 when it can't be told.
    pub fn port(&self) -> u32 {
        // It has none before its first request, or before it is bound to whichever is free.
        let _ = rustix::net::bind(&self.fd, &netlink::SocketAddrNetlink::new(0, 0));
        let name = rustix::net::getsockname(&self.fd).ok();
        name.and_then(|name| netlink::SocketAddrNetlink::try_from(name).ok()).map_or(0, |name| name.pid())
    }

    /// A sequence number not used on this socket before.
    pub fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1).max(1);
        self.seq
    }

    /// Sends one request and waits for its acknowledgement. `fill` writes the body.
    pub fn request(
        &mut self,
        kind: u16,
        extra_flags: u16,
        what: &str,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<(), Error> {
        let seq = self.next_seq();
        let mut w = Writer::new();
        let m = w.begin(kind, flags::REQUEST | flags::ACK | extra_flags, seq);
        fill(&mut w);
        w.end(m);
        self.send(w.bytes(), what)?;
        self.answers(seq, what, |_| ())
    }

    /// Sends a dump request and gives each message of the answer to `each`. A dump that changed meanwhile is
    /// taken again, so `each` returns what it makes of a message and the last whole set is returned.
    pub fn dump<T>(
        &mut self,
        kind: u16,
        what: &str,
        fill: impl Fn(&mut Writer),
        mut each: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        for _ in 0..DUMP_RETRIES {
            found.clear();
            let seq = self.next_seq();
            let mut w = Writer::new();
            let m = w.begin(kind, flags::REQUEST | flags::DUMP, seq);
            fill(&mut w);
            w.end(m);
            self.send(w.bytes(), what)?;
            let mut torn = false;
            self.answers(seq, what, |message| {
                torn |= message.flags & flags::DUMP_INTR != 0;
                found.extend(each(message));
            })?;
            if !torn {
                break;
            }
        }
        Ok(found)
    }

    /// Sends a request for one object and returns what `each` makes of the answer.
    pub fn get<T>(
        &mut self,
        kind: u16,
        what: &str,
        fill: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let seq = self.next_seq();
        let mut w = Writer::new();
        let m = w.begin(kind, flags::REQUEST | flags::ACK, seq);
        fill(&mut w);
        w.end(m);
        self.send(w.bytes(), what)?;
        let mut found = None;
        self.answers(seq, what, |message| found = found.take().or_else(|| each(message)))?;
        Ok(found)
    }

    /// Sends messages as one datagram and collects the refusals. To netfilter it is one transaction; to others each message
    /// is done by itself.
    pub fn batch(&mut self, bytes: &[u8], what: &str) -> Result<Vec<Refusal>, Error> {
        // A datagram larger than the send buffer is refused, so the buffer grows to what is sent. The forced
        // form needs CAP_NET_ADMIN, which whoever changes rules has.
        const SLACK: usize = 64 * 1024;
        if rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len() + SLACK).is_err() {
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(&self.fd, bytes.len() + SLACK);
        }
        self.send(bytes, what)?;
        let mut refusals = Vec::new();
        while let Some(read) = self.receive(RecvFlags::DONTWAIT, what)? {
            for message in messages(&self.buffer[..read]) {
                if message.kind == NLMSG_ERROR
                    && let Some(refusal) = refusal(&message)
                    && refusal.errno != 0
                {
                    refusals.push(refusal);
                }
            }
        }
        Ok(refusals)
    }

    fn send(&mut self, bytes: &[u8], what: &str) -> Result<(), Error> {
        loop {
            match rustix::net::send(&self.fd, bytes, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io(what, e)),
            }
        }
    }

    /// Reads one datagram into the buffer. None: nothing there, when asked not to wait.
    fn receive(&mut self, flags: RecvFlags, what: &str) -> Result<Option<usize>, Error> {
        self.buffer.resize(RECEIVE_BUFFER, 0);
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], flags) {
                Ok((read, _)) => return Ok(Some(read)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                // More refusals than the receive buffer holds: those before are enough to tell what is wrong.
                Err(rustix::io::Errno::NOBUFS) if flags.contains(RecvFlags::DONTWAIT) => {}
                Err(e) => return Err(io(what, e)),
            }
        }
    }

    /// Reads until the acknowledgement or the end of the dump that answers `seq`.
    fn answers(&mut self, seq: u32, what: &str, mut each: impl FnMut(&Message<'_>)) -> Result<(), Error> {
        loop {
            let read = self.receive(RecvFlags::empty(), what)?.unwrap_or(0);
            for message in messages(&self.buffer[..read]) {
                if message.seq != seq {
                    continue; // the late answer to a request whose caller gave up
                }
                match message.kind {
                    NLMSG_ERROR => {
                        let Some(refusal) = refusal(&message) else {
                            return Err(Error::Malformed { what: what.to_owned(), detail: "an error without a code" });
                        };
                        if refusal.errno == 0 {
                            return Ok(());
                        }
                        return Err(Error::Refused {
                            what: what.to_owned(),
                            errno: refusal.errno,
                            message: refusal.message,
                        });
                    }
                    NLMSG_DONE => {
                        let errno = u32_at(message.body, 0).map_or(0, |code| (code as i32).wrapping_neg());
                        if errno > 0 {
                            return Err(Error::Refused { what: what.to_owned(), errno, message: None });
                        }
                        return Ok(());
                    }
                    _ => each(&message),
                }
            }
        }
    }
}

/// Takes an NLMSG_ERROR apart: the code, then the header of what failed (and, unless capped, its body), then
/// attributes with the kernel's explanation.
pub fn refusal(message: &Message<'_>) -> Option<Refusal> {
    let errno = (u32_at(message.body, 0)? as i32).wrapping_neg();
    let failed_len = u32_at(message.body, 4)? as usize;
    let echoed = if message.flags & flags::CAPPED != 0 { super::message::HEADER } else { failed_len };
    let explanation = if message.flags & flags::ACK_TLVS != 0 {
        split(message.body, 4 + echoed).and_then(|(_, rest)| attr(rest, NLMSGERR_ATTR_MSG)).map(text)
    } else {
        None
    };
    Some(Refusal { seq: message.seq, errno, message: explanation })
}

fn io(what: &str, e: rustix::io::Errno) -> Error {
    Error::Io { what: what.to_owned(), source: e.into() }
}
