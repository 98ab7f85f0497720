//! `$(NAME)` in commands, arguments, variables and subpaths: known names are replaced, unknown ones stay as written,
//! `$$` is one dollar sign. Pure.
//!
//! A few short variables that name each other stand for gigabytes, so whoever expands says how much there may be.

/// The result would be longer than was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Replaces references by what `lookup` knows, up to so many bytes.
pub fn expand<'a>(text: &str, most: usize, lookup: impl Fn(&str) -> Option<&'a str>) -> Result<String, TooLong> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let Some((name, tail)) = after.strip_prefix('(').and_then(|r| r.split_once(')')) else {
            out.push('$');
            rest = after;
            continue;
        };
        match lookup(name) {
            Some(value) if out.len() + value.len() > most => return Err(TooLong),
            Some(value) => out.push_str(value),
            None => {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    if out.len() > most { Err(TooLong) } else { Ok(out) }
}

/// The first reference that `lookup` does not know.
pub fn unknown<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let missing = std::cell::RefCell::new(None);
    // Only who is asked for matters, and the result has no bound to be longer than.
    let _ = expand(text, usize::MAX, |name| {
        if lookup(name).is_none() && missing.borrow().is_none() {
            *missing.borrow_mut() = Some(name.to_owned());
        }
        None
    });
    missing.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_escapes_and_strays() {
        let lookup = |name: &str| (name == "A").then_some("1");
        for (text, want) in [
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $ $(A", "$A $ $(A"),
            ("cost: 5$", "cost: 5$"),
            ("", ""),
        ] {
            assert_eq!(expand(text, 64, lookup).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(unknown("$(A)/$(B)", lookup).as_deref(), Some("B"));
    }

    #[test]
    fn what_is_expanded_ends_at_its_bound() {
        let value = "x".repeat(1000);
        let long = |_: &str| Some(value.as_str());
        assert_eq!(expand(&"$(A)".repeat(1 << 20), 5000, long), Err(TooLong));
        assert_eq!(expand(&"$(A)".repeat(5), 5000, long).map(|text| text.len()), Ok(5000));
        assert_eq!(expand(&"y".repeat(5001), 5000, long), Err(TooLong));
    }
}
