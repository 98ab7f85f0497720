//! NOTIFICATION (RFC 4271 4.5): why a session ends, in numbers for the peer and in words for people. Codes and subcodes
//! of RFC 4271, 4486 (Cease), 5492, 6608 (FSM), 7313, 8538 (Hard Reset), 9234 (roles), 9384 (BFD) and 9687 (send hold);
//! the text of a shutdown is RFC 9003's. Pure. Made by decoders and `session`.

use std::fmt;

use crate::wire::Reader;

/// Bytes of a shutdown's text (RFC 9003).
pub const MAX_SHUTDOWN_TEXT: usize = 255;
/// Bytes of data that are kept of a NOTIFICATION: they are for a log, and the longest of sense is a message's.
const MAX_DATA: usize = 4096;

/// Error codes.
#[allow(missing_docs, reason = "the names are the words of the RFCs")]
pub mod code {
    pub const MESSAGE_HEADER: u8 = 1;
    pub const OPEN_MESSAGE: u8 = 2;
    pub const UPDATE_MESSAGE: u8 = 3;
    pub const HOLD_TIMER_EXPIRED: u8 = 4;
    pub const FINITE_STATE_MACHINE: u8 = 5;
    pub const CEASE: u8 = 6;
    pub const ROUTE_REFRESH_MESSAGE: u8 = 7;
    pub const SEND_HOLD_TIMER_EXPIRED: u8 = 8;
}

/// Subcodes of the Message Header Error.
#[allow(missing_docs, reason = "the names are the words of RFC 4271")]
pub mod header {
    pub const NOT_SYNCHRONIZED: u8 = 1;
    pub const BAD_LENGTH: u8 = 2;
    pub const BAD_TYPE: u8 = 3;
}

/// Subcodes of the OPEN Message Error.
#[allow(missing_docs, reason = "the names are the words of the RFCs")]
pub mod open {
    pub const UNSPECIFIC: u8 = 0;
    pub const UNSUPPORTED_VERSION: u8 = 1;
    pub const BAD_PEER_AS: u8 = 2;
    pub const BAD_IDENTIFIER: u8 = 3;
    pub const UNSUPPORTED_PARAMETER: u8 = 4;
    pub const UNACCEPTABLE_HOLD_TIME: u8 = 6;
    pub const UNSUPPORTED_CAPABILITY: u8 = 7;
    pub const ROLE_MISMATCH: u8 = 11;
}

/// Subcodes of the UPDATE Message Error.
#[allow(missing_docs, reason = "the names are the words of RFC 4271")]
pub mod update {
    pub const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
    pub const UNRECOGNIZED_WELL_KNOWN: u8 = 2;
    pub const OPTIONAL_ATTRIBUTE: u8 = 9;
    pub const INVALID_NETWORK: u8 = 10;
}

/// Subcodes of the Cease (RFC 4486, 8538, 9384).
#[allow(missing_docs, reason = "the names are the words of the RFCs")]
pub mod cease {
    pub const MAXIMUM_PREFIXES: u8 = 1;
    pub const ADMINISTRATIVE_SHUTDOWN: u8 = 2;
    pub const PEER_DECONFIGURED: u8 = 3;
    pub const ADMINISTRATIVE_RESET: u8 = 4;
    pub const CONNECTION_REJECTED: u8 = 5;
    pub const CONFIGURATION_CHANGE: u8 = 6;
    pub const COLLISION: u8 = 7;
    pub const HARD_RESET: u8 = 9;
    pub const BFD_DOWN: u8 = 10;
}

