//! Service-account tokens for projected volumes: asked of the API once, again at four fifths of their life. Does I/O.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;

use super::payload::TokenWish;
use crate::pod::pods;

/// A token is replaced when it is older than this, however long it lives.
const OLDEST: SignedDuration = SignedDuration::from_hours(24);
/// The share of a token's life after which it is replaced, as a percentage.
const REFRESH_PERCENT: i32 = 80;

#[derive(Debug, Clone)]
struct Issued {
    token: String,
    refresh: Timestamp,
    expires: Timestamp,
}

/// Issued tokens by pod UID.
pub struct Tokens {
    client: kube::Client,
    issued: Mutex<BTreeMap<String, BTreeMap<TokenWish, Issued>>>,
}

impl Tokens {
    pub fn new(client: kube::Client) -> Tokens {
        Tokens { client, issued: Mutex::default() }
    }

    /// The token for a wish; a known one while it is fresh. When a refresh fails, the old one serves until it expires.
    pub async fn get(&self, pod: &Pod, wish: &TokenWish, now: Timestamp) -> Result<String, String> {
        let uid = pods::uid(pod);
        let known = self.issued.lock().get(uid).and_then(|m| m.get(wish)).cloned();
        if let Some(known) = known.as_ref().filter(|k| now < k.refresh) {
            return Ok(known.token.clone());
        }
        match self.ask(pod, wish, now).await {
            Ok(issued) => {
                let token = issued.token.clone();
                self.issued.lock().entry(uid.to_owned()).or_default().insert(wish.clone(), issued);
                Ok(token)
            }
            Err(error) => match known.filter(|k| now < k.expires) {
                Some(known) => Ok(known.token),
                None => Err(error),
            },
        }
    }

    async fn ask(&self, pod: &Pod, wish: &TokenWish, now: Timestamp) -> Result<Issued, String> {
        let account = pods::spec(pod).service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), pods::namespace(pod));
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(wish.audience.clone()).filter(|a| !a.is_empty()).map(|a| vec![a]),
                expiration_seconds: Some(wish.seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer = api.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.map_err(|e| format!("failed to fetch token: {}", crate::api::message(&e)))?;
        let status = answer.status.ok_or("failed to fetch token: the server issued none")?;
        let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err("failed to fetch token: the server issued none".into());
        };
        let expires = expires.0;
        let life = expires.duration_since(now);
        let refresh = (life * REFRESH_PERCENT / 100).min(OLDEST);
        Ok(Issued { token, refresh: now.saturating_add(refresh).unwrap_or(expires), expires })
    }

    /// When the first token of the pod is to be replaced.
    pub fn next_refresh(&self, uid: &str) -> Option<Timestamp> {
        self.issued.lock().get(uid)?.values().map(|i| i.refresh).min()
    }

    pub fn forget(&self, uid: &str) {
        self.issued.lock().remove(uid);
    }
}
