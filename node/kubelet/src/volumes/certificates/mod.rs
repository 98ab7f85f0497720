//! Certificates of pods (`podCertificate` sources): the kubelet makes a key, asks for a certificate with a
//! PodCertificateRequest, and renews it when its signer says so. Does I/O: requests go to the API; what becomes of them
//! is watched while they wait. Called when volumes are made and refreshed. Nothing outlives the kubelet: a new one asks
//! anew.

mod keys;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Cache;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::{Node, Pod, PodCertificateProjection, ServiceAccount, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;

pub use state::Credentials;
use state::Record;

use crate::act::Note;
use crate::objects::Objects;
use crate::pods;

/// Renewals are spread over this time.
const SPREAD_SECONDS: i64 = 300;

/// A source of a pod: the name of its volume and its place among the sources there.
pub type Place = (String, usize);

/// The `podCertificate` sources of a volume.
pub fn sources(volume: &Volume) -> impl Iterator<Item = (Place, &PodCertificateProjection)> {
    let all = volume.projected.iter().flat_map(|p| p.sources.iter().flatten()).enumerate();
    all.filter_map(|(i, s)| Some(((volume.name.clone(), i), s.pod_certificate.as_ref()?)))
}

#[derive(Default)]
struct Slot {
    /// Held over every step: two of one source at once would ask twice.
    record: tokio::sync::Mutex<Record>,
    next: Mutex<Option<Timestamp>>,
}

/// Certificates of all pods, by their UID.
pub struct Certificates {
    client: kube::Client,
    objects: Arc<Objects>,
    nodes: Cache<Node>,
    node: String,
    notes: Sender<Note>,
    slots: Mutex<BTreeMap<String, BTreeMap<Place, Arc<Slot>>>>,
}

impl Certificates {
    pub fn new(
        client: kube::Client,
        objects: Arc<Objects>,
        nodes: Cache<Node>,
        node: String,
        notes: Sender<Note>,
    ) -> Certificates {
        Certificates { client, objects, nodes, node, notes, slots: Mutex::default() }
    }

    /// One step of the source's life, and what it holds after it.
    pub async fn get(
        &self,
        pod: &Pod,
        place: &Place,
        source: &PodCertificateProjection,
        now: Timestamp,
    ) -> Result<Credentials, String> {
        if pods::is_static(pod) {
            return Err("a static pod can not have certificates: signers do not know it".to_owned());
        }
        let slot =
            self.slots.lock().entry(pods::uid(pod).to_owned()).or_default().entry(place.clone()).or_default().clone();
        let mut record = slot.record.lock().await;
        self.look(pod, &mut record).await;
        let mut asked = Ok(());
        if record.wants(now) {
            asked = self.ask(pod, source, &mut record, now).await;
            self.look(pod, &mut record).await;
        }
        if let Some(told) = record.late(now) {
            self.tell(pod, &told);
        }
        *slot.next.lock() = record.next();
        match (record.credentials(), asked) {
            (Err(_), Err(why)) => Err(why),
            (credentials, asked) => {
                if let Err(why) = asked {
                    tracing::warn!(why, pod = pods::shown(pod), "certificate not renewed yet");
                }
                credentials
            }
        }
    }

    /// What became of the pending request, which is watched from here on until it is decided.
    async fn look(&self, pod: &Pod, record: &mut Record) {
        let Some(name) = record.pending().map(str::to_owned) else { return };
        let (uid, namespace) = (pods::uid(pod), pods::namespace(pod));
        match self.objects.request(uid, namespace, &self.node, &name).await {
            Ok(found) => {
                let late = SignedDuration::from_secs(rand::random_range(0..SPREAD_SECONDS));
                if let Some(told) = record.look(found.as_deref(), late) {
                    self.tell(pod, &told);
                }
            }
            Err(why) => tracing::debug!(why, name, "certificate request not seen"),
        }
        if record.pending().is_none() {
            self.objects.forget_request(uid, namespace, &self.node, &name);
        }
    }

