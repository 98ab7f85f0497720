//! certificatesigningrequest-signing-controller: signs what is approved for the signers that are the cluster's own, and
//! says in a condition what those don't sign. Signing itself is the caller's.

use std::time::Duration;

use client::{Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;

use super::request::{self, Request};
use super::{APPROVED, FAILED, KUBELET_CLIENT, certificate, conclude, has};
use crate::common::acts;
use crate::config::{CertificateSigner, SignError, SignRequest};
use crate::runner::Work;
use crate::setup::Setup;

const WORKERS: usize = 5;
/// How soon to try again what could not be signed.
const AGAIN: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(600);

pub fn start(setup: &mut Setup) {
    let Some(signer) = setup.config.certificate_signer.clone() else { return };
    let longest = setup.config.cluster_signing_duration;
    let queue: WorkQueue<Key> = WorkQueue::default();
    let requests = setup.queue_own::<Csr>(&queue);
    let executor = setup.executor("certificate-controller");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, now| {
        requests.get(key).map(|csr| reconcile(&csr, signer.as_ref(), longest, now)).unwrap_or_default()
    }));
}

fn reconcile(csr: &Csr, signer: &dyn CertificateSigner, longest: Duration, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if !has(csr, APPROVED) || has(csr, FAILED) || certificate(csr).is_some() {
        return plan;
    }
    let usages = csr.spec.usages.as_deref().unwrap_or_default();
    let Ok(asked) = Request::parse(&csr.spec.request.0) else { return plan };
    match check(&csr.spec.signer_name, &asked, usages) {
        None => return plan,
        Some(Err(why)) => {
            plan.push(conclude(csr, "status", FAILED, "SignerValidationFailure", why, now));
            return plan;
        }
        Some(Ok(())) => {}
    }
    let signed = signer.sign(&SignRequest {
        request: &csr.spec.request.0,
        usages,
        expiration: expiration(csr.spec.expiration_seconds, longest),
    });
    match signed {
        Ok(pem) => {
            let mut next = csr.clone();
            next.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
            plan.push(acts::update_status(&next));
        }
        Err(SignError::Request(why)) => {
            plan.push(conclude(csr, "status", FAILED, "SignerValidationFailure", why, now));
        }
        Err(SignError::Signer(why)) => {
            plan.push(acts::warning(csr, "SigningError", format!("Certificate could not be signed: {why}")));
            plan.requeue(AGAIN);
        }
    }
    plan
}

/// What the signer of this name says to the request; none for signers that are somebody else's.
fn check(signer: &str, asked: &Request, usages: &[String]) -> Option<Result<(), String>> {
    match signer {
        "kubernetes.io/kube-apiserver-client" => Some(request::check_client(usages)),
        KUBELET_CLIENT => Some(asked.check_kubelet_client(usages)),
        "kubernetes.io/kubelet-serving" => Some(asked.check_kubelet_serving(usages)),
        "kubernetes.io/legacy-unknown" => Some(Ok(())),
        _ => None,
    }
}

fn expiration(asked: Option<i32>, longest: Duration) -> Duration {
    let asked = asked.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    asked.map_or(longest, |asked| asked.max(SHORTEST).min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::certificates::request::tests::{SERVING, USER};
    use serde_json::json;
    use testkit::model::{World, from};

    /// A life that the signer below doesn't sign.
    const REFUSED: Duration = Duration::from_secs(7200);

    struct Plain;
    impl CertificateSigner for Plain {
        fn sign(&self, request: &SignRequest<'_>) -> Result<String, SignError> {
            if request.expiration == REFUSED {
                return Err(SignError::Request("SAN dNSName is malformed".into()));
            }
            Ok(format!("{} for {} s", request.usages.join("+"), request.expiration.as_secs()))
        }
    }

    fn outcome(signer: &str, request: &str, usages: &[&str], condition: &str) -> Csr {
        let mut csr: Csr = from(json!({
            "metadata": {"name": "c"},
            "spec": {"request": "", "signerName": signer, "usages": usages, "expirationSeconds": 3600},
            "status": {"conditions": [{"type": condition, "status": "True"}]},
        }));
        csr.spec.request = ByteString(request.as_bytes().to_vec());
        let mut world = World::default();
        world.put(&csr);
        let day = Duration::from_secs(86_400);
        world.settle(|w| reconcile(&w.get::<Csr>("", "c").unwrap(), &Plain, day, w.now));
        world.get::<Csr>("", "c").unwrap().as_ref().clone()
    }

    #[test]
    fn what_is_approved_is_signed() {
        let client = "kubernetes.io/kube-apiserver-client";
        let signed = outcome(client, USER, &["client auth"], APPROVED);
        assert_eq!(certificate(&signed), Some(&b"client auth for 3600 s"[..]));
        let serving = ["server auth", "digital signature"];
        assert!(certificate(&outcome("kubernetes.io/kubelet-serving", SERVING, &serving, APPROVED)).is_some());
        for (signer, condition) in [(client, "Denied"), ("example.com/mine", APPROVED)] {
            assert_eq!(certificate(&outcome(signer, USER, &["client auth"], condition)), None, "{signer}");
        }
    }

    #[test]
    fn what_its_signer_does_not_sign_has_failed() {
        let failed = outcome("kubernetes.io/kube-apiserver-client", USER, &["server auth"], APPROVED);
        assert_eq!(certificate(&failed), None);
        let condition = super::super::conditions(&failed).find(|c| c.type_ == FAILED).unwrap();
        assert_eq!(condition.reason.as_deref(), Some("SignerValidationFailure"));
        assert_eq!(condition.message.as_deref(), Some("invalid usage for client certificate: server auth"));
    }

    #[test]
    fn what_cannot_be_signed_has_failed_and_is_not_tried_again() {
        let mut csr: Csr = from(json!({
            "metadata": {"name": "c"},
            "spec": {"request": "", "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
                "expirationSeconds": 7200},
            "status": {"conditions": [{"type": APPROVED, "status": "True"}]},
        }));
        csr.spec.request = ByteString(USER.as_bytes().to_vec());
        let mut world = World::default();
        world.put(&csr);
        let day = Duration::from_secs(86_400);
        world.settle(|w| reconcile(&w.get::<Csr>("", "c").unwrap(), &Plain, day, w.now));
        let failed = world.get::<Csr>("", "c").unwrap();
        let condition = super::super::conditions(&failed).find(|c| c.type_ == FAILED).unwrap();
        assert_eq!(condition.message.as_deref(), Some("SAN dNSName is malformed"));
    }

    #[test]
    fn lives_have_bounds() {
        let hour = Duration::from_secs(3600);
        assert_eq!(expiration(None, hour), hour);
        assert_eq!(expiration(Some(60), hour), SHORTEST);
        assert_eq!(expiration(Some(1_000_000), hour), hour);
    }
}