/// A number and what it is called.
type Word = (u8, &'static str);

/// Codes, their subcodes, and both in words.
const WORDS: &[(u8, &str, &[Word])] = &[
    (
        code::MESSAGE_HEADER,
        "message header error",
        &[(1, "connection not synchronized"), (2, "bad message length"), (3, "bad message type")],
    ),
    (
        code::OPEN_MESSAGE,
        "OPEN message error",
        &[
            (1, "unsupported version number"),
            (2, "bad peer AS"),
            (3, "bad BGP identifier"),
            (4, "unsupported optional parameter"),
            (5, "authentication failure"),
            (6, "unacceptable hold time"),
            (7, "unsupported capability"),
            (11, "role mismatch"),
        ],
    ),
    (
        code::UPDATE_MESSAGE,
        "UPDATE message error",
        &[
            (1, "malformed attribute list"),
            (2, "unrecognized well-known attribute"),
            (3, "missing well-known attribute"),
            (4, "attribute flags error"),
            (5, "attribute length error"),
            (6, "invalid ORIGIN attribute"),
            (7, "AS routing loop"),
            (8, "invalid NEXT_HOP attribute"),
            (9, "optional attribute error"),
            (10, "invalid network field"),
            (11, "malformed AS_PATH"),
        ],
    ),
    (code::HOLD_TIMER_EXPIRED, "hold timer expired", &[]),
    (
        code::FINITE_STATE_MACHINE,
        "finite state machine error",
        &[
            (1, "unexpected message in OpenSent"),
            (2, "unexpected message in OpenConfirm"),
            (3, "unexpected message in Established"),
        ],
    ),
    (
        code::CEASE,
        "cease",
        &[
            (1, "maximum number of prefixes reached"),
            (2, "administrative shutdown"),
            (3, "peer de-configured"),
            (4, "administrative reset"),
            (5, "connection rejected"),
            (6, "other configuration change"),
            (7, "connection collision resolution"),
            (8, "out of resources"),
            (9, "hard reset"),
            (10, "BFD down"),
        ],
    ),
    (code::ROUTE_REFRESH_MESSAGE, "ROUTE-REFRESH message error", &[(1, "invalid message length")]),
    (code::SEND_HOLD_TIMER_EXPIRED, "send hold timer expired", &[]),
];

/// A NOTIFICATION.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What kind of error.
    pub code: u8,
    /// Which of the kind; 0 is none in particular.
    pub subcode: u8,
    /// As the two have it: the length, the attribute, the text.
    pub data: Vec<u8>,
}

impl Notification {
    /// Any.
    pub fn new(code: u8, subcode: u8, data: Vec<u8>) -> Notification {
        Notification { code, subcode, data }
    }

    pub(crate) fn header(subcode: u8, data: Vec<u8>) -> Notification {
        Notification::new(code::MESSAGE_HEADER, subcode, data)
    }

    pub(crate) fn open(subcode: u8, data: Vec<u8>) -> Notification {
        Notification::new(code::OPEN_MESSAGE, subcode, data)
    }

    pub(crate) fn update(subcode: u8, data: Vec<u8>) -> Notification {
        Notification::new(code::UPDATE_MESSAGE, subcode, data)
    }

    pub(crate) fn refresh_length(message: Vec<u8>) -> Notification {
        Notification::new(code::ROUTE_REFRESH_MESSAGE, 1, message)
    }

    /// A Cease without words.
    pub fn cease(subcode: u8) -> Notification {
        Notification::new(code::CEASE, subcode, Vec::new())
    }

