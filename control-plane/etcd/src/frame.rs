//! The bytes of the write-ahead log: frames (one group commit each) of entries (one change each). Pure.
//!
//! ```text
//! segment  │ head 64 │ frame │ frame │ frame ……│ zeros to the end, written ahead │
//!
//! frame    │ crc32 u32 │ length u32 │ index u64 │ revision before i64 │ term u64 │ payload …… │ zeros to 8 │
//!
//! payload  │ PUT key lease value │ PUT …… │ COMMIT │ DELETE key end │ COMMIT │
//!           └──── one transaction: revision + 1 ───┘└──── another: + 1 ──────┘
//! ```
//!
//! Index and term are Raft's: frames are counted from 1, and a term is the time of one leader. A leader's first frame
//! says that it leads. The segment's head says the format; in [`Format::Termless`] frames don't have the term.
//!
//! Two clients that write at the same moment share a frame, one disk sync, and nothing else: each COMMIT is a revision of
//! its own. A frame counts as written when its checksum holds; a crash in the middle of one leaves an end that is torn,
//! which recovery erases. Nobody was told of those writes.
//!
//! Numbers are little endian; frames begin at multiples of 8.
//! The checksum starts from the segment's salt, so that neither bytes of a value nor of another segment can pass for
//! a frame. Entries: see [`Entry`]. Values carry a checksum of their own, as they are read alone later.

use bytes::Bytes;

use crate::mvcc::Place;

/// Bytes before the payload of a frame that is written now.
pub const FRAME_HEADER: usize = Format::Present.header();
/// Frames start at multiples of this.
pub const FRAME_ALIGN: usize = 8;
/// Bytes of the entry that says who leads.
pub const LED_BYTES: usize = 9;
/// Checksum before each value.
pub const VALUE_HEADER: usize = 4;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMMIT: u8 = 3;
const GRANT: u8 = 4;
const REVOKE: u8 = 5;
const COMPACT: u8 = 6;
const CLOSED: u8 = 7;
const TOUCH: u8 = 8;
const LED: u8 = 9;

/// How the frames of a segment look. New ones are written as [`Format::Present`]; the others are still read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Their heads have no term: all are of the one that the program answered then.
    Termless,
    Present,
}

/// The term of frames that don't say one.
pub const TERM_OF_TERMLESS: u64 = 2;

impl Format {
    /// Bytes before the payload.
    pub const fn header(self) -> usize {
        match self {
            Format::Termless => 24,
            Format::Present => 32,
        }
    }
}

/// One change, borrowed from a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A key written; `value_at` is where the value's checksum lies in the payload.
    Put {
        key: &'a [u8],
        lease: i64,
        value: &'a [u8],
        value_at: usize,
    },
    /// A key written anew with the value that it has.
    Touch {
        key: &'a [u8],
        lease: i64,
    },
    /// Every live key of the range deleted.
    Delete {
        key: &'a [u8],
        end: &'a [u8],
    },
    /// The puts and deletes since the last one are a revision.
    Commit,
    Grant {
        id: i64,
        ttl: i64,
    },
    /// The lease and, as a revision, every key on it.
    Revoke {
        id: i64,
    },
    Compact {
        revision: i64,
    },
    /// The log was closed in order.
    Closed,
    /// This member leads in the term of this frame and of those after it.
    Led {
        member: u64,
    },
}

/// A frame under construction.
#[derive(Debug)]
pub struct Frame {
    buffer: Vec<u8>,
    file: u16,
    /// Offset of the frame in its file.
    offset: u64,
    entries: usize,
}

impl Frame {
    /// Starts a frame that will lie at `offset` of `file`; `buffer` lends its capacity.
    pub fn new(mut buffer: Vec<u8>, file: u16, offset: u64) -> Frame {
        buffer.clear();
        buffer.resize(FRAME_HEADER, 0);
        Frame { buffer, file, offset, entries: 0 }
    }

