//! Telling the API that the node is there: registration, the Lease every ten seconds, and the status: compared with what
//! the API has every ten seconds and whenever the Node changes there, written when they differ and every five minutes.
//! Does I/O.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::Cache;
use facts::nodes::is_ready;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::cri;

use crate::config::Config;
use crate::error::Error;
use crate::io::cri::{Cri, shown};
use crate::messages::NodeSignals;
use crate::node::addresses::Addresses;
use crate::node::machine::{self, Machine};
use crate::node::object::{self, Facts, Runtime};

/// How soon a node that is not ready looks at its runtime again; the CRI has no event for it.
const NOT_READY_CHECK: Duration = Duration::from_millis(200);
/// How soon a call to the API is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// The longest pause of a node that can't register; upstream's.
const LAST_RETRY: Duration = Duration::from_secs(7);
/// A change of the Node is looked at no sooner than this after our own write, which is one.
const SETTLE: Duration = Duration::from_secs(1);
/// A kubelet that starts waits this long for its runtime before it takes back that the node is ready.
const START_GRACE: Duration = Duration::from_secs(20);
const LEASES: &str = "kube-node-lease";

/// The node's voice. Shared with whoever knows of a change.
pub struct Heartbeat {
    pub config: Arc<Config>,
    pub cri: Cri,
    pub client: kube::Client,
    pub nodes: Cache<Node>,
    pub machine: Machine,
    pub addresses: Addresses,
    pub port: u16,
    pub recorder: client::EventRecorder,
    /// What others find out of the node; wakes the status loop.
    pub signals: NodeSignals,
    /// The Node changed in the API, by whomever.
    pub node_seen: Arc<Notify>,
}

