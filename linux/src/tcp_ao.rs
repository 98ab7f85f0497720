//! Signed segments by TCP-AO (RFC 5925), of Linux 6.7 and later: keys with numbers, of which there may be several at once, so
//! that they change while a connection goes on. Does I/O: each is one setsockopt.
//!
//! A listening socket has the keys of all peers by their addresses, and what it accepts has those of its own peer; each is
//! then changed on its own. A connection signs with its current key, and says which one it would be sent: whoever has that
//! one takes it for his current one.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use crate::tcp::{set, storage};

/// The longest secret that the kernel takes (TCP_AO_MAXKEYLEN).
pub const LONGEST_SECRET: usize = 80;

const TCP_AO_ADD_KEY: libc::c_int = 38;
const TCP_AO_DEL_KEY: libc::c_int = 39;
const TCP_AO_INFO: libc::c_int = 40;
/// Bytes of a signature of either algorithm (RFC 5926 3.2).
const SIGNATURE: u8 = 12;
const ALGORITHM: usize = 64;

/// By what a segment is signed (RFC 5926).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-1-96.
    HmacSha1,
    /// AES-128-CMAC-96.
    Aes128Cmac,
}

impl Algorithm {
    fn name(self) -> [u8; ALGORITHM] {
        let name: &[u8] = match self {
            Algorithm::HmacSha1 => b"hmac(sha1)",
            Algorithm::Aes128Cmac => b"cmac(aes128)",
        };
        let mut all = [0; ALGORITHM];
        all[..name.len()].copy_from_slice(name);
        all
    }
}

/// A key (RFC 5925 3.1). It has no `Debug`: what prints it would tell the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// Its number in what is sent.
    pub send_id: u8,
    /// Its number in what is received.
    pub receive_id: u8,
    /// By what is signed.
    pub algorithm: Algorithm,
    /// 1 to 80 bytes.
    pub secret: &'a [u8],
}

/// Flags of the structures below: bits of a `__u32`, the first of which is the lowest where numbers begin with it.
const fn bit(at: u32) -> u32 {
    if cfg!(target_endian = "little") { 1 << at } else { 1 << (31 - at) }
}
const SET_CURRENT: u32 = bit(0);
const SET_RNEXT: u32 = bit(1);
const DEL_ASYNC: u32 = bit(2);

/// `struct tcp_ao_add` of linux/tcp.h.
#[repr(C, align(8))]
struct Add {
    address: libc::sockaddr_storage,
    algorithm: [u8; ALGORITHM],
    link: i32,
    flags: u32,
    reserved: u16,
    prefix: u8,
    send_id: u8,
    receive_id: u8,
    signature: u8,
    key_flags: u8,
    length: u8,
    secret: [u8; LONGEST_SECRET],
}

/// `struct tcp_ao_del`.
#[repr(C, align(8))]
struct Delete {
    address: libc::sockaddr_storage,
    link: i32,
    flags: u32,
    reserved: u16,
    prefix: u8,
    send_id: u8,
    receive_id: u8,
    current: u8,
    next: u8,
    key_flags: u8,
}

/// `struct tcp_ao_info_opt`, with its counters.
#[repr(C, align(8))]
struct Info {
    flags: u32,
    reserved: u16,
    current: u8,
    next: u8,
    counters: [u64; 5],
}

/// Segments to and from these addresses are signed with this key, and unsigned ones from there are dropped. `first`: from the
/// first segment of a connection that is to be begun. The error is ENOPROTOOPT where the kernel can't, ENOENT where it has
/// not the algorithm, EEXIST where another key has one of the numbers.
pub fn add(fd: impl AsFd, peer: IpAddr, prefix: u8, key: &Key<'_>, first: bool) -> io::Result<()> {
    let v6 = rustix::net::sockopt::socket_domain(&fd)? == rustix::net::AddressFamily::INET6;
    let length = u8::try_from(key.secret.len()).ok().filter(|length| usize::from(*length) <= LONGEST_SECRET);
    let Some(length) = length.filter(|length| *length > 0) else {
        let what = format!("a secret of TCP-AO has 1 to {LONGEST_SECRET} bytes, this one has {}", key.secret.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    };
    let mut add = Add {
        address: storage(peer, v6),
        algorithm: key.algorithm.name(),
        link: 0,
        flags: if first { SET_CURRENT | SET_RNEXT } else { 0 },
        reserved: 0,
        prefix,
        send_id: key.send_id,
        receive_id: key.receive_id,
        signature: SIGNATURE,
        key_flags: 0,
        length,
        secret: [0; LONGEST_SECRET],
    };
    add.secret[..key.secret.len()].copy_from_slice(key.secret);
    set(fd, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &add)
}

/// A key is no longer good. On a connection that uses it, `instead` is used from now on, by its numbers to send and to
/// receive. That there is none is no error. Where the socket does not listen, the kernel waits some milliseconds until nobody
/// uses the key any more.
pub fn remove(fd: impl AsFd, peer: IpAddr, prefix: u8, ids: (u8, u8), instead: Option<(u8, u8)>) -> io::Result<()> {
    let v6 = rustix::net::sockopt::socket_domain(&fd)? == rustix::net::AddressFamily::INET6;
    let (current, next) = instead.unwrap_or_default();
    let delete = |flags: u32| Delete {
        address: storage(peer, v6),
        link: 0,
        flags,
        reserved: 0,
        prefix,
        send_id: ids.0,
        receive_id: ids.1,
        current,
        next,
        key_flags: 0,
    };
    let tell = |flags: u32| set(&fd, libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &delete(flags));
    let told = match instead {
        Some(_) => tell(SET_CURRENT | SET_RNEXT),
        // It is one that listens, or the kernel says that it is not.
        None => match tell(DEL_ASYNC) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => tell(0),
            told => told,
        },
    };
    match told {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        answer => answer,
    }
}

/// The other side is told that it should send by the key of this number. It does as soon as it has it, and what is sent
/// there follows in the same way.
pub fn ask_for(fd: impl AsFd, receive_id: u8) -> io::Result<()> {
    let info = Info { flags: SET_RNEXT, reserved: 0, current: 0, next: receive_id, counters: [0; 5] };
    set(fd, libc::IPPROTO_TCP, TCP_AO_INFO, &info)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel takes no other lengths.
    #[test]
    fn structures_are_as_long_as_the_kernels() {
        assert_eq!((size_of::<Add>(), size_of::<Delete>(), size_of::<Info>()), (288, 144, 48));
        assert_eq!(std::mem::offset_of!(Add, secret), 208);
        assert_eq!(std::mem::offset_of!(Delete, key_flags), 143);
    }
}
