//! Rounds of the chain, with plugins of the tests' own, and that built-in plugins bear a second one.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::super::configuration::Configuration;
use super::super::fake::{Fake, asked};
use super::super::{ADMISSION, Plugin};
use super::*;
use crate::cache::hub::Hub;
use crate::storage::memory::MemoryStore;

/// Writes its name to the end of `asked`, and does to the object what users tell it to.
struct Scribe {
    name: &'static str,
    reinvocation: Reinvocation,
    /// How often it may add to `added`; `None` for a built-in plugin.
    adds: Option<usize>,
}

impl Plugin for Scribe {
    fn handles(&self, _request: &Request<'_>) -> bool {
        true
    }
}

#[async_trait]
impl Mutating for Scribe {
    async fn admit(&self, request: &mut Request<'_>, _world: &dyn World) -> Result<(), Status> {
        // Beside the object, so that only what users asked for changes it.
        request.warn(format!("{} sees {}", self.name, request.object["added"]));
        if let Some(most) = self.adds
            && let Some(added) = request.object["added"].as_u64().filter(|added| *added < most as u64)
        {
            request.object["added"] = (added + 1).into();
        }
        Ok(())
    }

    fn reinvocation(&self) -> Reinvocation {
        self.reinvocation
    }

    fn surprises(&self) -> bool {
        self.adds.is_some()
    }
}

fn link(name: &'static str, reinvocation: Reinvocation, adds: Option<usize>) -> Link<dyn Mutating> {
    Link { name, plugin: Arc::new(Scribe { name, reinvocation, adds }) }
}

fn seconds() -> Family<Histogram, 4> {
    telemetry::Registry::default().histogram("s", "", ["name", "operation", "rejected", "type"], &[1.0])
}

/// Who saw what, in a chain whose users' rules add so often.
async fn seen(adds: usize) -> Vec<String> {
    use Reinvocation::{IfNeeded, Never};
    let chain = Chain {
        mutating: vec![
            link("early", IfNeeded, None),
            link("once", Never, None),
            link("rules", IfNeeded, Some(adds)),
            link("late", IfNeeded, None),
        ],
        allocating: vec![link("allocates", IfNeeded, None)],
        validating: Vec::new(),
        seconds: seconds(),
    };
    let world = Fake::default();
    let mut object = json!({"added": 0});
    let mut request = world.request(asked(Operation::Create, "/v1/pods", "p"), &mut object, None);
    chain.admit(&mut request, &world).await.unwrap();
    world.warnings.texts()
}

#[tokio::test]
async fn nobody_is_asked_twice_when_rules_of_users_change_nothing() {
    assert_eq!(seen(0).await, ["early sees 0", "once sees 0", "rules sees 0", "late sees 0", "allocates sees 0"]);
}

#[tokio::test]
async fn what_rules_of_users_change_is_seen_by_those_who_were_asked_before() {
    let first = ["early sees 0", "once sees 0", "rules sees 0", "late sees 1"];
    // What "rules" and "late" see in the second round they have seen already, or said already.
    let again = ["early sees 1", "rules sees 1", "allocates sees 1"];
    assert_eq!(seen(1).await, [&first[..], &again[..]].concat());
}

#[tokio::test]
async fn rules_that_never_agree_end_with_the_second_round() {
    let seen = seen(usize::MAX).await;
    assert_eq!(seen.last().map(String::as_str), Some("allocates sees 2"), "{seen:?}");
}

fn chain(config: &Config) -> Chain {
    let hub = Hub::new(Arc::new(MemoryStore::default()), Bytes::from_static(b"/registry/"));
    let configuration = Configuration::default();
    Chain::new(ADMISSION, &Parts { config, configuration: &configuration, hub: &hub }, seconds()).unwrap()
}

#[test]
fn a_flag_that_turns_off_is_stronger_than_one_that_turns_on() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let config = Config {
        enable_admission_plugins: names(&["AlwaysPullImages", "NodeRestriction"]),
        disable_admission_plugins: names(&["NodeRestriction", "Priority"]),
        ..Config::default()
    };
    let chain = chain(&config);
    let on = |name: &str| chain.mutating.iter().any(|link| link.name == name);
    let got = ["AlwaysPullImages", "NodeRestriction", "Priority", "LimitRanger"].map(on);
    assert_eq!(got, [true, false, false, true]);
    assert!(chain.validating.iter().any(|link| link.name == "AlwaysPullImages"), "it has two halves");
}

/// A namespace where every default is set.
fn furnished() -> Fake {
    let default = |key: &str| json!({"name": "d", "annotations": {key: "true"}});
    Fake::default()
        .with("", "namespaces", &json!({"metadata": {"name": "ns"}}))
        .with("", "serviceaccounts", &json!({"metadata": {"namespace": "ns", "name": "default"}}))
        .with(
            "",
            "limitranges",
            &json!({"metadata": {"namespace": "ns", "name": "l"}, "spec": {"limits":
            [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}}]}}),
        )
        .with(
            "scheduling.k8s.io",
            "priorityclasses",
            &json!({"metadata": {"name": "c"}, "value": 7, "globalDefault": true}),
        )
        .with(
            "node.k8s.io",
            "runtimeclasses",
            &json!({"metadata": {"name": "r"}, "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "x", "operator": "Exists"}]}}),
        )
        .with(
            "storage.k8s.io",
            "storageclasses",
            &json!({"metadata": default("storageclass.kubernetes.io/is-default-class")}),
        )
        .with(
            "networking.k8s.io",
            "ingressclasses",
            &json!({"metadata": default("ingressclass.kubernetes.io/is-default-class")}),
        )
}

#[tokio::test]
async fn a_second_round_of_the_built_in_plugins_changes_nothing() {
    let config = Config { enable_admission_plugins: vec!["AlwaysPullImages".to_owned()], ..Config::default() };
    let chain = chain(&config);
    let world = furnished();
    let pod = json!({"metadata": {"name": "o"}, "spec": {"runtimeClassName": "r", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "image": {"reference": "i"}}]}});
    let plain = json!({"metadata": {"name": "o"}, "spec": {}});
    let cases: [(&str, &Value, &str); 5] = [
        ("/v1/pods", &pod, "/spec/tolerations/2"),
        ("/v1/nodes", &plain, "/spec/taints/0"),
        ("/v1/persistentvolumeclaims", &plain, "/spec/storageClassName"),
        ("/v1/persistentvolumes", &plain, "/metadata/finalizers/0"),
        ("networking.k8s.io/v1/ingresses", &plain, "/spec/ingressClassName"),
    ];
    for (resource, given, filled) in cases {
        let mut object = given.clone();
        let what = asked(Operation::Create, resource, "o");
        for _ in 0..2 {
            let before = object.clone();
            let mut request = world.request(what, &mut object, None);
            chain.admit(&mut request, &world).await.unwrap();
            assert!(before == *given || before == object, "{resource}: {before} became {object}");
        }
        assert!(object.pointer(filled).is_some(), "{resource}: {object}");
    }
}

#[test]
fn every_row_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<&str> = ADMISSION.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), ADMISSION.len());
}
