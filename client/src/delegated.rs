//! Who calls a component's own HTTP API, by certificate or token, and whether they may: both asked of the API server
//! and kept for a while, as upstream's delegated authentication and authorisation. I/O: asks the API server.
//! Callers: the kubelet's API, [`crate::pages`].

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use serving::x509::Subject;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Upstream's cache times.
const TOKEN_KEPT: Duration = Duration::from_secs(120);
const ALLOWED_KEPT: Duration = Duration::from_secs(300);
const REFUSED_KEPT: Duration = Duration::from_secs(30);
/// More answers than this are not kept: the cache is emptied.
const CACHE_MAX: usize = 4096;

/// Name and groups of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct User {
    /// As roles and audit know it.
    pub name: String,
    /// Empty where there is none: certificates have none.
    pub uid: String,
    /// `system:authenticated` among them, unless it is the anonymous one.
    pub groups: Vec<String>,
}

impl User {
    /// A caller who says nothing.
    pub fn anonymous() -> User {
        User { name: "system:anonymous".into(), uid: String::new(), groups: vec!["system:unauthenticated".into()] }
    }

    /// A certificate's common name and organisations; its signature was checked by TLS.
    pub fn of_subject(subject: &Subject) -> Option<User> {
        let (name, mut groups) = subject.user()?;
        groups.push("system:authenticated".into());
        Some(User { name, uid: String::new(), groups })
    }
}

/// What a caller wants to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attempt {
    /// A verb on a subresource of a node.
    Node {
        /// `get`, `create`, ...
        verb: &'static str,
        /// Its name.
        node: String,
        /// `proxy`, `stats`, `log`, ...
        subresource: &'static str,
    },
    /// A verb on a path.
    Path {
        /// The method in lower case.
        verb: &'static str,
        /// From the first `/`.
        path: String,
    },
}

impl Attempt {
    fn spec(&self, user: &User) -> SubjectAccessReviewSpec {
        let mut spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|u| !u.is_empty()),
            groups: Some(user.groups.clone()),
            ..SubjectAccessReviewSpec::default()
        };
        match self {
            Attempt::Node { verb, node, subresource } => {
                spec.resource_attributes = Some(ResourceAttributes {
                    verb: Some((*verb).into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some((*subresource).into()),
                    name: Some(node.clone()),
                    ..ResourceAttributes::default()
                });
            }
            Attempt::Path { verb, path } => {
                spec.non_resource_attributes =
                    Some(NonResourceAttributes { verb: Some((*verb).into()), path: Some(path.clone()) });
            }
        }
        spec
    }
}

type TokenHash = [u8; 32];

/// Asks the API server about callers, and remembers for a while what it said. One for each port.
pub struct Delegated {
    client: kube::Client,
    tokens: Mutex<HashMap<TokenHash, (Instant, Option<User>)>>,
    answers: Mutex<HashMap<(User, Attempt), (Instant, bool)>>,
}

impl Delegated {
    /// Asks as `client`, whose identity must be allowed to create both reviews.
    pub fn new(client: kube::Client) -> Delegated {
        Delegated { client, tokens: Mutex::default(), answers: Mutex::default() }
    }

    /// Whose token it is; None for nobody's, and when the API server can't be asked. Kept for two minutes.
    pub async fn of_token(&self, token: &str) -> Option<User> {
        let key: TokenHash = Sha256::digest(token.as_bytes()).into();
        if let Some((at, user)) = self.tokens.lock().get(&key)
            && at.elapsed() < TOKEN_KEPT
        {
            return user.clone();
        }
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let status = api.create(&PostParams::default(), &review).await.ok()?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|u| User {
            name: u.username.unwrap_or_default(),
            uid: u.uid.unwrap_or_default(),
            groups: u.groups.unwrap_or_default(),
        });
        keep(&mut self.tokens.lock(), key, user.clone());
        user
    }

    /// Whether the API server lets the caller: a yes is kept for five minutes, a no for half a minute. Fails when the server
    /// can't be asked: then nobody is let in.
    pub async fn may(&self, user: &User, attempt: Attempt) -> Result<bool, kube::Error> {
        let question = (user.clone(), attempt);
        if let Some((at, allowed)) = self.answers.lock().get(&question)
            && at.elapsed() < if *allowed { ALLOWED_KEPT } else { REFUSED_KEPT }
        {
            return Ok(*allowed);
        }
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview { spec: question.1.spec(user), ..SubjectAccessReview::default() };
        let answer = api.create(&PostParams::default(), &review).await?;
        let allowed = answer.status.is_some_and(|s| s.allowed);
        keep(&mut self.answers.lock(), question, allowed);
        Ok(allowed)
    }
}

fn keep<K: std::hash::Hash + Eq, V>(cache: &mut HashMap<K, (Instant, V)>, key: K, value: V) {
    if cache.len() >= CACHE_MAX {
        cache.clear();
    }
    cache.insert(key, (Instant::now(), value));
}

/// The bearer token of an Authorization header.
pub fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_its_user() {
        let mut params = rcgen::CertificateParams::new(vec![]).expect("params");
        params.distinguished_name.push(rcgen::DnType::CommonName, "kube-apiserver");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        let key = rcgen::KeyPair::generate().expect("key");
        let user = Subject::of(params.self_signed(&key).expect("certificate").der()).expect("a subject");
        let user = User::of_subject(&user).expect("user");
        assert_eq!(user.name, "kube-apiserver");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
    }
}
