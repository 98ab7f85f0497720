//! Key layout: upstream's, so that either server reads the other's store and `etcdctl get --prefix` shows what people
//! expect. `/registry/<resource>/[<namespace>/]<name>`, with the group before the resource where upstream has it so.

use bytes::Bytes;

/// The first key after every key with this prefix: the exclusive end of a prefix range. Empty when there is none.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return Bytes::from(end);
        }
        end.pop();
    }
    Bytes::new()
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn the_end_of_a_prefix_is_the_next_sibling() {
        assert_eq!(&prefix_end(b"/registry/pods/")[..], b"/registry/pods0");
        assert_eq!(&prefix_end(b"a\xff")[..], b"b");
        assert!(prefix_end(b"\xff").is_empty());
    }
}