impl Heartbeat {
    /// Registers the node and keeps its status and lease until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), Error> {
        let work = async {
            self.register().await?;
            let lease = tokio::spawn(self.clone().keep_lease(shutdown.clone()));
            self.keep_status().await;
            lease.abort();
            Ok(())
        };
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            done = work => done,
        }
    }

    /// What the node is now.
    pub async fn facts(&self) -> Facts {
        let mut runtime = self.runtime().await;
        if self.signals.leaving.load(Ordering::Acquire) {
            runtime.problems.push("node is shutting down".to_owned());
        }
        Facts {
            machine: self.machine.clone(),
            disk: machine::disk(&self.config.root_dir),
            addresses: self.addresses.texts(),
            port: self.port,
            runtime,
            pressure: *self.signals.pressure.lock(),
        }
    }

    async fn runtime(&self) -> Runtime {
        let mut out = Runtime::default();
        match self.cri.runtime().version(cri::VersionRequest::default()).await {
            Ok(version) => {
                let version = version.into_inner();
                out.name = version.runtime_name;
                out.version = version.runtime_version;
            }
            Err(error) => {
                out.problems.push(format!("container runtime is down: {}", shown(&error)));
                return out;
            }
        }
        match self.cri.runtime().status(cri::StatusRequest { verbose: false }).await {
            Ok(status) => {
                let status = status.into_inner();
                problems(&status.status.unwrap_or_default(), &mut out.problems);
                out.supplemental_groups_policy = status.features.is_some_and(|f| f.supplemental_groups_policy);
                out.handlers = status
                    .runtime_handlers
                    .iter()
                    .map(|h| {
                        let features = h.features.unwrap_or_default();
                        object::handler(&h.name, features.recursive_read_only_mounts, features.user_namespaces)
                    })
                    .collect();
            }
            Err(error) => out.problems.push(format!("runtime status check failed: {}", shown(&error))),
        }
        if let Ok(images) = self.cri.images().list_images(cri::ListImagesRequest::default()).await {
            out.images = images.into_inner().images.into_iter().map(image).collect();
        }
        out
    }

    async fn register(&self) -> Result<(), Error> {
        if !self.config.register_node {
            return Ok(());
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let name = &self.config.node_name;
        let mut pause = RETRY;
        loop {
            let wanted = object::register(&self.config, &self.facts().await, Timestamp::now());
            let answer = match api.create(&PostParams::default(), &wanted).await {
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => self.reconcile(&api, wanted).await,
                other => other.map(drop),
            };
            match answer {
                Ok(()) => break,
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    return Err(Error::Register { name: name.clone(), source: Box::new(kube::Error::Api(status)) });
                }
                Err(error) => {
                    match pause {
                        RETRY => tracing::warn!(%error, node = name, "node not registered, trying again"),
                        _ => tracing::debug!(%error, node = name, "node not registered, trying again"),
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_RETRY);
                }
            }
        }
        tracing::info!(node = name, "node registered");
        self.event("Starting", "Starting kubelet.");
        Ok(())
    }

    /// A node that registered before gets the labels that belong to it.
    async fn reconcile(&self, api: &Api<Node>, wanted: Node) -> Result<(), kube::Error> {
        let there = api.get(&self.config.node_name).await?;
        let have = there.metadata.labels.unwrap_or_default();
        let missing = wanted.metadata.labels.unwrap_or_default().into_iter().filter(|(k, v)| have.get(k) != Some(v));
        let missing: serde_json::Map<_, _> = missing.map(|(k, v)| (k, v.into())).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": missing}}));
        api.patch(&self.config.node_name, &PatchParams::default(), &patch).await.map(drop)
    }

    pub fn reference(&self) -> ObjectReference {
        let known = self.nodes.get_in("", &self.config.node_name);
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(self.config.node_name.clone()),
            uid: known.and_then(|n| n.metadata.uid.clone()),
            ..ObjectReference::default()
        }
    }

    fn event(&self, reason: &str, note: &str) {
        self.recorder.event(&self.reference(), client::EventType::Normal, reason, note);
    }

    async fn keep_status(&self) {
        let mut reported: Option<tokio::time::Instant> = None;
        let mut was_ready = None;
        let mut pod_cidr = None;
        let began = tokio::time::Instant::now();
        loop {
            let node = self.nodes.get_in("", &self.config.node_name);
            if let Some(node) = &node {
                self.pass_pod_cidr(node, &mut pod_cidr).await;
            } else if self.nodes.is_synced() {
                // Deleted under us: a kubelet that runs comes back.
                if self.register().await.is_err() {
                    tokio::time::sleep(RETRY).await;
                }
            }
            let facts = self.facts().await;
            let ready = facts.runtime.problems.is_empty();
            let old = node.and_then(|n| n.status.clone()).unwrap_or_default();
            // What the API says of the node is the word of a kubelet before this one.
            if reported.is_none() && !ready && is_ready(&old) && began.elapsed() < START_GRACE {
                tokio::time::sleep(NOT_READY_CHECK).await;
                continue;
            }
            let new = object::status(&self.config, &facts, Some(&old), Timestamp::now());
            let due = reported.is_none_or(|at| at.elapsed() >= self.config.node_status_report_frequency);
            let mut wait = if ready { self.config.node_status_update_frequency } else { NOT_READY_CHECK };
            if due || !object::is_same(&old, &new) {
                match self.write(&old, &new).await {
                    Ok(()) => {
                        reported = Some(tokio::time::Instant::now());
                        self.config.ready.set();
                    }
                    Err(error) => {
                        tracing::debug!(%error, "node status not written, trying again");
                        wait = RETRY;
                    }
                }
            }
            if was_ready.replace(ready) != Some(ready) {
                let name = if ready { "NodeReady" } else { "NodeNotReady" };
                self.event(name, &format!("Node {} status is now: {name}", self.config.node_name));
            }
            let seen = async {
                self.node_seen.notified().await;
                if let Some(at) = reported {
                    tokio::time::sleep_until(at + SETTLE).await;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.signals.changed.notified() => {}
                () = seen => {}
            }
        }
    }

    async fn pass_pod_cidr(&self, node: &Node, known: &mut Option<String>) {
        let cidrs = node.spec.as_ref().and_then(|s| s.pod_cidrs.clone()).unwrap_or_default().join(",");
        if cidrs.is_empty() || known.as_deref() == Some(cidrs.as_str()) {
            return;
        }
        let network_config = Some(cri::NetworkConfig { pod_cidr: cidrs.clone() });
        let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(cri::RuntimeConfig { network_config }) };
        match self.cri.runtime().update_runtime_config(request).await {
            Ok(_) => *known = Some(cidrs),
            Err(error) => tracing::warn!(error = shown(&error), "the runtime did not take the pod network"),
        }
    }

    async fn write(&self, old: &NodeStatus, new: &NodeStatus) -> Result<(), kube::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Strategic(object::patch(old, new));
        api.patch_status(&self.config.node_name, &PatchParams::default(), &patch).await.map(drop)
    }

    async fn keep_lease(self: Arc<Self>, shutdown: CancellationToken) {
        let every = self.config.node_lease_duration / 4;
        let mut held: Option<Lease> = None;
        loop {
            let wait = match self.renew(held.take()).await {
                Ok(lease) => {
                    held = Some(lease);
                    every
                }
                Err(error) => {
                    tracing::debug!(%error, "node lease not renewed, trying again");
                    RETRY
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// A patch of what a renewal says and of nothing else: others write into this Lease too, as this node's announcer does
    /// every two seconds. One that is gone, or whose owner another has named meanwhile, is read again.
    async fn renew(&self, held: Option<Lease>) -> Result<Lease, kube::Error> {
        let was_held = held.is_some();
        match self.renew_as(held).await {
            Err(kube::Error::Api(status)) if was_held && matches!(status.code, 404 | 409) => self.renew_as(None).await,
            renewed => renewed,
        }
    }

    async fn renew_as(&self, held: Option<Lease>) -> Result<Lease, kube::Error> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let name = &self.config.node_name;
        let lease = match held {
            Some(lease) => lease,
            None => match api.get_opt(name).await? {
                Some(lease) => lease,
                None => return api.create(&PostParams::default(), &self.lease()).await,
            },
        };
        let patch = Patch::Merge(renewal(&lease.metadata, self.lease()));
        api.patch(name, &PatchParams::default(), &patch).await
    }

    fn owner(&self) -> Option<Vec<OwnerReference>> {
        let uid = self.nodes.get_in("", &self.config.node_name)?.metadata.uid.clone()?;
        let name = self.config.node_name.clone();
        Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name,
            uid,
            ..OwnerReference::default()
        }])
    }

    fn lease(&self) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.config.node_name.clone()),
                namespace: Some(LEASES.into()),
                owner_references: self.owner(),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.config.node_name.clone()),
                lease_duration_seconds: Some(self.config.node_lease_duration.as_secs() as i32),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// What a renewal of a Lease says, as the one that this node would make has it. An owner is named only where there is none:
