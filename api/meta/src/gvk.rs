//! Names of types and resources: group, version and kind, or group, version and resource.
//!
//! Everything is a `Cow<'static, str>`, so the built-in table costs nothing and a CRD makes the same types at run time.

use std::borrow::Cow;
use std::fmt;

/// A string that is either compiled in or made at run time.
pub type Str = Cow<'static, str>;

/// Group, version and kind. The core group is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// Such as `apps`; empty for the core group.
    pub group: Str,
    /// Such as `v1beta1`.
    pub version: Str,
    /// Singular and in camel case: `Deployment`.
    pub kind: Str,
}

/// Group, version and plural resource name. The core group is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    /// Such as `apps`; empty for the core group.
    pub group: Str,
    /// Such as `v1beta1`.
    pub version: Str,
    /// Plural and in lower case, as paths have it: `deployments`.
    pub resource: Str,
}

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A name is unique within a namespace, and the namespace's end is the object's.
    Namespaced,
    /// A name is unique in the cluster.
    Cluster,
}

impl Scope {
    /// The word that discovery and CRDs use: `Namespaced` or `Cluster`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Namespaced => "Namespaced",
            Scope::Cluster => "Cluster",
        }
    }
}

impl Gvk {
    /// A type from constants.
    pub const fn new(group: &'static str, version: &'static str, kind: &'static str) -> Gvk {
        Gvk { group: Cow::Borrowed(group), version: Cow::Borrowed(version), kind: Cow::Borrowed(kind) }
    }

    /// A type from the two strings that an object carries: `apps/v1` and `Deployment`.
    pub fn from_api_version(api_version: &str, kind: &str) -> Gvk {
        let (group, version) = split_api_version(api_version);
        Gvk {
            group: Cow::Owned(group.to_owned()),
            version: Cow::Owned(version.to_owned()),
            kind: Cow::Owned(kind.to_owned()),
        }
    }

    /// `v1` for the core group, `apps/v1` for every other.
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }

    /// `Pod` or `Deployment.apps`: how messages name a kind.
    pub fn group_kind(&self) -> String {
        qualified(&self.kind, &self.group)
    }
}

impl Gvr {
    /// A resource from constants.
    pub const fn new(group: &'static str, version: &'static str, resource: &'static str) -> Gvr {
        Gvr { group: Cow::Borrowed(group), version: Cow::Borrowed(version), resource: Cow::Borrowed(resource) }
    }

    /// `v1` for the core group, `apps/v1` for every other.
    pub fn api_version(&self) -> String {
        join_api_version(&self.group, &self.version)
    }

    /// `pods` or `deployments.apps`: how messages name a resource.
    pub fn group_resource(&self) -> String {
        qualified(&self.resource, &self.group)
    }
}

/// As messages print it: `apps/v1, Kind=Deployment`, `/v1, Kind=Pod`.
impl fmt::Display for Gvk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// As messages print it: `apps/v1, Resource=deployments`, `/v1, Resource=pods`.
impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Resource={}", self.group, self.version, self.resource)
    }
}

/// Splits `apps/v1` into group and version; `v1` is the core group.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Joins group and version the way `apiVersion` holds them.
pub fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `name` in the core group, `name.group` elsewhere.
pub fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_messages_write_them() {
        assert_eq!(Gvk::new("apps", "v1", "Deployment").group_kind(), "Deployment.apps");
        assert_eq!(Gvk::from_api_version("v1", "Pod"), Gvk::new("", "v1", "Pod"));
        assert_eq!(Gvk::from_api_version("apps/v1", "Deployment").api_version(), "apps/v1");
        assert_eq!(Gvr::new("", "v1", "pods").group_resource(), "pods");
        assert_eq!(Gvk::new("", "v1", "Pod").to_string(), "/v1, Kind=Pod");
    }
}
