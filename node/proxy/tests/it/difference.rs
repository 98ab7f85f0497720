//! A difference applied to a whole gives the other whole: in the model, and in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use linux::netns::NetNs;
use linux::nft::{ElementInfo, Family, Nft};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proxy::{Applier, Config, Model, Node, Ruleset, Settings, Slot, Transaction, Value, diff, render, render_service};
use serde_json::json;

use crate::objects::{service, slice};

type Cluster = (Vec<Arc<Service>>, Vec<Arc<EndpointSlice>>);

/// A few Services of all sorts, some of which want the same external address or another's cluster address, and some
/// of which are older.
fn cluster() -> impl Strategy<Value = Cluster> {
    let one = (0..6u8, 0..5u8, 0..3u8, any::<[bool; 7]>());
    proptest::collection::vec(one, 0..8).prop_map(|parts| {
        let mut services = BTreeMap::new();
        for (id, endpoints, external, [local, internal, sticky, udp, v6, greedy, old]) in parts {
            let name = format!("s{id}");
            let policy = |local| if local { "Local" } else { "Cluster" };
            let mut extra = json!({
                "externalTrafficPolicy": policy(local), "internalTrafficPolicy": policy(internal),
                "sessionAffinity": if sticky { "ClientIP" } else { "None" },
                "externalIPs": (0..external).map(|i| format!("203.0.113.{i}")).collect::<Vec<_>>(),
                "created": if old { "2020-01-01T00:00:00Z" } else { "2024-01-01T00:00:00Z" },
            });
            if greedy {
                extra["externalIPs"] = json!(["203.0.113.0", "10.43.0.0", "10.43.0.1"]);
                let balanced = json!([{"ip": "203.0.113.1"}, {"ip": "10.43.0.2"}]);
                extra["type"] = json!("LoadBalancer");
                extra["loadBalancerSourceRanges"] = json!(["198.51.100.0/24"]);
                extra["status"] = json!({"loadBalancer": {"ingress": balanced}});
            }
            if v6 {
                extra["clusterIPs"] = json!([format!("fd43::{id}")]);
            }
            let protocol = if udp { "UDP" } else { "TCP" };
            let object = service(&name, &format!("10.43.0.{id}"), &[(protocol, 80, 30000 + u16::from(id))], extra);
            let addresses: Vec<_> = (0..endpoints)
                .map(|i| if v6 { format!("fd42::{id}:{i}") } else { format!("10.42.{id}.{i}") })
                .collect();
            let ends: Vec<_> = addresses
                .iter()
                .enumerate()
                .map(|(i, a)| (a.as_str(), if i % 2 == 0 { "here" } else { "there" }, "ready"))
                .collect();
            services.insert(name.clone(), (object, slice(&name, &[(protocol, 80, 8080)], &ends)));
        }
        services.into_values().unzip()
    })
}

fn settings() -> Settings {
    Settings { node: Node { name: "here".into(), ..Node::default() }, ..Settings::default() }
}

/// Goes from one cluster to the other one Service at a time; the transactions come back.
fn step_by_step(model: &mut Model, to: &Cluster) -> Vec<Transaction> {
    let mut steps = Vec::new();
    let gone: Vec<_> = model.names().cloned().collect();
    for name in gone {
        if !to.0.iter().any(|s| *name == *format!("default/{}", s.metadata.name.as_deref().unwrap())) {
            steps.push(model.remove(&name).transaction);
        }
    }
    for (service, slice) in to.0.iter().zip(&to.1) {
        let name: proxy::Name = format!("default/{}", service.metadata.name.as_deref().unwrap()).into();
        let rendered = render_service(service, &[slice], &settings(), model.rendered(&name));
        steps.push(model.set(&name, rendered).transaction);
    }
    steps
}

/// The transaction on paper: removing must find, adding must not.
fn on_paper(ruleset: &mut Ruleset, t: &Transaction) {
    for slot in &t.remove {
        assert!(ruleset.remove(slot).is_some(), "{slot:?} was not there");
    }
    for (slot, value, _) in &t.add {
        assert_eq!(ruleset.insert(*slot, value.clone()), None, "{slot:?} was there");
    }
}

/// The ways in: unlike endpoints, these have no numbers that depend on what was before.
fn ways(ruleset: &Ruleset) -> BTreeMap<Slot, Value> {
    let is_way = |slot: &Slot| !matches!(slot, Slot::Endpoint(..) | Slot::Sticky(..));
    ruleset.iter().filter(|(slot, _)| is_way(slot)).map(|(slot, value)| (*slot, value.clone())).collect()
}

