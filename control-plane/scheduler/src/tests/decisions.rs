//! Where pods go, plugin by plugin, and the words when they go nowhere.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::{asking, cluster, decide, node, pod};
use crate::plugins::PLUGINS;
use crate::preemption::{Preemption, preempt};
use crate::schedule::{Decision, schedule};

#[test]
fn no_node_says_so() {
    assert_eq!(decide(&cluster(&[]), &pod("p", json!({}))), "no nodes available to schedule pods");
}

#[test]
fn the_emptier_node_is_taken_and_reasons_are_counted() {
    let mut nodes = cluster(&[node("a", json!({})), node("b", json!({}))]);
    nodes.place(asking("big", "3"), "a");
    assert_eq!(decide(&nodes, &asking("p", "1")), "b");
    assert_eq!(decide(&nodes, &asking("p", "5")), "0/2 nodes are available: 2 Insufficient cpu.");
}

#[test]
fn taints_cordons_and_selectors_keep_pods_away() {
    let tainted = json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}});
    let nodes =
        cluster(&[node("a", tainted), node("b", json!({"spec": {"unschedulable": true}})), node("c", json!({}))]);
    let picky = pod("p", json!({"spec": {"nodeSelector": {"disk": "ssd"}}}));
    assert_eq!(
        decide(&nodes, &picky),
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
         1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable."
    );
    let tolerant =
        json!({"spec": {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "b"}}});
    assert_eq!(decide(&nodes, &pod("p", tolerant)), "b");
}

#[test]
fn host_ports_conflict_across_addresses_only_when_they_meet() {
    let port = |ip: &str| json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]}});
    let mut nodes = cluster(&[node("a", json!({}))]);
    nodes.place(pod("one", port("10.0.0.1")), "a");
    assert_eq!(decide(&nodes, &pod("two", port("10.0.0.2"))), "a");
    assert!(decide(&nodes, &pod("two", port("0.0.0.0"))).contains("didn't have free ports"));
}

#[test]
fn required_anti_affinity_works_both_ways() {
    let apart = json!({"metadata": {"labels": {"app": "db"}}, "spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}]}}}});
    let mut nodes = cluster(&[node("a", json!({})), node("b", json!({}))]);
    nodes.place(pod("db-0", apart.clone()), "a");
    assert_eq!(decide(&nodes, &pod("db-1", apart)), "b");
    let plain = pod("other", json!({"metadata": {"labels": {"app": "db"}}}));
    assert_eq!(decide(&nodes, &plain), "b", "the running pod wants to be alone");
}

#[test]
fn the_first_of_a_group_may_start_anywhere() {
    let together = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}]}}}});
    let mut nodes = cluster(&[node("a", json!({})), node("b", json!({}))]);
    let first = decide(&nodes, &pod("web-0", together.clone()));
    nodes.place(pod("web-0", together.clone()), &first);
    nodes.place(asking("filler", "3"), &first);
    assert_eq!(decide(&nodes, &pod("web-1", together)), first);
}

#[test]
fn a_hard_spread_keeps_the_skew() {
    let spread = json!({"metadata": {"labels": {"app": "w"}}, "spec": {"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "w"}}}]}});
    let zone = |z: &str| json!({"metadata": {"labels": {"zone": z}}});
    let mut nodes = cluster(&[node("a", zone("1")), node("b", zone("2"))]);
    nodes.place(pod("w-0", spread.clone()), "a");
    assert_eq!(decide(&nodes, &pod("w-1", spread)), "b");
}

#[test]
fn a_soft_spread_prefers_the_emptier_zone_and_nodes_that_have_one() {
    let spread = json!({"metadata": {"labels": {"app": "w"}}, "spec": {"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "w"}}}]}});
    let zone = |z: &str| json!({"metadata": {"labels": {"zone": z}}});
    let mut nodes = cluster(&[node("a", zone("1")), node("b", zone("2")), node("none", json!({}))]);
    nodes.place(pod("w-0", spread.clone()), "a");
    assert_eq!(decide(&nodes, &pod("w-1", spread)), "b");
}

#[test]
fn pods_of_one_controller_or_service_spread_by_themselves() {
    let web = |name: &str, owned: bool| {
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1", "controller": true}]);
        let owner = if owned { owner } else { json!([]) };
        let labels = json!({"app": "web"});
        pod(name, json!({"metadata": {"labels": labels, "ownerReferences": owner}}))
    };
    // The other pods make host a the emptier one: only the group speaks for b.
    let mut nodes = cluster(&[node("a", json!({})), node("b", json!({}))]);
    nodes.place(web("web-0", true), "a");
    nodes.place(asking("other", "1"), "b");
    assert_eq!(decide(&nodes, &web("web-1", true)), "a", "without a group nothing spreads");

    let set: ReplicaSet = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}}}))
    .expect("a replica set");
    nodes.groups.set(&set.metadata, &set);
    assert_eq!(decide(&nodes, &web("web-1", true)), "b");
    assert_eq!(decide(&nodes, &web("stranger", false)), "a");
    nodes.groups.remove::<ReplicaSet>(&set.metadata);

    let service: Service = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}}}))
    .expect("a service");
    nodes.groups.set(&service.metadata, &service);
    assert_eq!(decide(&nodes, &web("stranger", false)), "b");
}

