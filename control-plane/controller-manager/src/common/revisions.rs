//! ControllerRevisions: the templates of daemon sets and stateful sets as they once were, so that pods can be told
//! apart by revision and rolled back. Both controllers number, name, compare and forget them alike.

use std::sync::Arc;

use client::Action;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::{acts, template};

/// Label of pods (and revisions): which revision they are of.
pub const HASH: &str = "controller-revision-hash";

/// What a revision is made for.
pub struct Source<'a> {
    pub meta: &'a ObjectMeta,
    pub owner: OwnerReference,
    pub template: &'a PodTemplateSpec,
    pub collisions: Option<i32>,
}

/// The revision of the current template, all others (oldest first), and what has to be written for that.
pub struct Known {
    pub current: ControllerRevision,
    pub old: Vec<Arc<ControllerRevision>>,
    pub actions: Vec<Action>,
}

/// Finds the current template among the revisions, renumbers it as the newest if it was an older one (a rollback),
/// or makes it.
pub fn settle(source: &Source, mut all: Vec<Arc<ControllerRevision>>) -> Known {
    all.sort_by_key(|r| (number(r), r.metadata.name.clone()));
    let data = data(source.template);
    let newest = all.last().map_or(0, |r| number(r));
    let position = all.iter().rposition(|r| template::equal(&r.data.0, &data));
    let mut actions = Vec::new();
    let current = match position.map(|n| all.remove(n)) {
        Some(found) if number(&found) == newest => found.as_ref().clone(),
        Some(found) => {
            let mut found = found.as_ref().clone();
            found.revision = Some(newest + 1);
            actions.push(acts::update(&found));
            found
        }
        None => {
            let made = make(source, data, newest + 1);
            actions.push(acts::create(&made));
            made
        }
    };
    Known { current, old: all, actions }
}

fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

fn make(source: &Source, data: Value, revision: i64) -> ControllerRevision {
    let hash = template::hash(&data, source.collisions);
    let mut labels = source.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let owner_name = source.meta.name.as_deref().unwrap_or("");
    let name = format!("{owner_name}-{hash}");
    labels.insert(HASH.into(), hash);
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: source.meta.namespace.clone(),
            labels: Some(labels),
            annotations: source.meta.annotations.clone(),
            owner_references: Some(vec![source.owner.clone()]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data),
        revision: Some(revision),
    }
}

/// A patch that puts the whole template back: `kubectl rollout undo` sends it as it is.
fn data(of: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(of).expect("API types serialize to JSON");
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template that the revision keeps.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

pub fn hash_of(revision: &ControllerRevision) -> &str {
    revision.metadata.labels.as_ref().and_then(|l| l.get(HASH)).map_or("", String::as_str)
}

/// Deletes the oldest beyond the limit that nothing is of any more.
pub fn forget(
    old: &[Arc<ControllerRevision>],
    limit: usize,
    live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Action> {
    let idle: Vec<_> = old.iter().filter(|r| !live(r) && r.metadata.deletion_timestamp.is_none()).collect();
    let surplus = idle.len().saturating_sub(limit);
    idle.into_iter().take(surplus).map(|r| acts::delete(r.as_ref())).collect()
}
