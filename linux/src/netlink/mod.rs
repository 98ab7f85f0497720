//! Netlink, the kernel's configuration protocol, spoken directly.
//!
//! `message` builds and takes apart messages, `socket` sends them and waits for the answer. Above them is rtnetlink, by
//! topic: `link`, `address`, `route`, `neighbour`, `rule`, each with what it writes and what it reads; `rtnl` is what they
//! share, and `monitor` hears of changes in any of them; `wireguard` speaks generic netlink. `nft` and `conntrack` beside
//! this module speak the netfilter family. It knows nothing of clusters, pods or who owns what: a [`PROTOCOL`] number is all it adds of its own.
//! Everything blocks and is quick (tens of microseconds), so callers that live on an async runtime use a thread of their
//! own.

mod address;
mod link;
pub mod message;
mod monitor;
mod neighbour;
mod route;
mod rtnl;
mod rule;
pub(crate) mod socket;
pub mod wireguard;

pub use address::LinkAddress;
pub use link::{Ipip, Link, LinkKind, NewVeth, Vxlan};
pub use monitor::{Event, Item, Monitor, Topic, event};
pub use neighbour::{Fdb, Neighbour};
pub use route::{NextHop, Route, RouteChange, RouteKind, TABLE_MAIN};
pub use rtnl::{Attribute, Mac, PROTOCOL, Rtnl};
pub use rule::{Mark, Rule, RuleAction};
pub(crate) use socket::Socket;
pub use socket::{Refusal, refusal};

/// What went wrong with a request to the kernel; `what` says which, as in "adding link web".
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "fields are what the messages show")]
pub enum Error {
    /// The kernel refused the request. `message` is its own explanation, where it gives one.
    #[error("{what}: {}{}", os_message(*.errno), .message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Refused { what: String, errno: i32, message: Option<String> },
    /// The socket itself failed.
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// The kernel answered something that we don't understand.
    #[error("{what}: the kernel's answer is malformed: {detail}")]
    Malformed { what: String, detail: &'static str },
}

impl Error {
    /// The errno of the failure, 0 where there is none.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Refused { errno, .. } => *errno,
            Error::Io { source, .. } => source.raw_os_error().unwrap_or(0),
            Error::Malformed { .. } => 0,
        }
    }

    /// Whether the object that was to be made is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == libc::EEXIST
    }

    /// Whether the object asked for is not there: no such link, table, address or route.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO)
    }

    /// Whether a router that was named is on no link.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.errno(), libc::ENETUNREACH | libc::EHOSTUNREACH)
    }

    /// Whether who asked may not: he lacks CAP_NET_ADMIN over the network namespace.
    pub fn is_forbidden(&self) -> bool {
        self.errno() == libc::EPERM
    }

    /// Whether the kernel has no such kind of thing.
    pub fn is_unsupported(&self) -> bool {
        self.errno() == libc::EOPNOTSUPP
    }

    /// Puts what was being done before the kernel's words, replacing a vaguer description.
    pub fn doing(self, what: impl Into<String>) -> Self {
        let what = what.into();
        match self {
            Error::Refused { errno, message, .. } => Error::Refused { what, errno, message },
            Error::Io { source, .. } => Error::Io { what, source },
            Error::Malformed { detail, .. } => Error::Malformed { what, detail },
        }
    }
}

fn os_message(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}
