//! HTTP/2 requests whose `:authority` is none: etcdctl 3.4 says a whole URL, gRPC over a unix socket may say a path.
//! Go's servers take whatever it is. The library that speaks HTTP/2 here ends such a stream with PROTOCOL_ERROR before
//! any code of ours hears of it, and has no switch. So what a client sends is looked at on its way to the library, and a
//! value that it would refuse is replaced by one that it takes.
//!
//! That is sound because the new value is as long as the old one. Headers are packed by tables that both ends keep, and
//! what counts there is the length of names and values: all entries keep their numbers and go when they would have gone,
//! and who says an entry's number later means the value that was replaced. So each frame is looked at by itself, and
//! what can't be read or doesn't fit goes through as it is, for the library to judge.
//!
//! Not mended: an empty value that goes into the table, a name said by the number of an entry of the dynamic table, and a
//! value after a CONTINUATION; encoders take the static table's number for it and write it first.
//! Pure; `stream` holds it, and with it `http`.

mod hpack;
pub mod stream;

use hpack::{Field, Name};
use http::uri::Authority;

/// What an HTTP/2 client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, kind, flags and stream.
const FRAME_HEAD: usize = 9;
/// What a frame may hold as long as nobody announced more: nobody does.
const MAX_FRAME: usize = 16_384;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Entry of the static table: `:authority` without a value.
const AUTHORITY: usize = 1;
/// Entries of the static table: the first that is no pseudo-header, and the last of all. Pseudo-headers come first.
const REGULAR: std::ops::RangeInclusive<usize> = 15..=61;

/// What a client sends, mended where it must be.
#[derive(Debug, Default)]
pub struct Filter {
    state: State,
    /// The beginning of a frame of headers that hasn't come whole: at most that and what one read brought.
    held: Vec<u8>,
    /// What may go on, before anything new.
    ready: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes were those of the preface.
    Preface(usize),
    /// So many bytes go through before the next frame.
    Frames(usize),
    /// It is not HTTP/2.
    Other,
}

impl Default for State {
    fn default() -> State {
        State::Preface(0)
    }
}

impl Filter {
    /// Takes what came. So many of its first bytes go on as they are, after what [`Filter::ready`] has; the rest is kept.
    pub fn take(&mut self, new: &[u8]) -> usize {
        let mut through = 0;
        if self.held.is_empty() {
            through = self.scan(new);
            if through == new.len() {
                return through;
            }
        }
        self.held.extend_from_slice(&new[through..]);
        self.work();
        through
    }

    /// What goes on before anything new. The caller takes it away.
    pub fn ready(&mut self) -> &mut Vec<u8> {
        &mut self.ready
    }

    /// Nothing comes any more.
    pub fn end(&mut self) {
        self.ready.append(&mut self.held);
    }

    fn work(&mut self) {
        loop {
            let held = std::mem::take(&mut self.held);
            let through = self.scan(&held);
            self.ready.extend_from_slice(&held[..through]);
            self.held = held;
            self.held.drain(..through);
            let Some((frame, mended)) = frame(&self.held).and_then(|frame| Some((frame.len(), mended(frame)?))) else {
                return;
            };
            self.ready.extend_from_slice(&mended);
            self.held.drain(..frame);
        }
    }

    /// How much goes through as it is: all before a frame of headers that isn't whole or must be mended.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                State::Other => return bytes.len(),
                State::Preface(before) => {
                    let wanted = &PREFACE[before..];
                    let length = wanted.len().min(rest.len());
                    if rest[..length] != wanted[..length] {
                        self.state = State::Other;
                        continue;
                    }
                    let seen = before + length;
                    self.state = if seen == PREFACE.len() { State::Frames(0) } else { State::Preface(seen) };
                    at += length;
                }
                State::Frames(left) if left > 0 => {
                    let length = left.min(rest.len());
                    self.state = State::Frames(left - length);
                    at += length;
                }
                State::Frames(_) => match head(rest) {
                    None => return at,
                    Some((length, HEADERS)) if length <= MAX_FRAME => match frame(rest) {
                        Some(frame) if mended(frame).is_none() => self.state = State::Frames(frame.len()),
                        _ => return at,
                    },
                    Some((length, _)) => self.state = State::Frames(FRAME_HEAD + length),
                },
            }
        }
        at
    }
}

