//! In which line of a file a field is: the reader of YAML knows lines and not fields, and the values that fields are read from
//! know no lines. So the file is read once more where something is wrong with it, as a tree of lines. Pure. Called by
//! [`super::faults`].

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Where everything is: a tree of names and values, as far as they lead somewhere.
#[derive(Debug)]
pub enum Lines {
    /// Nothing is in it.
    Value,
    /// A list, each entry with its line.
    List(Vec<(u64, Lines)>),
    /// A map, each field with its line.
    Map(Vec<(String, u64, Lines)>),
}

impl Lines {
    /// Of a text that has been read before, with the same bounds.
    pub fn of(text: &str, options: serde_saphyr::Options) -> Option<Lines> {
        serde_saphyr::from_str_with_options(text, options).ok()
    }

    /// Of a field by its path, or of what it should be in; none for the whole file.
    pub fn line(&self, path: &str) -> Option<u64> {
        let (mut here, mut last) = (self, None);
        for step in steps(path) {
            let next = match (here, step) {
                (Lines::List(list), Step::Place(at)) => list.get(at).map(|(line, next)| (*line, next)),
                (Lines::Map(fields), Step::Field(name)) => {
                    fields.iter().find(|(field, ..)| field == name).map(|(_, line, next)| (*line, next))
                }
                _ => None,
            };
            let Some((line, next)) = next else { break };
            (here, last) = (next, Some(line));
        }
        last
    }
}

/// A step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A field of a map.
    Field(&'a str),
    /// A place in a list.
    Place(usize),
}

/// The steps of a path such as `neighbors[1].hold-time`.
pub fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '[']).filter(|step| !step.is_empty()).map(|step| {
        let place = step.strip_suffix(']').and_then(|number| number.parse().ok());
        place.map_or(Step::Field(step), Step::Place)
    })
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Lines, D::Error> {
        from.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Lines;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Lines, E> {
        Ok(Lines::Value)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Lines, E> {
        Ok(Lines::Value)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Lines, E> {
        Ok(Lines::Value)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Lines, E> {
        Ok(Lines::Value)
    }

    fn visit_str<E>(self, _: &str) -> Result<Lines, E> {
        Ok(Lines::Value)
    }

    fn visit_unit<E>(self) -> Result<Lines, E> {
        Ok(Lines::Value)
    }

    fn visit_none<E>(self) -> Result<Lines, E> {
        Ok(Lines::Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Lines, A::Error> {
        let mut list = Vec::new();
        while let Some(one) = all.next_element::<Spanned<Lines>>()? {
            list.push((one.referenced.line(), one.value));
        }
        Ok(Lines::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Lines, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = all.next_entry::<Spanned<String>, Lines>()? {
            fields.push((name.value, name.referenced.line(), value));
        }
        Ok(Lines::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_they_are_written() {
        let text = "router-id: 10.0.0.1\nneighbors:\n  - address: 10.0.0.2\n    families:\n      - ipv4\n      - ipv7\n  - {address: x}\n";
        let lines = Lines::of(text, serde_saphyr::options! {}).expect("a tree");
        for (path, line) in [
            ("router-id", Some(1)),
            ("neighbors", Some(2)),
            ("neighbors[0].address", Some(3)),
            ("neighbors[0].families", Some(4)),
            ("neighbors[0].families[1]", Some(6)),
            ("neighbors[1].address", Some(7)),
            ("neighbors[1].remote-as", Some(7)),
            ("as", None),
            ("", None),
        ] {
            assert_eq!(lines.line(path), line, "{path}");
        }
    }
}
