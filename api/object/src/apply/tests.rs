//! Ownership against steps recorded from upstream 1.37, and laws that hold for every object.

use super::*;
use crate::merge_patch;
use kinds::definitions;
use serde_json::json;

/// One step a line: a write by a manager, what the live object was (as a merge patch over the previous step's result),
/// and what came of it: the object and the owners (again as merge patches), or the error.
const UPSTREAM: &str = include_str!("upstream.json");

const NOW: &str = "2026-01-01T00:00:00Z";

struct Kind {
    gvk: Gvk,
    schema: schema::SchemaRef,
    reset: Set,
    status_reset: Set,
}

fn kind(name: &str) -> Kind {
    let (gvk, definition) = match name {
        "Deployment" => (Gvk::new("apps", "v1", "Deployment"), "apps.v1.Deployment"),
        "Service" => (Gvk::new("", "v1", "Service"), "core.v1.Service"),
        "ConfigMap" => (Gvk::new("", "v1", "ConfigMap"), "core.v1.ConfigMap"),
        _ => (Gvk::new("", "v1", "Pod"), "core.v1.Pod"),
    };
    let schema = definitions::by_name(definition).expect("definition");
    let status_reset = match name {
        "Deployment" => Set::of_paths(&[&["spec"], &["metadata", "labels"]]),
        "Pod" => Set::of_paths(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]),
        _ => Set::of_paths(&[&["spec"]]),
    };
    Kind { gvk, schema, reset: Set::of_paths(&[&["status"]]), status_reset }
}

/// Entries as an object keyed by who they are, without times.
fn owners(object: &Value) -> Value {
    let entries = managed::decode(path::get(object, &MANAGED)).expect("entries");
    let keyed = entries.into_iter().map(|e| {
        let id = format!("{}|{:?}|{}|{}", e.manager, e.operation, e.api_version, e.subresource);
        (id, e.fields.into_value())
    });
    Value::Object(keyed.collect())
}