/// Everything in our tables: elements of each map, rules of each chain.
fn contents(ns: &NetNs) -> BTreeMap<String, Vec<String>> {
    let mut nft = Nft::open_in(ns).unwrap();
    let mut all = BTreeMap::new();
    for family in [Family::Ip, Family::Ip6] {
        for set in nft.sets(family, "kube-proxy").unwrap() {
            let elements = nft.elements(family, "kube-proxy", &set).unwrap();
            let text = |e: ElementInfo| format!("{:?} {:?} {}", e.key, e.data, e.interval_end);
            all.insert(format!("{family:?} set {set}"), elements.into_iter().map(text).collect());
        }
        for chain in nft.chains().unwrap().into_iter().filter(|c| c.family == family) {
            all.insert(format!("{family:?} chain {}", chain.name), Vec::new());
        }
        for rule in nft.rules(family, "kube-proxy").unwrap() {
            all.get_mut(&format!("{family:?} chain {}", rule.chain)).unwrap().push(format!("{:?}", rule.exprs));
        }
    }
    all
}

fn whole(cluster: &Cluster) -> Transaction {
    diff(&Ruleset::default(), &render(&cluster.0, &cluster.1, &settings()))
}

#[test]
fn on_paper_steps_and_differences_arrive_at_the_whole() {
    let mut runner = TestRunner::deterministic();
    runner
        .run(&(cluster(), cluster()), |(a, b)| {
            let (old, new) = (render(&a.0, &a.1, &settings()), render(&b.0, &b.1, &settings()));
            let mut paper = old.clone();
            on_paper(&mut paper, &diff(&old, &new));
            prop_assert_eq!(&paper, &new);

            let mut model = Model::default();
            let mut paper = Ruleset::default();
            for t in step_by_step(&mut model, &a).iter().chain(&step_by_step(&mut model, &b)) {
                on_paper(&mut paper, t);
            }
            prop_assert_eq!(&paper, &model.ruleset());
            prop_assert_eq!(ways(&paper), ways(&new), "who has a place doesn't depend on who came first");
            let mut again = Ruleset::default();
            on_paper(&mut again, &model.whole());
            prop_assert_eq!(&paper, &again);
            prop_assert_eq!(chains_after_all_at_once(&a, &b), model.whole().new_chains.into_iter().collect());
            Ok(())
        })
        .unwrap();
}

/// Takes a cluster at once and goes on one Service at a time: elements fit, and each chain is made once and removed once.
/// The chains that are left.
fn chains_after_all_at_once(from: &Cluster, to: &Cluster) -> BTreeSet<(bool, proxy::Chain)> {
    let mut model = Model::default();
    let rendered = from.0.iter().zip(&from.1).map(|(service, slice)| {
        let name: proxy::Name = format!("default/{}", service.metadata.name.as_deref().unwrap()).into();
        (name, render_service(service, &[slice], &settings(), None))
    });
    model.set_all(rendered);
    let mut paper = Ruleset::default();
    let mut chains = BTreeSet::new();
    for t in std::iter::once(model.whole()).chain(step_by_step(&mut model, to)) {
        on_paper(&mut paper, &t);
        for chain in t.new_chains {
            assert!(chains.insert(chain.clone()), "{chain:?} was there");
        }
        for chain in t.dead_chains {
            assert!(chains.remove(&chain), "{chain:?} was not there");
        }
    }
    assert_eq!(paper, model.ruleset());
    chains
}

#[test]
fn in_the_kernel_a_difference_gives_what_starting_afresh_gives() {
    let config = proptest::test_runner::Config { cases: 24, failure_persistence: None, ..Default::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let (changed, fresh) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let open = |ns: &NetNs| ns.run(|| Applier::open(Config::default(), Vec::new())).unwrap().unwrap();
    runner
        .run(&(cluster(), cluster()), |(a, b)| {
            let (old, new) = (render(&a.0, &a.1, &settings()), render(&b.0, &b.1, &settings()));
            let (mut one, mut other) = (open(&changed), open(&fresh));
            one.replace(&whole(&a)).unwrap();
            one.apply([&diff(&old, &new)]).unwrap();
            other.replace(&whole(&b)).unwrap();
            prop_assert_eq!(contents(&changed), contents(&fresh));
            Ok(())
        })
        .unwrap();
}

#[test]
fn one_endpoint_is_a_handful_of_elements_however_many_there_are() {
    let addresses: Vec<_> = (0..200).map(|i| format!("10.42.1.{i}")).collect();
    let ends: Vec<_> = addresses.iter().map(|a| (a.as_str(), "there", "ready")).collect();
    let web = service("web", "10.43.0.9", &[("TCP", 80, 0)], json!({}));
    let mut model = Model::default();
    let name: proxy::Name = "default/web".into();
    let mut set = |ends: &[(&str, &str, &str)]| {
        let slice = slice("web", &[("TCP", 80, 8080)], ends);
        let rendered = render_service(&web, &[&slice], &settings(), model.rendered(&name));
        model.set(&name, rendered).transaction
    };
    set(&ends);
    let t = set(&ends[1..]);
    assert!(t.remove.len() <= 3 && t.add.len() <= 2, "{} removed, {} added", t.remove.len(), t.add.len());
    let t = set(&ends);
    assert!(t.remove.len() <= 1 && t.add.len() <= 2, "{} removed, {} added", t.remove.len(), t.add.len());
}
