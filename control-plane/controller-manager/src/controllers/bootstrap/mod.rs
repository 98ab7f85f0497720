//! Machines that join: what looks after bootstrap tokens. [`signer`] makes the way to the API server believable to who
//! has a token, [`cleaner`] takes away what is over. Off by default, as upstream.

pub mod cleaner;
pub mod jws;
pub mod signer;

use k8s_openapi::api::core::v1::Secret;
use kinds::bootstrap_token::{Described, NAMESPACE};

use crate::setup::Selector;

/// Only these Secrets are watched.
const TOKENS: Selector = Selector("type=bootstrap.kubernetes.io/token");

/// What a Secret that may hold a token says; `None` where no tokens are.
fn described(secret: &Secret) -> Option<Described> {
    if secret.metadata.namespace.as_deref() != Some(NAMESPACE) {
        return None;
    }
    let data = secret.data.as_ref();
    Some(Described::read(|field| String::from_utf8(data?.get(field)?.0.clone()).ok()))
}

#[cfg(test)]
pub(super) fn token(id: &str, fields: &[(&str, &str)]) -> Secret {
    let own = [("token-id", id), ("token-secret", "0123456789abcdef")];
    let data = own.iter().chain(fields);
    Secret {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(kinds::bootstrap_token::secret_name(id)),
            namespace: Some(NAMESPACE.into()),
            ..Default::default()
        },
        type_: Some(kinds::bootstrap_token::TYPE.into()),
        data: Some(
            data.map(|(name, text)| ((*name).to_owned(), k8s_openapi::ByteString(text.as_bytes().to_vec()))).collect(),
        ),
        ..Secret::default()
    }
}
