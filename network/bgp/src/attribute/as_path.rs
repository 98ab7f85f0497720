//! The AS_PATH (RFC 4271 4.3 and 5.1.2, RFC 5065, RFC 6793): which autonomous systems a route has come through. One
//! allocation however many segments: a word with kind and count before the numbers of each. Pure. Called by the codec,
//! the decision, policies and what is changed on the way out.

use std::fmt;

use crate::wire::Reader;

/// The two-octet number that stands for one of four octets before a speaker that knows only two (RFC 6793).
pub const AS_TRANS: u32 = 23456;
/// Numbers in one segment: its count is one byte.
const MAX_SEGMENT: usize = 255;
/// Private numbers (RFC 6996), both ranges.
const PRIVATE: [std::ops::RangeInclusive<u32>; 2] = [64512..=65534, 4_200_000_000..=4_294_967_294];

/// What the numbers of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// In any order, of routes that were put together.
    Set = 1,
    /// In order, the nearest first.
    Sequence = 2,
    /// As `Sequence`, inside a confederation.
    ConfederationSequence = 3,
    /// As `Set`, inside a confederation.
    ConfederationSet = 4,
}

impl SegmentKind {
    fn from_wire(kind: u8) -> Option<SegmentKind> {
        match kind {
            1 => Some(SegmentKind::Set),
            2 => Some(SegmentKind::Sequence),
            3 => Some(SegmentKind::ConfederationSequence),
            4 => Some(SegmentKind::ConfederationSet),
            _ => None,
        }
    }

    fn is_confederation(self) -> bool {
        matches!(self, SegmentKind::ConfederationSequence | SegmentKind::ConfederationSet)
    }
}

/// The path. Empty for routes of this AS.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct AsPath {
    /// For each segment a word `kind << 16 | count`, then its numbers.
    words: Box<[u32]>,
}

impl AsPath {
    /// A path of one sequence, or of none when there is no number.
    pub fn sequence(numbers: &[u32]) -> AsPath {
        let mut words = Vec::new();
        for part in numbers.chunks(MAX_SEGMENT) {
            push_segment(&mut words, SegmentKind::Sequence, part);
        }
        AsPath { words: words.into() }
    }

