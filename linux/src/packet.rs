//! Frames of a link as they are on the wire: who asks whose an address is, and answers to that. A socket takes no more than
//! its [`Kind`] from the kernel, so that a busy link wakes nobody. Does I/O; what is in a frame others know.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// What a socket hears. Frames that this host sends itself, and those that are for others, are none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whose an IPv4 address is (RFC 826).
    Arp,
    /// The same of IPv6: neighbour solicitations and advertisements (RFC 4861).
    NeighbourDiscovery,
}

/// `ETH_P_ARP`, `ETH_P_IPV6`.
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// Where the kernel keeps what it knows of a frame beside its bytes: `SKF_AD_OFF`, and the kind of receiver there.
const BESIDE: u32 = 0xffff_f000;
const PACKET_TYPE: u32 = 4;
/// `PACKET_OTHERHOST`; above it `PACKET_OUTGOING` and the kernel's own.
const OTHER_HOST: u32 = 3;
/// In a frame: the next header of IPv6, and the type of ICMPv6 when that is it.
const NEXT_HEADER: u32 = 14 + 6;
const ICMP_TYPE: u32 = 14 + 40;
const ICMPV6: u32 = 58;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;
/// Bytes of a frame that are kept.
const WHOLE: u32 = 0x4_0000;

const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// The program that the kernel runs for each frame. Jumps count the steps that are passed over.
fn filter(kind: Kind) -> Vec<libc::sock_filter> {
    let foreign = step(LOAD_WORD, 0, 0, BESIDE + PACKET_TYPE);
    let (keep, drop) = (step(RETURN, 0, 0, WHOLE), step(RETURN, 0, 0, 0));
    match kind {
        Kind::Arp => vec![foreign, step(JUMP_AT_LEAST, 1, 0, OTHER_HOST), keep, drop],
        Kind::NeighbourDiscovery => vec![
            foreign,
            step(JUMP_AT_LEAST, 6, 0, OTHER_HOST),
            step(LOAD_BYTE, 0, 0, NEXT_HEADER),
            step(JUMP_EQUAL, 0, 4, ICMPV6),
            step(LOAD_BYTE, 0, 0, ICMP_TYPE),
            step(JUMP_EQUAL, 1, 0, SOLICITATION),
            step(JUMP_EQUAL, 0, 1, ADVERTISEMENT),
            keep,
            drop,
        ],
    }
}

/// A socket on one link. Reading and writing never wait.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// On the link of this index, in the network namespace of the calling thread. It needs CAP_NET_RAW.
    pub fn open(index: u32, kind: Kind) -> io::Result<PacketSocket> {
        // Without a protocol: nothing comes before the filter is there.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        let mut program = filter(kind);
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
        // SAFETY: the option's value is a sock_fprog with its length given; the program that it points at lives until the
        // call returns, which copies it.
        let set = unsafe {
            let value = (&raw const filter).cast();
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, length)
        };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        let protocol = match kind {
            Kind::Arp => ARP,
            Kind::NeighbourDiscovery => IPV6,
        };
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is a sockaddr_ll that outlives the call, and its length is given.
        if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(PacketSocket { fd })
    }

    /// The next frame, cut to the buffer; the error "would block" when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.fd, buffer, RecvFlags::empty())?.0)
    }

    /// Sends a whole frame, with its Ethernet header.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.fd, frame, SendFlags::empty())?;
        Ok(())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::netlink::{Mac, NewVeth, Rtnl};
    use crate::netns::NetNs;

    /// Two ends of a cable in namespaces of their own.
    fn cable() -> (NetNs, u32, NetNs, u32) {
        let (near, far) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let mut rtnl = Rtnl::open_in(&near).unwrap();
        let veth = NewVeth {
            name: "a",
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            master: None,
            mtu: 1500,
            peer_name: "b",
            peer_mac: Some(Mac([2, 0, 0, 0, 0, 2])),
            peer_ns: Some(far.as_fd()),
        };
        rtnl.add_veth(&veth).unwrap();
        let mut other = Rtnl::open_in(&far).unwrap();
        let (a, b) = (rtnl.link("a").unwrap().unwrap().index, other.link("b").unwrap().unwrap().index);
        other.set_up(b, true).unwrap();
        // Until the kernel has told itself of the carrier, up to a second, it drops what is sent, in silence.
        let sender = near.run(|| PacketSocket::open(a, Kind::Arp).unwrap()).unwrap();
        let listener = far.run(|| PacketSocket::open(b, Kind::Arp).unwrap()).unwrap();
        let began = Instant::now();
        while listener.receive(&mut [0; 64]).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "the cable carries nothing");
            sender.send(&frame([0xff; 6], ARP, &[0; 28])).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        (near, a, far, b)
    }

    fn frame(to: [u8; 6], protocol: u16, body: &[u8]) -> Vec<u8> {
        [&to[..], &[2, 0, 0, 0, 0, 1], &protocol.to_be_bytes(), body].concat()
    }

    fn received(socket: &PacketSocket) -> Option<Vec<u8>> {
        let (mut buffer, began) = ([0; 256], Instant::now());
        while began.elapsed() < Duration::from_secs(5) {
            match socket.receive(&mut buffer) {
                Ok(read) => return Some(buffer[..read].to_vec()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
        }
        None
    }

    /// Needs root.
    #[test]
    fn a_socket_hears_its_kind_and_nothing_else() {
        let (near, a, far, b) = cable();
        let here = |kind| near.run(|| PacketSocket::open(a, kind).unwrap()).unwrap();
        let there = |kind| far.run(|| PacketSocket::open(b, kind).unwrap()).unwrap();
        let ipv6 = |next: u8, kind: u8| [&[0x60, 0, 0, 0, 0, 0, next, 255][..], &[0; 32], &[kind, 0, 0, 0]].concat();
        let everybody = [0xff; 6];
        let question = frame(everybody, ARP, &[1; 28]);
        let solicitation = frame([0x33, 0x33, 0xff, 0, 0, 7], IPV6, &ipv6(58, 135));
        let advertisement = frame([2, 0, 0, 0, 0, 2], IPV6, &ipv6(58, 136));
        for (kind, heard) in
            [(Kind::Arp, vec![&question]), (Kind::NeighbourDiscovery, vec![&solicitation, &advertisement])]
        {
            let (sender, listener, own) = (here(kind), there(kind), here(kind));
            let ping = frame(everybody, IPV6, &ipv6(58, 128));
            let udp = frame(everybody, IPV6, &ipv6(17, 135));
            let for_others = frame([2, 9, 9, 9, 9, 9], ARP, &[1; 28]);
            for frame in [&ping, &udp, &for_others, &question, &solicitation, &advertisement] {
                sender.send(frame).unwrap();
            }
            // Others of the kernel's own may come between: routers are looked for.
            for expected in heard {
                while received(&listener).expect("heard") != *expected {}
            }
            assert!(own.receive(&mut [0; 64]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock), "its own are not");
        }
    }
}
