//! Every group that a client can find here, with its versions and resources, in the order in which clients are told of
//! them. The pages of discovery and the OpenAPI documents read this and not the registry, so that a group which another
//! server answers for is another source of this file alone. Pure.
//!
//! ```text
//! Catalogue ── Group "apps" (priority 17800) ── Version "v1" (priority 15) ── deployments, replicasets, ...
//!           └─ Group "example.com"           ─┬ Version "v1"               ── widgets
//!                                             └ Version "v1beta1"          ── widgets
//! ```
//!
//! Nothing is gathered before it is asked for: a page about one group costs what is in that group.

use std::sync::Arc;

use kinds::groups::GROUPS;

use crate::crd::versions::compare_versions;
use crate::registry::{Registry, Served};

/// See the module's head. Cloning shares it.
#[derive(Clone)]
pub struct Catalogue {
    registry: Arc<Registry>,
}

/// One API group.
pub struct Group<'a> {
    pub name: &'a str,
    /// Preferred first; never empty.
    pub versions: Vec<Version<'a>>,
}

/// One version of a group.
pub struct Version<'a> {
    pub name: &'a str,
    /// By plural.
    pub resources: Vec<&'a Served>,
}

impl Catalogue {
    pub fn new(registry: Arc<Registry>) -> Catalogue {
        Catalogue { registry }
    }

    /// Names of the groups, in the order of discovery: built-in ones by priority, then others by name.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.registry.groups().collect();
        names.sort_by(|a, b| group_priority(b).cmp(&group_priority(a)).then_with(|| a.cmp(b)));
        names
    }

    pub fn has(&self, group: &str) -> bool {
        self.registry.has_group(group)
    }

    pub fn group(&self, name: &str) -> Option<Group<'_>> {
        let mut resources = self.registry.of_group(name).map(|served| &**served).peekable();
        let name: &str = &resources.peek()?.kind.group;
        let mut versions: Vec<Version<'_>> = Vec::new();
        for served in resources {
            let version: &str = &served.kind.version;
            match versions.iter_mut().find(|known| known.name == version) {
                Some(known) => known.resources.push(served),
                None => versions.push(Version { name: version, resources: vec![served] }),
            }
        }
        versions.sort_by(|a, b| {
            let by_priority = version_priority(name, b.name).cmp(&version_priority(name, a.name));
            by_priority.then_with(|| compare_versions(b.name, a.name))
        });
        Some(Group { name, versions })
    }

    /// The groups, in the order of [`Catalogue::names`].
    pub fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.names().into_iter().filter_map(|name| self.group(name))
    }

    /// The resources of a group and version; `None` when nobody serves it.
    pub fn version(&self, group: &str, version: &str) -> Option<Vec<&Served>> {
        let of_group = self.registry.of_group(group).map(|served| &**served);
        let found: Vec<&Served> = of_group.filter(|served| served.kind.version == version).collect();
        (!found.is_empty()).then_some(found)
    }

    /// Every resource in every version, by group and plural.
    pub fn resources(&self) -> impl Iterator<Item = &Served> {
        self.registry.iter().map(|served| &**served)
    }
}

fn group_priority(group: &str) -> i32 {
    if group == "apiregistration.k8s.io" {
        return i32::MAX;
    }
    GROUPS.iter().find(|row| row.group == group).map_or(0, |row| row.group_priority)
}

fn version_priority(group: &str, version: &str) -> i32 {
    let row = GROUPS.iter().find(|row| row.group == group && row.version == version);
    row.map_or(0, |row| row.version_priority)
}
