//! What differs between kinds when objects are deleted: what a delete answers with and what becomes of dependents by
//! default. Who calls: the API server's delete.

use crate::kind::Kind;

/// Kinds whose delete answers with the object; every other answers with a Status. `(group, plural)`.
const ANSWER_WITH_OBJECT: [(&str, &str); 16] = [
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

/// Kinds whose dependents stay unless the delete asks otherwise: older than cascading deletion.
const ORPHAN_DEPENDENTS: [(&str, &str); 2] = [("", "replicationcontrollers"), ("batch", "jobs")];

impl Kind {
    /// A delete answers with the deleted object.
    pub fn answers_delete_with_object(&self) -> bool {
        ANSWER_WITH_OBJECT.contains(&(&self.group, &self.plural))
    }

    /// A delete without a propagation policy leaves dependents alone.
    pub fn orphans_dependents_by_default(&self) -> bool {
        ORPHAN_DEPENDENTS.contains(&(&self.group, &self.plural))
    }
}