    async fn ask(
        &self,
        pod: &Pod,
        source: &PodCertificateProjection,
        record: &mut Record,
        now: Timestamp,
    ) -> Result<(), String> {
        let namespace = pods::namespace(pod);
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let account = accounts.get(account(pod)).await;
        let account = account.map_err(|e| format!("while fetching service account: {}", crate::api::message(&e)))?;
        let node = self.nodes.get_in("", &self.node).ok_or("while getting node object: it is not known yet")?;
        if record.spare.is_none() {
            let kind = source.key_type.clone();
            let made = tokio::task::spawn_blocking(move || keys::make(&kind)).await;
            record.spare = Some(made.map_err(|e| format!("while generating keypair: {e}"))??);
        }
        let Some(made) = &record.spare else { return Ok(()) };
        let object = request(pod, source, &account, &node, made.request.clone());
        let api: Api<PodCertificateRequest> = Api::namespaced(self.client.clone(), namespace);
        let created = api.create(&PostParams::default(), &object).await;
        let created =
            created.map_err(|e| format!("while creating PodCertificateRequest: {}", crate::api::message(&e)))?;
        if let Some(made) = record.spare.take() {
            record.asked(made.key, created.metadata.name.unwrap_or_default(), now);
        }
        Ok(())
    }

    fn tell(&self, pod: &Pod, told: &state::Told) {
        let note = Note::warning(pods::reference(pod), told.reason, &told.text);
        if self.notes.try_send(note).is_err() {
            tracing::debug!(reason = told.reason, "too many events, one is lost");
        }
    }

    /// When the first certificate of the pod is to be looked at again.
    pub fn next(&self, uid: &str) -> Option<Timestamp> {
        self.slots.lock().get(uid)?.values().filter_map(|slot| *slot.next.lock()).min()
    }

    pub fn forget(&self, uid: &str) {
        self.slots.lock().remove(uid);
    }
}

fn account(pod: &Pod) -> &str {
    pods::spec(pod).service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default")
}

/// The request for a source of the pod, in the names of everybody whom the certificate may speak of.
fn request(
    pod: &Pod,
    source: &PodCertificateProjection,
    account: &ServiceAccount,
    node: &Node,
    stub: Vec<u8>,
) -> PodCertificateRequest {
    let (name, uid) = (pods::name(pod).to_owned(), pods::uid(pod).to_owned());
    let known = |meta: &ObjectMeta| (meta.name.clone().unwrap_or_default(), meta.uid.clone().unwrap_or_default());
    let (service_account_name, service_account_uid) = known(&account.metadata);
    let (node_name, node_uid) = known(&node.metadata);
    PodCertificateRequest {
        metadata: ObjectMeta {
            generate_name: Some("req-".to_owned()),
            namespace: Some(pods::namespace(pod).to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: name.clone(),
                uid: uid.clone(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: PodCertificateRequestSpec {
            signer_name: source.signer_name.clone(),
            pod_name: name,
            pod_uid: uid,
            service_account_name,
            service_account_uid,
            node_name,
            node_uid,
            max_expiration_seconds: source.max_expiration_seconds,
            stub_pkc_s10_request: ByteString(stub),
            unverified_user_annotations: source.user_annotations.clone(),
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_names_pod_account_and_node() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "pu"},
            "spec": {"serviceAccountName": "sa", "containers": [], "volumes": [{"name": "v", "projected": {"sources": [
                {"configMap": {"name": "m"}},
                {"podCertificate": {"signerName": "x.y/s", "keyType": "ED25519", "maxExpirationSeconds": 3600,
                    "userAnnotations": {"x.y/a": "b"}, "credentialBundlePath": "c"}}]}}]}}))
        .unwrap();
        let account = serde_json::from_value(json!({"metadata": {"name": "sa", "uid": "su"}})).unwrap();
        let node = serde_json::from_value(json!({"metadata": {"name": "n", "uid": "nu"}})).unwrap();
        let (place, source) = sources(&crate::volumes::all(&pod)[0]).next().unwrap();
        assert_eq!(place, ("v".to_owned(), 1));
        let made = serde_json::to_value(request(&pod, source, &account, &node, b"csr".to_vec())).unwrap();
        assert_eq!(
            made["spec"],
            json!({"signerName": "x.y/s", "podName": "p", "podUID": "pu", "serviceAccountName": "sa",
                "serviceAccountUID": "su", "nodeName": "n", "nodeUID": "nu", "maxExpirationSeconds": 3600,
                "stubPKCS10Request": "Y3Ny", "unverifiedUserAnnotations": {"x.y/a": "b"}})
        );
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pu"}]);
        assert_eq!((&made["metadata"]["generateName"], &made["metadata"]["ownerReferences"]), (&json!("req-"), &owner));
    }
}
