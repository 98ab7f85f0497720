//! root-ca-certificate-publisher-controller: the CA that clients in pods verify the server with, as the ConfigMap
//! `kube-root-ca.crt` of every namespace; the kubelet projects it beside the token. Keys are namespaces.

use std::collections::BTreeMap;

use client::{Delta, Key, Plan, WorkQueue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::namespace::is_terminating;
use crate::common::acts;
use crate::runner::Work;
use crate::setup::{Selector, Setup};

const NAME: &str = "kube-root-ca.crt";
const FIELD: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// As upstream words it: clients show it.
const DESCRIBED: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                         endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                         guaranteed across distributions of Kubernetes clusters.";
/// Only these ConfigMaps are watched.
const OURS: Selector = Selector("metadata.name=kube-root-ca.crt");
const WORKERS: usize = 1;

pub fn start(setup: &mut Setup) {
    let Some(ca) = setup.config.root_ca.clone() else { return };
    let queue: WorkQueue<Key> = WorkQueue::default();
    let namespaces = setup.queue_own::<Namespace>(&queue);
    let again = queue.clone();
    let maps = setup.on_selected(OURS, move |delta: &Delta<ConfigMap>| {
        again.add(Key::new("", delta.object().metadata.namespace.clone().unwrap_or_default()));
    });
    let executor = setup.executor("root-ca-cert-publisher");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, _| {
        let Some(namespace) = namespaces.get(key) else { return Plan::default() };
        reconcile(&namespace, maps.get_in(&key.name, NAME).as_deref(), &ca)
    }));
}

fn reconcile(namespace: &Namespace, found: Option<&ConfigMap>, ca: &str) -> Plan {
    let mut plan = Plan::default();
    if is_terminating(namespace) {
        return plan;
    }
    let data = BTreeMap::from([(FIELD.to_owned(), ca.to_owned())]);
    match found {
        None => {
            plan.push(acts::create(&ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.into()),
                    namespace: namespace.metadata.name.clone(),
                    annotations: Some([(DESCRIPTION.to_owned(), DESCRIBED.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..ConfigMap::default()
            }));
        }
        Some(map) => {
            let described = map.metadata.annotations.as_ref().and_then(|a| a.get(DESCRIPTION));
            if map.data.as_ref() != Some(&data) || described.map(String::as_str) != Some(DESCRIBED) {
                let mut map = map.clone();
                map.data = Some(data);
                map.metadata.annotations.get_or_insert_default().insert(DESCRIPTION.into(), DESCRIBED.into());
                plan.push(acts::update(&map));
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::{Action, Verb};

    #[test]
    fn a_changed_map_is_put_right_and_a_right_one_left_alone() {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("a".into());
        let plan = reconcile(&namespace, None, "PEM");
        let Some(Verb::Create(object)) = plan.actions().filter_map(Action::op).map(|op| &op.verb).next() else {
            panic!("{plan}")
        };
        let mut map: ConfigMap = serde_json::from_value(object.clone()).unwrap();
        assert!(reconcile(&namespace, Some(&map), "PEM").is_empty());
        map.data.as_mut().unwrap().insert("more".into(), "x".into());
        assert_eq!(reconcile(&namespace, Some(&map), "PEM").steps.len(), 1);
    }
}
