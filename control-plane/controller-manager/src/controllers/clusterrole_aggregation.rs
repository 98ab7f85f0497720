//! clusterrole-aggregation-controller: cluster roles with an aggregation rule have the rules of all roles that it
//! selects. `admin`, `edit` and `view` are made so. Keys are cluster roles.

use std::sync::Arc;

use client::{Delta, Key, Plan, WorkQueue};
use facts::labels::{self, Selector};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};

use crate::common::{acts, template};
use crate::runner::Work;
use crate::setup::Setup;

const WORKERS: usize = 5;
/// Index of the roles with an aggregation rule.
const AGGREGATED: &str = "aggregated";

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let again = queue.clone();
    setup.index::<ClusterRole>(AGGREGATED, |role| role.aggregation_rule.iter().map(|_| String::new()).collect());
    let roles = setup.watch::<ClusterRole>();
    let all = roles.clone();
    setup.on(move |delta: &Delta<ClusterRole>| {
        let concerned = all.by(AGGREGATED, "").into_iter().filter(|role| concerns(delta, role));
        concerned.for_each(|r| again.add(Key::of(r.as_ref())));
    });
    let executor = setup.executor("clusterrole-aggregation-controller");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, _| {
        roles.get(key).map(|role| reconcile(&role, &roles.list())).unwrap_or_default()
    }));
}

/// Whether an aggregated role may have other rules because of a change: the changed role is itself, or one that it
/// selects or did. Of the roles that a cluster has, hardly any is.
fn concerns(delta: &Delta<ClusterRole>, role: &ClusterRole) -> bool {
    let before = match delta {
        Delta::Updated { old, .. } => Some(old),
        Delta::Added(_) | Delta::Deleted(_) => None,
    };
    let mut states = before.into_iter().chain([delta.object()]);
    let rule = role.aggregation_rule.as_ref();
    let selectors: Vec<Selector> = rule
        .and_then(|rule| rule.cluster_role_selectors.as_ref())
        .into_iter()
        .flatten()
        .map(labels::selector)
        .collect();
    states.any(|changed| {
        let labels = changed.metadata.labels.as_ref();
        changed.metadata.name == role.metadata.name || selectors.iter().any(|selector| selector.matches(&labels))
    })
}

/// `all`: every cluster role, by name.
fn reconcile(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Plan {
    let mut plan = Plan::default();
    let Some(aggregation) = &role.aggregation_rule else { return plan };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten().map(labels::selector) {
        let selected = all.iter().filter(|r| r.metadata.name != role.metadata.name);
        for found in selected.filter(|r| selector.matches(&r.metadata.labels)) {
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
    use serde_json::json;
    use testkit::model::{World, from};

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

    #[test]
    fn a_role_that_nobody_selects_wakes_no_aggregated_role() {
        let labelled = |name: &str, label: &str| {
            let role = json!({"metadata": {"name": name, "labels": {label: "true"}}});
            Arc::new(from::<ClusterRole>(role))
        };
        let view = from::<ClusterRole>(json!({"metadata": {"name": "view"}, "aggregationRule": {
            "clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]}}));
        assert!(!concerns(&Delta::Added(labelled("a", "other")), &view));
        assert!(concerns(&Delta::Deleted(labelled("a", "to-view")), &view));
        let (old, new) = (labelled("a", "to-view"), labelled("a", "other"));
        assert!(concerns(&Delta::Updated { old, new }, &view), "it was selected before");
        assert!(concerns(&Delta::Added(Arc::new(view.clone())), &view));
    }
}
