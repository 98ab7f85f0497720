//! Files of a crate that need each other in a circle: who reads one of them has to read all. Called by `tidy`.
//!
//! A file needs another when it names something that is defined there, however many `pub use` lie between; the file that
//! only passes a name on is not needed:
//!
//! ```text
//!   http/mod.rs:  pub use call::Call;      handler.rs:  use crate::http::Call;      handler ──► http/call, not http
//! ```
//!
//! What this cannot see: methods of a value that came as an argument, names made by macros, globs. Of the binary and of
//! tools nothing is asked: what their `main.rs` holds is for all of their files.

use std::collections::{BTreeMap, BTreeSet};

use super::absent::production;
use super::{ABOVE, Source};

/// So many files may need each other: a module and two of its parts.
const LARGEST: usize = 3;

/// A path in pieces: of a module from the crate's root, or of a name.
type Path<'a> = Vec<&'a str>;

/// What one file says.
#[derive(Default)]
struct File<'a> {
    /// Names that are passed on or taken in, and what they are in full.
    known_as: BTreeMap<&'a str, Path<'a>>,
    /// Everything that is needed here, in full.
    needed: Vec<Path<'a>>,
}

/// The files of a crate by the path of their module.
type Crate<'a> = BTreeMap<Path<'a>, File<'a>>;

/// The circles that are larger than [`LARGEST`]: the first file of each, and how many they are.
pub fn larger(sources: &[Source]) -> Vec<(String, usize)> {
    let mut crates: BTreeMap<&str, Vec<(Path<'_>, &Source)>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.name.ends_with("tests.rs")) {
        let parts = source.name.split_once("/src/").filter(|(folder, _)| !is_above(folder));
        if let Some((folder, file)) = parts {
            crates.entry(folder).or_default().push((module(file), source));
        }
    }
    let mut found = Vec::new();
    for files in crates.values() {
        let read = |(module, source): &(Path<'_>, &Source)| (module.join("::"), source.name.clone());
        let names: BTreeMap<String, String> = files.iter().map(read).collect();
        for circle in circles(&crate_of(files)).into_iter().filter(|circle| circle.len() > LARGEST) {
            let first = circle.iter().filter_map(|module| names.get(module)).min();
            found.extend(first.map(|first| (format!("{first}:circle"), circle.len())));
        }
    }
    found
}

/// Whether a folder is of a crate outside of the layers.
fn is_above(folder: &str) -> bool {
    folder.rsplit('/').next().is_some_and(|last| ABOVE.contains(&last))
}

/// `a/b/mod.rs` and `a/b.rs` are the module `a::b`; `lib.rs` and `main.rs` are the root.
fn module(file: &str) -> Path<'_> {
    let mut pieces: Path<'_> = file.trim_end_matches(".rs").split('/').collect();
    if matches!(pieces.last(), Some(&("mod" | "lib" | "main"))) {
        pieces.pop();
    }
    pieces
}

fn crate_of<'a>(files: &[(Path<'a>, &'a Source)]) -> Crate<'a> {
    let modules: BTreeSet<Path<'a>> = files.iter().map(|(module, _)| module.clone()).collect();
    files.iter().map(|(module, source)| (module.clone(), file(module, production(source), &modules))).collect()
}

fn file<'a>(module: &Path<'a>, text: &'a str, modules: &BTreeSet<Path<'a>>) -> File<'a> {
    let words = words(text);
    let mut file = File::default();
    let mut at = 0;
    let mut in_code = Vec::new();
    while at < words.len() {
        if words[at] == "use" {
            let end = words[at..].iter().position(|word| *word == ";").map_or(words.len(), |length| at + length);
            let passed_on = at > 0 && (words[at - 1] == "pub" || words[at - 1] == ")");
            let mut taken = Vec::new();
            tree(&mut words[at + 1..].iter().copied(), &[], &mut taken);
            for (path, alias) in taken {
                let Some(whole) = in_full(module, &path, modules, &file.known_as) else { continue };
                // A module that is taken in is not needed for that: what is named of it is.
                if !passed_on && !modules.contains(&whole) {
                    file.needed.push(whole.clone());
                }
                file.known_as.insert(alias, whole);
            }
            at = end;
        } else if words.get(at + 1) == Some(&"::") && (at == 0 || words[at - 1] != "::") {
            let mut path = vec![words[at]];
            while words.get(at + 1) == Some(&"::") && words.get(at + 2).is_some_and(|word| is_name(word)) {
                at += 2;
                path.push(words[at]);
            }
            in_code.push(path);
        }
        at += 1;
    }
    let needed = in_code.iter().filter_map(|path| in_full(module, path, modules, &file.known_as));
    file.needed.extend(needed.collect::<Vec<_>>());
    file
}

/// A path from the crate's root; none of what another crate has.
fn in_full<'a>(
    module: &Path<'a>,
    path: &[&'a str],
    modules: &BTreeSet<Path<'a>>,
    known_as: &BTreeMap<&'a str, Path<'a>>,
) -> Option<Path<'a>> {
    let (first, rest) = path.split_first()?;
    let supers = path.iter().take_while(|piece| **piece == "super").count();
    let below = [module.as_slice(), &[first]].concat();
    match *first {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => Some([module.get(..module.len().checked_sub(supers)?)?, &path[supers..]].concat()),
        _ if modules.contains(&below) => Some([module, path].concat()),
        name => known_as.get(name).map(|whole| [whole, rest].concat()),
    }
}

