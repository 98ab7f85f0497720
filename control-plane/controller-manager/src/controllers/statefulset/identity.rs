//! The pod and the claims of one ordinal: names, labels, volumes; and whether a pod still has them. Pure.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::common::revisions::{self, HASH};
use crate::common::{owners, template};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub fn start(set: &StatefulSet) -> i32 {
    set.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
}

pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or(""))
}

/// The ordinal in the pod's name, if it is a name of this set.
pub fn ordinal_in(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, ordinal) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    (Some(parent) == set.metadata.name.as_deref()).then(|| ordinal.parse().ok()).flatten().filter(|n| *n >= 0)
}

/// Name of the revision that the pod was made from.
pub fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|l| l.get(HASH)).map_or("", String::as_str)
}

/// The pod of an ordinal, of the template that the revision keeps.
pub fn pod(set: &StatefulSet, revision: &ControllerRevision, ordinal: i32) -> Pod {
    let of = revisions::template_of(revision).unwrap_or_else(|| set.spec.template.clone());
    let namespace = set.metadata.namespace.as_deref().unwrap_or("");
    let mut pod = template::pod(&of, namespace, owners::owner_reference(set));
    let name = pod_name(set, ordinal);
    pod.metadata.generate_name = Some(template::name_prefix(set.metadata.name.as_deref().unwrap_or("")));
    pod.metadata.name = Some(name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.service_name.clone();
    let revision = revision.metadata.name.clone().unwrap_or_default();
    pod.metadata.labels.get_or_insert_default().insert(HASH.into(), revision);
    dress(set, &mut pod, ordinal);
    pod
}

/// Puts on the pod what makes it the one of its ordinal: labels and the volumes of its claims.
pub fn dress(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), pod_name(set, ordinal));
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    let claims = set.spec.volume_claim_templates.as_deref().unwrap_or_default();
    if claims.is_empty() {
        return;
    }
    let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
    let mut ours: Vec<Volume> = claims
        .iter()
        .map(|c| Volume {
            name: c.metadata.name.clone().unwrap_or_default(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, c, ordinal),
                read_only: Some(false),
            }),
            ..Volume::default()
        })
        .collect();
    volumes.retain(|v| ours.iter().all(|o| o.name != v.name));
    ours.append(volumes);
    *volumes = ours;
}

/// Labels that identify the ordinal are on the pod. Its volumes can't change once it is made.
pub fn matches(set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
    let label = |name: &str| pod.metadata.labels.as_ref().and_then(|l| l.get(name)).map(String::as_str);
    label(POD_NAME) == Some(&pod_name(set, ordinal)) && label(POD_INDEX) == Some(&ordinal.to_string())
}

pub fn claim_name(set: &StatefulSet, of: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}", of.metadata.name.as_deref().unwrap_or(""), pod_name(set, ordinal))
}

/// The claims of an ordinal.
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    templates
        .map(|of| {
            let mut claim = of.clone();
            claim.metadata.name = Some(claim_name(set, of, ordinal));
            claim.metadata.namespace = set.metadata.namespace.clone();
            let selected = set.spec.selector.match_labels.clone().unwrap_or_default();
            claim.metadata.labels.get_or_insert_default().extend(selected);
            claim.status = None;
            claim
        })
        .collect()
}

fn retention(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |p: Option<&String>| p.is_some_and(|p| p == "Delete");
    (deletes(policy.and_then(|p| p.when_deleted.as_ref())), deletes(policy.and_then(|p| p.when_scaled.as_ref())))
}

/// The claim with the owners that its retention policy means: the set when it goes with the set, the pod when it
/// goes with a pod that was scaled away. `None` when it has them.
pub fn retained(
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    pod: Option<&Pod>,
    condemned: bool,
) -> Option<PersistentVolumeClaim> {
    let (with_set, with_pod) = retention(set);
    let mut owners: Vec<OwnerReference> = claim.metadata.owner_references.clone().unwrap_or_default();
    let set_uid = set.metadata.uid.as_deref().unwrap_or("");
    let pod_name = pod.and_then(|p| p.metadata.name.as_deref());
    owners.retain(|o| o.uid != set_uid && !(o.kind == "Pod" && Some(o.name.as_str()) == pod_name));
    let plain = |mut o: OwnerReference| {
        o.controller = None;
        o.block_owner_deletion = None;
        o
    };
    if condemned && with_pod {
        owners.extend(pod.map(|p| plain(owners::owner_reference(p))));
    } else if with_set {
        owners.push(plain(owners::owner_reference(set)));
    }
    let mut next = claim.clone();
    next.metadata.owner_references = (!owners.is_empty()).then_some(owners);
    (!template::equal(&next.metadata.owner_references, &claim.metadata.owner_references)).then_some(next)
}
