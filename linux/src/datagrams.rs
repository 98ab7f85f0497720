//! Datagrams in bulk: many to several hosts with one system call, and dozens of one size as one message, which the kernel
//! cuts on its way out (UDP_SEGMENT) and puts together on its way in (UDP_GRO). Nothing is copied here and nothing allocated:
//! what is sent lies in pieces of one buffer. Does I/O.

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// `SOL_UDP` and its options.
const SOL_UDP: libc::c_int = 17;
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;
/// Datagrams that one message holds: the kernel's own bound.
pub const MOST_SEGMENTS: usize = 64;
/// Bytes that one message holds: an IPv4 packet, less its headers.
pub const MOST_BYTES: usize = 65_507;
/// Messages of one system call.
pub const MOST_MESSAGES: usize = 64;
/// Pieces of all messages of one system call.
pub const MOST_PIECES: usize = 2_048;
/// Room that a message takes from the kernel.
const ROOM: usize = 65_536;
/// What comes while a thread is busy; the kernel may give less.
const BUFFER: usize = 8 << 20;

/// A message: datagrams of one size to one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub to: SocketAddrV4,
    /// Bytes of each datagram; the last may have less.
    pub segment: usize,
    /// Bytes of all.
    pub bytes: usize,
    /// Which pieces these are.
    pub pieces: Range<usize>,
}

/// A socket at an address whose port others of this program may have too: the kernel spreads the senders over them.
pub fn bind(address: SocketAddrV4) -> io::Result<UdpSocket> {
    let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseport(&fd, true)?;
    // Beyond the system's limit needs CAP_NET_ADMIN; without it the limit is what there is.
    if sockopt::set_socket_recv_buffer_size_force(&fd, BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&fd, BUFFER);
    }
    let _ = sockopt::set_socket_send_buffer_size(&fd, BUFFER);
    rustix::net::bind(&fd, &address)?;
    let socket = UdpSocket::from(fd);
    set_option(&socket, UDP_GRO, 1);
    Ok(socket)
}

/// A kernel that lacks it does without.
fn set_option(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is an int that outlives the call, and its length is given.
    let _ = unsafe { libc::setsockopt(socket.as_raw_fd(), SOL_UDP, option, (&raw const value).cast(), length) };
}

/// Room for one control message with a number.
#[repr(C, align(8))]
struct Control([u8; 24]);

const CONTROL: usize = size_of::<Control>();

/// Sends messages whose pieces are ranges of `buffer`, at most [`MOST_MESSAGES`] and [`MOST_PIECES`]; waits for room as the
/// socket says. What can't be sent is told, and the rest goes: a message of several datagrams, where the kernel or the way
/// allows none, may be sent one by one.
///
/// # Panics
/// When a piece lies outside of the buffer, or there are too many.
pub fn send(
    socket: &UdpSocket,
    buffer: &[u8],
    pieces: &[Range<usize>],
    messages: &[Message],
    mut refused: impl FnMut(&Message, &io::Error),
) {
    assert!(messages.len() <= MOST_MESSAGES && pieces.len() <= MOST_PIECES, "more than a system call takes");
    // SAFETY: all zeros is a valid iovec.
    let mut vectors: [libc::iovec; MOST_PIECES] = unsafe { MaybeUninit::zeroed().assume_init() };
    for (vector, piece) in vectors.iter_mut().zip(pieces) {
        let bytes = &buffer[piece.clone()];
        *vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    }
    // SAFETY: all zeros is a valid sockaddr_in.
    let mut names: [libc::sockaddr_in; MOST_MESSAGES] = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut controls = [const { Control([0; 24]) }; MOST_MESSAGES];
    // SAFETY: all zeros is a valid mmsghdr.
    let mut headers: [libc::mmsghdr; MOST_MESSAGES] = unsafe { MaybeUninit::zeroed().assume_init() };
    for (n, message) in messages.iter().enumerate() {
        names[n].sin_family = libc::AF_INET as libc::sa_family_t;
        names[n].sin_port = message.to.port().to_be();
        names[n].sin_addr.s_addr = u32::from_ne_bytes(message.to.ip().octets());
        let of_message = &mut vectors[message.pieces.clone()];
        let header = &mut headers[n].msg_hdr;
        header.msg_name = (&raw mut names[n]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = of_message.as_mut_ptr();
        header.msg_iovlen = of_message.len() as _;
        if message.bytes > message.segment {
            header.msg_control = (&raw mut controls[n]).cast();
            header.msg_controllen = put_segment(&mut controls[n], message.segment as u16) as _;
        }
    }
    let mut sent = 0;
    while sent < messages.len() {
        let left = (messages.len() - sent) as libc::c_uint;
        // SAFETY: the headers from `sent` on are filled in, and all that they point at (pieces, names, controls) lives and
        // is not written to until the call returns.
        let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers[sent..].as_mut_ptr(), left, 0) };
        if done > 0 {
            sent += done as usize;
            continue;
        }
        // It is told of the first alone.
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            refused(&messages[sent], &error);
            sent += 1;
        }
    }
}