/// The module of the file where a name is defined: it may be passed on a few times.
fn home<'a>(all: &Crate<'a>, path: &[&'a str], hops: usize) -> Path<'a> {
    let depth = (0..=path.len()).rev().find(|depth| all.contains_key(&path[..*depth])).unwrap_or(0);
    let known_as = all.get(&path[..depth]).and_then(|file| file.known_as.get(path.get(depth)?));
    match known_as {
        Some(whole) if hops > 0 && whole != path => home(all, &[whole, &path[depth + 1..]].concat(), hops - 1),
        _ => path[..depth].to_vec(),
    }
}

/// Modules that reach each other, two or more.
fn circles(all: &Crate<'_>) -> BTreeSet<Vec<String>> {
    let needs = |module: &Path<'_>| {
        let paths = all.get(module).into_iter().flat_map(|file| &file.needed);
        paths.map(|path| home(all, path, 8)).filter(|home| home != module).collect::<BTreeSet<_>>()
    };
    let needs: BTreeMap<&Path<'_>, BTreeSet<Path<'_>>> = all.keys().map(|module| (module, needs(module))).collect();
    let reached = |from: &Path<'_>| {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&Path<'_>> = needs[from].iter().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module.clone()) {
                next.extend(needs.get(module).into_iter().flatten());
            }
        }
        reached
    };
    let reached: BTreeMap<&Path<'_>, BTreeSet<Path<'_>>> = all.keys().map(|module| (module, reached(module))).collect();
    let circle = |module: &&Path<'_>| {
        let back = |other: &&Path<'_>| reached.get(other).is_some_and(|reached| reached.contains(*module));
        reached[module].iter().filter(back).map(|module| module.join("::")).collect::<Vec<_>>()
    };
    reached.keys().map(circle).filter(|circle| !circle.is_empty()).collect()
}

/// What a `use` takes in, `a::{b, c as d};`: paths, and the names by which they are known.
fn tree<'a>(words: &mut impl Iterator<Item = &'a str>, before: &[&'a str], found: &mut Vec<(Path<'a>, &'a str)>) {
    let (mut path, mut alias) = (before.to_vec(), None);
    while let Some(word) = words.next() {
        match word {
            "::" => {}
            "as" => alias = words.next(),
            "{" => {
                tree(words, &path, found);
                path.clear();
            }
            "," | "}" | ";" => {
                let names_one = path.len() > before.len();
                if path.last() == Some(&"self") {
                    path.pop();
                }
                if let Some(name) = alias.take().or(path.last().copied()).filter(|_| names_one) {
                    found.push((path, name));
                }
                if word != "," {
                    return;
                }
                path = before.to_vec();
            }
            name => path.push(name),
        }
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names and signs of a program, without comments, texts and characters.
fn words(text: &str) -> Vec<&str> {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |at| at + 2)
        } else if first == '"' {
            end_of_text(rest)
        } else if inside(first) {
            rest.find(|c| !inside(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (word, after) = rest.split_at(length);
        if !first.is_whitespace() && !word.contains('"') && !word.starts_with("//") {
            words.push(word);
        }
        rest = after;
    }
    words
}

/// Where a text in quotes ends.
fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let end = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        end
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(files: &[(&str, &str)]) -> Vec<(String, usize)> {
        let source = |(name, text): &(&str, &str)| Source { name: format!("a/src/{name}"), text: (*text).into() };
        larger(&files.iter().map(source).collect::<Vec<_>>())
    }

    #[test]
    fn four_files_that_need_each_other_are_seen() {
        let ring = |last: &'static str| {
            let lib = "pub mod a; mod b; mod c; mod d;\npub(crate) use b::B;\n";
            let a = "use crate::{B as Other, c::{self}};\nstruct A(Other);\n";
            let b = "pub struct B(super::c::C<'\"'>); // and crate::d::D\n";
            let c = "use super::d;\npub struct C(d::D);\n";
            [("lib.rs", lib), ("a.rs", a), ("b.rs", b), ("c/mod.rs", c), ("d.rs", last)]
        };
        assert_eq!(
            said(&ring("use crate::a::{\n    A,\n};\npub struct D(A);\n")),
            [("a/src/a.rs:circle".to_owned(), 4)]
        );
        assert_eq!(said(&ring("pub struct D(&'static str); const A: &str = \"crate::a::A\";\n")), []);
        assert_eq!(said(&ring("#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n")), []);
        assert_eq!(said(&ring("use crate::c::C;\npub struct D(C);\n")), [], "two are no circle yet");
    }

    #[test]
    fn a_folder_that_passes_names_on_is_not_needed() {
        let parts = ["one", "two", "three"]
            .map(|part| (format!("x/{part}.rs"), format!("use super::One;\nfn {part}() {{}}\n")));
        let mut files =
            vec![("lib.rs", "mod x;"), ("x/mod.rs", "pub use one::One;\npub use two::two;\npub use three::three;\n")];
        files.extend(parts.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        assert_eq!(said(&files), []);
    }
}
