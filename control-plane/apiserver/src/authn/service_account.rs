//! Service-account tokens: what is in them, and whether they still hold.
//!
//! A token names its account, and often the pod, secret or node it was made for; it dies with any of them. I/O: reads the
//! clock.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::jwt::{self, Verifier};
use super::{Authenticated, Authenticator, AuthnError, Credentials, UserInfo};
use crate::cache::hub::Hub;
use crate::cache::{Cache, Entry};

/// Signatures remembered as good; the clock and the bound objects are still looked at each time.
const REMEMBERED: usize = 4096;
/// Tokens may be this much younger than this server's clock says.
const SKEW_SECONDS: i64 = 10;

/// Group of all service accounts.
const ALL_ACCOUNTS: &str = "system:serviceaccounts";
pub const USER_PREFIX: &str = "system:serviceaccount:";
const EXTRA: &str = "authentication.kubernetes.io";

/// The identity of an account.
pub fn user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: format!("{USER_PREFIX}{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: vec![ALL_ACCOUNTS.to_owned(), format!("{ALL_ACCOUNTS}:{namespace}")],
        extra: Vec::new(),
    }
}

/// An object that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// `pod`, `secret` or `node`.
    pub kind: &'static str,
    pub name: String,
    pub uid: String,
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    pub issuer: &'a str,
    pub audiences: &'a [String],
    pub namespace: &'a str,
    pub account: &'a str,
    pub account_uid: &'a str,
    pub bound: &'a [Bound],
    /// Unix seconds.
    pub now: i64,
    pub expires: i64,
    /// From then on, use of the token is answered with a warning.
    pub warn_after: Option<i64>,
}

/// The claims of a grant.
pub fn claims(grant: &Grant<'_>) -> Value {
    let mut private = json!({
        "namespace": grant.namespace,
        "serviceaccount": {"name": grant.account, "uid": grant.account_uid},
    });
    for bound in grant.bound {
        private[bound.kind] = match bound.uid.as_str() {
            "" => json!({"name": bound.name}),
            uid => json!({"name": bound.name, "uid": uid}),
        };
    }
    if let Some(after) = grant.warn_after {
        private["warnafter"] = after.into();
    }
    json!({
        "iss": grant.issuer,
        "sub": format!("{USER_PREFIX}{}:{}", grant.namespace, grant.account),
        "aud": grant.audiences,
        "iat": grant.now, "nbf": grant.now, "exp": grant.expires,
        "jti": meta::uid::new_uid(),
        "kubernetes.io": private,
    })
}

/// Caches of what tokens are bound to.
pub struct Objects {
    pub hub: Arc<Hub>,
    pub accounts: Arc<Cache>,
    pub pods: Arc<Cache>,
    pub secrets: Arc<Cache>,
    pub nodes: Arc<Cache>,
}

impl Objects {
    /// The object, with a second look when the cache might not have heard of it yet.
    async fn get(&self, cache: &Cache, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        if let Some(entry) = cache.lookup(namespace, name) {
            return Some(entry);
        }
        self.hub.catch_up().await.ok()?;
        cache.lookup(namespace, name)
    }
}

/// Authenticates service-account tokens of this cluster.
pub struct ServiceAccountTokens {
    pub issuer: String,
    pub keys: Vec<Verifier>,
    pub objects: Objects,
    verified: Mutex<HashMap<[u8; 32], Arc<Value>>>,
}

fn refused(why: impl Into<String>) -> AuthnError {
    AuthnError(format!("service account token refused: {}", why.into()))
}

impl ServiceAccountTokens {
    pub fn new(issuer: String, keys: Vec<Verifier>, objects: Objects) -> ServiceAccountTokens {
        ServiceAccountTokens { issuer, keys, objects, verified: Mutex::default() }
    }

