//! Building netlink messages and taking them apart.
//!
//! A message is a 16-byte header, a fixed body that depends on its type, and attributes: length, type,
//! bytes, padded to four. Pure; `socket`, `route`, `nft` and `conntrack` use it.

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;

/// Set on an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are not flags.
const TYPE_MASK: u16 = 0x3fff;

/// A growing run of messages.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// Where an open message or nest began; given back to close it.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Open(usize);

impl Writer {
    /// An empty run.
    pub fn new() -> Self {
        Writer::default()
    }

    /// What was written so far; an open message has no length yet.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was written, to be sent.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Makes room for bytes that are about to be written.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Bytes that were written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Starts a message of a type with NLM_F_* flags and a sequence number.
    pub fn begin(&mut self, kind: u16, flags: u16, seq: u32) -> Open {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        Open(at)
    }

    /// Ends the message: writes its length.
    pub fn end(&mut self, open: Open) {
        let len = (self.bytes.len() - open.0) as u32;
        self.bytes[open.0..open.0 + 4].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    /// Raw bytes of the fixed part of a message.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// An attribute with its padding; the value fits 16 bits with its header of four bytes.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// A string attribute, with the NUL that the kernel wants.
    pub fn attr_str(&mut self, kind: u16, value: &str) {
        let len = (5 + value.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// In the machine's byte order, as rtnetlink has it.
    pub fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// In network byte order, as netfilter has it.
    pub fn attr_be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// In network byte order, as netfilter has it.
    pub fn attr_be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Opens an attribute that holds attributes.
    pub fn nest(&mut self, kind: u16) -> Open {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        Open(at)
    }

    /// Closes a nest. Its length must fit 16 bits: callers that fill lists watch [`Writer::nest_len`].
    pub fn end_nest(&mut self, open: Open) {
        let len = self.bytes.len() - open.0;
        debug_assert!(len <= usize::from(u16::MAX), "a nest of {len} bytes");
        self.bytes[open.0..open.0 + 2].copy_from_slice(&(len as u16).to_ne_bytes());
    }

    /// Bytes in an open nest so far.
    pub fn nest_len(&self, open: Open) -> usize {
        self.bytes.len() - open.0
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// One received message: header fields and what follows the header.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// RTM_*, or a subsystem and a message of it (NFNL_SUBSYS_*).
    pub kind: u16,
    /// NLM_F_*.
    pub flags: u16,
    /// That of the request which it answers.
    pub seq: u32,
    /// The sender's or receiver's address (nlmsg_pid); 0 is the kernel.
    pub port: u32,
    /// The fixed part and the attributes.
    pub body: &'a [u8],
}

/// The messages in a datagram; stops at the first that is cut short.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        if len < HEADER || len > bytes.len() {
            return None;
        }
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            seq: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            body: &bytes[HEADER..len],
        };
        bytes = &bytes[align(len).min(bytes.len())..];
        Some(message)
    })
}

/// The attributes in a body; stops at the first that is cut short. Types come without their flag bits.
pub fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        if len < 4 || len > bytes.len() {
            return None;
        }
        let attr = (u16_at(bytes, 2)? & TYPE_MASK, &bytes[4..len]);
        bytes = &bytes[align(len).min(bytes.len())..];
        Some(attr)
    })
}

/// The first attribute of a type.
pub fn attr(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attrs(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A string attribute up to its NUL.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// In the machine's byte order; none when there are too few bytes.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_ne_bytes([b[0], b[1]]))
}

/// In the machine's byte order; none when there are too few bytes.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

/// The first four bytes in network order; none when there are fewer.
pub fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.get(0..4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// The first eight bytes in network order; none when there are fewer.
pub fn be64(bytes: &[u8]) -> Option<u64> {
    bytes.get(0..8).map(|b| u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
}

/// A fixed body of at least `len` bytes, and the attributes after it.
pub fn split(body: &[u8], len: usize) -> Option<(&[u8], &[u8])> {
    (body.len() >= len).then(|| (&body[..len], body.get(align(len)..).unwrap_or_default()))
}

fn align(len: usize) -> usize {
    len.div_ceil(4) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut w = Writer::new();
        let m = w.begin(16, 5, 7);
        w.raw(&[1, 2, 3, 4]);
        w.attr_str(3, "eth0");
        let n = w.nest(18);
        w.attr_u32(1, 99);
        w.end_nest(n);
        w.end(m);
        let m = w.begin(17, 0, 8);
        w.end(m);

        let read: Vec<_> = messages(w.bytes()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].flags, read[0].seq), (16, 5, 7));
        let (fixed, rest) = split(read[0].body, 4).unwrap();
        assert_eq!(fixed, [1, 2, 3, 4]);
        assert_eq!(text(attr(rest, 3).unwrap()), "eth0");
        assert_eq!(u32_at(attr(attr(rest, 18).unwrap(), 1).unwrap(), 0), Some(99));
    }

    #[test]
    fn cut_messages_end_the_walk_without_a_panic() {
        let mut w = Writer::new();
        let m = w.begin(16, 0, 1);
        w.attr(1, &[9; 37]);
        w.end(m);
        for cut in 0..w.len() {
            for message in messages(&w.bytes()[..cut]) {
                assert_eq!(attrs(message.body).count(), 1);
            }
            let _ = attrs(&w.bytes()[..cut]).count();
        }
    }
}
