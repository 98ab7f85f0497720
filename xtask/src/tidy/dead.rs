//! Public items that nobody names. The compiler takes whatever is public for used; here each word of the whole project is
//! counted, tests included, and a definition whose name is said once is dead. An item whose name others have too passes:
//! this finds most, not all. Called by `tidy`.

use std::collections::HashMap;

use super::Source;

/// What introduces a name.
const KEYWORDS: &[&str] = &["fn", "struct", "enum", "trait", "const", "static", "type"];

pub fn faults(sources: &[Source], faults: &mut Vec<String>) {
    let mut said: HashMap<&str, usize> = HashMap::new();
    for word in sources.iter().flat_map(|source| code(&source.text)).flat_map(words) {
        *said.entry(word).or_default() += 1;
    }
    for source in sources {
        let dead = code(&source.text).filter_map(defined).filter(|name| said.get(name) == Some(&1));
        faults.extend(dead.map(|name| format!("{}: nobody uses the public {name}", source.name)));
    }
}

/// Lines without those that are comment only: being spoken of is no use.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The name that a line makes public.
fn defined(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let mut words = words(rest).skip_while(|word| ["async", "unsafe", "extern", "C"].contains(word));
    let keyword = words.next()?;
    let name = words.next()?;
    // `pub const fn name`
    let name = if keyword == "const" && name == "fn" { words.next()? } else { name };
    KEYWORDS.contains(&keyword).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_defined_is_dead() {
        let text = "pub const fn used() {}\npub fn dead() {}\n// dead\npub struct Kept;\nuse a::{used, Kept};\n";
        let mut said = Vec::new();
        faults(&[Source { name: "a.rs".into(), text: text.into() }], &mut said);
        assert_eq!(said, ["a.rs: nobody uses the public dead"]);
    }
}
