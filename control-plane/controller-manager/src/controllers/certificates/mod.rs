//! The certificate controllers: they approve what kubelets may ask for themselves, sign what is approved, and remove
//! requests that nobody needs any more. What a request asks for is read in [`request`]; signing is the caller's.

pub mod approving;
pub mod cleaner;
pub mod request;
pub mod serving;
pub mod signing;

use client::plan::Op;
use client::{Action, Target};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest as Csr, CertificateSigningRequestCondition as Condition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

/// Signs client certificates of kubelets.
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

fn conditions(csr: &Csr) -> impl Iterator<Item = &Condition> {
    csr.status.iter().flat_map(|s| s.conditions.iter().flatten())
}

fn has(csr: &Csr, kind: &str) -> bool {
    conditions(csr).any(|c| c.type_ == kind)
}

/// The certificate, once there is one.
fn certificate(csr: &Csr) -> Option<&[u8]> {
    csr.status.as_ref()?.certificate.as_ref().map(|c| c.0.as_slice()).filter(|c| !c.is_empty())
}

/// The request with one more condition, through the subresource that may say so.
fn conclude(csr: &Csr, through: &'static str, kind: &str, reason: &str, message: String, now: Timestamp) -> Action {
    let mut next = csr.clone();
    next.status.get_or_insert_default().conditions.get_or_insert_default().push(Condition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: None,
    });
    let object = serde_json::to_value(&next).expect("API types serialize to JSON");
    Op::update(Target::of(csr), Some(through), object).into()
}
