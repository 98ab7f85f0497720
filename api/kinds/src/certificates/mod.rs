//! Kinds of the `certificates` group.

pub(crate) mod certificate_signing_request;
mod check_request;
pub(crate) mod cluster_trust_bundle;
pub(crate) mod pod_certificate_request;
mod signer;