    fn verify(&self, token: &str) -> Result<Arc<Value>, AuthnError> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.verified.lock().get(&digest) {
            return Ok(claims.clone());
        }
        let claims = Arc::new(jwt::verify(token, &self.keys).map_err(refused)?);
        let mut verified = self.verified.lock();
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(digest, claims.clone());
        Ok(claims)
    }

    /// Checks everything but the signature; the caller and the audiences that the token is for.
    async fn check(&self, claims: &Value, wanted: &[String], now: i64) -> Result<Authenticated, AuthnError> {
        let number = |claim: &str| claims[claim].as_i64();
        if number("exp").is_none_or(|exp| now >= exp) {
            return Err(refused("it has expired"));
        }
        if number("nbf").is_some_and(|nbf| now + SKEW_SECONDS < nbf) {
            return Err(refused("it is not valid yet"));
        }
        let audiences = shared_audiences(&claims["aud"], wanted);
        if audiences.is_empty() {
            return Err(refused("it is for another audience"));
        }
        let private = &claims["kubernetes.io"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, account) = (text(&private["namespace"]), text(&private["serviceaccount"]["name"]));
        let uid = text(&private["serviceaccount"]["uid"]);
        if claims["sub"].as_str() != Some(&format!("{USER_PREFIX}{namespace}:{account}")) {
            return Err(refused("its subject is not its account"));
        }
        self.alive(&self.objects.accounts, &namespace, &account, &uid, "service account", now).await?;
        let mut user = user(&namespace, &account, &uid);
        let mut extra = |key: &str, value: String| user.extra.push((format!("{EXTRA}/{key}"), vec![value]));
        if let Some(id) = claims["jti"].as_str() {
            extra("credential-id", format!("JTI={id}"));
        }
        let bound = [
            ("pod", &self.objects.pods, namespace.as_str()),
            ("secret", &self.objects.secrets, namespace.as_str()),
            ("node", &self.objects.nodes, ""),
        ];
        for (kind, cache, namespace) in bound {
            let Some(reference) = private.get(kind).filter(|r| r.is_object()) else { continue };
            let (name, uid) = (text(&reference["name"]), text(&reference["uid"]));
            // A token bound to a pod only tells the pod's node; the node may go first.
            if kind != "node" || private.get("pod").is_none() {
                self.alive(cache, namespace, &name, &uid, kind, now).await?;
            }
            if kind != "secret" {
                extra(&format!("{kind}-name"), name);
                if !uid.is_empty() {
                    extra(&format!("{kind}-uid"), uid);
                }
            }
        }
        let stale = private["warnafter"].as_i64().is_some_and(|after| after > 0 && now > after);
        if stale {
            tracing::debug!(account, namespace, "a token past its rotation time is in use");
        }
        Ok(Authenticated { user, audiences })
    }

    async fn alive(
        &self,
        cache: &Cache,
        namespace: &str,
        name: &str,
        uid: &str,
        what: &str,
        now: i64,
    ) -> Result<(), AuthnError> {
        let Some(entry) = self.objects.get(cache, namespace, name).await else {
            return Err(refused(format!("its {what} is gone")));
        };
        let object = entry.object();
        if !uid.is_empty() && object["metadata"]["uid"].as_str() != Some(uid) {
            return Err(refused(format!("its {what} was replaced")));
        }
        let deleted = object["metadata"]["deletionTimestamp"].as_str().and_then(meta::time::parse);
        // A pod winding down keeps its identity through its grace period and a minute more.
        if deleted.is_some_and(|at| now > at.as_second() + 60) {
            return Err(refused(format!("its {what} is being deleted")));
        }
        Ok(())
    }
}

fn shared_audiences(claimed: &Value, wanted: &[String]) -> Vec<String> {
    let claimed: Vec<&str> = match claimed {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    wanted.iter().filter(|audience| claimed.contains(&audience.as_str())).cloned().collect()
}

#[async_trait]
impl Authenticator for ServiceAccountTokens {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        let Some(token) = credentials.bearer() else { return Ok(None) };
        let Some(claimed) = jwt::peek(&token) else { return Ok(None) };
        if claimed["iss"].as_str() != Some(&self.issuer) {
            return Ok(None);
        }
        let claims = self.verify(&token)?;
        self.check(&claims, credentials.audiences, Timestamp::now().as_second()).await.map(Some)
    }
}
