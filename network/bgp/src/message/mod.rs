//! Messages (RFC 4271 section 4): bytes of a stream to messages, and messages to bytes.
//!
//! ```text
//!  16 bytes of ones | length 2 | type 1 | body …
//!                      19 … 4096, or 65535 where both sides can (RFC 8654)
//! ```
//!
//! - [`open`], [`capability`]: who speaks, and what he can
//! - [`update`]: routes, read with the revised errors of RFC 7606; [`pack`]: routes, written
//! - [`notification`]: why a session ends, in numbers and in words
//! - [`refresh`]: routes once more (RFC 2918, 7313)
//!
//! Pure: nothing here reads a socket, and no bytes make it panic. Called by `session` and by whoever replays a dump.

pub mod capability;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod pack;
pub mod refresh;
pub mod update;

use crate::attribute::table::{self, Approach};
use crate::family::{Families, Family};
use notification::{Notification, header};
use open::Open;
use refresh::RouteRefresh;

/// Bytes of a header.
pub const HEADER: usize = 19;
/// The longest message of RFC 4271, and of OPEN and KEEPALIVE for ever.
pub const MAX_MESSAGE: usize = 4096;
/// The longest message of RFC 8654.
pub const MAX_EXTENDED: usize = 65535;
/// What a header begins with.
const MARKER: [u8; 16] = [0xff; 16];

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Who I am.
    Open = 1,
    /// Routes.
    Update = 2,
    /// Why I end this.
    Notification = 3,
    /// I am here.
    Keepalive = 4,
    /// Tell me again.
    RouteRefresh = 5,
}

impl Kind {
    fn from_wire(kind: u8) -> Option<Kind> {
        [Kind::Open, Kind::Update, Kind::Notification, Kind::Keepalive, Kind::RouteRefresh]
            .into_iter()
            .find(|known| *known as u8 == kind)
    }

    /// The shortest message, header included (RFC 4271 6.1).
    fn shortest(self) -> usize {
        HEADER
            + match self {
                Kind::Open => 10,
                Kind::Update => 4,
                Kind::Notification => 2,
                Kind::Keepalive => 0,
                Kind::RouteRefresh => 4,
            }
    }

    fn longest(self, extended: bool) -> usize {
        match self {
            Kind::Open => MAX_MESSAGE,
            Kind::Keepalive => HEADER,
            _ if extended => MAX_EXTENDED,
            _ => MAX_MESSAGE,
        }
    }
}

/// How the two of a session write, as their capabilities have it: of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    /// Whether the peer is of this AS: some attributes are.
    pub internal: bool,
    /// AS numbers of four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Messages longer than 4096 bytes (RFC 8654).
    pub extended_messages: bool,
    /// Families that are carried.
    pub families: Families,
    /// Families whose prefixes come with a path identifier (RFC 7911).
    pub add_path: Families,
    /// Families whose next hop may be of IPv6 though they are not (RFC 8950).
    pub extended_next_hop: Families,
}

impl Default for Coding {
    /// Before any capability.
    fn default() -> Coding {
        Coding {
            internal: false,
            four_octet_as: false,
            extended_messages: false,
            families: Families::IPV4,
            add_path: Families::NONE,
            extended_next_hop: Families::NONE,
        }
    }
}

impl Coding {
    /// The longest UPDATE.
    pub fn max_message(&self) -> usize {
        Kind::Update.longest(self.extended_messages)
    }

    /// What a malformed MP attribute of a family costs (RFC 7606 7.11): the family, or the session where it is the only one.
    pub fn without(&self, family: Family) -> Approach {
        let others = self.families.without([family].into_iter().collect());
        if others.is_empty() { Approach::SessionReset } else { Approach::AfiSafiDisable }
    }
}

/// Something wrong in an UPDATE, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The attribute; 0 is all of them.
    pub code: u8,
    /// What is done.
    pub approach: Approach,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = match self.approach {
            Approach::AttributeDiscard => "it is left out",
            Approach::TreatAsWithdraw => "its routes are withdrawn",
            Approach::AfiSafiDisable => "its family is given up",
            Approach::SessionReset => "the session ends",
        };
        match table::find(self.code) {
            Some(row) => write!(f, "{} {}; {done}", row.name, self.problem),
            None if self.code == 0 => write!(f, "{}; {done}", self.problem),
            None => write!(f, "attribute {} {}; {done}", self.code, self.problem),
        }
    }
}

/// One message of a stream, its header read and its body not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// What stands behind the header.
    pub body: &'a [u8],
}

