//! serviceaccount-token-controller: fills Secrets of type `kubernetes.io/service-account-token` with a signed token,
//! the CA and the namespace, and deletes them with their account. Keys are secrets. Signing is the caller's.

use std::collections::BTreeMap;

use client::{Delta, Key, Plan, WorkQueue};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde_json::{Value, json};

use crate::common::acts;
use crate::config::TokenSigner;
use crate::runner::Work;
use crate::setup::{Selector, Setup};

/// Only these Secrets are watched.
const TOKENS: Selector = Selector("type=kubernetes.io/service-account-token");
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const BY_ACCOUNT: &str = "account";

pub fn start(setup: &mut Setup) {
    let Some(signer) = setup.config.token_signer.clone() else { return };
    let queue: WorkQueue<Key> = WorkQueue::default();
    setup.index_selected::<Secret>(TOKENS, BY_ACCOUNT, |secret| {
        let namespace = secret.metadata.namespace.clone().unwrap_or_default();
        note(secret, ACCOUNT).map(|name| Key::new(namespace, name).to_string()).into_iter().collect()
    });
    let again = queue.clone();
    let secrets = setup.on_selected(TOKENS, move |delta: &Delta<Secret>| again.add(Key::of(delta.object().as_ref())));
    let (again, of_account) = (queue.clone(), secrets.clone());
    let accounts = setup.on(move |delta: &Delta<ServiceAccount>| {
        let account = Key::of(delta.object().as_ref()).to_string();
        of_account.by(BY_ACCOUNT, &account).iter().for_each(|s| again.add(Key::of(s.as_ref())));
    });
    let executor = setup.executor("serviceaccount-token-controller");
    let (workers, ca) = (setup.config.concurrency.serviceaccount_token, setup.config.root_ca.clone());
    setup.run(Work::new(&queue, executor, workers, move |key, _| {
        let Some(secret) = secrets.get(key) else { return Plan::default() };
        let account = note(&secret, ACCOUNT).and_then(|name| accounts.get_in(&key.namespace, name));
        reconcile(&secret, account.as_deref(), ca.as_deref(), signer.as_ref())
    }));
}

fn note<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(name).map(String::as_str).filter(|v| !v.is_empty())
}

fn reconcile(secret: &Secret, account: Option<&ServiceAccount>, ca: Option<&str>, signer: &dyn TokenSigner) -> Plan {
    let mut plan = Plan::default();
    if secret.metadata.deletion_timestamp.is_some() || note(secret, ACCOUNT).is_none() {
        return plan;
    }
    let of = note(secret, ACCOUNT_UID);
    let account = account.filter(|a| of.is_none_or(|uid| a.metadata.uid.as_deref() == Some(uid)));
    let Some(account) = account else {
        plan.push(acts::delete(secret));
        return plan;
    };
    let mut next = secret.clone();
    let data = next.data.get_or_insert_default();
    if let Some(ca) = ca {
        data.insert("ca.crt".into(), ByteString(ca.as_bytes().to_vec()));
    }
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    data.insert("namespace".into(), ByteString(namespace.into_bytes()));
    if data.get("token").is_none_or(|t| t.0.is_empty()) {
        match signer.sign(&claims(account, secret)) {
            Ok(token) => {
                data.insert("token".into(), ByteString(token.into_bytes()));
            }
            Err(why) => {
                plan.push(acts::warning(secret, "FailedToCreateToken", format!("Token could not be signed: {why}")));
                return plan;
            }
        }
    }
    let notes: &mut BTreeMap<String, String> = next.metadata.annotations.get_or_insert_default();
    notes.insert(ACCOUNT_UID.into(), account.metadata.uid.clone().unwrap_or_default());
    if next != *secret {
        plan.push(acts::update(&next));
    }
    plan
}

/// Upstream's claims of a token that lives as long as its Secret.
fn claims(account: &ServiceAccount, secret: &Secret) -> Value {
    let namespace = account.metadata.namespace.as_deref().unwrap_or("");
    let name = account.metadata.name.as_deref().unwrap_or("");
    json!({
        "iss": "kubernetes/serviceaccount",
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": account.metadata.uid,
        "kubernetes.io/serviceaccount/secret.name": secret.metadata.name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::model::{World, from};

    struct Plain;
    impl TokenSigner for Plain {
        fn sign(&self, claims: &Value) -> Result<String, String> {
            Ok(format!("signed for {}", claims["sub"].as_str().unwrap_or("")))
        }
    }

    fn step(world: &World) -> Plan {
        let Some(secret) = world.get::<Secret>("ns", "t") else { return Plan::default() };
        reconcile(&secret, world.get::<ServiceAccount>("ns", "a").as_deref(), Some("CA"), &Plain)
    }

    #[test]
    fn a_token_is_filled_once_and_goes_with_its_account() {
        let mut world = World::default();
        world.put(&from::<ServiceAccount>(json!({"metadata": {"name": "a", "namespace": "ns"}})));
        world.put(&from::<Secret>(json!({
            "metadata": {"name": "t", "namespace": "ns", "annotations": {"kubernetes.io/service-account.name": "a"}}
        })));
        world.settle(step);
        let data = world.get::<Secret>("ns", "t").unwrap().data.clone().unwrap();
        assert_eq!(data["token"].0, b"signed for system:serviceaccount:ns:a");
        assert_eq!((data["ca.crt"].0.as_slice(), data["namespace"].0.as_slice()), (&b"CA"[..], &b"ns"[..]));
        world.delete::<ServiceAccount>("ns", "a");
        world.put(&from::<ServiceAccount>(json!({"metadata": {"name": "a", "namespace": "ns"}})));
        world.settle(step);
        assert!(world.get::<Secret>("ns", "t").is_none(), "another account of the same name is another account");
    }
}
