//! How every server of ours listens: one accept loop, one set of limits and deadlines, one TLS. Nothing here knows a
//! component; every component that has a port uses this.
//!
//! - [`shares`]: how many connections each port may hold, so that all together leave descriptors for files
//! - `crowd`: who gives way when a port is full: strangers that say nothing first; pure
//! - `listener`: TCP and unix sockets, accepting, pausing when there are no descriptors
//! - [`http`]: HTTP/1.1 and HTTP/2 on a listener, with deadlines for handshake, head, body and idle connections
//! - `head`: what HEAD is answered
//! - [`authority`]: HTTP/2 requests with an odd `:authority` are answered, as Go's servers answer them
//! - [`tls`]: certificates and authorities for servers and clients; [`reload`]: read again when their files change
//! - [`clients`]: which client certificates are taken, those of X.509 v1 among them
//! - [`refusals`]: what is refused is told once of each kind
//! - [`x509`]: whom a certificate names

#![warn(missing_docs)]

pub mod authority;
mod body;
pub mod clients;
mod crowd;
mod head;
mod host;
pub mod http;
mod listener;
mod policy;
pub mod refusals;
pub mod reload;
pub mod shares;
mod table;
pub mod tls;
mod v1;
pub mod x509;

pub use body::Body;
pub use http::{Http, Peer, serve};
pub use listener::{Connection, Listener};
pub use shares::Port;
pub use table::{Connections, Slot};