/// The first message of what has been received, and how many bytes it took; none while it is not all there. At most
/// [`MAX_EXTENDED`] bytes need be kept for it.
///
/// # Errors
/// A NOTIFICATION of the Message Header Error (RFC 4271 6.1).
pub fn frame(received: &[u8], extended: bool) -> Result<Option<(Frame<'_>, usize)>, Notification> {
    let Some(head) = received.first_chunk::<HEADER>() else {
        // A marker that is wrong already will not get better.
        let known = received.len().min(MARKER.len());
        let sound = received[..known] == MARKER[..known];
        return if sound { Ok(None) } else { Err(Notification::header(header::NOT_SYNCHRONIZED, Vec::new())) };
    };
    if head[..16] != MARKER {
        return Err(Notification::header(header::NOT_SYNCHRONIZED, Vec::new()));
    }
    let length = usize::from(u16::from_be_bytes([head[16], head[17]]));
    let bad_length = || Notification::header(header::BAD_LENGTH, vec![head[16], head[17]]);
    if !(HEADER..=MAX_EXTENDED).contains(&length) {
        return Err(bad_length());
    }
    let Some(kind) = Kind::from_wire(head[18]) else {
        return Err(Notification::header(header::BAD_TYPE, vec![head[18]]));
    };
    if kind == Kind::RouteRefresh && length < kind.shortest() {
        // RFC 7313 5 has a code of its own for it, with the message as data.
        return Err(Notification::refresh_length(received.get(..length).unwrap_or(head).to_vec()));
    }
    if !(kind.shortest()..=kind.longest(extended)).contains(&length) {
        return Err(bad_length());
    }
    let body = received.get(HEADER..length);
    Ok(body.map(|body| (Frame { kind, body }, length)))
}

/// A message that is not an UPDATE: those are packed by [`pack`] and read by [`update`], for they are many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// OPEN.
    Open(Open),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
}

impl Message {
    /// Its bytes, header included.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Message::Open(open) => begin(&mut out, Kind::Open, |out| open.write(out)),
            Message::Notification(notification) => {
                begin(&mut out, Kind::Notification, |out| notification.write(out));
            }
            Message::Keepalive => begin(&mut out, Kind::Keepalive, |_| ()),
            Message::RouteRefresh(refresh) => begin(&mut out, Kind::RouteRefresh, |out| refresh.write(out)),
        }
        out
    }
}

/// Appends a message: its header, and what `body` writes.
pub(crate) fn begin(out: &mut Vec<u8>, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[0, 0, kind as u8]);
    body(out);
    let length = u16::try_from(out.len() - at).unwrap_or(u16::MAX);
    out[at + 16..at + 18].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headed(length: u16, kind: u8, rest: usize) -> Vec<u8> {
        [&MARKER[..], &length.to_be_bytes(), &[kind], &vec![0; rest]].concat()
    }

    #[test]
    fn a_message_is_taken_when_it_is_all_there() {
        let two = [Message::Keepalive.write(), Message::Keepalive.write()].concat();
        for cut in 0..HEADER {
            assert_eq!(frame(&two[..cut], false), Ok(None), "{cut}");
        }
        assert_eq!(frame(&two, false), Ok(Some((Frame { kind: Kind::Keepalive, body: &[] }, 19))));
    }

    #[test]
    fn wrong_headers_end_the_session_with_the_right_words() {
        let said = |bytes: &[u8], extended| frame(bytes, extended).expect_err("wrong");
        let told = |bytes: &[u8]| (said(bytes, false).subcode, said(bytes, false).data);
        assert_eq!(told(&[0xff, 0xfe]), (header::NOT_SYNCHRONIZED, vec![]));
        assert_eq!(told(&[0; 30]), (header::NOT_SYNCHRONIZED, vec![]));
        assert_eq!(told(&headed(18, 4, 0)), (header::BAD_LENGTH, vec![0, 18]));
        assert_eq!(told(&headed(20, 4, 1)), (header::BAD_LENGTH, vec![0, 20]));
        assert_eq!(told(&headed(28, 1, 9)), (header::BAD_LENGTH, vec![0, 28]));
        assert_eq!(told(&headed(4097, 2, 0)), (header::BAD_LENGTH, vec![16, 1]));
        assert_eq!(told(&headed(19, 9, 0)), (header::BAD_TYPE, vec![9]));
        assert_eq!(frame(&headed(4097, 2, 0), true), Ok(None));
        assert!(frame(&headed(4097, 1, 0), true).is_err(), "an OPEN stays short");
        let refresh = headed(22, 5, 3);
        assert_eq!((said(&refresh, false).code, said(&refresh, false).data), (7, refresh.clone()));
    }
}
