//! certificatesigningrequest-approving-controller: approves a kubelet's request for a client certificate when RBAC lets
//! whoever asked have one: for itself (`selfnodeclient`) or for any node (`nodeclient`).

use std::time::Duration;

use client::{Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;
use k8s_openapi::api::core::v1::Node;
use kinds::bootstrap_token::GROUP;
use kube::Api;
use kube::api::PostParams;

use super::request::Request;
use super::{APPROVED, DENIED, KUBELET_CLIENT, certificate, conclude, has};
use crate::runner::Work;
use crate::setup::Setup;

const WORKERS: usize = 5;
/// Rights may be given later: how soon to ask again.
const AGAIN: Duration = Duration::from_secs(60);

/// A right that lets a request be approved.
#[derive(Debug, PartialEq)]
struct Way {
    subresource: &'static str,
    message: &'static str,
}

const OWN: Way = Way {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const ANY: Way =
    Way { subresource: "nodeclient", message: "Auto approving kubelet client certificate after SubjectAccessReview." };

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let requests = setup.queue_own::<Csr>(&queue);
    let executor = setup.executor("certificate-controller");
    let reviews: Api<SubjectAccessReview> = Api::all(setup.client());
    let nodes = setup.config.keep_node_names.then(|| setup.watch::<Node>());
    setup.run(Work::asking(&queue, executor, WORKERS, move |key, now| {
        let (csr, reviews) = (requests.get(&key), reviews.clone());
        let taken = nodes
            .as_ref()
            .zip(csr.as_ref())
            .and_then(|(nodes, csr)| joins_as(csr).filter(|name| nodes.get(&Key::new("", name.as_str())).is_some()));
        async move {
            let mut plan = Plan::default();
            let Some(csr) = csr else { return plan };
            if let Some(name) = taken {
                plan.push(deny(&csr, &name, now));
                return plan;
            }
            for way in ways(&csr) {
                match reviews.create(&PostParams::default(), &review(&csr, &way)).await {
                    Ok(answer) if answer.status.as_ref().is_some_and(|s| s.allowed) => {
                        plan.push(approve(&csr, &way, now));
                        return plan;
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(csr = %key, %error, "access review failed, trying again"),
                }
                plan.requeue(AGAIN);
            }
            plan
        }
    }));
}

/// How the request could be approved; none when it is not for this controller or decided already.
fn ways(csr: &Csr) -> Vec<Way> {
    let (spec, decided) = (&csr.spec, has(csr, APPROVED) || has(csr, DENIED) || certificate(csr).is_some());
    if decided || spec.signer_name != KUBELET_CLIENT {
        return Vec::new();
    }
    let Ok(request) = Request::parse(&spec.request.0) else { return Vec::new() };
    if request.check_kubelet_client(spec.usages.as_deref().unwrap_or_default()).is_err() {
        return Vec::new();
    }
    if spec.username.as_deref() == Some(request.common_name.as_str()) { vec![OWN, ANY] } else { vec![ANY] }
}

/// May whoever made the request have it by this way?
fn review(csr: &Csr, way: &Way) -> SubjectAccessReview {
    let spec = csr.spec.clone();
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username,
            uid: spec.uid,
            groups: spec.groups,
            extra: spec.extra,
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                resource: Some("certificatesigningrequests".into()),
                subresource: Some(way.subresource.into()),
                verb: Some("create".into()),
                version: Some("*".into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// The node that somebody with a bootstrap token wants to be, while that is undecided.
fn joins_as(csr: &Csr) -> Option<String> {
    let joins = csr.spec.groups.iter().flatten().any(|group| group == GROUP);
    if !joins || ways(csr).is_empty() {
        return None;
    }
    let request = Request::parse(&csr.spec.request.0).ok()?;
    request.common_name.strip_prefix("system:node:").map(str::to_owned)
}

fn deny(csr: &Csr, node: &str, now: Timestamp) -> client::Action {
    let message = format!(
        "there is a node {node} already, and it may be another machine: where it is gone, `kubectl delete node {node}` first"
    );
    conclude(csr, "approval", DENIED, "NodeExists", message, now)
}

fn approve(csr: &Csr, way: &Way, now: Timestamp) -> client::Action {
    conclude(csr, "approval", APPROVED, "AutoApproved", way.message.into(), now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::certificates::request::tests::{NODE, USER};
    use serde_json::json;
    use testkit::model::from;

    fn csr(signer: &str, user: &str, request: &str) -> Csr {
        let mut csr: Csr = from(json!({
            "metadata": {"name": "c"},
            "spec": {"request": "", "signerName": signer, "username": user, "usages": ["client auth", "digital signature"]},
        }));
        csr.spec.request = k8s_openapi::ByteString(request.as_bytes().to_vec());
        csr
    }

    #[test]
    fn only_kubelets_may_be_approved_and_only_once() {
        assert_eq!(ways(&csr(KUBELET_CLIENT, "system:node:a", NODE)), [OWN, ANY]);
        assert_eq!(ways(&csr(KUBELET_CLIENT, "system:bootstrap:x", NODE)), [ANY]);
        assert_eq!(ways(&csr(KUBELET_CLIENT, "system:node:a", USER)), []);
        assert_eq!(ways(&csr("kubernetes.io/kube-apiserver-client", "system:node:a", NODE)), []);
        let mut denied = csr(KUBELET_CLIENT, "system:node:a", NODE);
        denied.status = from(json!({"conditions": [{"type": "Denied", "status": "True"}]}));
        assert_eq!(ways(&denied), []);
    }

    #[test]
    fn only_who_joins_is_asked_whether_the_name_is_free() {
        let mut joins = csr(KUBELET_CLIENT, "system:bootstrap:abcdef", NODE);
        assert_eq!(joins_as(&joins), None);
        joins.spec.groups = Some(vec!["system:authenticated".into(), GROUP.into()]);
        assert_eq!(joins_as(&joins).as_deref(), Some("a"));
        let Some(op) = deny(&joins, "a", Timestamp::UNIX_EPOCH).op().cloned() else { panic!("a write") };
        assert!(format!("{op:?}").contains("kubectl delete node a"), "{op:?}");
        joins.status = from(json!({"conditions": [{"type": "Denied", "status": "True"}]}));
        assert_eq!(joins_as(&joins), None, "decided");
    }

    #[test]
    fn the_review_is_about_who_asked() {
        let review = review(&csr(KUBELET_CLIENT, "system:node:a", NODE), &OWN);
        let about = review.spec.resource_attributes.unwrap();
        assert_eq!(review.spec.user.as_deref(), Some("system:node:a"));
        assert_eq!((about.verb.as_deref(), about.subresource.as_deref()), (Some("create"), Some("selfnodeclient")));
    }
}
