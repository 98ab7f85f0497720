//! Sessions: one with each neighbour (RFC 4271 section 8).
//!
//! ```text
//!  start, stop, connections, bytes, time ──► Neighbour ──► actions: connect, send, close; routes up, stale, down
//!                                              │
//!                     a connection of ours ── Fsm   Fsm ── a connection of his      of two, one stays (6.8)
//! ```
//!
//! - [`config`]: what is wanted of a session; [`negotiated`]: what both sides can, of both OPENs
//! - [`fsm`]: the state machine of one connection; [`reason`]: why a session ended, in words
//! - [`neighbour`]: both connections, collisions, messages, prefix limits; [`restart`]: routes that outlive a session
//!
//! Pure: the time is an argument, and what is to be done comes back. Called by the loop, an action at a time.

pub mod config;
pub mod fsm;
pub mod negotiated;
pub mod neighbour;
pub mod reason;
pub mod restart;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use config::Config;
pub use fsm::State;
pub use negotiated::Negotiated;
pub use neighbour::{Action, Input, Neighbour};
pub use reason::Reason;

/// A point in time, as far from whatever the caller counts from. It never goes back.
pub type Time = Duration;

/// Who began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// This speaker.
    Outgoing,
    /// The neighbour.
    Incoming,
}

impl Way {
    /// Both.
    pub const BOTH: [Way; 2] = [Way::Outgoing, Way::Incoming];

    /// The other.
    #[must_use]
    pub fn other(self) -> Way {
        match self {
            Way::Outgoing => Way::Incoming,
            Way::Incoming => Way::Outgoing,
        }
    }
}
