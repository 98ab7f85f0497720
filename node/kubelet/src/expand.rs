//! `$(NAME)` in commands, arguments, variables and subpaths: known names are replaced, unknown ones stay as written,
//! `$$` is one dollar sign. Pure.

/// Replaces references by what `lookup` knows.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
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
            Some(value) => out.push_str(&value),
            None => {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// The first reference that `lookup` does not know.
pub fn unknown(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Option<String> {
    let missing = std::cell::RefCell::new(None);
    expand(text, |name| {
        let found = lookup(name);
        if found.is_none() && missing.borrow().is_none() {
            *missing.borrow_mut() = Some(name.to_owned());
        }
        found
    });
    missing.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_escapes_and_strays() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, want) in [
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $ $(A", "$A $ $(A"),
            ("cost: 5$", "cost: 5$"),
            ("", ""),
        ] {
            assert_eq!(expand(text, lookup), want, "{text}");
        }
        assert_eq!(unknown("$(A)/$(B)", lookup).as_deref(), Some("B"));
    }
}
