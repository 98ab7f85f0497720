//! Deletes what a terminating namespace holds and tells what is left. I/O: discovery, deletecollection and list of
//! metadata, as the controller's own identity; called by the namespace worker only.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiCapabilities, Discovery, Scope, verbs};

/// Objects asked for at once when counting what is left: the count matters, not the objects.
const PAGE: u32 = 500;

/// Objects of one resource that are still there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Remaining {
    pub group: String,
    pub plural: String,
    pub count: usize,
    pub finalizers: BTreeMap<String, usize>,
    /// The longest time that a pod still has to end by itself.
    pub grace: Option<Duration>,
}

/// What a look at the namespace showed after everything was told to go.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    pub remaining: Vec<Remaining>,
    /// Groups that could not be discovered, with why.
    pub undiscovered: Vec<String>,
    /// Resources that could not be deleted, with why.
    pub failures: Vec<String>,
}

impl Found {
    pub fn is_clear(&self) -> bool {
        self.remaining.is_empty() && self.undiscovered.is_empty() && self.failures.is_empty()
    }
}

/// Pods first: what they use must outlive them. Nothing else is touched while pods are there.
pub async fn clear(client: &kube::Client, namespace: &str, now: Timestamp) -> Found {
    let mut found = Found::default();
    let resources = match resources(client).await {
        Ok(resources) => resources,
        Err(error) => {
            found.undiscovered.push(error.to_string());
            return found;
        }
    };
    let is_pod = |r: &ApiResource| r.group.is_empty() && r.plural == "pods";
    let (pods, others): (Vec<_>, Vec<_>) = resources.into_iter().partition(|(r, _)| is_pod(r));
    for (resource, can) in &pods {
        clear_one(client, namespace, resource, can, now, &mut found).await;
    }
    if found.remaining.is_empty() && found.failures.is_empty() {
        for (resource, can) in &others {
            clear_one(client, namespace, resource, can, now, &mut found).await;
        }
    }
    found
}

/// Every namespaced resource that can be listed and deleted, in its preferred version.
async fn resources(client: &kube::Client) -> kube::Result<Vec<(ApiResource, ApiCapabilities)>> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let all = discovery.groups().flat_map(|g| g.resources_by_stability());
    Ok(all
        .filter(|(_, can)| can.scope == Scope::Namespaced && can.supports_operation(verbs::LIST))
        .filter(|(_, can)| can.supports_operation(verbs::DELETE) || can.supports_operation(verbs::DELETE_COLLECTION))
        // Events age out by themselves under their other name; one group is enough to delete them.
        .filter(|(r, _)| !(r.group == "events.k8s.io" && r.plural == "events"))
        .collect())
}

async fn clear_one(
    client: &kube::Client,
    namespace: &str,
    resource: &ApiResource,
    can: &ApiCapabilities,
    now: Timestamp,
    found: &mut Found,
) {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    if let Err(error) = delete_all(&api, can).await {
        found.failures.push(format!("{}.{}: {error}", resource.plural, resource.group));
        return;
    }
    match left(&api, resource, now).await {
        Ok(remaining) => found.remaining.extend(remaining),
        Err(error) => found.failures.push(format!("{}.{}: {error}", resource.plural, resource.group)),
    }
}

async fn delete_all(api: &Api<DynamicObject>, can: &ApiCapabilities) -> kube::Result<()> {
    let params = DeleteParams::background();
    if can.supports_operation(verbs::DELETE_COLLECTION) {
        return match api.delete_collection(&params, &ListParams::default()).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => Ok(()),
            other => other.map(|_| ()),
        };
    }
    for object in api.list_metadata(&ListParams::default()).await? {
        let Some(name) = object.metadata.name else { continue };
        match api.delete(&name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => other.map(|_| ())?,
        }
    }
    Ok(())
}

async fn left(api: &Api<DynamicObject>, resource: &ApiResource, now: Timestamp) -> kube::Result<Option<Remaining>> {
    let list = match api.list_metadata(&ListParams::default().limit(PAGE)).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => return Ok(None),
        other => other?,
    };
    if list.items.is_empty() {
        return Ok(None);
    }
    let more = list.metadata.remaining_item_count.unwrap_or(0).max(0) as usize;
    let mut remaining = Remaining {
        group: resource.group.clone(),
        plural: resource.plural.clone(),
        count: list.items.len() + more,
        ..Remaining::default()
    };
    for finalizer in list.items.iter().flat_map(|o| o.metadata.finalizers.iter().flatten()) {
        *remaining.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    remaining.grace = list.items.iter().filter_map(|o| grace(o, now)).max();
    Ok(Some(remaining))
}

fn grace(object: &PartialObjectMeta<DynamicObject>, now: Timestamp) -> Option<Duration> {
    let until = object.metadata.deletion_timestamp.as_ref()?.0;
    object.metadata.deletion_grace_period_seconds.filter(|s| *s > 0)?;
    Some(Duration::from_secs((until.as_second() - now.as_second()).max(0) as u64))
}
