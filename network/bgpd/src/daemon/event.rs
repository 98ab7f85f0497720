//! What tasks tell the loop: connections that come, what is heard over them, and that they are gone. Each is of bounded
//! size, and a connection has no more than [`AHEAD`] on their way, so that who sends fast costs himself. Data, with
//! connections (I/O) among it. Sent by `connection`, `listen`, `bfd` and `routers`.

use std::net::SocketAddr;

use bgp::session::Way;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// Events that wait for the loop.
pub const EVENTS: usize = 1024;
/// Bytes that are read at once: a message is never longer.
pub const CHUNK: usize = 64 << 10;
/// Chunks of one connection that are read before the loop has looked at the first.
pub const AHEAD: usize = 2;

/// A neighbour, as long as there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u64);

/// A connection, as long as there is one: what comes of one that is closed means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    /// Whose.
    pub key: Key,
    /// Who began it.
    pub way: Way,
    /// Which of them.
    pub number: u64,
}

/// What there is of advertisements on a link.
#[derive(Debug)]
pub enum Advertised {
    /// They are sent and heard.
    Begun,
    /// They are not, and why.
    Failed(String),
    /// A router is there.
    From(std::net::Ipv6Addr),
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Somebody connected.
    Accepted {
        /// The connection.
        stream: TcpStream,
        /// From where.
        from: SocketAddr,
        /// By which keys: [`super::listen::Listeners::is_current`].
        keys: u64,
    },
    /// A connection of ours is there.
    Connected(Which, TcpStream),
    /// It could not be made.
    NotConnected(Which, std::io::Error),
    /// Bytes.
    Heard(Which, Vec<u8>, OwnedSemaphorePermit),
    /// The other side closed it, or it broke.
    Lost(Which, Option<std::io::Error>),
    /// Updates can be sent again.
    Room(Which),
    /// A packet of BFD, sound and not from further away than it may be.
    Watched {
        /// From whom.
        from: SocketAddr,
        /// On the port of those who may be far away.
        far: bool,
        /// What it says.
        packet: bgp::bfd::Packet,
    },
    /// Something of the link of an unnumbered neighbour.
    Router {
        /// The link.
        link: String,
        /// What.
        news: Advertised,
    },
    /// For too long the other side has taken nothing.
    Stuck(Which),
}
