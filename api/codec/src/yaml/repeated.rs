//! Keys that a YAML document has twice, with their lines: the words that upstream's YAML library finds for them. A
//! second walk, for the few documents in which the first one found any. Pure; [`super::decode`] calls it.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

thread_local! {
    /// What the walk below found so far: a value whose line is asked for (`Spanned`) can't carry a place for it.
    static FOUND: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// `line 7: key "foo" already set in map`, in the order of the document.
pub fn keys(text: &str, options: serde_saphyr::Options) -> Vec<String> {
    FOUND.with_borrow_mut(Vec::clear);
    // What can't be read has been refused before.
    let _ = serde_saphyr::from_str_with_options::<Node>(text, options);
    FOUND.take()
}

/// Anything, of which only the keys matter.
struct Node;

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Node;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            // The line is that of the value, and what is inside comes first: so upstream's library counts.
            let line = map.next_value::<Spanned<Node>>()?.referenced.line();
            let words = format!("line {line}: key {} already set in map", meta::text::quote(&key));
            if !seen.insert(key) {
                FOUND.with_borrow_mut(|found| found.push(words));
            }
        }
        Ok(Node)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        while list.next_element::<Node>()?.is_some() {}
        Ok(Node)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node)
    }
}