    /// Entries so far.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Adds a put; returns where its value will lie.
    pub fn put(&mut self, key: &[u8], lease: i64, value: &[u8]) -> Place {
        self.tag(PUT);
        self.buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&lease.to_le_bytes());
        self.buffer.extend_from_slice(key);
        let at = self.offset + self.buffer.len() as u64;
        self.buffer.extend_from_slice(&crc32fast::hash(value).to_le_bytes());
        self.buffer.extend_from_slice(value);
        Place::new(self.file, at)
    }

    pub fn touch(&mut self, key: &[u8], lease: i64) {
        self.tag(TOUCH);
        self.buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&lease.to_le_bytes());
        self.buffer.extend_from_slice(key);
    }

    pub fn delete(&mut self, key: &[u8], end: &[u8]) {
        self.tag(DELETE);
        self.buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&(end.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(end);
    }

    pub fn commit(&mut self) {
        self.tag(COMMIT);
    }

    pub fn grant(&mut self, id: i64, ttl: i64) {
        self.tag(GRANT);
        self.buffer.extend_from_slice(&id.to_le_bytes());
        self.buffer.extend_from_slice(&ttl.to_le_bytes());
    }

    pub fn revoke(&mut self, id: i64) {
        self.tag(REVOKE);
        self.buffer.extend_from_slice(&id.to_le_bytes());
    }

    pub fn compact(&mut self, revision: i64) {
        self.tag(COMPACT);
        self.buffer.extend_from_slice(&revision.to_le_bytes());
    }

    pub fn closed(&mut self) {
        self.tag(CLOSED);
    }

    pub fn led(&mut self, member: u64) {
        self.tag(LED);
        self.buffer.extend_from_slice(&member.to_le_bytes());
    }

    fn tag(&mut self, tag: u8) {
        self.entries += 1;
        self.buffer.push(tag);
    }

    /// Where the frame ends now, to [`Frame::rewind`] to.
    pub fn mark(&self) -> (usize, usize) {
        (self.buffer.len(), self.entries)
    }

    /// Takes back what was added since the mark.
    pub fn rewind(&mut self, (length, entries): (usize, usize)) {
        self.buffer.truncate(length);
        self.entries = entries;
    }

    /// Bytes of the frame so far.
    pub fn size(&self) -> usize {
        self.buffer.len()
    }

    /// Writes the header; returns the frame, filled with zeros to the next frame's start.
    pub fn seal(mut self, salt: u64, at: Stamp) -> Vec<u8> {
        let payload = self.buffer.len() - FRAME_HEADER;
        self.buffer[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
        self.buffer[8..16].copy_from_slice(&at.index.to_le_bytes());
        self.buffer[16..24].copy_from_slice(&at.revision.to_le_bytes());
        self.buffer[24..32].copy_from_slice(&at.term.to_le_bytes());
        let crc = checksum(salt, &self.buffer[4..]);
        self.buffer[..4].copy_from_slice(&crc.to_le_bytes());
        self.buffer.resize(self.buffer.len().next_multiple_of(FRAME_ALIGN), 0);
        self.buffer
    }

    /// The buffer back, when nothing is to be written.
    pub fn abandon(self) -> Vec<u8> {
        self.buffer
    }
}

fn checksum(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// Where a frame stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub term: u64,
    pub index: u64,
    /// Revision of the store before the frame.
    pub revision: i64,
}

/// A frame as read.
#[derive(Debug, PartialEq, Eq)]
pub struct Read<'a> {
    pub at: Stamp,
    pub payload: &'a [u8],
    /// Bytes to the next frame.
    pub size: usize,
}

/// What stands at the start of `bytes`.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Frame(Read<'a>),
    /// Zeros as far as a frame header goes: nothing was written here.
    Nothing,
    /// Something that is no intact frame.
    Broken,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Reads the frame at the start of `bytes` (the rest of its segment).
pub fn read(bytes: &[u8], salt: u64, format: Format) -> Found<'_> {
    let head = &bytes[..bytes.len().min(format.header())];
    if head.iter().all(|b| *b == 0) {
        return Found::Nothing;
    }
    match parse(bytes, salt, format) {
        Some(frame) => Found::Frame(frame),
        None => Found::Broken,
    }
}

