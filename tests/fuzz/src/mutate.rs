//! Changes an input, by chance from a seed: the same seed gives the same inputs. Pure; the driver without coverage calls
//! it (libFuzzer has its own).

/// Words that parsers decide by, in the languages of the targets.
const WORDS: &[&str] = &[
    "null",
    "true",
    "false",
    "{}",
    "[]",
    "\"\"",
    "-1",
    "0",
    "1e309",
    "-9223372036854775808",
    "9223372036854775807",
    "18446744073709551616",
    "4294967295",
    "2147483648",
    "0.1",
    "1E",
    "Ki",
    "m",
    "\\u0000",
    "\\ud800",
    "..",
    "../",
    "/",
    "//",
    "~1",
    "~0",
    "-",
    "$patch",
    "$retainKeys",
    "$setElementOrder/",
    "$deleteFromPrimitiveList/",
    "replace",
    "delete",
    "merge",
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "namespace",
    "managedFields",
    "f:",
    "k:{",
    "v:",
    "i:",
    "spec",
    "status",
    "containers",
    "ports",
    "&a",
    "*a",
    "<<: ",
    "!!binary ",
    "---\n",
    "...\n",
    "|\n",
    ": ",
    "- ",
    "#",
    "\t",
    "\r\n",
    "\n\n",
    "\0",
    " in (",
    " notin (",
    "!=",
    "==",
    ",",
    "$(",
    "@every ",
    "@yearly",
    "*/",
    "TZ=",
    "::",
    "::ffff:",
    "/0",
    "/129",
    "%",
    "%2f",
    "+",
    ";q=",
    "application/",
    "Bearer ",
    "realm=\"",
    "sha256:",
    "GET",
    "k8s\0",
    "\u{1f4a9}",
    "\u{301}",
    "-----BEGIN ",
    "-----END ",
    "CERTIFICATE-----",
    "10.0.0.1",
    "svc.cluster.local",
];
/// Inputs grow no longer: what is wrong beyond is wrong below, and small inputs are quick.
const MOST: usize = 64 << 10;
/// Changes to one input.
const MOST_CHANGES: u64 = 6;

/// Numbers by chance: splitmix64.
pub struct Chance(pub u64);

impl Chance {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, which may be 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit.max(1) as u64) as usize
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}

/// An input made of the ones that are there.
pub fn mutate(all: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = chance.of(all).cloned().unwrap_or_default();
    for _ in 0..=chance.number() % MOST_CHANGES {
        change(&mut input, all, chance);
    }
    input.truncate(MOST);
    input
}

fn change(input: &mut Vec<u8>, all: &[Vec<u8>], chance: &mut Chance) {
    let (from, to) = range(input.len(), chance);
    match chance.below(9) {
        0 => flip(input, chance),
        1 => set(input, chance),
        2 => drop(input.drain(from..to)),
        3 => insert(input, from, chance.of(WORDS).map_or(&[][..], |word| word.as_bytes())),
        4 => {
            let word = chance.of(WORDS).map_or(&[][..], |word| word.as_bytes());
            input.splice(from..to.min(from + word.len()), word.iter().copied());
        }
        5 => {
            let piece = input[from..to].repeat(1 + chance.below(8));
            insert(input, to, &piece);
        }
        6 => {
            let other = chance.of(all).cloned().unwrap_or_default();
            let (a, b) = range(other.len(), chance);
            input.splice(from..to, other[a..b].iter().copied());
        }
        7 => length(input, chance),
        _ => input.truncate(from),
    }
}

/// A piece, mostly short.
fn range(len: usize, chance: &mut Chance) -> (usize, usize) {
    let from = chance.below(len + 1);
    let most = if chance.below(4) == 0 { len } else { 16 };
    (from, (from + chance.below(most + 1)).min(len))
}

fn flip(input: &mut [u8], chance: &mut Chance) {
    let at = chance.below(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << chance.below(8);
    }
}

fn set(input: &mut [u8], chance: &mut Chance) {
    let at = chance.below(input.len());
    let value = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'[', b':', b',', b'/', b'\\', b'9', b'a'];
    if let Some(byte) = input.get_mut(at) {
        *byte = chance.of(&value).copied().unwrap_or_default();
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

/// A number in big or little end first, at its limits: lengths and counts.
fn length(input: &mut [u8], chance: &mut Chance) {
    let width = [1, 2, 4, 8][chance.below(4)];
    let value = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX][chance.below(10)];
    let at = chance.below(input.len().saturating_sub(width) + 1);
    let (big, little) = (value.to_be_bytes(), value.to_le_bytes());
    let bytes = if chance.below(2) == 0 { &big[8 - width..] } else { &little[..width] };
    if let Some(place) = input.get_mut(at..at + width) {
        place.copy_from_slice(bytes);
    }
}