fn with_owners(mut object: Value, owners: &Value) -> Value {
    let entries = owners.as_object().expect("owners").iter().map(|(id, fields)| {
        let parts: Vec<&str> = id.split('|').collect();
        // Managers u0, u1, ... wrote in this order.
        let second = parts[0].strip_prefix('u').and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        let time = format!("2025-01-01T00:00:{second:02}Z");
        json!({"manager": parts[0], "operation": parts[1], "apiVersion": parts[2], "subresource": parts[3], "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    });
    let entries: Vec<Value> = entries.collect();
    if !entries.is_empty() {
        path::set(&mut object, &MANAGED, entries);
    }
    object
}

/// What the server adds between apply and the stored object: defaults and counters, which are not apply's business.
fn without_defaults(value: &Value) -> Value {
    const DEFAULTED: [&str; 23] = [
        "replicas",
        "managedFields",
        "generation",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "imagePullPolicy",
        "protocol",
        "restartPolicy",
        "dnsPolicy",
        "schedulerName",
        "terminationGracePeriodSeconds",
        "progressDeadlineSeconds",
        "revisionHistoryLimit",
        "strategy",
        "targetPort",
        "sessionAffinity",
        "type",
        "clusterIP",
        "clusterIPs",
        "internalTrafficPolicy",
        "ipFamilies",
        "ipFamilyPolicy",
        "status",
    ];
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(k, v)| !DEFAULTED.contains(&k.as_str()) && !v.is_null());
            let kept = kept.map(|(k, v)| (k.clone(), without_defaults(v)));
            Value::Object(kept.filter(|(_, v)| *v != json!({}) && *v != json!([])).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_defaults).collect()),
        other => other.clone(),
    }
}

struct Replay {
    object: Value,
    owners: Value,
}

impl Replay {
    fn step(&mut self, step: &Value) {
        let create = step.get("live").is_some_and(Value::is_null);
        if create {
            (self.object, self.owners) = (json!({}), json!({}));
        } else {
            merge_patch::merge(&mut self.object, step.get("live").cloned().unwrap_or(json!({})));
            merge_patch::merge(&mut self.owners, step.get("liveManaged").cloned().unwrap_or(json!({})));
        }
        let live = with_owners(self.object.clone(), &self.owners);
        let live = (!create).then_some(&live);
        let mut wanted = self.object.clone();
        merge_patch::merge(&mut wanted, step.get("object").cloned().unwrap_or(json!({})));
        let mut wanted_owners = self.owners.clone();
        merge_patch::merge(&mut wanted_owners, step.get("managed").cloned().unwrap_or(json!({})));
        match step["op"].as_str() {
            Some("update") => Replay::update(step, live, &wanted, &wanted_owners),
            _ => Replay::apply(step, live, &wanted, &wanted_owners),
        }
        (self.object, self.owners) = (wanted, wanted_owners);
    }

    fn write<'a>(step: &'a Value, kind: &'a Kind) -> Write<'a> {
        let subresource = step.get("subresource").and_then(Value::as_str).unwrap_or_default();
        let reset = if subresource == "status" { &kind.status_reset } else { &kind.reset };
        let manager = step["manager"].as_str().expect("manager");
        Write { manager, subresource, gvk: &kind.gvk, schema: &kind.schema, reset, now: NOW }
    }

    fn update(step: &Value, live: Option<&Value>, wanted: &Value, wanted_owners: &Value) {
        let kind = kind(step["kind"].as_str().expect("kind"));
        let mut new = wanted.clone();
        if step["manager"] == "cl" && wanted_owners == &json!({}) {
            path::set(&mut new, &MANAGED, json!([{}]));
        }
        if live.is_none() {
            // Admission sets these after the write is tracked.
            for field in ["priority", "preemptionPolicy", "tolerations"].iter().filter(|_| step["kind"] == "Pod") {
                path::remove(&mut new, &["spec", field]);
            }
        }
        update(live, &mut new, &Replay::write(step, &kind));
        assert_eq!(owners(&new), *wanted_owners, "{step}");
    }

    fn apply(step: &Value, live: Option<&Value>, wanted: &Value, wanted_owners: &Value) {
        let kind = kind(step["kind"].as_str().expect("kind"));
        let force = step.get("force").is_some();
        let result = apply(live, &step["config"], &Replay::write(step, &kind), force);
        match (result, step.get("error")) {
            (Ok(applied), None) => {
                assert_eq!(owners(&applied.object), *wanted_owners, "{step}");
                // What a subresource resets is put back by the registry, after apply.
                if step.get("subresource").is_none() {
                    assert_eq!(without_defaults(&applied.object), without_defaults(wanted), "{step}");
                }
            }
            (Err(status), Some(error)) => {
                assert_eq!(json!(status.code), error["code"], "{step}");
                assert_eq!(json!(status.message), error["message"], "{step}");
            }
            (Ok(applied), Some(error)) if error["code"] == 422 => {
                // Refused later, by validation.
                assert!(applied.changed);
            }
            (result, _) => panic!("{step}: {result:?}"),
        }
    }
}

#[test]
fn steps_end_as_upstreams() {
    let steps: Value = serde_json::from_str(UPSTREAM).expect("test data");
    let mut replay = Replay { object: json!({}), owners: json!({}) };
    for step in steps.as_array().expect("steps") {
        replay.step(step);
    }
}

mod laws {
    use super::*;
    use proptest::prelude::*;

    /// ConfigMaps with labels, finalizers (a set) and data.
    fn config_map() -> impl Strategy<Value = Value> {
        let keys = prop::collection::btree_map("[a-d]", "[xyz]", 0..4);
        let finalizers = prop::collection::btree_set("f/[a-c]", 0..3);
        (keys.clone(), keys, finalizers).prop_map(|(labels, data, finalizers)| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
                "metadata": {"name": "c", "labels": labels, "finalizers": finalizers}})
        })
    }

    fn write<'a>(kind: &'a super::Kind, manager: &'a str) -> Write<'a> {
        Write { manager, subresource: "", gvk: &kind.gvk, schema: &kind.schema, reset: &kind.reset, now: NOW }
    }

    fn contains(object: &Value, part: &Value) -> bool {
        match (object, part) {
            (Value::Object(o), Value::Object(p)) => p.iter().all(|(k, v)| o.get(k).is_some_and(|w| contains(w, v))),
            (Value::Array(o), Value::Array(p)) => p.iter().all(|v| o.contains(v)),
            _ => object == part,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn applying_twice_changes_nothing(live in config_map(), config in config_map()) {
            let kind = kind("ConfigMap");
            let mut live = live;
            update(None, &mut live, &write(&kind, "creator"));
            let once = apply(Some(&live), &config, &write(&kind, "m"), true).expect("forced").object;
            let twice = apply(Some(&once), &config, &write(&kind, "m"), false).expect("own fields");
            prop_assert!(!twice.changed);
            prop_assert_eq!(twice.object, once);
        }

        #[test]
        fn a_configuration_is_in_its_result(live in config_map(), config in config_map()) {
            let kind = kind("ConfigMap");
            let applied = apply(Some(&live), &config, &write(&kind, "m"), true).expect("forced");
            prop_assert!(contains(&applied.object, &config));
        }

        #[test]
        fn giving_everything_up_leaves_what_others_had(live in config_map(), config in config_map()) {
            let kind = kind("ConfigMap");
            let mut live = live;
            update(None, &mut live, &write(&kind, "creator"));
            let nothing = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
            if let Ok(applied) = apply(Some(&live), &config, &write(&kind, "m"), false) {
                let back = apply(Some(&applied.object), &nothing, &write(&kind, "m"), false).expect("nothing").object;
                prop_assert_eq!(without_defaults(&back), without_defaults(&live));
                prop_assert_eq!(owners(&back), owners(&live));
            }
        }

        #[test]
        fn every_field_of_a_new_object_is_owned(object in config_map()) {
            let kind = kind("ConfigMap");
            let mut object = object;
            update(None, &mut object, &write(&kind, "creator"));
            let count = owners(&object).as_object().map_or(0, |o| o.len());
            let empty = without_defaults(&object) == json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
            prop_assert!(count == 1 || empty);
        }

        #[test]
        fn a_merge_patch_diff_leads_from_one_to_the_other(from in config_map(), to in config_map()) {
            let patch = merge_patch::diff(&from, &to);
            let mut got = from.clone();
            merge_patch::apply(&mut got, patch).expect("object");
            prop_assert_eq!(got, to);
        }
    }
}

