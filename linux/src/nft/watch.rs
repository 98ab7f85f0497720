//! Hears of every transaction of nftables in one network namespace, whoever made it: one short message each, whatever was
//! in it. Whoever keeps rules learns so that somebody else changed something, and looks. Does I/O.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::numbers as n;
use crate::netlink::Error;
use crate::netns::NetNs;

/// The bit of NFNLGRP_NFTABLES, the seventh group.
const GROUP: u32 = 1 << 6;
/// A generation's number and who made it.
const BUFFER: usize = 8 << 10;

/// A socket that is readable when there was a transaction. It is of the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
}

impl Watch {
    /// Begins to listen, in the network namespace of the calling thread. Reading never blocks.
    pub fn open() -> Result<Watch, Error> {
        let failed = |source: std::io::Error| Error::Io { what: "listening for changes of nftables".into(), source };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let netfilter = Some(rustix::net::netlink::NETFILTER);
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, netfilter)
            .map_err(|e| failed(e.into()))?;
        // Before it hears anything: a transaction tells of each of its elements, and those are nobody's business here.
        only_generations(&fd).map_err(failed)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, GROUP)).map_err(|e| failed(e.into()))?;
        Ok(Watch { fd })
    }

    /// For another namespace.
    pub fn open_in(ns: &NetNs) -> Result<Watch, Error> {
        ns.run(Watch::open).map_err(|source| Error::Io { what: "entering the network namespace".into(), source })?
    }

    /// Whether there was a transaction since it was last asked. It does not wait.
    pub fn drain(&self) -> Result<bool, Error> {
        let mut buffer = vec![0; BUFFER];
        let mut any = false;
        loop {
            match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) | Err(rustix::io::Errno::AGAIN) => return Ok(any),
                // More happened than the socket holds: something did.
                Ok(_) | Err(rustix::io::Errno::NOBUFS) => any = true,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::Io { what: "hearing of changes of nftables".into(), source: e.into() }),
            }
        }
    }
}

/// Lets the messages of new generations through and no others, by a filter in the kernel.
fn only_generations(fd: &OwnedFd) -> std::io::Result<()> {
    // The filter reads the message's type, which is in the host's order, as if it were in the network's.
    let wanted = u16::from_be_bytes(n::NEWGEN.to_ne_bytes());
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 4),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, wanted.into()),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter's pointer and length are those of an array that lives until the call returns, and the kernel
    // copies it.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Batch, Element, Family, Key, Nft, Set, kind};

    #[test]
    fn every_transaction_is_heard_of_and_nothing_else() {
        NetNs::create()
            .unwrap()
            .run(|| {
                let watch = Watch::open().unwrap();
                assert!(!watch.drain().unwrap());
                let mut nft = Nft::open().unwrap();
                let mut batch = Batch::new(Family::Ip, "watched");
                batch.add_table();
                batch.add_set(&Set::new("addresses", &[kind::IPV4]));
                let key = |i: u32| Key::new().addr(std::net::Ipv4Addr::from(i).into());
                // Far more news than a socket holds, if each element were news.
                batch.add_elements("addresses", (0..20_000).map(|i| Element::new(key(i))));
                nft.commit(batch).unwrap();
                let mut buffer = vec![0; BUFFER];
                let (read, _) = rustix::net::recv(&watch.fd, &mut buffer[..], RecvFlags::empty()).unwrap();
                assert_eq!(buffer[4..6], n::NEWGEN.to_ne_bytes(), "{read} bytes");
                assert!(!watch.drain().unwrap(), "one message for one transaction");
                nft.remove_table(Family::Ip, "watched").unwrap();
                assert!(watch.drain().unwrap());
            })
            .unwrap();
    }
}