fn parse(bytes: &[u8], salt: u64, format: Format) -> Option<Read<'_>> {
    let crc = u32::from_le_bytes(number(bytes, 0)?);
    let length = u32::from_le_bytes(number(bytes, 4)?) as usize;
    let index = u64::from_le_bytes(number(bytes, 8)?);
    let revision = i64::from_le_bytes(number(bytes, 16)?);
    let term = match format {
        Format::Termless => TERM_OF_TERMLESS,
        Format::Present => u64::from_le_bytes(number(bytes, 24)?),
    };
    let end = format.header().checked_add(length)?;
    let covered = bytes.get(4..end)?;
    if length == 0 || checksum(salt, covered) != crc {
        return None;
    }
    let size = end.next_multiple_of(FRAME_ALIGN);
    Some(Read { at: Stamp { term, index, revision }, payload: &bytes[format.header()..end], size })
}

/// Disks write sectors of this size wholly or not at all, also when the power goes.
const SECTOR: usize = 512;

/// What the bytes behind the last intact frame are. They are where the next frame belongs, nothing intact follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A frame that was not written wholly: nobody was told that it is there.
    Torn,
    /// No frame's bytes: nothing that was ever written here is missing.
    Garbage,
    /// A frame all of whose sectors were written, or one that says another length than it has: it was acknowledged,
    /// and changed since.
    Damaged,
}

/// Tells a write that the power cut short from one that was damaged later. Frames are appended one by one to a file
/// of zeros, so of a torn one some sector is still zero, and behind it there is nothing. `bytes` are the rest of the
/// segment from `offset` on; `index` and `revision` are what a frame here says.
pub fn ending(bytes: &[u8], offset: u64, salt: u64, format: Format, (index, revision): (u64, i64)) -> Ending {
    let Some(last) = bytes.iter().rposition(|b| *b != 0) else { return Ending::Torn };
    let used = last + 1;
    if has_unwritten_sector(bytes, offset, used.max(format.header() + 1)) {
        return Ending::Torn;
    }
    let says = number(bytes, 4).zip(number(bytes, 8)).zip(number(bytes, 16));
    let Some(((length, says_index), says_revision)) = says else { return Ending::Garbage };
    if u64::from_le_bytes(says_index) != index && i64::from_le_bytes(says_revision) != revision {
        return Ending::Garbage;
    }
    let end = format.header().saturating_add(u32::from_le_bytes(length) as usize);
    // Frames fit in their segment: one that says otherwise says it falsely.
    let whole = || is_whole_but_for_length(bytes, used, salt, format);
    if end > bytes.len() || !has_unwritten_sector(bytes, offset, end) || whole() {
        return Ending::Damaged;
    }
    Ending::Torn
}

/// Whether a sector, as far as it is in the first `len` bytes, is all zeros.
fn has_unwritten_sector(bytes: &[u8], offset: u64, len: usize) -> bool {
    let mut at = 0;
    while at < len {
        let next = (at + SECTOR - (offset as usize + at) % SECTOR).min(len);
        if bytes.get(at..next).is_none_or(|piece| piece.iter().all(|b| *b == 0)) {
            return true;
        }
        at = next;
    }
    false
}

/// Whether the checksum holds with the length that the bytes have: `used`, and the few zeros that an entry may end with.
fn is_whole_but_for_length(bytes: &[u8], used: usize, salt: u64, format: Format) -> bool {
    /// A grant ends with two numbers of 8 bytes.
    const MOST_ZEROS: usize = 16;
    let header = format.header();
    (used..=used + MOST_ZEROS).filter(|end| *end > header && *end <= bytes.len()).any(|end| {
        let mut frame = bytes[..end].to_vec();
        frame[4..8].copy_from_slice(&((end - header) as u32).to_le_bytes());
        parse(&frame, salt, format).is_some()
    })
}

