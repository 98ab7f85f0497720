//! Sets and maps, and their elements. Pure.

use std::net::IpAddr;

use super::Verdict;
use super::numbers as n;
use crate::netlink::message::Writer;
use meta::Prefix;

/// What a field of a key or a value is: the `nft` program's number for the type (only for printing) and its
/// length in bytes.
pub mod kind {
    /// A field type: (number of the `nft` program, length in bytes).
    pub type Kind = (u32, u32);
    /// An IPv4 address.
    pub const IPV4: Kind = (7, 4);
    /// An IPv6 address.
    pub const IPV6: Kind = (8, 16);
    /// A hardware address.
    pub const ETHERNET: Kind = (9, 6);
    /// IPPROTO_*.
    pub const PROTOCOL: Kind = (12, 1);
    /// A port, in network order.
    pub const SERVICE: Kind = (13, 2);
    /// 32 bits in the machine's byte order.
    pub const MARK: Kind = (19, 4);
    /// The name of an interface, filled up with zeroes.
    pub const IFNAME: Kind = (41, 16);
}

/// The longest key or value that the kernel has: sixteen registers.
const KEY_BYTES: usize = 64;

/// The bytes of a key or a value: fields in order, each padded to four bytes, as registers hold them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    bytes: [u8; KEY_BYTES],
    len: u8,
}

impl Default for Key {
    fn default() -> Self {
        Key { bytes: [0; KEY_BYTES], len: 0 }
    }
}

impl Key {
    /// Without fields yet.
    pub fn new() -> Self {
        Key::default()
    }

    /// What the kernel told; more than it ever has is cut.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Key::new().push(&bytes[..bytes.len().min(KEY_BYTES)])
    }

    /// 4 bytes or 16: a set holds one family.
    pub fn addr(self, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => self.push(&v4.octets()),
            IpAddr::V6(v6) => self.push(&v6.octets()),
        }
    }

    /// The name of an interface.
    pub fn name(self, name: &str) -> Self {
        self.push(&super::rule::interface_name(name))
    }

    /// A hardware address.
    pub fn hardware(self, address: [u8; 6]) -> Self {
        self.push(&address)
    }

    /// IPPROTO_*.
    pub fn protocol(self, protocol: u8) -> Self {
        self.push(&[protocol])
    }

    /// 1 to 65535, in network order.
    pub fn port(self, port: u16) -> Self {
        self.push(&port.to_be_bytes())
    }

    /// 32 bits in the machine's byte order: a mark, what numgen gives.
    pub fn mark(self, value: u32) -> Self {
        self.push(&value.to_ne_bytes())
    }

    fn push(mut self, field: &[u8]) -> Self {
        let at = usize::from(self.len);
        let end = at + field.len();
        assert!(end.div_ceil(4) * 4 <= KEY_BYTES, "a key of {end} bytes");
        self.bytes[at..end].copy_from_slice(field);
        self.len = (end.div_ceil(4) * 4) as u8;
        self
    }

    /// All fields, each padded.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// What a map gives for a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// Bytes for registers: an address and a port to send to.
    Value(Key),
    /// Where the packet goes next.
    Verdict(Verdict),
}

/// A named set, or a map when it gives something for its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Up to 127 bytes, unique in its table.
    pub name: String,
    /// The fields of a key, in order: several make a concatenation.
    pub key: Vec<kind::Kind>,
    /// None: a set.
    pub data: Option<SetData>,
    /// Keys are ranges.
    pub interval: bool,
    /// Rules may add elements (`Expr::Dynset`).
    pub dynamic: bool,
    /// Elements may expire; milliseconds, 0: only those that say so.
    pub timeout: Option<u64>,
    /// The most elements; the kernel wants it where rules add them.
    pub size: Option<u32>,
}

/// What the values of a map are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetData {
    /// [`Data::Verdict`], for [`Expr::VerdictMap`](super::Expr::VerdictMap).
    Verdict,
    /// [`Data::Value`] of these fields, in order.
    Fields(Vec<kind::Kind>),
}

impl Set {
    /// A set of such keys.
    pub fn new(name: impl Into<String>, key: &[kind::Kind]) -> Self {
        Set { name: name.into(), key: key.to_vec(), ..Set::default() }
    }

    /// A map from such keys to where a packet goes.
    pub fn verdict_map(name: impl Into<String>, key: &[kind::Kind]) -> Self {
        Set { data: Some(SetData::Verdict), ..Set::new(name, key) }
    }

    /// A map from such keys to such values.
    pub fn map(name: impl Into<String>, key: &[kind::Kind], data: &[kind::Kind]) -> Self {
        Set { data: Some(SetData::Fields(data.to_vec())), ..Set::new(name, key) }
    }

    fn flags(&self) -> u32 {
        const INTERVAL: u32 = 0x4;
        const MAP: u32 = 0x8;
        const TIMEOUT: u32 = 0x10;
        const EVAL: u32 = 0x20;
        const CONCAT: u32 = 0x80;
        let mut flags = 0;
        if self.interval {
            flags |= INTERVAL;
        }
        if self.data.is_some() {
            flags |= MAP;
        }
        if self.timeout.is_some() {
            flags |= TIMEOUT;
        }
        if self.dynamic {
            flags |= EVAL;
        }
        if self.interval && self.key.len() > 1 {
            flags |= CONCAT;
        }
        flags
    }

