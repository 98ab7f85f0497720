//! UIDs and generated names: the identifiers that the server makes.
//!
//! Randomness comes from the caller as a function, so everything that decides stays reproducible.

/// Letters of generated suffixes: no vowels and no look-alikes, so that no words appear.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Length of the random suffix of `generateName`.
pub(crate) const SUFFIX_LENGTH: usize = 5;

/// Longest name that `generateName` makes: the base is cut so that base and suffix fit a DNS label.
pub(crate) const MAX_GENERATED_NAME: usize = 63;

/// A random (version 4) UUID in lower case, from the operating system's randomness.
pub fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// `n` letters of the suffix alphabet chosen by `random`, one call a letter.
pub fn suffix(n: usize, mut random: impl FnMut() -> u32) -> String {
    (0..n).map(|_| ALPHABET[random() as usize % ALPHABET.len()] as char).collect()
}

/// `base` plus a random suffix; a long base is cut.
pub fn generate_name(base: &str, random: impl FnMut() -> u32) -> String {
    let mut end = base.len().min(MAX_GENERATED_NAME - SUFFIX_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], suffix(SUFFIX_LENGTH, random))
}

/// [`generate_name`] with the operating system's randomness.
pub fn random_name(base: &str) -> String {
    let bytes = *uuid::Uuid::new_v4().as_bytes();
    // Bytes 6 and 8 of a version 4 UUID hold fixed bits; the others are random.
    let mut usable = bytes.into_iter().take(6).chain(bytes.into_iter().skip(9));
    generate_name(base, || {
        let (a, b) = (usable.next().unwrap_or(0), usable.next().unwrap_or(0));
        u32::from(a) << 8 | u32::from(b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let mut n = 0;
        let mut count = || {
            n += 1;
            n
        };
        assert_eq!(generate_name("web-", &mut count), "web-cdfgh");
        assert_eq!(generate_name(&"a".repeat(100), count).len(), 63);
        assert_eq!(random_name("x-").len(), 7);
        assert_eq!(new_uid().len(), 36);
    }
}