/// The entry at `at` of a payload and where the next one starts; `None` when it is malformed.
pub fn entry(payload: &[u8], at: usize) -> Option<(Entry<'_>, usize)> {
    let tag = *payload.get(at)?;
    let at = at + 1;
    let size = |n: usize| number(payload, n).map(|b| u32::from_le_bytes(b) as usize);
    let long = |n: usize| number(payload, n).map(i64::from_le_bytes);
    Some(match tag {
        PUT => {
            let (key_len, value_len, lease) = (size(at)?, size(at + 4)?, long(at + 8)?);
            let key = payload.get(at + 16..(at + 16).checked_add(key_len)?)?;
            let value_at = at + 16 + key_len;
            let start = value_at + VALUE_HEADER;
            let value = payload.get(start..start.checked_add(value_len)?)?;
            (Entry::Put { key, lease, value, value_at }, start + value_len)
        }
        TOUCH => {
            let (key_len, lease) = (size(at)?, long(at + 4)?);
            let start = at + 12;
            (Entry::Touch { key: payload.get(start..start.checked_add(key_len)?)?, lease }, start + key_len)
        }
        DELETE => {
            let (key_len, end_len) = (size(at)?, size(at + 4)?);
            let start = at + 8;
            let key = payload.get(start..start.checked_add(key_len)?)?;
            let end = payload.get(start + key_len..(start + key_len).checked_add(end_len)?)?;
            (Entry::Delete { key, end }, start + key_len + end_len)
        }
        COMMIT => (Entry::Commit, at),
        GRANT => (Entry::Grant { id: long(at)?, ttl: long(at + 8)? }, at + 16),
        REVOKE => (Entry::Revoke { id: long(at)? }, at + 8),
        COMPACT => (Entry::Compact { revision: long(at)? }, at + 8),
        CLOSED => (Entry::Closed, at),
        LED => (Entry::Led { member: long(at)?.cast_unsigned() }, at + 8),
        _ => return None,
    })
}

/// Checks a value that was read with its header.
pub fn check_value(stored: Bytes) -> Option<Bytes> {
    let crc = u32::from_le_bytes(number(&stored, 0)?);
    let value = stored.slice(VALUE_HEADER..);
    (crc32fast::hash(&value) == crc).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Stamp = Stamp { term: 5, index: 12, revision: 8 };

    fn sample() -> Vec<u8> {
        let mut frame = Frame::new(Vec::new(), 3, 64);
        let place = frame.put(b"key", 5, b"value");
        assert_eq!((place.file(), place.offset()), (3, 64 + FRAME_HEADER as u64 + 1 + 16 + 3));
        frame.touch(b"key", 6);
        frame.delete(b"a", b"b");
        frame.commit();
        frame.grant(1, 60);
        frame.revoke(2);
        frame.compact(9);
        frame.closed();
        frame.led(4);
        assert_eq!(frame.entries(), 9);
        frame.seal(77, AT)
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = sample();
        let Found::Frame(frame) = read(&bytes, 77, Format::Present) else { panic!("no frame") };
        assert_eq!((frame.at, frame.size), (AT, bytes.len()));
        let mut entries = Vec::new();
        let mut at = 0;
        while at < frame.payload.len() {
            let (entry, next) = entry(frame.payload, at).unwrap();
            entries.push(entry);
            at = next;
        }
        let Entry::Put { value_at, .. } = entries[0] else { panic!() };
        let stored = Bytes::copy_from_slice(&frame.payload[value_at..value_at + VALUE_HEADER + 5]);
        assert_eq!(check_value(stored).unwrap(), "value");
        let rest = [
            Entry::Touch { key: b"key", lease: 6 },
            Entry::Delete { key: b"a", end: b"b" },
            Entry::Commit,
            Entry::Grant { id: 1, ttl: 60 },
            Entry::Revoke { id: 2 },
            Entry::Compact { revision: 9 },
            Entry::Closed,
            Entry::Led { member: 4 },
        ];
        assert_eq!(entries[1..], rest);
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed() {
        let bytes = sample();
        assert_eq!(read(&bytes, 78, Format::Present), Found::Broken, "another segment's salt");
        let padding = bytes.len() - FRAME_ALIGN;
        for at in 0..padding {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert_eq!(read(&bad, 77, Format::Present), Found::Broken, "byte {at}");
            assert_eq!(
                read(&bytes[..at], 77, Format::Present),
                if at == 0 { Found::Nothing } else { Found::Broken },
                "cut at {at}"
            );
        }
        assert_eq!(read(&[0; 100], 77, Format::Present), Found::Nothing);
    }
}