    /// Reads segments with numbers of two or of four octets; none when they are malformed (RFC 7606 7.2): an unknown
    /// kind, a segment without numbers, or one that ends beyond the attribute; or with the AS 0 in them (RFC 7607 2).
    pub fn read(bytes: &[u8], four_octet: bool) -> Option<AsPath> {
        let width = if four_octet { 4 } else { 2 };
        let mut words = Vec::with_capacity(bytes.len().div_ceil(width));
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let kind = SegmentKind::from_wire(reader.u8()?)?;
            let count = reader.u8().filter(|count| *count > 0)?;
            words.push(header(kind, count));
            for _ in 0..count {
                let number = if four_octet { reader.u32()? } else { reader.u16()?.into() };
                words.push(Some(number).filter(|number| *number != 0)?);
            }
        }
        Some(AsPath { words: words.into() })
    }

    /// Writes it. With two octets, a number that does not fit becomes [`AS_TRANS`].
    pub(crate) fn write(&self, four_octet: bool, out: &mut Vec<u8>) {
        for (kind, numbers) in self.segments() {
            out.extend_from_slice(&[kind as u8, u8::try_from(numbers.len()).unwrap_or(u8::MAX)]);
            for number in numbers {
                if four_octet {
                    out.extend_from_slice(&number.to_be_bytes());
                } else {
                    let short = u16::try_from(*number).unwrap_or(AS_TRANS as u16);
                    out.extend_from_slice(&short.to_be_bytes());
                }
            }
        }
    }

    /// Each segment.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentKind, &[u32])> {
        let mut rest = &self.words[..];
        std::iter::from_fn(move || {
            let (header, after) = rest.split_first()?;
            let kind = SegmentKind::from_wire((header >> 16) as u8)?;
            let (numbers, after) = after.split_at_checked((header & 0xff) as usize)?;
            rest = after;
            Some((kind, numbers))
        })
    }

    /// Every number, in the order that they are written in.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.segments().flat_map(|(_, numbers)| numbers.iter().copied())
    }

    /// The length that the decision compares: a set counts as one, confederation segments as none.
    pub fn length(&self) -> usize {
        let count = |(kind, numbers): (SegmentKind, &[u32])| match kind {
            SegmentKind::Sequence => numbers.len(),
            SegmentKind::Set => 1,
            _ => 0,
        };
        self.segments().map(count).sum()
    }

    /// The neighbouring AS, where the path begins with a sequence.
    pub fn first(&self) -> Option<u32> {
        let mut outside = self.segments().skip_while(|(kind, _)| kind.is_confederation());
        outside
            .next()
            .filter(|(kind, _)| *kind == SegmentKind::Sequence)
            .and_then(|(_, numbers)| numbers.first().copied())
    }

    /// The AS that the route is from, where the path ends with a sequence.
    pub fn origin(&self) -> Option<u32> {
        self.segments().last().filter(|(kind, _)| *kind == SegmentKind::Sequence).and_then(|(_, n)| n.last().copied())
    }

    /// How often a number is in it.
    pub fn count(&self, number: u32) -> usize {
        self.numbers().filter(|n| *n == number).count()
    }

    /// Bytes of memory that it takes, beside its own.
    pub(crate) fn heap(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// Whether it has no number.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether a segment is of a confederation.
    pub fn has_confederation(&self) -> bool {
        self.segments().any(|(kind, _)| kind.is_confederation())
    }

    /// Whether some number needs four octets.
    pub fn needs_four_octets(&self) -> bool {
        self.numbers().any(|number| number > u32::from(u16::MAX))
    }

    /// With a number before it, `times` times: a route's way out of an AS (RFC 4271 5.1.2).
    #[must_use]
    pub fn prepend(&self, number: u32, times: usize) -> AsPath {
        let mut front = vec![number; times];
        let mut words = Vec::with_capacity(self.words.len() + times + 1);
        let mut segments = self.segments().peekable();
        if let Some((SegmentKind::Sequence, first)) = segments.peek().copied()
            && first.len() + times <= MAX_SEGMENT
        {
            front.extend_from_slice(first);
            segments.next();
        }
        for part in front.chunks(MAX_SEGMENT) {
            push_segment(&mut words, SegmentKind::Sequence, part);
        }
        for (kind, numbers) in segments {
            push_segment(&mut words, kind, numbers);
        }
        AsPath { words: words.into() }
    }

    /// With every number put through `change`; none of it takes the number out.
    #[must_use]
    pub fn map(&self, change: impl Fn(u32) -> Option<u32>) -> AsPath {
        let mut words = Vec::with_capacity(self.words.len());
        for (kind, numbers) in self.segments() {
            let changed: Vec<u32> = numbers.iter().filter_map(|number| change(*number)).collect();
            if !changed.is_empty() {
                push_segment(&mut words, kind, &changed);
            }
        }
        AsPath { words: words.into() }
    }

    /// Without private numbers (RFC 6996).
    #[must_use]
    pub fn without_private(&self) -> AsPath {
        self.map(|number| (!is_private(number)).then_some(number))
    }

    /// Without the segments of a confederation, which do not leave it (RFC 5065 5.3).
    #[must_use]
    pub fn without_confederation(&self) -> AsPath {
        let mut words = Vec::with_capacity(self.words.len());
        for (kind, numbers) in self.segments().filter(|(kind, _)| !kind.is_confederation()) {
            push_segment(&mut words, kind, numbers);
        }
        AsPath { words: words.into() }
    }

    /// The path that a speaker of two octets hid (RFC 6793 4.2.3): what AS_PATH has before the part that AS4_PATH knows.
    /// An AS4_PATH that is longer than AS_PATH is none of it.
    #[must_use]
    pub fn merge(&self, as4_path: &AsPath) -> AsPath {
        let as4_path = as4_path.without_confederation();
        let (all, known) = (self.length(), as4_path.length());
        if as4_path.is_empty() || all < known {
            return self.clone();
        }
        let mut words = Vec::with_capacity(self.words.len() + as4_path.words.len());
        let mut missing = all - known;
        // A confederation's segment goes with what stands before it, and the first of all always.
        let mut beside = true;
        for (kind, numbers) in self.segments() {
            match kind {
                SegmentKind::Sequence => {
                    let taken = missing.min(numbers.len());
                    if taken > 0 {
                        push_segment(&mut words, kind, &numbers[..taken]);
                    }
                    missing -= taken;
                    beside = taken > 0;
                }
                SegmentKind::Set if missing > 0 => {
                    push_segment(&mut words, kind, numbers);
                    (missing, beside) = (missing - 1, true);
                }
                SegmentKind::Set => beside = false,
                _ if beside => push_segment(&mut words, kind, numbers),
                _ => {}
            }
        }
        words.extend_from_slice(&as4_path.words);
        AsPath { words: joined(&words).into() }
    }
}

