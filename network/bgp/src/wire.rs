//! Reading big-endian fields from bytes of others, and writing them. Nothing here panics and nothing is copied: a reader
//! that asks for more than there is gets nothing. Called by the decoders of `message` and `attribute`. Pure.

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left, without taking it.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A field whose length stands before it in one byte.
    pub(crate) fn counted8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A field whose length stands before it in two bytes.
    pub(crate) fn counted16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

/// Writes what `body` writes behind its length in two bytes. Lengths that two bytes cannot say are the caller's to
/// avoid: every caller writes into a message whose size is bounded.
pub(crate) fn counted16(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    body(out);
    set_length(out, at, 2);
}

/// Puts the number of bytes that follow a length of two bytes at `at` into it; `itself` is how long the length is.
pub(crate) fn set_length(out: &mut [u8], at: usize, itself: usize) {
    let length = u16::try_from(out.len().saturating_sub(at + itself)).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_read() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!((reader.u8(), reader.u32(), reader.u16(), reader.u8()), (Some(1), None, Some(0x0203), None));
        assert!(reader.is_empty());
        assert_eq!(Reader::new(&[3, 1, 2]).counted8(), None);
    }

    #[test]
    fn a_length_is_of_what_follows() {
        let mut out = vec![9];
        counted16(&mut out, |out| out.extend_from_slice(b"abc"));
        assert_eq!(out, [9, 0, 3, b'a', b'b', b'c']);
    }
}
