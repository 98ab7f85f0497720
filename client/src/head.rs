//! The metadata of an object's text, and no more of it: read without what follows, however long that is. What can't be
//! read is as if it weren't there. Pure. Called by `item` and `held`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};

/// What tells an object and its state from others.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Names {
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// What selectors look at.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Labels {
    pub labels: Option<BTreeMap<String, String>>,
}

/// This part of the metadata.
pub fn metadata<T: DeserializeOwned + Default>(text: &str) -> T {
    let mut found = T::default();
    // An error tells that something follows the metadata, as it does.
    let _ = serde_json::Deserializer::from_str(text).deserialize_map(Head(&mut found));
    found
}

struct Head<'a, T>(&'a mut T);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Member {
    Metadata,
    #[serde(other)]
    Other,
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Head<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(member) = map.next_key::<Member>()? {
            match member {
                Member::Metadata => {
                    *self.0 = map.next_value()?;
                    break;
                }
                Member::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_metadata_is_not_looked_at() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"7","labels":{"a":"b"},
            "managedFields":[{"x":{}}],"name":"web","namespace":"ns","uid":"u"},"spec":{"metadata":{"name":"x"}},,,"#;
        let owned = |text: &str| Some(text.to_owned());
        let names = Names { name: owned("web"), namespace: owned("ns"), uid: owned("u"), resource_version: owned("7") };
        assert_eq!(metadata::<Names>(text), names);
        let labels = metadata::<Labels>(text).labels.expect("labels");
        assert_eq!(labels["a"], "b");
        for broken in [r#"{"metadata":7}"#, r#"{"kind":"Pod"}"#, "7", ""] {
            assert_eq!(metadata::<Names>(broken), Names::default());
        }
    }
}