/// Neighbouring sequences that fit into one become one, so that equal paths are equal words.
fn joined(words: &[u32]) -> Vec<u32> {
    let path = AsPath { words: words.into() };
    let mut out: Vec<u32> = Vec::with_capacity(words.len());
    let mut last: Option<(usize, SegmentKind, usize)> = None;
    for (kind, numbers) in path.segments() {
        match last {
            Some((at, SegmentKind::Sequence, count))
                if kind == SegmentKind::Sequence && count + numbers.len() <= MAX_SEGMENT =>
            {
                let count = count + numbers.len();
                out[at] = header(kind, count as u8);
                out.extend_from_slice(numbers);
                last = Some((at, kind, count));
            }
            _ => {
                last = Some((out.len(), kind, numbers.len()));
                push_segment(&mut out, kind, numbers);
            }
        }
    }
    out
}

fn header(kind: SegmentKind, count: u8) -> u32 {
    (kind as u32) << 16 | u32::from(count)
}

fn push_segment(words: &mut Vec<u32>, kind: SegmentKind, numbers: &[u32]) {
    words.push(header(kind, u8::try_from(numbers.len()).unwrap_or(u8::MAX)));
    words.extend_from_slice(&numbers[..numbers.len().min(MAX_SEGMENT)]);
}

/// Whether an AS number is for private use (RFC 6996).
pub fn is_private(number: u32) -> bool {
    PRIVATE.iter().any(|range| range.contains(&number))
}

impl fmt::Display for AsPath {
    /// As BIRD writes it: `64512 64513 {64514 64515}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, numbers)) in self.segments().enumerate() {
            let (open, close) = match kind {
                SegmentKind::Sequence => ("", ""),
                SegmentKind::Set => ("{", "}"),
                SegmentKind::ConfederationSequence => ("(", ")"),
                SegmentKind::ConfederationSet => ("({", "})"),
            };
            f.write_str(if at == 0 { "" } else { " " })?;
            f.write_str(open)?;
            for (at, number) in numbers.iter().enumerate() {
                write!(f, "{}{number}", if at == 0 { "" } else { " " })?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<AsPath> {
        AsPath::read(bytes, false)
    }

    #[test]
    fn malformed_paths_are_none() {
        for wrong in
            [&[2, 0][..], &[2, 2, 0, 1], &[5, 1, 0, 1], &[0, 1, 0, 1], &[2], &[2, 1, 0, 1, 2], &[2, 2, 0, 1, 0, 0]]
        {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(read(&[]).map(|path| path.length()), Some(0));
    }

    #[test]
    fn a_set_counts_as_one_and_a_confederation_as_nothing() {
        let path = read(&[3, 1, 0, 9, 2, 2, 0, 1, 0, 2, 1, 3, 0, 5, 0, 6, 0, 7]).expect("a path");
        assert_eq!((path.length(), path.first(), path.origin()), (3, Some(1), None));
        assert_eq!(path.to_string(), "(9) 1 2 {5 6 7}");
        assert_eq!(path.without_confederation().to_string(), "1 2 {5 6 7}");
    }

    #[test]
    fn a_full_segment_gets_another_before_it() {
        let path = AsPath::sequence(&[7; 255]).prepend(9, 2);
        let lengths: Vec<usize> = path.segments().map(|(_, numbers)| numbers.len()).collect();
        assert_eq!((lengths, path.length(), path.first()), (vec![2, 255], 257, Some(9)));
        assert_eq!(AsPath::sequence(&[1, 2]).prepend(3, 1), AsPath::sequence(&[3, 1, 2]));
    }

    #[test]
    fn what_two_octets_hid_comes_back() {
        let old = AsPath::sequence(&[100, AS_TRANS, AS_TRANS]);
        assert_eq!(old.merge(&AsPath::sequence(&[70000, 80000])), AsPath::sequence(&[100, 70000, 80000]));
        // A confederation's segment stays where what is before it does (RFC 6793 4.2.3).
        let inside = read(&[3, 1, 0, 9, 2, 1, 0, 100, 4, 1, 0, 8, 2, 1, 0x5b, 0xa0, 3, 1, 0, 7]).expect("a path");
        assert_eq!(inside.merge(&AsPath::sequence(&[70000])).to_string(), "(9) 100 ({8}) 70000");
        // Somebody of two octets removed numbers: AS4_PATH says more than there is.
        assert_eq!(AsPath::sequence(&[100]).merge(&AsPath::sequence(&[70000, 80000])), AsPath::sequence(&[100]));
    }

    #[test]
    fn private_numbers_are_taken_out_and_others_replaced() {
        let path = AsPath::sequence(&[64512, 1, 65535, 4_200_000_000]);
        assert_eq!(path.without_private(), AsPath::sequence(&[1, 65535]));
        assert_eq!(path.map(|n| Some(if n == 1 { 2 } else { n })).count(2), 1);
        assert!(AsPath::sequence(&[64512]).without_private().is_empty());
    }
}
