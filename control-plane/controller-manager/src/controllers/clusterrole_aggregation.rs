//! clusterrole-aggregation-controller: cluster roles with an aggregation rule have the rules of all roles that it
//! selects. `admin`, `edit` and `view` are made so. Keys are cluster roles.

use std::sync::Arc;

use client::{Delta, Key, Plan, WorkQueue};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};

use crate::common::select::Selector;
use crate::common::{acts, template};
use crate::runner::Work;
use crate::setup::Setup;

const WORKERS: usize = 5;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let again = queue.clone();
    let roles = setup.watch::<ClusterRole>();
    let all = roles.clone();
    setup.on(move |_: &Delta<ClusterRole>| {
        let aggregated = all.list().into_iter().filter(|r| r.aggregation_rule.is_some());
        aggregated.for_each(|r| again.add(Key::of(r.as_ref())));
    });
    let executor = setup.executor("clusterrole-aggregation-controller");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, _| {
        roles.get(key).map(|role| reconcile(&role, &roles.list())).unwrap_or_default()
    }));
}

/// `all`: every cluster role, by name.
fn reconcile(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Plan {
    let mut plan = Plan::default();
    let Some(aggregation) = &role.aggregation_rule else { return plan };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten().map(Selector::of) {
        let selected = all.iter().filter(|r| r.metadata.name != role.metadata.name);
        for found in selected.filter(|r| selector.matches(r.metadata.labels.as_ref())) {
            for rule in found.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    let rules = Some(rules);
    if !template::equal(&rules, &role.rules) {
        plan.push(acts::update(&ClusterRole { rules, ..role.clone() }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model::{World, from};
    use serde_json::json;

    #[test]
    fn an_aggregated_role_has_the_rules_of_those_it_selects() {
        let mut world = World::default();
        let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
        let part = |name: &str, rules: serde_json::Value| -> ClusterRole {
            from(json!({"metadata": {"name": name, "labels": {"to": "view"}}, "rules": rules}))
        };
        world.put(&from::<ClusterRole>(json!({
            "metadata": {"name": "view", "labels": {"to": "view"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]}
        })));
        world.put(&part("b", json!([rule("pods"), rule("nodes")])));
        world.put(&part("a", json!([rule("pods")])));
        world.settle(|w| reconcile(&w.get::<ClusterRole>("", "view").unwrap(), &w.list()));
        let rules = world.get::<ClusterRole>("", "view").unwrap().rules.clone().unwrap();
        let resources: Vec<String> = rules.iter().map(|r| r.resources.clone().unwrap()[0].clone()).collect();
        assert_eq!(resources, ["pods", "nodes"], "once each, by name of the role");
    }
}