#[test]
fn managed_fields_that_can_not_be_read_are_not_forgotten() {
    let kind = kind("ConfigMap");
    let write = |reset| Write { manager: "me", subresource: "", gvk: &kind.gvk, schema: &kind.schema, reset, now: NOW };
    let nothing = Set::new();
    let newer =
        json!([{"manager": "b", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV2", "fieldsV2": {}}]);
    let live = json!({"metadata": {"name": "x", "managedFields": newer}, "data": {"a": "1"}});
    let mut new = json!({"metadata": {"name": "x", "managedFields": newer}, "data": {"a": "2"}});
    update(Some(&live), &mut new, &write(&nothing));
    assert_eq!(new["metadata"]["managedFields"], newer);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "3"}});
    let error = super::apply(Some(&live), &config, &write(&nothing), true).expect_err("not understood");
    assert_eq!((error.code, error.message.as_str()), (500, "Internal error occurred: failed to decode managed fields"));
    let mut reset = json!({"metadata": {"name": "x", "managedFields": [{}]}, "data": {"a": "2"}});
    update(Some(&live), &mut reset, &write(&nothing));
    assert_ne!(reset["metadata"].get("managedFields"), Some(&newer));
}

/// Maps (or lists, every other level) inside one another, this many, with a scalar in each.
fn deep(levels: usize, end: &str) -> Value {
    (0..levels).fold(json!(end), |inner, level| {
        if level % 2 == 0 {
            let fields = [("a".to_owned(), inner), ("b".to_owned(), json!(level))];
            Value::Object(fields.into_iter().collect())
        } else {
            Value::Array(vec![inner])
        }
    })
}

/// Every walker of this crate, on an object as deep as one may be and on half of the stack that there is.
#[test]
fn walkers_have_stack_enough_for_the_deepest_object() {
    let walk = || {
        let levels = meta::depth::MAX_DEPTH - 2;
        let object = |end: &str| {
            let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
            object["data"] = deep(levels, end);
            object
        };
        let gvk = Gvk::new("", "v1", "ConfigMap");
        let nothing = Set::new();
        let (schema, now) = (&schema::ANYTHING, NOW);
        let write = Write { manager: "me", subresource: "", gvk: &gvk, schema, reset: &nothing, now };
        let (mut live, mut next) = (object("1"), object("2"));
        update(None, &mut live, &write);
        update(Some(&live), &mut next, &write);
        assert!(next["metadata"]["managedFields"].is_array());
        let applied = super::apply(Some(&live), &object("3"), &write, true).expect("applied").object;
        let less = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
        super::apply(Some(&applied), &less, &write, true).expect("pruned");
        let patch = merge_patch::diff(&live, &next);
        merge_patch::apply(&mut live, patch).expect("merged");
        crate::strategic::apply(&mut live, json!({ "data": deep(levels, "4") }), schema).expect("patched");
        let test = json!([{"op": "test", "path": "/data", "value": live["data"]}, {"op": "copy", "from": "/data", "path": "/e"}]);
        crate::json_patch::apply(&mut live, &test).expect("patched");
    };
    std::thread::Builder::new().stack_size(meta::depth::STACK_BYTES / 2).spawn(walk).unwrap().join().unwrap();
}
