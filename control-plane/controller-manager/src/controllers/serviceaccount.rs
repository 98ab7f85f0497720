//! serviceaccount-controller: every namespace that lives has a service account `default`. Keys are namespaces.

use client::{Delta, Key, Plan, WorkQueue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::namespace::is_terminating;
use crate::common::acts;
use crate::runner::Work;
use crate::setup::Setup;

const DEFAULT: &str = "default";
const WORKERS: usize = 1;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let namespaces = setup.queue_own::<Namespace>(&queue);
    let again = queue.clone();
    let accounts = setup.on(move |delta: &Delta<ServiceAccount>| {
        if let Delta::Deleted(gone) = delta
            && gone.metadata.name.as_deref() == Some(DEFAULT)
        {
            again.add(Key::new("", gone.metadata.namespace.clone().unwrap_or_default()));
        }
    });
    let executor = setup.executor("serviceaccount-controller");
    let automount = setup.config.default_accounts_without_tokens.then_some(false);
    setup.run(Work::new(&queue, executor, WORKERS, move |key, _| {
        let Some(namespace) = namespaces.get(key) else { return Plan::default() };
        reconcile(&namespace, accounts.get_in(&key.name, DEFAULT).is_some(), automount)
    }));
}

fn reconcile(namespace: &Namespace, exists: bool, automount: Option<bool>) -> Plan {
    let mut plan = Plan::default();
    if !exists && !is_terminating(namespace) {
        plan.push(acts::create(&ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT.into()),
                namespace: namespace.metadata.name.clone(),
                ..ObjectMeta::default()
            },
            automount_service_account_token: automount,
            ..ServiceAccount::default()
        }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_namespace_gets_its_account_once() {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("a".into());
        assert_eq!(reconcile(&namespace, false, None).steps.len(), 1);
        assert!(reconcile(&namespace, true, None).is_empty());
        let hardened = format!("{:?}", reconcile(&namespace, false, Some(false)));
        assert!(hardened.contains("\"automountServiceAccountToken\": Bool(false)"), "{hardened}");
        namespace.status.get_or_insert_default().phase = Some("Terminating".into());
        assert!(reconcile(&namespace, false, None).is_empty());
    }
}