    pub(super) fn write(&self, w: &mut Writer, id: u32) {
        const TYPE_VERDICT: u32 = 0xffff_ff00;
        w.attr_str(n::SET_NAME, &self.name);
        w.attr_be32(n::SET_FLAGS, self.flags());
        w.attr_be32(n::SET_KEY_TYPE, number_of(&self.key));
        w.attr_be32(n::SET_KEY_LEN, length_of(&self.key));
        match &self.data {
            None => {}
            Some(SetData::Verdict) => {
                w.attr_be32(n::SET_DATA_TYPE, TYPE_VERDICT);
                w.attr_be32(n::SET_DATA_LEN, 16);
            }
            Some(SetData::Fields(fields)) => {
                w.attr_be32(n::SET_DATA_TYPE, number_of(fields));
                w.attr_be32(n::SET_DATA_LEN, length_of(fields));
            }
        }
        w.attr_be32(n::SET_ID, id);
        if let Some(timeout) = self.timeout
            && timeout > 0
        {
            w.attr_be64(n::SET_TIMEOUT, timeout);
        }
        let desc = w.nest(n::SET_DESC);
        if let Some(size) = self.size {
            w.attr_be32(n::SET_DESC_SIZE, size);
        }
        // Only ranges are compared field by field; otherwise a concatenation is bytes to hash.
        if self.interval && self.key.len() > 1 {
            let concat = w.nest(n::SET_DESC_CONCAT);
            for (_, len) in &self.key {
                let field = w.nest(n::LIST_ELEM);
                w.attr_be32(n::SET_FIELD_LEN, *len);
                w.end_nest(field);
            }
            w.end_nest(concat);
        }
        w.end_nest(desc);
    }
}

/// The `nft` program packs the types of a concatenation six bits each.
fn number_of(fields: &[kind::Kind]) -> u32 {
    fields.iter().fold(0, |acc, (number, _)| (acc << 6) | number)
}

/// A lone field has its own length; in a concatenation each is padded to a register.
fn length_of(fields: &[kind::Kind]) -> u32 {
    match fields {
        [(_, len)] => *len,
        fields => fields.iter().map(|(_, len)| len.div_ceil(4) * 4).sum(),
    }
}

/// An element of a set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element<'a> {
    /// What is looked up.
    pub key: Key,
    /// The last key of a range, in sets of concatenations.
    pub key_end: Option<Key>,
    /// Marks the key after the last of a range, in sets of one field.
    pub interval_end: bool,
    /// What a map gives; none in a set.
    pub data: Option<&'a Data>,
    /// Milliseconds to live.
    pub timeout: Option<u64>,
    /// Shown by `nft list`; at most 250 bytes of it are kept.
    pub comment: Option<&'a str>,
}

impl<'a> Element<'a> {
    /// Of a set.
    pub fn new(key: Key) -> Self {
        Element { key, ..Element::default() }
    }

    /// Of a map.
    pub fn with(key: Key, data: &'a Data) -> Self {
        Element { key, data: Some(data), ..Element::default() }
    }

    /// The elements that stand for an address range in an interval set: its start, and what follows its end.
    pub fn range(range: Prefix) -> Vec<Element<'static>> {
        let mut both = vec![Element::new(Key::new().addr(range.network().addr))];
        let after = match range.last() {
            IpAddr::V4(last) => last.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
            IpAddr::V6(last) => last.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
        };
        if let Some(after) = after {
            both.push(Element { interval_end: true, ..Element::new(Key::new().addr(after)) });
        }
        both
    }

    /// `lone` is the length of the key when it is one field: then it is not padded.
    pub(super) fn write(&self, w: &mut Writer, with_data: bool) {
        let elem = w.nest(n::LIST_ELEM);
        if self.interval_end {
            w.attr_be32(n::ELEM_FLAGS, 1);
        }
        write_value(w, n::ELEM_KEY, self.key.as_bytes());
        if let Some(end) = &self.key_end {
            write_value(w, n::ELEM_KEY_END, end.as_bytes());
        }
        if with_data {
            match self.data {
                None => {}
                Some(Data::Value(value)) => write_value(w, n::ELEM_DATA, value.as_bytes()),
                Some(Data::Verdict(verdict)) => {
                    let data = w.nest(n::ELEM_DATA);
                    verdict.write(w);
                    w.end_nest(data);
                }
            }
            if let Some(timeout) = self.timeout {
                w.attr_be64(n::ELEM_TIMEOUT, timeout);
            }
            if let Some(comment) = self.comment {
                write_comment(w, n::ELEM_USERDATA, comment);
            }
        }
        w.end_nest(elem);
    }
}

fn write_value(w: &mut Writer, attr: u16, bytes: &[u8]) {
    let outer = w.nest(attr);
    w.attr(n::DATA_VALUE, bytes);
    w.end_nest(outer);
}

/// The way the `nft` program keeps a comment.
pub(super) fn write_comment(w: &mut Writer, attr: u16, comment: &str) {
    const MOST: usize = 250;
    let mut end = comment.len().min(MOST);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = Vec::with_capacity(end + 3);
    bytes.push(n::USERDATA_COMMENT);
    bytes.push((end + 1) as u8);
    bytes.extend_from_slice(&comment.as_bytes()[..end]);
    bytes.push(0);
    w.attr(attr, &bytes);
}
