//! As much of HPACK (RFC 7541) as it takes to find a value in a block of headers and to know its text. Pure; what is not
//! written as the RFC says is none. Caller: `authority`.

use std::ops::Range;

/// Bytes of an integer after its first: more would be beyond what any frame holds.
const MAX_MORE: usize = 4;

/// One way to write a header field in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// Name and value out of a table.
    Indexed(usize),
    Literal(Literal),
    /// The size of the dynamic table changes.
    Resize,
}

/// A field whose value is spelled out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    pub name: Name,
    /// Where the value stands, with its length in front.
    pub value: Range<usize>,
    /// It goes into the dynamic table.
    pub kept: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The number of an entry of the tables that has it.
    Indexed(usize),
    Text(Vec<u8>),
}

/// The field that begins at `at`, and where the next one does.
pub fn field(block: &[u8], at: usize) -> Option<(Field, usize)> {
    let first = *block.get(at)?;
    if first & 0x80 != 0 {
        let (index, next) = integer(block, at, 7)?;
        return Some((Field::Indexed(index), next));
    }
    if first & 0xe0 == 0x20 {
        return Some((Field::Resize, integer(block, at, 5)?.1));
    }
    let kept = first & 0x40 != 0;
    let (index, mut next) = integer(block, at, if kept { 6 } else { 4 })?;
    let name = if index == 0 {
        let after = skip(block, next)?;
        let text = text(block, next..after)?;
        next = after;
        Name::Text(text)
    } else {
        Name::Indexed(index)
    };
    let after = skip(block, next)?;
    Some((Field::Literal(Literal { name, value: next..after, kept }), after))
}

/// What a string says that stands there with its length in front.
pub fn text(block: &[u8], at: Range<usize>) -> Option<Vec<u8>> {
    let packed = block.get(at.start)? & 0x80 != 0;
    let (_, start) = integer(block, at.start, 7)?;
    let bytes = block.get(start..at.end)?;
    if packed { unpack(bytes) } else { Some(bytes.to_vec()) }
}

/// Writes a string as it is.
pub fn write(text: &[u8], to: &mut Vec<u8>) {
    const FULL: usize = 127;
    if text.len() < FULL {
        to.push(text.len() as u8);
    } else {
        to.push(FULL as u8);
        let mut rest = text.len() - FULL;
        while rest >= 128 {
            to.push((rest % 128) as u8 | 0x80);
            rest /= 128;
        }
        to.push(rest as u8);
    }
    to.extend_from_slice(text);
}

/// Where a string ends that begins at `at`.
fn skip(block: &[u8], at: usize) -> Option<usize> {
    let (length, start) = integer(block, at, 7)?;
    let end = start.checked_add(length)?;
    (end <= block.len()).then_some(end)
}

/// An integer that begins in the last `bits` bits of a byte, and where it ends.
fn integer(block: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let full = (1_usize << bits) - 1;
    let first = usize::from(*block.get(at)?) & full;
    if first < full {
        return Some((first, at + 1));
    }
    let mut value = full;
    for more in 0..MAX_MORE {
        let byte = *block.get(at + 1 + more)?;
        value = value.checked_add(usize::from(byte & 0x7f) << (7 * more))?;
        if byte & 0x80 == 0 {
            return Some((value, at + 2 + more));
        }
    }
    None
}

/// How many bits of Huffman's code each byte takes, by appendix B. The code is canonical: the lengths are all of it.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];
/// Bits of the longest code.
const LONGEST: usize = 30;

/// The bytes in the order of their codes, and for each length of code: its first code, and where its bytes begin.
struct Codes {
    bytes: [u8; 256],
    first: [u32; LONGEST + 2],
    begin: [usize; LONGEST + 2],
}

const CODES: Codes = codes();

const fn codes() -> Codes {
    let mut all = Codes { bytes: [0; 256], first: [0; LONGEST + 2], begin: [0; LONGEST + 2] };
    let (mut placed, mut code, mut length) = (0, 0, 1);
    while length <= LONGEST {
        code <<= 1;
        (all.first[length], all.begin[length]) = (code, placed);
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                all.bytes[placed] = byte as u8;
                placed += 1;
                code += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    all.begin[LONGEST + 1] = placed;
    all
}

/// Undoes Huffman's code.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(packed.len() * 8 / 5);
    let (mut code, mut length) = (0_u32, 0_usize);
    for bit in packed.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        if length > LONGEST {
            return None;
        }
        let nth = code.checked_sub(CODES.first[length]).map(|nth| CODES.begin[length] + nth as usize);
        if let Some(nth) = nth.filter(|nth| *nth < CODES.begin[length + 1]) {
            text.push(CODES.bytes[nth]);
            (code, length) = (0, 0);
        }
    }
    // What fills the last byte are the first bits of the longest code, all ones.
    (length < 8 && code == (1 << length) - 1).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).expect("text"), 16).expect("hex");
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // C.1.2 and C.1.3.
        assert_eq!(integer(&hex("1f9a0a"), 0, 5), Some((1337, 3)));
        assert_eq!(integer(&hex("2a"), 0, 8), Some((42, 1)));
        // C.4.1 and C.6.1.
        assert_eq!(unpack(&hex("f1e3c2e5f23a6ba0ab90f4ff")).as_deref(), Some(&b"www.example.com"[..]));
        let date = hex("d07abe941054d444a8200595040b8166e082a62d1bff");
        assert_eq!(unpack(&date).as_deref(), Some(&b"Mon, 21 Oct 2013 20:13:21 GMT"[..]));
        // C.2.1: a literal with its name.
        let block = hex("400a637573746f6d2d6b65790d637573746f6d2d686561646572");
        let (found, end) = field(&block, 0).expect("a field");
        let Field::Literal(literal) = found else { panic!("{found:?}") };
        assert_eq!((literal.name, literal.kept, end), (Name::Text(b"custom-key".to_vec()), true, block.len()));
        assert_eq!(text(&block, literal.value).as_deref(), Some(&b"custom-header"[..]));
    }

    #[test]
    fn what_ends_too_early_or_never_is_nothing() {
        for broken in ["", "ff", "ffffffffffffff", "41", "4105ab", "00", "000561", "ffff"] {
            assert_eq!(field(&hex(broken), 0), None, "{broken}");
        }
        // Filled with zeros, with a whole byte, and the mark of the end itself.
        for broken in ["f1e3c2e5f23a6ba0ab90f4fe", "f1e3c2e5f23a6ba0ab90f4ffff", "fffffffc"] {
            assert_eq!(unpack(&hex(broken)), None, "{broken}");
        }
    }

    #[test]
    fn long_strings_are_written_as_they_are_read() {
        for length in [0, 1, 126, 127, 128, 254, 255, 300, 16_000] {
            let (said, mut block) = (vec![b'a'; length], vec![1]);
            write(&said, &mut block);
            let Some((Field::Literal(literal), end)) = field(&block, 0) else { panic!("{length}") };
            assert_eq!((text(&block, literal.value), end), (Some(said), block.len()), "{length}");
        }
    }
}
