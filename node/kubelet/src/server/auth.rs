//! Who calls the kubelet's API, by certificate or token, and whether they may: both asked of the API server and kept
//! for a while. Does I/O.

use std::collections::HashMap;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Reply, text};
use crate::config::Config;

/// Upstream's cache times.
const TOKEN_KEPT: Duration = Duration::from_secs(120);
const ALLOWED_KEPT: Duration = Duration::from_secs(300);
const REFUSED_KEPT: Duration = Duration::from_secs(30);
/// More answers than this are not kept: the cache is emptied.
const CACHE_MAX: usize = 4096;

/// Name and groups of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
}

/// A certificate's common name and organisations; its signature was checked by TLS.
pub fn of_certificate(der: &[u8]) -> Option<User> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let subject = cert.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    groups.push("system:authenticated".into());
    Some(User { name, uid: String::new(), groups })
}

type TokenHash = [u8; 32];
type Question = (User, &'static str, &'static str);

pub struct Auth {
    client: kube::Client,
    node: String,
    anonymous: bool,
    tokens_allowed: bool,
    ask: bool,
    tokens: Mutex<HashMap<TokenHash, (Instant, Option<User>)>>,
    answers: Mutex<HashMap<Question, (Instant, bool)>>,
}

impl Auth {
    pub fn new(client: kube::Client, config: &Config) -> Auth {
        Auth {
            client,
            node: config.node_name.clone(),
            anonymous: config.server.anonymous,
            tokens_allowed: config.server.webhook_authentication,
            ask: config.server.webhook_authorization,
            tokens: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    /// `Err` is the refusal to send.
    pub async fn check(&self, certificate: Option<User>, request: &Request<Incoming>) -> Result<(), Reply> {
        let header = request.headers().get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let bearer = header.and_then(|h| h.strip_prefix("Bearer ")).map(str::trim).map(str::to_owned);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let user = match (certificate, bearer) {
            (Some(user), _) => Some(user),
            (None, Some(token)) if self.tokens_allowed => self.of_token(&token).await,
            (None, None) if self.anonymous => Some(User {
                name: "system:anonymous".into(),
                uid: String::new(),
                groups: vec!["system:unauthenticated".into()],
            }),
            _ => None,
        };
        let Some(user) = user else { return Err(text(StatusCode::UNAUTHORIZED, "Unauthorized")) };
        if !self.ask {
            return Ok(());
        }
        let verb = verb(&method);
        let wanted = subresources(&path);
        for sub in &wanted {
            match self.may(&user, verb, sub).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    let message = format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource={wanted:?}): {error}",
                        user.name
                    );
                    return Err(text(StatusCode::INTERNAL_SERVER_ERROR, message));
                }
            }
        }
        let shown: Vec<String> = wanted.iter().map(|s| format!("{s:?}")).collect();
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            user.name,
            shown.join(" ")
        );
        Err(text(StatusCode::FORBIDDEN, message))
    }

    async fn of_token(&self, token: &str) -> Option<User> {
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
        let mut cache = self.tokens.lock();
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(key, (Instant::now(), user.clone()));
        user
    }

    async fn may(&self, user: &User, verb: &'static str, sub: &'static str) -> Result<bool, String> {
        let question = (user.clone(), verb, sub);
        if let Some((at, allowed)) = self.answers.lock().get(&question)
            && at.elapsed() < if *allowed { ALLOWED_KEPT } else { REFUSED_KEPT }
        {
            return Ok(*allowed);
        }
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: Some(user.uid.clone()).filter(|u| !u.is_empty()),
                groups: Some(user.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(sub.into()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = api.create(&PostParams::default(), &review).await.map_err(|e| crate::api::message(&e))?;
        let allowed = answer.status.is_some_and(|s| s.allowed);
        let mut cache = self.answers.lock();
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(question, (Instant::now(), allowed));
        Ok(allowed)
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// Subresources of the node that allow a path; the first one is the finest.
fn subresources(path: &str) -> Vec<&'static str> {
    let below = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    if below("/stats") {
        vec!["stats"]
    } else if below("/metrics") {
        vec!["metrics"]
    } else if below("/logs") {
        vec!["log"]
    } else if below("/checkpoint") {
        vec!["checkpoint"]
    } else if below("/configz") {
        vec!["configz", "proxy"]
    } else if below("/healthz") {
        vec!["healthz", "proxy"]
    } else if below("/pods") || below("/runningpods") {
        vec!["pods", "proxy"]
    } else {
        vec!["proxy"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_map_to_subresources() {
        assert_eq!(subresources("/stats/summary"), ["stats"]);
        assert_eq!(subresources("/metrics"), ["metrics"]);
        assert_eq!(subresources("/metricsx"), ["proxy"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
        assert_eq!(subresources("/exec/a/b/c"), ["proxy"]);
    }

    #[test]
    fn a_certificate_names_its_user() {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "kube-apiserver");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        let key = rcgen::KeyPair::generate().unwrap();
        let user = of_certificate(params.self_signed(&key).unwrap().der()).unwrap();
        assert_eq!(user.name, "kube-apiserver");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
    }
}