/// Length and kind of the frame that begins here.
fn head(bytes: &[u8]) -> Option<(usize, u8)> {
    let head = bytes.get(..FRAME_HEAD)?;
    Some((usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]), head[3]))
}

/// The whole frame that begins here.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..FRAME_HEAD + head(bytes)?.0)
}

/// A frame of headers with another authority, when it has one that is refused.
fn mended(frame: &[u8]) -> Option<Vec<u8>> {
    let flags = frame[4];
    let (mut start, mut end) = (FRAME_HEAD, frame.len());
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(start)?))?;
        start += 1;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    let block = frame.get(start..end)?;
    let change = change(block)?;
    let mut mended = frame[..start].to_vec();
    mended.extend_from_slice(&block[..change.start]);
    mended.extend_from_slice(&change.new);
    mended.extend_from_slice(&block[change.end..]);
    mended.extend_from_slice(&frame[end..]);
    let length = u32::try_from(mended.len() - FRAME_HEAD).ok().filter(|length| *length as usize <= MAX_FRAME)?;
    mended[..3].copy_from_slice(&length.to_be_bytes()[1..]);
    Some(mended)
}

/// What stands in the place of a part of a block.
struct Change {
    start: usize,
    end: usize,
    new: Vec<u8>,
}

/// What is to change in a block for its authority to be taken.
fn change(block: &[u8]) -> Option<Change> {
    let mut at = 0;
    while at < block.len() {
        let (field, next) = hpack::field(block, at)?;
        match field {
            // Without a value: a request may as well have none.
            Field::Indexed(AUTHORITY) => return Some(Change { start: at, end: next, new: Vec::new() }),
            Field::Literal(literal) if is_authority(&literal.name) => {
                let text = hpack::text(block, literal.value.clone())?;
                if text.is_empty() {
                    return (!literal.kept).then(|| Change { start: at, end: next, new: Vec::new() });
                }
                let new = replacement(&text)?;
                let mut written = Vec::with_capacity(new.len() + 3);
                hpack::write(&new, &mut written);
                return Some(Change { start: literal.value.start, end: literal.value.end, new: written });
            }
            Field::Literal(literal) if !is_pseudo(&literal.name) => return None,
            Field::Indexed(index) if REGULAR.contains(&index) => return None,
            Field::Indexed(_) | Field::Literal(_) | Field::Resize => at = next,
        }
    }
    None
}

fn is_authority(name: &Name) -> bool {
    match name {
        Name::Indexed(index) => *index == AUTHORITY,
        Name::Text(text) => text == b":authority",
    }
}

fn is_pseudo(name: &Name) -> bool {
    match name {
        Name::Indexed(index) => !REGULAR.contains(index),
        Name::Text(text) => text.first() == Some(&b':'),
    }
}