/// Writes the control message UDP_SEGMENT; answers its length.
fn put_segment(control: &mut Control, segment: u16) -> usize {
    // SAFETY: it computes with a number alone.
    let (length, space) = unsafe { (libc::CMSG_LEN(2) as usize, libc::CMSG_SPACE(2) as usize) };
    // SAFETY: all zeros is a valid cmsghdr.
    let mut header: libc::cmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.cmsg_len = length as _;
    header.cmsg_level = SOL_UDP;
    header.cmsg_type = UDP_SEGMENT;
    // SAFETY: the room is aligned as a cmsghdr is, and longer than one with its number; the number's place is behind it.
    unsafe {
        let at = (&raw mut control.0).cast::<libc::cmsghdr>();
        at.write(header);
        libc::CMSG_DATA(at).cast::<u16>().write_unaligned(segment);
    }
    space
}

/// Takes messages from the kernel.
pub struct Inbox {
    room: Vec<Box<[u8]>>,
    /// Of each message that came: its bytes, and those of each of its datagrams.
    came: Vec<(usize, usize)>,
}

impl Inbox {
    /// With room for so many messages, at most [`MOST_MESSAGES`].
    pub fn new(messages: usize) -> Inbox {
        let messages = messages.clamp(1, MOST_MESSAGES);
        let room = (0..messages).map(|_| vec![0; ROOM].into_boxed_slice()).collect();
        Inbox { room, came: Vec::with_capacity(messages) }
    }

    /// What is there now; the error "would block" when nothing is.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.came.clear();
        // SAFETY: all zeros is a valid iovec and a valid mmsghdr.
        let (mut vectors, mut headers): ([libc::iovec; MOST_MESSAGES], [libc::mmsghdr; MOST_MESSAGES]) =
            unsafe { (MaybeUninit::zeroed().assume_init(), MaybeUninit::zeroed().assume_init()) };
        let mut controls = [const { Control([0; 24]) }; MOST_MESSAGES];
        for (n, room) in self.room.iter_mut().enumerate() {
            vectors[n] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            let header = &mut headers[n].msg_hdr;
            (header.msg_iov, header.msg_iovlen) = (&raw mut vectors[n], 1);
            header.msg_control = (&raw mut controls[n]).cast();
            header.msg_controllen = CONTROL as _;
        }
        let (count, flags) = (self.room.len() as libc::c_uint, libc::MSG_DONTWAIT as _);
        // SAFETY: each header points at a room, a vector and a control that live and are not otherwise used until the call
        // returns; their lengths are given.
        let came =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, flags, std::ptr::null_mut()) };
        if came < 0 {
            return Err(io::Error::last_os_error());
        }
        for header in &headers[..came as usize] {
            let bytes = header.msg_len as usize;
            let segment = segment(&header.msg_hdr).unwrap_or(bytes);
            self.came.push((bytes, segment));
        }
        Ok(())
    }

    /// The messages that came, each with the bytes of one datagram of it.
    pub fn messages(&mut self) -> impl Iterator<Item = (&mut [u8], usize)> {
        self.room.iter_mut().zip(&self.came).map(|(room, (bytes, segment))| (&mut room[..*bytes], *segment))
    }
}

/// What UDP_GRO says of a message.
fn segment(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has written whole control messages into the header's room, and their length.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if (*control).cmsg_level == SOL_UDP && (*control).cmsg_type == UDP_GRO {
                let size = libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned();
                return usize::try_from(size).ok().filter(|size| *size > 0);
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("came", &self.came).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_of_one_size_are_one_message_and_come_as_they_were() {
        let (a, b) = (bind("127.0.0.1:0".parse().unwrap()).unwrap(), bind("127.0.0.1:0".parse().unwrap()).unwrap());
        let std::net::SocketAddr::V4(to) = b.local_addr().unwrap() else { panic!() };
        let buffer: Vec<u8> = (0..250u8).collect();
        // Three of a hundred, the last with fifty, out of pieces; then one alone.
        let pieces = [200..250, 0..50, 50..150, 150..200, 0..7];
        let messages = [
            Message { to, segment: 100, bytes: 250, pieces: 0..4 },
            Message { to, segment: 7, bytes: 7, pieces: 4..5 },
        ];
        send(&a, &buffer, &pieces, &messages, |message, error| panic!("{message:?}: {error}"));
        let (mut inbox, mut heard) = (Inbox::new(8), Vec::new());
        while heard.len() < 4 {
            match inbox.receive(&b) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                received => received.unwrap(),
            }
            for (bytes, segment) in inbox.messages() {
                heard.extend(bytes.chunks(segment).map(<[u8]>::to_vec));
            }
        }
        let first = [&buffer[200..250], &buffer[0..50]].concat();
        assert_eq!(heard, [first, buffer[50..150].to_vec(), buffer[150..200].to_vec(), buffer[0..7].to_vec()]);
    }

    #[test]
    fn what_is_refused_is_told_and_the_rest_goes() {
        let (a, b) = (bind("127.0.0.1:0".parse().unwrap()).unwrap(), bind("127.0.0.1:0".parse().unwrap()).unwrap());
        let std::net::SocketAddr::V4(to) = b.local_addr().unwrap() else { panic!() };
        let nowhere = "0.0.0.0:0".parse().unwrap();
        let one = |to| Message { to, segment: 3, bytes: 3, pieces: 0..1 };
        let mut refused = 0;
        let piece = std::slice::from_ref(&(0..3));
        send(&a, b"abc", piece, &[one(nowhere), one(to)], |_, _| refused += 1);
        b.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        assert_eq!((b.recv(&mut [0; 8]).unwrap(), refused), (3, 1));
    }
}
