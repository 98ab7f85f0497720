//! Whether this server may read what `pods verified` wants. Where it speaks as a node it may not, and is not to: whoever has
//! one node's key would read every pod of the cluster, which nodes don't (SECURITY.md). I/O: asks the API server. Called
//! by [`crate::settings`] when a configuration comes into force.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

/// What is told where it may not.
pub const NOT_VERIFIED: &str = "`pods verified` wants to list all pods, which DNS of this node may not: a node reads its own pods \
    alone. Names of pods fail here; `pods insecure` answers them without looking";

/// Whether the API server says that listing all pods is not allowed. That it doesn't answer is no such word.
pub async fn is_forbidden(client: &Client) -> bool {
    let list = ResourceAttributes {
        verb: Some("list".to_owned()),
        resource: Some("pods".to_owned()),
        version: Some("v1".to_owned()),
        ..ResourceAttributes::default()
    };
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(list), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await;
    answer.ok().and_then(|review| review.status).is_some_and(|status| !status.allowed)
}
