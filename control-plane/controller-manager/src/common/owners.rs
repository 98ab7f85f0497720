//! Controller references: who owns an object, which orphans an owner adopts and which objects it lets go. The index
//! [`by_owner`] makes both a lookup instead of a scan.

use std::sync::Arc;

use client::informer::Watched;
use client::{Action, Cache};
use facts::labels::Selector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde_json::json;

use super::acts::{self, Written};

pub use facts::owners::{controller_of, is_controlled_by};

/// Name of the index made by [`by_owner`].
pub const OWNER: &str = "owner";

/// The controller's name, if it is of this kind (and group).
pub fn controller_named<K: Resource<DynamicType = ()>>(meta: &ObjectMeta) -> Option<&str> {
    let owner = controller_of(meta)?;
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    (owner.kind == K::kind(&()) && group == K::group(&())).then_some(owner.name.as_str())
}

/// Whether a reference means this object: one of the same name that came after it is another.
pub fn is_meant<K: Resource>(reference: &OwnerReference, object: &K) -> bool {
    object.meta().uid.as_deref() == Some(reference.uid.as_str())
}

/// The reference that makes `owner` the managing controller.
pub fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Index: by the managing controller, or by namespace when there is none.
pub fn by_owner<K: Resource>(object: &K) -> Vec<String> {
    let meta = object.meta();
    vec![controller_of(meta).map_or_else(|| orphans_of(namespace_of(meta)), |r| of(namespace_of(meta), &r.uid))]
}

/// The index value of what the owner with this metadata manages.
pub fn owned_by(owner: &ObjectMeta) -> String {
    of(namespace_of(owner), owner.uid.as_deref().unwrap_or(""))
}

/// The index value of what the owner with this uid manages in the namespace: what refers to it from another is not its.
pub fn of(namespace: &str, uid: &str) -> String {
    format!("{namespace}/{uid}")
}

fn namespace_of(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or("")
}

/// The index value of all objects in the namespace that nobody manages.
pub fn orphans_of(namespace: &str) -> String {
    format!("orphans of {namespace}")
}

/// Candidates of [`claim`]: what the owner manages, and the orphans of its namespace that its selector matches.
pub fn candidates<K: Watched>(all: &Cache<K>, owner: &ObjectMeta, selector: &Selector) -> Vec<Arc<K>> {
    let mut candidates = all.by(OWNER, &owned_by(owner));
    candidates.extend(all.by_labelled(OWNER, &orphans_of(namespace_of(owner)), |labels| selector.matches(labels)));
    candidates
}

/// What belongs to an owner after the changes that [`Claim::actions`] makes.
pub struct Claim<K> {
    pub mine: Vec<Arc<K>>,
    pub actions: Vec<Action>,
}

/// Sorts candidates (the owner's objects and the namespace's orphans) by who they should belong to: the owner keeps
/// what its selector matches, adopts matching orphans, and releases its own that match no more. An owner that is being
/// deleted adopts and releases nothing. `finalizer` goes on with adoption and off with release.
pub fn claim<O, K>(
    owner: &O,
    selector: &Selector,
    candidates: impl IntoIterator<Item = Arc<K>>,
    finalizer: Option<&str>,
) -> Claim<K>
where
    O: Resource<DynamicType = ()>,
    K: Written,
{
    let reference = owner_reference(owner);
    let going = owner.meta().deletion_timestamp.is_some();
    let mut claim = Claim { mine: Vec::new(), actions: Vec::new() };
    for object in candidates {
        let meta = object.meta();
        let matches = selector.matches(&meta.labels);
        match controller_of(meta) {
            Some(other) if other.uid != reference.uid => {}
            Some(_) if matches => claim.mine.push(object),
            Some(_) if going || meta.deletion_timestamp.is_some() => {}
            Some(_) => claim.actions.push(release(&*object, &reference.uid, finalizer)),
            None if !matches || going || meta.deletion_timestamp.is_some() => {}
            None => {
                claim.actions.push(adopt(&*object, &reference, finalizer));
                claim.mine.push(object);
            }
        }
    }
    claim
}

fn adopt<K: Written>(object: &K, reference: &OwnerReference, finalizer: Option<&str>) -> Action {
    let mut body = json!({"metadata": {"ownerReferences": [reference]}});
    if let Some(finalizer) = finalizer {
        body["metadata"]["finalizers"] = json!([finalizer]);
    }
    acts::patch(object, body)
}

fn release<K: Written>(object: &K, owner: &str, finalizer: Option<&str>) -> Action {
    let mut body = json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": owner}]}});
    if let Some(finalizer) = finalizer {
        body["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
    }
    acts::patch(object, body)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use testkit::model::from;

    #[test]
    fn a_pod_of_another_namespace_is_nobodys_here_whatever_it_refers_to() {
        let pod = |namespace: &str| {
            let owner =
                json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true});
            from::<Pod>(json!({"metadata": {"name": "p", "namespace": namespace, "ownerReferences": [owner]}}))
        };
        let set: ObjectMeta = from(json!({"name": "r", "namespace": "here", "uid": "u"}));
        assert_eq!(by_owner(&pod("here")), [owned_by(&set)]);
        assert_ne!(by_owner(&pod("elsewhere")), [owned_by(&set)]);
    }

    /// A budget took the scale of a new ReplicaSet of the old one's name for its pods'.
    #[test]
    fn a_successor_of_the_same_name_is_not_what_a_reference_means() {
        let reference: OwnerReference = from(json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "old"}));
        let pod = |uid: &str| from::<Pod>(json!({"metadata": {"name": "p", "namespace": "ns", "uid": uid}}));
        assert!(is_meant(&reference, &pod("old")) && !is_meant(&reference, &pod("new")));
    }
}