#[test]
fn preemption_takes_the_least_important_and_no_more_than_needed() {
    let priority = |name: &str, cpu: &str, priority: i32| {
        pod(
            name,
            json!({"spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}),
        )
    };
    let mut nodes = cluster(&[node("a", json!({})), node("b", json!({}))]);
    nodes.place(priority("a-low", "3", 1), "a");
    nodes.place(priority("b-high", "2", 5), "b");
    nodes.place(priority("b-low", "2", 1), "b");
    let urgent = priority("urgent", "2", 10);
    let Decision::Unschedulable(error) = schedule(&urgent, &nodes, 0, 1) else { panic!("it must not fit") };
    let Preemption::Nominate(nomination) = preempt(PLUGINS, &urgent, &nodes, &error, &[]) else {
        panic!("it may preempt")
    };
    assert_eq!(nomination.victims.len(), 1);
    assert_eq!(nomination.victims[0].priority, 1);
    let meek = priority("meek", "2", 0);
    let Decision::Unschedulable(error) = schedule(&meek, &nodes, 0, 1) else { panic!("it must not fit") };
    let Preemption::Pointless(why) = preempt(PLUGINS, &meek, &nodes, &error, &[]) else { panic!("nobody is lower") };
    assert_eq!(why, "0/2 nodes are available: 2 No preemption victims found for incoming pod.");
}

#[test]
fn room_made_for_a_pod_is_not_taken_by_a_lesser_one() {
    let priority = |name: &str, priority: i32| {
        let cpu = json!([{"name": "c", "resources": {"requests": {"cpu": "3"}}}]);
        pod(name, json!({"spec": {"priority": priority, "containers": cpu}}))
    };
    let mut nodes = cluster(&[node("a", json!({}))]);
    nodes.nominate(priority("urgent", 10), "a");
    assert_eq!(decide(&nodes, &priority("meek", 0)), "0/1 nodes are available: 1 Insufficient cpu.");
    assert_eq!(decide(&nodes, &priority("greater", 11)), "a");
    assert_eq!(decide(&nodes, &priority("urgent", 10)), "a");
    nodes.withdraw("urgent");
    assert_eq!(decide(&nodes, &priority("meek", 0)), "a");
}

#[test]
fn nobody_else_is_preempted_while_the_victims_still_leave() {
    let with = |name: &str, priority: i32, leaving: bool| {
        let cpu = json!([{"name": "c", "resources": {"requests": {"cpu": "3"}}}]);
        let stamp = if leaving { json!("2026-01-01T00:00:00Z") } else { json!(null) };
        pod(name, json!({"metadata": {"deletionTimestamp": stamp}, "spec": {"priority": priority, "containers": cpu}}))
    };
    let mut nodes = cluster(&[node("a", json!({})), node("b", json!({}))]);
    nodes.place(with("leaving", 1, true), "a");
    nodes.place(with("bystander", 1, false), "b");
    let urgent = with("urgent", 10, false);
    nodes.nominate(urgent.clone(), "a");
    let Decision::Unschedulable(error) = schedule(&urgent, &nodes, 0, 1) else { panic!("it must not fit yet") };
    let Preemption::Pointless(why) = preempt(PLUGINS, &urgent, &nodes, &error, &[]) else { panic!("a second victim") };
    assert_eq!(why, "not eligible due to a terminating pod on the nominated node.");
}

/// A container that asks for 0 means it; one that says nothing counts as a little in scoring, as upstream's.
#[test]
fn a_request_of_nothing_is_not_a_missing_one() {
    assert_eq!(asking("p", "0").scored.milli_cpu, 0);
    assert_eq!(pod("p", json!({})).scored.milli_cpu, 100);
    assert_eq!(asking("p", "0").scored.memory, 200 << 20);
}
