//! Hears of every change of links, addresses and routes in one network namespace: the kernel tells it to whoever joined the
//! multicast groups. What has changed is not kept: who is told looks at what is there. Does I/O.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::message::{Message, messages, split};
use super::{Error, route, route_decode};
use crate::netns::NetNs;

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// More than the kernel puts into one datagram of news.
const BUFFER: usize = 64 << 10;
/// A route to more of the world than this many leading bits leave is one to the outside. VPNs write the default in halves.
const WIDE: u8 = 3;

/// A socket that is readable when something has changed. It is of the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Monitor {
    fd: OwnedFd,
}

impl Monitor {
    pub fn open() -> Result<Monitor, Error> {
        let failed =
            |e: rustix::io::Errno| Error::Io { what: "listening for changes of addresses".into(), source: e.into() };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).map_err(failed)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, GROUPS)).map_err(failed)?;
        Ok(Monitor { fd })
    }

    /// For another namespace.
    pub fn open_in(ns: &NetNs) -> Result<Monitor, Error> {
        ns.run(Monitor::open).map_err(|source| Error::Io { what: "entering the network namespace".into(), source })?
    }

    /// Reads all the news without waiting. Whether one may change the address by which others reach the host.
    pub fn drain(&self) -> Result<bool, Error> {
        let mut buffer = vec![0; BUFFER];
        let mut matters = false;
        loop {
            match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => return Ok(matters),
                Ok((read, _)) => matters |= messages(&buffer[..read]).any(|m| self::matters(&m)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(matters),
                // There was more than the socket holds.
                Err(rustix::io::Errno::NOBUFS) => matters = true,
                Err(e) => return Err(Error::Io { what: "hearing of changes of addresses".into(), source: e.into() }),
            }
        }
    }
}

/// Pods come and go with ports of a bridge and routes of their own: most of that is no news here, and the rest costs a look.
fn matters(message: &Message<'_>) -> bool {
    match message.kind {
        route::NEWLINK | route::DELLINK => {
            route_decode::link(message.body).is_some_and(|link| link.master.is_none() && !link.loopback)
        }
        route::NEWADDR | route::DELADDR => split(message.body, 8)
            .is_some_and(|(fixed, rest)| route_decode::address(fixed, rest).is_some_and(|address| address.global)),
        route::NEWROUTE | route::DELROUTE => split(message.body, 12)
            .is_some_and(|(fixed, rest)| route_decode::route(fixed, rest).is_some_and(|route| route.dst.len <= WIDE)),
        _ => false,
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
