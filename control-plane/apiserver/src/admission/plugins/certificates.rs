//! Who may approve, sign and attest certificates: each plugin asks whether the caller may do so for the signer's name.

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use super::csr;
use crate::admission::{Operation, Plugin, Request, Validating, World};
use crate::authn::MASTERS;
use crate::authz::Attributes;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
/// Signs client certificates that the API server takes as identities.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Whether the caller may do `verb` for a signer, by its name or for all of its domain.
fn may(request: &Request<'_>, world: &dyn World, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].into_iter().any(|name| {
        let (group, version, resource) = (GROUP, "*", "signers");
        let asked = Attributes { group, version, resource, subresource: "", namespace: "", name, ..request.may(verb) };
        world.allows(&asked)
    })
}

fn signer(object: &Value) -> &str {
    object["spec"]["signerName"].as_str().unwrap_or_default()
}

fn updates(request: &Request<'_>, subresource: &str) -> bool {
    request.operation == Operation::Update
        && request.kind.group == GROUP
        && request.kind.plural == REQUESTS
        && request.subresource == subresource
}

/// Approving and denying requests.
pub struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn handles(&self, request: &Request<'_>) -> bool {
        updates(request, "approval")
    }
}

#[async_trait]
impl Validating for CertificateApproval {
    async fn validate(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
        let signer = signer(request.old.unwrap_or(&Value::Null));
        if may(request, world, "approve", signer) {
            return Ok(());
        }
        let signer = meta::text::quote(signer);
        Err(request.forbidden(format!("user not permitted to approve requests with signerName {signer}")))
    }
}

/// Putting certificates, or that there will be none, into requests.
pub struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn handles(&self, request: &Request<'_>) -> bool {
        updates(request, "status")
    }
}

#[async_trait]
impl Validating for CertificateSigning {
    async fn validate(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
        let old = request.old.unwrap_or(&Value::Null);
        let same = |field: &str| old["status"][field] == request.object["status"][field];
        if (same("certificate") && same("conditions")) || may(request, world, "sign", signer(old)) {
            return Ok(());
        }
        let signer = meta::text::quote(signer(old));
        Err(request.forbidden(format!("user not permitted to sign requests with signerName {signer}")))
    }
}

/// Publishing what certificates of a signer are checked with.
pub struct ClusterTrustBundleAttest;

impl Plugin for ClusterTrustBundleAttest {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.writes() && request.is(GROUP, "clustertrustbundles")
    }
}

#[async_trait]
impl Validating for ClusterTrustBundleAttest {
    async fn validate(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
        let signer = signer(request.object);
        if signer.is_empty() || request.is_garbage_collection() || may(request, world, "attest", signer) {
            return Ok(());
        }
        let signer = meta::text::quote(signer);
        Err(request.forbidden(format!("user not permitted to attest for signerName {signer}")))
    }
}

/// Nobody becomes a member of the group that may do everything by a certificate.
pub struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && request.is(GROUP, REQUESTS)
    }
}

#[async_trait]
impl Validating for CertificateSubjectRestriction {
    async fn validate(&self, request: &Request<'_>, _world: &dyn World) -> Result<(), Status> {
        if signer(request.object) != CLIENT_SIGNER {
            return Ok(());
        }
        let subject =
            csr::subject(request.object).map_err(|error| request.forbidden(format!("failed to parse CSR: {error}")))?;
        if subject.organizations.iter().any(|group| group == MASTERS) {
            return Err(request.forbidden(format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Asked;
    use crate::admission::fake::{Fake, asked};
    use serde_json::json;

    #[tokio::test]
    async fn who_approves_holds_the_signer_or_its_domain() {
        let old = json!({"metadata": {"name": "c"}, "spec": {"signerName": "example.com/web"}});
        let rights = [
            ("approve signers example.com/web", true),
            ("approve signers example.com/*", true),
            ("sign signers example.com/web", false),
            ("approve signers example.com/other", false),
        ];
        for (right, may) in rights {
            let world = Fake { allowed: vec![right.to_owned()], ..Fake::default() };
            let mut new = old.clone();
            let requests = asked(Operation::Update, "certificates.k8s.io/v1/certificatesigningrequests", "c");
            let request = world.request(Asked { subresource: "approval", ..requests }, &mut new, Some(&old));
            assert!(CertificateApproval.handles(&request) && !CertificateSigning.handles(&request));
            assert_eq!(CertificateApproval.validate(&request, &world).await.is_ok(), may, "{right}");
        }
    }
}
