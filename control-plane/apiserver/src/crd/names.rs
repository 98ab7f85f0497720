//! Which names the definitions of each group hold, and which definitions wait for one. Settling a definition asks this
//! instead of all other definitions. Pure; the controller keeps it in step with what is stored.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

/// Plurals, singulars and short names are looked for in one place, kinds and kinds of lists in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Space {
    Resource,
    Kind,
}

type Name = (Space, String);

/// See the module's head. Definitions go by their own names.
#[derive(Debug, Default)]
pub struct Names {
    groups: HashMap<String, Group>,
    /// What each definition holds, to give it back.
    held: HashMap<String, (String, Vec<Name>)>,
}

#[derive(Debug, Default)]
struct Group {
    holders: HashMap<Name, BTreeSet<String>>,
    waiting: BTreeSet<String>,
}

/// Why a definition can't have its names: a reason and a message for its conditions.
pub type Conflict = (&'static str, String);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn short_names(names: &Value) -> impl Iterator<Item = &str> {
    names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn names_of(accepted: &Value) -> Vec<Name> {
    let resources = ["plural", "singular"].map(|field| text(accepted, field)).into_iter().chain(short_names(accepted));
    let kinds = ["kind", "listKind"].map(|field| text(accepted, field)).into_iter();
    let all = resources.map(|name| (Space::Resource, name)).chain(kinds.map(|name| (Space::Kind, name)));
    all.filter(|(_, name)| !name.is_empty()).map(|(space, name)| (space, name.to_owned())).collect()
}

impl Names {
    /// Notes the names that a definition was given, in its status; whether it gave up any that it had.
    pub fn put(&mut self, crd: &Value, waits: bool) -> bool {
        let (name, group) = (text(&crd["metadata"], "name"), text(&crd["spec"], "group"));
        let fresh = names_of(&crd["status"]["acceptedNames"]);
        let known = self.held.get(name).is_some_and(|(known, names)| known == group && *names == fresh);
        let mut freed = false;
        if !known {
            freed = self.give_back(name).is_some_and(|before| before.iter().any(|one| !fresh.contains(one)));
            let entry = self.groups.entry(group.to_owned()).or_default();
            for one in &fresh {
                entry.holders.entry(one.clone()).or_default().insert(name.to_owned());
            }
            self.held.insert(name.to_owned(), (group.to_owned(), fresh));
        }
        let entry = self.groups.entry(group.to_owned()).or_default();
        if waits {
            entry.waiting.insert(name.to_owned());
        } else {
            entry.waiting.remove(name);
        }
        freed
    }

    /// A definition is gone.
    pub fn remove(&mut self, name: &str) {
        self.give_back(name);
    }

    fn give_back(&mut self, name: &str) -> Option<Vec<Name>> {
        let (group, names) = self.held.remove(name)?;
        let entry = self.groups.get_mut(&group)?;
        entry.waiting.remove(name);
        for one in &names {
            if let Some(holders) = entry.holders.get_mut(one) {
                holders.remove(name);
                if holders.is_empty() {
                    entry.holders.remove(one);
                }
            }
        }
        if entry.holders.is_empty() && entry.waiting.is_empty() {
            self.groups.remove(&group);
        }
        Some(names)
    }

    /// Definitions of a group that have not got their names.
    pub fn waiting(&self, group: &str) -> Vec<String> {
        self.groups.get(group).into_iter().flat_map(|group| group.waiting.iter().cloned()).collect()
    }

    /// The first name of a definition that another one of the group holds.
    pub fn conflict(&self, crd: &Value) -> Option<Conflict> {
        let (own, names) = (text(&crd["metadata"], "name"), &crd["spec"]["names"]);
        let group = self.groups.get(text(&crd["spec"], "group"))?;
        let taken = |space: Space, name: &str| {
            let holders = group.holders.get(&(space, name.to_owned()));
            !name.is_empty() && holders.is_some_and(|holders| holders.iter().any(|holder| holder != own))
        };
        let short = short_names(names).map(|name| (Space::Resource, name, "ShortNamesConflict"));
        let all = [
            (Space::Resource, text(names, "plural"), "PluralConflict"),
            (Space::Resource, text(names, "singular"), "SingularConflict"),
        ];
        let kinds = [
            (Space::Kind, text(names, "kind"), "KindConflict"),
            (Space::Kind, text(names, "listKind"), "ListKindConflict"),
        ];
        let mut all = all.into_iter().chain(short).chain(kinds);
        let (_, name, reason) = all.find(|(space, name, _)| taken(*space, name))?;
        Some((reason, format!("\"{name}\" is already in use")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn crd(plural: &str, kind: &str) -> Value {
        let names = json!({"plural": plural, "kind": kind, "shortNames": ["w"]});
        json!({"metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": names}, "status": {"acceptedNames": names}})
    }

    #[test]
    fn a_name_is_free_for_its_holder_and_again_when_it_is_given_back() {
        let mut names = Names::default();
        assert!(!names.put(&crd("widgets", "Widget"), false));
        assert_eq!(names.conflict(&crd("widgets", "Widget")), None);
        let other = crd("gadgets", "Gadget");
        assert_eq!(names.conflict(&other).map(|c| c.0), Some("ShortNamesConflict"));
        let mut refused = other.clone();
        refused["status"] = Value::Null;
        names.put(&refused, true);
        assert_eq!(names.waiting("example.com"), ["gadgets.example.com"]);
        assert_eq!(names.conflict(&crd("w", "Other")).map(|c| c.0), Some("PluralConflict"));
        assert!(names.put(&crd("widgets", "Doodad"), false), "it gave up its kind");
        names.remove("widgets.example.com");
        assert_eq!(names.conflict(&other), None);
    }
}
