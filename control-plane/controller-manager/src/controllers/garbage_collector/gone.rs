//! Owners that are known not to exist, by all that a reference says of them. A reference with the right uid and wrong
//! coordinates tells nothing of the object that has the uid: only of itself. Used by [`super::graph`]. Pure.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// Remembered owners; forgetting one costs a question to the server.
const MOST: usize = 5000;

/// An owner as a reference names it, looked for in a namespace (empty: its kind has none).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Coordinates {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Coordinates {
    pub fn of(owner: &OwnerReference, namespace: &str) -> Coordinates {
        Coordinates {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            namespace: namespace.to_owned(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        }
    }

    fn are_of(&self, owner: &OwnerReference, namespace: &str) -> bool {
        self.kind == owner.kind
            && self.name == owner.name
            && self.api_version == owner.api_version
            && (self.namespace.is_empty() || self.namespace == namespace)
    }
}

#[derive(Debug, Default)]
pub struct Gone {
    by_uid: HashMap<String, Vec<Coordinates>>,
    count: usize,
}

impl Gone {
    pub fn remember(&mut self, owner: Coordinates) {
        if self.count >= MOST {
            *self = Gone::default();
        }
        let known = self.by_uid.entry(owner.uid.clone()).or_default();
        if !known.contains(&owner) {
            known.push(owner);
            self.count += 1;
        }
    }

    /// It was seen after all.
    pub fn forget(&mut self, owner: &Coordinates) {
        let Some(known) = self.by_uid.get_mut(&owner.uid) else { return };
        let before = known.len();
        known.retain(|k| k != owner);
        self.count -= before - known.len();
        if known.is_empty() {
            self.by_uid.remove(&owner.uid);
        }
    }

    /// Whether what an object in `namespace` refers to is known not to be there.
    pub fn has(&self, owner: &OwnerReference, namespace: &str) -> bool {
        self.by_uid.get(&owner.uid).is_some_and(|known| known.iter().any(|k| k.are_of(owner, namespace)))
    }
}
