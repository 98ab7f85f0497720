//! Datagrams, and messages of ICMPv6, together with how far they came: what is left of their TTL says whether their sender is
//! next door (RFC 5881 5, 4861 6.1). Does I/O: sockets.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::tcp::set;

/// Of linux/icmpv6.h.
const ICMP6_FILTER: libc::c_int = 1;
/// Bytes for what comes beside a datagram: one number, with room.
const BESIDE: usize = 64;

/// Where the kernel writes what comes beside a datagram, aligned as it wants it.
#[repr(C, align(8))]
struct Beside([u8; BESIDE]);

/// A datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its bytes; a longer one is cut.
    pub length: usize,
    /// From whom.
    pub from: SocketAddr,
    /// What was left of its TTL.
    pub ttl: Option<u8>,
}

/// A socket that is told how far datagrams came, and sends its own as far as they go; by the links of a VRF, if there is
/// one. It does not block.
pub fn bind(address: SocketAddr, vrf: Option<&str>) -> io::Result<UdpSocket> {
    let v6 = address.is_ipv6();
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if v6 {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    tell_ttl(&fd, v6)?;
    crate::tcp::ttl(&fd, v6, u8::MAX)?;
    if let Some(vrf) = vrf {
        crate::tcp::bind_to_device(&fd, vrf)?;
    }
    rustix::net::bind(&fd, &address)?;
    Ok(UdpSocket::from(fd))
}

/// A socket of ICMPv6 on one link, which hears messages of these types alone, also those to `group`, and none of its own.
/// What it sends goes as far as it can, from the link's own address, and has its checksum from the kernel. It does not block.
/// Needs CAP_NET_RAW.
pub fn icmp6(link: &str, group: Ipv6Addr, types: &[u8]) -> io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(rustix::net::ipproto::ICMPV6);
    let fd = rustix::net::socket_with(AddressFamily::INET6, SocketType::RAW, flags, protocol)?;
    // `struct icmp6_filter`: a bit for each type that is not wanted.
    let mut unwanted = [u32::MAX; 8];
    for kind in types {
        unwanted[usize::from(*kind / 32)] &= !(1 << (kind % 32));
    }
    set(&fd, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &unwanted)?;
    tell_ttl(&fd, true)?;
    crate::tcp::ttl(&fd, true, u8::MAX)?;
    sockopt::set_ipv6_multicast_hops(&fd, u8::MAX.into())?;
    sockopt::set_ipv6_multicast_loop(&fd, false)?;
    crate::tcp::bind_to_device(&fd, link)?;
    let index = rustix::net::netdevice::name_to_index(&fd, link)?;
    sockopt::set_ipv6_add_membership(&fd, &group, index)?;
    Ok(UdpSocket::from(fd))
}

/// What was left of their TTL comes beside datagrams.
fn tell_ttl(fd: impl AsFd, v6: bool) -> io::Result<()> {
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT) } else { (libc::IPPROTO_IP, libc::IP_RECVTTL) };
    set(fd, level, option, &1 as &libc::c_int)
}

/// The next datagram.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: all zeros is a valid sockaddr_storage, and a valid msghdr.
    let (mut address, mut header): (libc::sockaddr_storage, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let mut beside = Beside([0; BESIDE]);
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast::<libc::c_void>(), iov_len: buffer.len() };
    header.msg_name = (&raw mut address).cast::<libc::c_void>();
    header.msg_namelen = size_of_val(&address) as libc::socklen_t;
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = beside.0.as_mut_ptr().cast::<libc::c_void>();
    header.msg_controllen = BESIDE as _;
    // SAFETY: every pointer of the header is to something that outlives the call, with its length.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, 0) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let from = crate::sockets::address(&address).ok_or(io::ErrorKind::InvalidData)?;
    let told: usize = header.msg_controllen as _;
    Ok(Received { length: length as usize, from, ttl: ttl(&beside.0[..told.min(BESIDE)]) })
}

/// Of the one message beside a datagram that was asked for: a length, a level, a type, a number.
fn ttl(beside: &[u8]) -> Option<u8> {
    let head = size_of::<libc::cmsghdr>();
    let word = |at: usize| Some(libc::c_int::from_ne_bytes(*beside.get(at..)?.first_chunk()?));
    let after = size_of::<libc::size_t>();
    let (level, kind) = (word(after)?, word(after + 4)?);
    let is_ttl =
        (level, kind) == (libc::IPPROTO_IP, libc::IP_TTL) || (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT);
    if is_ttl { u8::try_from(word(head)?).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_says_how_far_it_came() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let address: SocketAddr = host.parse().unwrap();
            let (to, near, far) =
                (bind(address, None).unwrap(), bind(address, None).unwrap(), UdpSocket::bind(address).unwrap());
            let mut buffer = [0; 16];
            let nothing = receive(&to, &mut buffer).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            for (socket, ttl) in [(&near, 255), (&far, 64)] {
                socket.send_to(b"abc", to.local_addr().unwrap()).unwrap();
                let received = receive(&to, &mut buffer).unwrap();
                let from = socket.local_addr().unwrap();
                assert_eq!(received, Received { length: 3, from, ttl: Some(ttl) }, "{host}");
            }
        }
    }
}
