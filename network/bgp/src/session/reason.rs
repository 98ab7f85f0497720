//! Why a session ended: a value for who decides and a sentence for who reads the log. Pure. Made by `fsm`.

use std::fmt;

use crate::message::notification::Notification;

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This speaker ended it, with a NOTIFICATION.
    Sent(Notification),
    /// The neighbour did.
    Received(Notification),
    /// The connection was closed or broke.
    ConnectionLost,
    /// It was never made.
    ConnectionFailed,
    /// The neighbour began another connection: he has restarted (RFC 4724 5).
    Replaced,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Sent(notification) => write!(f, "we ended it: {notification}"),
            Reason::Received(notification) => write!(f, "the neighbour ended it: {notification}"),
            Reason::ConnectionLost => f.write_str("the connection was lost"),
            Reason::ConnectionFailed => f.write_str("no connection could be made"),
            Reason::Replaced => f.write_str("the neighbour has restarted"),
        }
    }
}
