//! Built-in groups and versions in the order of discovery, with the priorities of their APIService objects.
//! Groups with a higher priority come first; versions with a higher priority are preferred within their group.

/// One served group and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupVersion {
    /// Such as `apps`; empty for the core group.
    pub group: &'static str,
    /// Such as `v1`.
    pub version: &'static str,
    /// `groupPriorityMinimum` of the APIService.
    pub group_priority: i32,
    /// `versionPriority` of the APIService.
    pub version_priority: i32,
}

const fn row(group: &'static str, version: &'static str, group_priority: i32, version_priority: i32) -> GroupVersion {
    GroupVersion { group, version, group_priority, version_priority }
}

/// Every built-in group and version but apiregistration.k8s.io, which the aggregator serves itself and lists first.
pub const GROUPS: [GroupVersion; 22] = [
    row("", "v1", 18000, 1),
    row("apps", "v1", 17800, 15),
    row("events.k8s.io", "v1", 17750, 15),
    row("authentication.k8s.io", "v1", 17700, 15),
    row("authorization.k8s.io", "v1", 17600, 15),
    row("autoscaling", "v2", 17500, 30),
    row("autoscaling", "v1", 17500, 15),
    row("batch", "v1", 17400, 15),
    row("certificates.k8s.io", "v1", 17300, 15),
    row("networking.k8s.io", "v1", 17200, 15),
    row("policy", "v1", 17100, 15),
    row("rbac.authorization.k8s.io", "v1", 17000, 15),
    row("storage.k8s.io", "v1", 16800, 15),
    row("admissionregistration.k8s.io", "v1", 16700, 15),
    row("apiextensions.k8s.io", "v1", 16700, 15),
    row("scheduling.k8s.io", "v1", 16600, 15),
    row("coordination.k8s.io", "v1", 16500, 15),
    row("node.k8s.io", "v1", 16300, 15),
    row("discovery.k8s.io", "v1", 16200, 15),
    row("resource.k8s.io", "v1", 16200, 21),
    row("flowcontrol.apiserver.k8s.io", "v1", 16100, 21),
    row("storagemigration.k8s.io", "v1", 15800, 15),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_groups_agree() {
        for kind in crate::ALL.iter().filter(|k| k.group != "apiregistration.k8s.io") {
            assert!(GROUPS.iter().any(|g| g.group == kind.group && g.version == kind.version), "{kind:?}");
        }
        for g in GROUPS {
            assert!(crate::ALL.iter().any(|k| k.group == g.group && k.version == g.version), "{g:?}");
        }
    }
}