/// then the Lease must be as it was seen.
fn renewal(there: &ObjectMeta, made: Lease) -> Value {
    let mut patch = json!({"spec": made.spec});
    let owned = there.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    if let Some(owner) = made.metadata.owner_references.filter(|_| !owned) {
        patch["metadata"] = json!({"resourceVersion": there.resource_version, "ownerReferences": owner});
    }
    patch
}

fn problems(status: &cri::RuntimeStatus, out: &mut Vec<String>) {
    for (kind, what) in [("RuntimeReady", "runtime"), ("NetworkReady", "runtime network")] {
        match status.conditions.iter().find(|c| c.r#type == kind) {
            Some(c) if c.status => {}
            Some(c) => {
                out.push(format!("container {what} not ready: {kind}=false reason:{} message:{}", c.reason, c.message))
            }
            None => out.push(format!("container {what} status is unknown")),
        }
    }
}

fn image(image: cri::Image) -> ContainerImage {
    let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).collect();
    ContainerImage { names: Some(names), size_bytes: Some(image.size as i64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_the_owner_that_it_has_and_is_patched_as_seen_where_it_has_none() {
        let owner = |uid: &str| OwnerReference { uid: uid.into(), ..OwnerReference::default() };
        let spec = Some(LeaseSpec { holder_identity: Some("n1".into()), ..LeaseSpec::default() });
        let made = |owners| Lease { metadata: ObjectMeta { owner_references: owners, ..ObjectMeta::default() }, spec };
        let mut there = ObjectMeta { resource_version: Some("7".into()), ..ObjectMeta::default() };
        let ours = made(Some(vec![owner("n1")]));
        let patch = renewal(&there, ours.clone());
        assert_eq!(patch["metadata"]["resourceVersion"], "7", "another may have named one meanwhile");
        assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "n1");
        there.owner_references = Some(vec![owner("other")]);
        assert_eq!(renewal(&there, ours), json!({"spec": {"holderIdentity": "n1"}}));
    }
}
