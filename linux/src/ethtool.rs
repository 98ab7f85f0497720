//! What a link's driver does for the network stack, as `ethtool -K` sets it. Does I/O.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether the driver fills in checksums of packets that are sent by the link. Turned off, the kernel does.
pub fn set_transmit_checksums(link: &str, on: bool) -> io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if link.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of a link has at most 15 bytes"));
    }
    for (to, byte) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = byte as libc::c_char;
    }
    let mut value = Value { command: ETHTOOL_STXCSUM, data: u32::from(on) };
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request is an ifreq whose data points at an ethtool_value; both outlive the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
