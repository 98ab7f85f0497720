//! Hears of every change of one network namespace: the kernel tells it to whoever joined the multicast groups. The one
//! mechanism for all topics; whoever keeps routes or addresses in step with what is desired waits on it instead of looking
//! every few seconds. Does I/O; [`event`] is pure.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::message::{Message, messages};
use super::{Error, Fdb, Link, LinkAddress, Neighbour, Route, Rule, address, link, neighbour, route, rule};
use crate::netns::NetNs;

/// More than the kernel puts into one datagram of news.
const BUFFER: usize = 64 << 10;

/// What a monitor hears of, both families. As bits of RTMGRP_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Interfaces: made, changed, up, down, gone.
    Links,
    /// Addresses of interfaces.
    Addresses,
    /// Routes of all tables.
    Routes,
    /// Forwarding databases too.
    Neighbours,
    /// Which table a packet is looked up in.
    Rules,
}

impl Topic {
    fn groups(self) -> u32 {
        match self {
            Topic::Links => 0x1,
            Topic::Neighbours => 0x4,
            Topic::Addresses => 0x10 | 0x100,
            Topic::Routes => 0x40 | 0x400,
            Topic::Rules => 0x80 | 1 << 18,
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is there now, new or other than before: this is the whole of it.
    Set(Item),
    /// It is there no more. What went with it is not always told: routes go with their link in silence.
    Gone(Item),
    /// More has happened than the socket holds, and what is not known: whoever compares must list everything.
    Lost,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An interface.
    Link(Link),
    /// An address of an interface.
    Address(LinkAddress),
    /// A route.
    Route(Route),
    /// Whose hardware address an IP address is.
    Neighbour(Neighbour),
    /// Where frames to a hardware address go.
    Fdb(Fdb),
    /// Which table a packet is looked up in.
    Rule(Rule),
}

/// A socket that is readable when something has changed. It is of the namespace of the thread that opened it.
///
/// Changes that were made before it was opened are not told: open first, then list, then read.
#[derive(Debug)]
pub struct Monitor {
    fd: OwnedFd,
}

impl Monitor {
    /// Begins to listen, in the network namespace of the calling thread. Reading never blocks.
    pub fn open(topics: &[Topic]) -> Result<Monitor, Error> {
        let failed =
            |e: rustix::io::Errno| Error::Io { what: "listening for changes of the network".into(), source: e.into() };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).map_err(failed)?;
        let groups = topics.iter().fold(0, |groups, topic| groups | topic.groups());
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(failed)?;
        Ok(Monitor { fd })
    }

    /// For another namespace.
    pub fn open_in(ns: &NetNs, topics: &[Topic]) -> Result<Monitor, Error> {
        ns.run(|| Monitor::open(topics))
            .map_err(|source| Error::Io { what: "entering the network namespace".into(), source })?
    }

    /// Asks for room for this many bytes of news that nobody has read yet. Beyond the system's limit it needs
    /// CAP_NET_ADMIN; without that the limit is what there is.
    pub fn hold(&self, bytes: usize) {
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&self.fd, bytes).is_err() {
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&self.fd, bytes);
        }
    }

    /// Reads all the news without waiting, in the order in which it happened.
    pub fn drain(&self, each: impl FnMut(Event)) -> Result<(), Error> {
        self.drain_where(|_| true, each)
    }

    /// The same without what a socket of one's own has changed, by its [`super::Rtnl::port`].
    pub fn drain_except(&self, port: u32, each: impl FnMut(Event)) -> Result<(), Error> {
        self.drain_where(|message| message.port != port, each)
    }

    fn drain_where(&self, asked: impl Fn(&Message<'_>) -> bool, mut each: impl FnMut(Event)) -> Result<(), Error> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Ok((read, _)) => messages(&buffer[..read]).filter(&asked).filter_map(|m| event(&m)).for_each(&mut each),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => each(Event::Lost),
                Err(e) => return Err(Error::Io { what: "hearing of changes of the network".into(), source: e.into() }),
            }
        }
    }
}

/// What a message of the kernel tells. None for what is no topic of ours, and for what is cut short.
pub fn event(message: &Message<'_>) -> Option<Event> {
    let body = message.body;
    let item = match message.kind {
        link::NEWLINK | link::DELLINK => Item::Link(link::decode(body)?),
        address::NEWADDR | address::DELADDR => Item::Address(address::decode(body)?),
        route::NEWROUTE | route::DELROUTE => Item::Route(route::decode(body)?),
        rule::NEWRULE | rule::DELRULE => Item::Rule(rule::decode(body)?),
        neighbour::NEWNEIGH | neighbour::DELNEIGH => match neighbour::decode_fdb(body) {
            Some(entry) => Item::Fdb(entry),
            None => Item::Neighbour(neighbour::decode(body)?),
        },
        _ => return None,
    };
    let gone = [link::DELLINK, address::DELADDR, route::DELROUTE, rule::DELRULE, neighbour::DELNEIGH];
    Some(if gone.contains(&message.kind) { Event::Gone(item) } else { Event::Set(item) })
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
