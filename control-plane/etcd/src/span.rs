//! A key or a range of keys, with etcd's rules for `range_end`. Pure. Used by reads, deletes, compares and watches.

use std::ops::Bound;

use bytes::Bytes;

/// `[start, end)`: no `end` is the single key, an `end` of one zero byte is every key from `start` on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub start: Bytes,
    pub end: Bytes,
}

/// Bounds of a range in an ordered map.
pub type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl Span {
    pub fn new(start: Bytes, end: Bytes) -> Span {
        Span { start, end }
    }

    /// Whether this is one key, not a range.
    pub fn is_single(&self) -> bool {
        self.end.is_empty()
    }

    fn is_open(&self) -> bool {
        self.end.as_ref() == [0]
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        if self.is_single() {
            return key == self.start.as_ref();
        }
        key >= self.start.as_ref() && (self.is_open() || key < self.end.as_ref())
    }

    /// Bounds for an ordered map, starting after `after` when given; `None` when nothing can be inside.
    pub fn bounds<'a>(&'a self, after: Option<&'a [u8]>) -> Option<Bounds<'a>> {
        let start: &[u8] = self.start.as_ref();
        let low = after.map_or(Bound::Included(start), Bound::Excluded);
        if self.is_single() {
            return after.is_none_or(|a| a < start).then_some((Bound::Included(start), Bound::Included(start)));
        }
        if self.is_open() {
            return Some((low, Bound::Unbounded));
        }
        let end: &[u8] = self.end.as_ref();
        let first = after.unwrap_or(start);
        (first < end).then_some((low, Bound::Excluded(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: &'static str, end: &'static str) -> Span {
        Span::new(Bytes::from_static(start.as_bytes()), Bytes::from_static(end.as_bytes()))
    }

    #[test]
    fn range_end_rules() {
        assert!(span("a", "").contains(b"a") && !span("a", "").contains(b"ab"));
        assert!(span("a", "b").contains(b"ab") && !span("a", "b").contains(b"b"));
        assert!(span("b", "\0").contains(b"zzz") && !span("b", "\0").contains(b"a"));
        assert!(span("b", "a").bounds(None).is_none(), "an end before the start is empty, not an error");
    }
}