/// An authority as long as one that is refused; none for one that is taken.
fn replacement(text: &[u8]) -> Option<Vec<u8>> {
    if Authority::try_from(text).is_ok() {
        return None;
    }
    let plain = |byte: &u8| if byte.is_ascii_alphanumeric() || *byte == b'.' { *byte } else { b'-' };
    Some(text.iter().map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A literal field: `first` says the name's number and whether it is kept.
    fn literal(first: u8, value: &[u8]) -> Vec<u8> {
        let mut field = vec![first];
        hpack::write(value, &mut field);
        field
    }

    fn headers(flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([HEADERS, flags, 0, 0, 0, 1]);
        frame.extend_from_slice(payload);
        frame
    }

    fn block(authority: &[u8]) -> Vec<u8> {
        // POST, http, an authority, and a path that both ends put into their tables.
        [&[0x83, 0x86][..], &literal(0x41, authority), &literal(0x44, b"/a")].concat()
    }

    /// What comes out when so many bytes go in at a time.
    fn through(bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut filter, mut out) = (Filter::default(), Vec::new());
        for piece in bytes.chunks(step) {
            let length = filter.take(piece);
            out.extend_from_slice(&piece[..length]);
            out.append(filter.ready());
        }
        filter.end();
        out.append(filter.ready());
        out
    }

    const URL: &[u8] = b"http://127.0.0.1:2379";
    const AS_LONG: &[u8] = b"http---127.0.0.1-2379";

    #[test]
    fn a_url_for_an_authority_becomes_a_name_as_long() {
        let data = [&[0, 0, 2, 0, 1, 0, 0, 0, 1][..], b"xy"].concat();
        let said = |authority: &[u8]| [PREFACE, &headers(4, &block(authority)), &data, &headers(4, &[0xbe])].concat();
        for step in [1, 2, 7, 24, 25, 33, 10_000] {
            assert_eq!(through(&said(URL), step), said(AS_LONG), "{step}");
            assert_eq!(through(&said(b"localhost:1"), step), said(b"localhost:1"), "{step}");
        }
    }

    #[test]
    fn it_is_found_however_it_is_written() {
        let mut named = vec![0x00];
        hpack::write(b":authority", &mut named);
        hpack::write(URL, &mut named);
        let mut wanted = named[..12].to_vec();
        hpack::write(AS_LONG, &mut wanted);
        let of = |frame: Vec<u8>| mended(&frame);
        assert_eq!(of(headers(4, &named)), Some(headers(4, &wanted)));
        for first in [0x41, 0x01, 0x11] {
            assert_eq!(of(headers(4, &literal(first, URL))), Some(headers(4, &literal(first, AS_LONG))));
        }
        // Padded, with a priority, after a change of the table's size.
        let framed =
            |authority: &[u8]| [&[2, 0, 0, 0, 0, 9, 0x3f, 0xe1, 0x1f], &block(authority)[..], &[0, 0]].concat();
        let flags = 4 | PADDED | PRIORITY;
        assert_eq!(of(headers(flags, &framed(URL))), Some(headers(flags, &framed(AS_LONG))));
        // By Huffman's code: "/" and "%2F".
        assert_eq!(of(headers(4, &[0x41, 0x81, 0x63])), Some(headers(4, &literal(0x41, b"-"))));
    }

    #[test]
    fn an_empty_authority_is_left_out() {
        let rest = literal(0x44, b"/a");
        for empty in [&[0x81][..], &[0x01, 0x00], &[0x11, 0x00]] {
            assert_eq!(mended(&headers(4, &[empty, &rest].concat())), Some(headers(4, &rest)), "{empty:?}");
        }
    }

    #[test]
    fn every_replacement_is_an_authority_as_long() {
        for byte in 0..=u8::MAX {
            for text in [vec![byte], vec![b'a', byte, b'/'], [&[byte; 300][..], b"@"].concat()] {
                let Some(new) = replacement(&text) else { continue };
                assert!(new.len() == text.len() && Authority::try_from(&new[..]).is_ok(), "{text:?}");
            }
        }
        for taken in ["a", "127.0.0.1:2379", "[::1]:80", "user@host"] {
            assert_eq!(replacement(taken.as_bytes()), None, "{taken}");
        }
        for odd in ["%2Frun%2Fx.sock", "/run/x.sock", "a:b:c", "unix:///run/x.sock", "a b", "\u{fc}"] {
            assert!(replacement(odd.as_bytes()).is_some(), "{odd}");
        }
    }

    #[test]
    fn what_is_not_ours_to_mend_goes_through() {
        for other in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\n", b"PRI", b""] {
            for step in [1, 5, 1000] {
                assert_eq!(through(other, step), other);
            }
        }
        // Cut, too large, or growing beyond what a frame may hold.
        let cut = [PREFACE, &headers(4, &block(URL))[..20]].concat();
        assert_eq!(through(&cut, 3), cut);
        let large = [PREFACE, &headers(4, &[block(URL), vec![0; MAX_FRAME]].concat())].concat();
        assert_eq!(through(&large, 1000), large);
        let mut packed = vec![0x41, 0xff, 0x80, 0x7d];
        packed.extend(vec![0x63_u8; 127 + 0x7d * 128]);
        assert!(mended(&headers(4, &packed)).is_none_or(|frame| frame.len() <= FRAME_HEAD + MAX_FRAME));
        assert_eq!(mended(&headers(4 | PADDED, &[200, 0x41])), None);
    }
}
