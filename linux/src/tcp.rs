//! What sessions of routing protocols ask of their sockets beyond the usual: signed segments (TCP-MD5), how far packets go
//! and may have come (TTL, GTSM), and which link they use. Does I/O: each is one setsockopt.
//!
//! A listening socket signs and checks by the peer's address, so it has the keys of all peers, and what it accepts has them
//! as well. TTL and least TTL are those of the socket alone: they are set on each that was accepted.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

/// The longest key that the kernel takes (TCP_MD5SIG_MAXKEYLEN).
pub const LONGEST_MD5_KEY: usize = 80;

const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
const IPV6_MINHOPCOUNT: libc::c_int = 73;
const TCP_SAVE_SYN: libc::c_int = 27;
const TCP_SAVED_SYN: libc::c_int = 28;
/// In an IPv4 address that an IPv6 socket knows as `::ffff:a.b.c.d`, the bits before it.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct Md5 {
    /// A `sockaddr_storage`, whose alignment is that of a pointer.
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    link: libc::c_int,
    key: [u8; LONGEST_MD5_KEY],
}

/// Segments to and from these addresses are signed with a key, and others from there are dropped (RFC 2385). An empty key
/// takes back what was said of exactly this prefix. On a socket of IPv6 a `peer` of IPv4 is one that comes as a mapped
/// address. The error is [`io::ErrorKind::InvalidInput`] for a key that is too long, and ENOPROTOOPT where the kernel
/// can't.
pub fn tcp_md5(fd: impl AsFd, peer: IpAddr, prefix_len: u8, key: &[u8]) -> io::Result<()> {
    if key.len() > LONGEST_MD5_KEY {
        let what = format!("a TCP-MD5 key has at most {LONGEST_MD5_KEY} bytes, this one has {}", key.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let v6 = rustix::net::sockopt::socket_domain(&fd)? == rustix::net::AddressFamily::INET6;
    let mut md5 = Md5 {
        address: storage(peer, v6),
        flags: TCP_MD5SIG_FLAG_PREFIX,
        prefix_len,
        key_len: key.len() as u16,
        link: 0,
        key: [0; LONGEST_MD5_KEY],
    };
    md5.key[..key.len()].copy_from_slice(key);
    match set(fd, libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT, &md5) {
        // There is no such key: that is what was asked for.
        Err(e) if key.is_empty() && e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        answer => answer,
    }
}

/// How many links packets of this socket may cross.
pub fn ttl(fd: impl AsFd, v6: bool, ttl: u8) -> io::Result<()> {
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) } else { (libc::IPPROTO_IP, libc::IP_TTL) };
    set(fd, level, option, &libc::c_int::from(ttl))
}

/// Packets that arrive with a lower TTL are dropped (GTSM, RFC 5082): a neighbour `n` links away sends 255, and here
/// `256 - n` is asked for. 0 is any.
pub fn min_ttl(fd: impl AsFd, v6: bool, ttl: u8) -> io::Result<()> {
    let (level, option) = if v6 { (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT) } else { (libc::IPPROTO_IP, libc::IP_MINTTL) };
    set(fd, level, option, &libc::c_int::from(ttl))
}

/// What connections of a listening socket began with is kept, for [`syn_ttl`].
pub fn save_syn(fd: impl AsFd) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, TCP_SAVE_SYN, &1)
}

/// How much of its TTL the first packet of an accepted connection had left: a socket looks at least TTLs from when it is
/// told to, and by then there may be bytes from anywhere. It can be asked once.
pub fn syn_ttl(fd: impl AsFd) -> io::Result<Option<u8>> {
    // A header of IPv6 and one of TCP, or one of IPv4 with options.
    let mut head = [0_u8; 256];
    let mut length = head.len() as libc::socklen_t;
    // SAFETY: pointer and length are those of `head`, which outlives the call.
    let answer = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_SAVED_SYN,
            head.as_mut_ptr().cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    let head = head.get(..length as usize).unwrap_or_default();
    // Behind TOS, length, identification and fragment; behind flow label, length and next header.
    let at = match head.first().map(|first| first >> 4) {
        Some(4) => 8,
        Some(6) => 7,
        _ => return Ok(None),
    };
    Ok(head.get(at).copied())
}

/// The socket sends and receives by this link alone, or by the links of this VRF. An empty name takes that back.
pub fn bind_to_device(fd: impl AsFd, name: &str) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_bytes())
}

/// The link, or the VRF, by which alone the socket sends and receives. One that was accepted has that of the socket that
/// listened, that of the link for addresses of a link, and the VRF where one came out of it to a socket that is in none
/// (`net.ipv4.tcp_l3mdev_accept`).
pub fn bound_device(fd: impl AsFd) -> io::Result<Option<String>> {
    let mut name = [0_u8; libc::IFNAMSIZ];
    let mut length = name.len() as libc::socklen_t;
    // SAFETY: pointer and length are those of `name`, which outlives the call.
    let answer = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_mut_ptr().cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok((!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned()))
}

/// One option of a socket.
pub(crate) fn set<T: ?Sized>(fd: impl AsFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of_val(value) as libc::socklen_t;
    // SAFETY: pointer and length are those of `value`, which outlives the call; the kernel only reads them.
    let answer = unsafe {
        libc::setsockopt(fd.as_fd().as_raw_fd(), level, option, (&raw const *value).cast::<libc::c_void>(), length)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A peer's address as a socket of this family has it.
pub(crate) fn storage(peer: IpAddr, v6: bool) -> libc::sockaddr_storage {
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let octets = match peer {
        IpAddr::V4(v4) if !v6 => {
            storage.ss_family = libc::AF_INET as libc::sa_family_t;
            // SAFETY: a sockaddr_in is smaller than the storage, and any bytes are one.
            let v4_storage = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
            v4_storage.sin_addr.s_addr = u32::from_ne_bytes(v4.octets());
            return storage;
        }
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..12].copy_from_slice(&MAPPED);
            octets[12..].copy_from_slice(&v4.octets());
            octets
        }
        IpAddr::V6(v6) => v6.octets(),
    };
    storage.ss_family = libc::AF_INET6 as libc::sa_family_t;
    // SAFETY: a sockaddr_in6 is smaller than the storage, and any bytes are one.
    let v6_storage = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
    v6_storage.sin6_addr.s6_addr = octets;
    storage
}
