//! bootstrap-signer-controller: signs the kubeconfig in `kube-public/cluster-info` once for each token that is for
//! signing, under `jws-kubeconfig-<id>`. Anybody may read that ConfigMap; who has a token can tell by the signature that
//! who wrote it has it too, and so learns the cluster's address and CA over a connection that proves nothing.
//! There is one key: all signatures are made together.

use std::collections::BTreeMap;

use client::{Delta, Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kinds::bootstrap_token::{Expiry, Token};

use super::{TOKENS, described, jws};
use crate::common::acts;
use crate::runner::Work;
use crate::setup::{Selector, Setup};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";
/// Only these ConfigMaps are watched.
const CLUSTER_INFO: Selector = Selector("metadata.name=cluster-info");
const WORKERS: usize = 1;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let again = queue.clone();
    let tokens = setup.on_selected(TOKENS, move |_: &Delta<Secret>| again.add(Key::new(NAMESPACE, NAME)));
    let again = queue.clone();
    let maps = setup.on_selected(CLUSTER_INFO, move |_: &Delta<ConfigMap>| again.add(Key::new(NAMESPACE, NAME)));
    let executor = setup.executor("bootstrap-signer");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, now| match maps.get(key) {
        Some(map) => reconcile(&map, tokens.list().iter().map(AsRef::as_ref), now),
        None => Plan::nothing("nobody has made kube-public/cluster-info"),
    }));
}

fn reconcile<'a>(map: &ConfigMap, tokens: impl Iterator<Item = &'a Secret>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(kubeconfig) = map.data.as_ref().and_then(|data| data.get(KUBECONFIG)) else {
        return Plan::nothing("it holds no kubeconfig");
    };
    let signatures: BTreeMap<String, String> = tokens
        .filter_map(|secret| signing(secret, now))
        .map(|(id, secret)| (format!("{SIGNATURE_PREFIX}{id}"), jws::detached(kubeconfig, &id, &secret)))
        .collect();
    let others = map.data.iter().flatten().filter(|(name, _)| !name.starts_with(SIGNATURE_PREFIX));
    let data: BTreeMap<String, String> =
        others.map(|(name, text)| (name.clone(), text.clone())).chain(signatures).collect();
    if map.data.as_ref() == Some(&data) {
        return Plan::nothing("it is signed by every token");
    }
    let mut map = map.clone();
    map.data = Some(data);
    plan.push(acts::update(&map));
    plan
}

/// Id and secret of a token that signs.
fn signing(secret: &Secret, now: Timestamp) -> Option<(String, String)> {
    let token = described(secret)?;
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let good = token.signing
        && secret.metadata.deletion_timestamp.is_none()
        && token.is_named(name)
        && token.expiry(now) != Expiry::Over
        && Token::parse(&format!("{}.{}", token.id, token.secret)).is_some();
    good.then_some((token.id, token.secret))
}

#[cfg(test)]
mod tests {
    use super::super::token;
    use super::*;
    use client::{Action, Verb};

    fn map(fields: &[(&str, &str)]) -> ConfigMap {
        ConfigMap {
            data: Some(fields.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()),
            ..ConfigMap::default()
        }
    }

    /// What the ConfigMap holds after a step.
    fn after(map: &ConfigMap, tokens: &[Secret]) -> BTreeMap<String, String> {
        let plan = reconcile(map, tokens.iter(), Timestamp::UNIX_EPOCH);
        let written = plan.actions().filter_map(Action::op).find_map(|op| match &op.verb {
            Verb::Update { object, .. } => Some(serde_json::from_value::<ConfigMap>(object.clone()).unwrap()),
            _ => None,
        });
        written.as_ref().unwrap_or(map).data.clone().unwrap_or_default()
    }

    #[test]
    fn each_token_that_signs_has_its_signature_and_no_other() {
        let signs = [("usage-bootstrap-signing", "true")];
        let tokens = [
            token("aaaaaa", &signs),
            token("bbbbbb", &[]),
            token("cccccc", &[signs[0], ("expiration", "1969-01-01T00:00:00Z")]),
        ];
        let first = map(&[("kubeconfig", "k"), ("jws-kubeconfig-zzzzzz", "old"), ("mine", "x")]);
        let signed = after(&first, &tokens);
        assert_eq!(
            signed.keys().map(String::as_str).collect::<Vec<_>>(),
            ["jws-kubeconfig-aaaaaa", "kubeconfig", "mine"]
        );
        let again = ConfigMap { data: Some(signed.clone()), ..ConfigMap::default() };
        assert!(reconcile(&again, tokens.iter(), Timestamp::UNIX_EPOCH).is_empty(), "signed once");
        let mut changed = again.clone();
        changed.data.as_mut().unwrap().insert("kubeconfig".into(), "another".into());
        assert_ne!(after(&changed, &tokens)["jws-kubeconfig-aaaaaa"], signed["jws-kubeconfig-aaaaaa"]);
        assert!(!after(&again, &[]).contains_key("jws-kubeconfig-aaaaaa"), "a token that is gone");
    }

    #[test]
    fn what_holds_no_kubeconfig_is_left_alone() {
        let tokens = [token("aaaaaa", &[("usage-bootstrap-signing", "true")])];
        assert!(reconcile(&map(&[("jws-kubeconfig-zzzzzz", "old")]), tokens.iter(), Timestamp::UNIX_EPOCH).is_empty());
    }
}