    /// A Cease with a text for whoever runs the peer (RFC 9003): cut at a character's end to [`MAX_SHUTDOWN_TEXT`]
    /// bytes.
    pub fn shutdown(subcode: u8, text: &str) -> Notification {
        let mut end = text.len().min(MAX_SHUTDOWN_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut data = vec![u8::try_from(end).unwrap_or(u8::MAX)];
        data.extend_from_slice(&text.as_bytes()[..end]);
        Notification::new(code::CEASE, subcode, data)
    }

    /// The same as a Hard Reset (RFC 8538): it ends graceful restart, too.
    #[must_use]
    pub fn hard(&self) -> Notification {
        let data = [&[self.code, self.subcode], &self.data[..]].concat();
        Notification::new(code::CEASE, cease::HARD_RESET, data)
    }

    /// What a Hard Reset is about; the NOTIFICATION itself where it is none.
    pub fn inner(&self) -> Notification {
        match (self.is_hard_reset(), &self.data[..]) {
            (true, [code, subcode, data @ ..]) => Notification::new(*code, *subcode, data.to_vec()),
            _ => self.clone(),
        }
    }

    /// Whether routes must not outlive it, whatever was agreed.
    pub fn is_hard_reset(&self) -> bool {
        self.code == code::CEASE && self.subcode == cease::HARD_RESET
    }

    /// The text of a shutdown or reset, where there is one. What is not UTF-8 is shown as far as it can be, and control
    /// characters are not shown: it ends up on a terminal.
    pub fn text(&self) -> Option<String> {
        let shutdown = matches!(self.subcode, cease::ADMINISTRATIVE_SHUTDOWN | cease::ADMINISTRATIVE_RESET);
        if self.code != code::CEASE || !shutdown {
            return None;
        }
        let text = Reader::new(&self.data).counted8().filter(|text| !text.is_empty())?;
        let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        Some(String::from_utf8_lossy(text).chars().map(shown).collect())
    }

    /// Reads what stands behind the header. All is taken: a NOTIFICATION is not answered.
    pub fn read(body: &[u8]) -> Option<Notification> {
        let mut reader = Reader::new(body);
        let (code, subcode) = (reader.u8()?, reader.u8()?);
        let rest = reader.rest();
        Some(Notification { code, subcode, data: rest[..rest.len().min(MAX_DATA)].to_vec() })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.code, self.subcode]);
        // Within a message of 4096 bytes.
        out.extend_from_slice(&self.data[..self.data.len().min(super::MAX_MESSAGE - super::HEADER - 2)]);
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_hard_reset() && self.data.len() >= 2 {
            let inner = self.inner();
            if !inner.is_hard_reset() {
                return write!(f, "hard reset: {inner}");
            }
        }
        let Some((_, name, subcodes)) = WORDS.iter().find(|(code, _, _)| *code == self.code) else {
            return write!(f, "error {}/{}", self.code, self.subcode);
        };
        f.write_str(name)?;
        match subcodes.iter().find(|(subcode, _)| *subcode == self.subcode) {
            Some((_, name)) => write!(f, ": {name}")?,
            None if self.subcode == 0 => {}
            None => write!(f, ": subcode {}", self.subcode)?,
        }
        match self.text() {
            Some(text) => write!(f, ": {text:?}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_in_words() {
        let said = |code, subcode| Notification::new(code, subcode, Vec::new()).to_string();
        assert_eq!(said(2, 2), "OPEN message error: bad peer AS");
        assert_eq!(said(4, 0), "hold timer expired");
        assert_eq!(said(6, 9), "cease: hard reset");
        assert_eq!(said(6, 77), "cease: subcode 77");
        assert_eq!(said(99, 1), "error 99/1");
    }

    #[test]
    fn a_shutdown_says_why_and_no_text_breaks_a_terminal() {
        let shutdown = Notification::shutdown(cease::ADMINISTRATIVE_SHUTDOWN, "new disks");
        assert_eq!(shutdown.to_string(), "cease: administrative shutdown: \"new disks\"");
        let long = Notification::shutdown(cease::ADMINISTRATIVE_RESET, &"ä".repeat(200));
        assert_eq!(long.text().map(|text| text.len()), Some(254));
        let evil = Notification::new(6, 2, b"\x05a\x1b[2J".to_vec());
        assert_eq!(evil.text().as_deref(), Some("a\u{fffd}[2J"));
        let cut = Notification::new(6, 2, vec![200, b'a']);
        assert_eq!(cut.text(), None, "a length that lies is no text");
    }

    #[test]
    fn a_hard_reset_wraps_what_it_is_about() {
        let inner = Notification::shutdown(cease::ADMINISTRATIVE_SHUTDOWN, "bye");
        let hard = inner.hard();
        assert!(hard.is_hard_reset() && hard.inner() == inner);
        assert_eq!(hard.to_string(), "hard reset: cease: administrative shutdown: \"bye\"");
        let circle = Notification::new(6, 9, vec![6, 9, 6, 9]);
        assert_eq!(circle.to_string(), "cease: hard reset");
    }
}
