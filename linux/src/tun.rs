//! TUN devices: a link whose packets go to a file, and come from it. Does I/O; [`Offload`] is pure.
//!
//! A device has one file or several (queues): the kernel keeps the packets of a flow in one. Each packet has a header in
//! front ([`HEADER`], virtio-net's) that says what its maker has left to do: where a device offloads, the host gives one long
//! TCP packet in the place of dozens, with checksums that are not filled in yet, and takes the same.
//!
//! The device lives as long as one of its files is open somewhere: with the process that made it, its addresses and routes
//! go too.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

const DEVICE: &str = "/dev/net/tun";
/// `_IOW('T', 202, int)`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// `_IOW('T', 208, unsigned int)`.
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
/// IP packets, without a header of the device's own before each.
const IFF_TUN: libc::c_short = 0x0001;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_MULTI_QUEUE: libc::c_short = 0x0100;
const IFF_VNET_HDR: libc::c_short = 0x4000;
/// Checksums are filled in by whoever reads, and TCP packets of IPv4 are long.
const OFFLOADS: libc::c_ulong = 0x01 | 0x02;

/// Bytes before each packet, in both directions: `struct virtio_net_hdr`.
pub const HEADER: usize = 10;
/// A part of a packet, as [`Tun::write_pieces`] takes them: no more in one call.
pub const MOST_PIECES: usize = 128;

const NEEDS_CHECKSUM: u8 = 1;
const TCP_IPV4: u8 = 1;

/// What is left to do with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Where the checksum stands that is not filled in, from `checksum_start` on: it has the pseudo header's sum.
    pub needs_checksum: bool,
    /// From here on the bytes are summed up.
    pub checksum_start: u16,
    /// From there to the checksum.
    pub checksum_offset: u16,
    /// It is to be cut.
    pub cut: Cut,
    /// The bytes of all headers of a packet that is to be cut.
    pub headers: u16,
    /// Payload of each packet that it is cut into; the last may have less.
    pub segment: u16,
}

/// How a packet is to be cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// It is one packet.
    #[default]
    Whole,
    /// Into TCP packets of IPv4.
    TcpIpv4,
    /// In a way that nobody asked for.
    Other(u8),
}

impl Offload {
    /// Reads the header.
    pub fn parse(header: &[u8; HEADER]) -> Offload {
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        Offload {
            needs_checksum: header[0] & NEEDS_CHECKSUM != 0,
            cut: match header[1] {
                0 => Cut::Whole,
                TCP_IPV4 => Cut::TcpIpv4,
                other => Cut::Other(other),
            },
            headers: word(2),
            segment: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }

    /// Writes it.
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = if self.needs_checksum { NEEDS_CHECKSUM } else { 0 };
        header[1] = match self.cut {
            Cut::Whole => 0,
            Cut::TcpIpv4 => TCP_IPV4,
            Cut::Other(other) => other,
        };
        let words = [self.headers, self.segment, self.checksum_start, self.checksum_offset];
        for (to, word) in header[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        header
    }
}

/// A queue of a device. Reading and writing never wait.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
}

impl Tun {
    /// Makes a device with so many queues in the calling thread's network namespace. A `%d` in the name is the first number
    /// that is free. Where the kernel does not offload, packets have their header all the same.
    ///
    /// # Errors
    /// Not found, where the kernel has no TUN devices or nobody has made /dev/net/tun.
    pub fn open(name: &str, queues: usize) -> io::Result<Vec<Tun>> {
        let first = Tun::queue(name)?;
        let name = first.name.clone();
        let others = (1..queues).map(|_| Tun::queue(&name));
        std::iter::once(Ok(first)).chain(others).collect()
    }

    fn queue(name: &str) -> io::Result<Tun> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(DEVICE, flags, Mode::empty())?;
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.is_empty() || name.len() >= request.ifr_name.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of a link has 1 to 15 bytes"));
        }
        for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE | IFF_VNET_HDR;
        // SAFETY: the request is an ifreq that outlives the call, which writes the name that was chosen into it.
        if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF as _, &raw mut request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the argument is a number. A kernel that refuses gives whole packets, which is fine.
        let _ = unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD as _, OFFLOADS) };
        let chosen = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
        let name = String::from_utf8(chosen).map_err(io::Error::other)?;
        Ok(Tun { fd, name })
    }

    /// As the kernel named it: 15 bytes at most.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next packet that the host sends by this link, with its header, into a buffer that holds both: 64 KiB and more.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// A packet that comes in by this link, in pieces: its header ([`Offload::bytes`]) is the first.
    pub fn write_pieces(&self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(&self.fd, pieces)?)
    }

    /// A whole packet that comes in by this link.
    pub fn write(&self, packet: &[u8]) -> io::Result<usize> {
        self.write_pieces(&[io::IoSlice::new(&[0; HEADER]), io::IoSlice::new(packet)])
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        let cut = Offload {
            needs_checksum: true,
            checksum_start: 20,
            checksum_offset: 16,
            cut: Cut::TcpIpv4,
            headers: 52,
            segment: 1420,
        };
        for offload in [Offload::default(), cut, Offload { cut: Cut::Other(5), ..cut }] {
            assert_eq!(Offload::parse(&offload.bytes()), offload);
        }
    }
}
