//! A small model of the API server for tests: plans are applied to it, so that every controller can be shown to
//! converge (reconcile, apply, reconcile again: nothing left to do). Versions, generations, uids, owner reference
//! merges and finalizers behave as the server's; nothing is validated.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Action, PatchBody, Plan, Target};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::acts::Written;

type Id = (String, String, String);

/// Plans that a controller may need before it has nothing more to do.
const MOST_ROUNDS: usize = 40;

pub struct World {
    objects: BTreeMap<Id, Value>,
    version: u64,
    names: u64,
    /// `reason: note` of every event, in order; the texts of told creates too.
    pub events: Vec<String>,
    /// Objects written, for counting.
    pub writes: usize,
    pub now: Timestamp,
    /// Deleted pods stay until [`World::end_pods`].
    pub graceful: bool,
}

impl Default for World {
    fn default() -> World {
        World {
            objects: BTreeMap::new(),
            version: 0,
            names: 0,
            events: Vec::new(),
            writes: 0,
            now: at(1_000_000),
            graceful: false,
        }
    }
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

/// An object from its JSON or panic: for fixtures.
pub fn from<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("fixture")
}

impl World {
    /// Pods end as they do with a kubelet: deleted ones stay until [`World::end_pods`].
    pub fn graceful() -> World {
        World { graceful: true, ..World::default() }
    }

    /// A world at this time.
    pub fn at(seconds: i64) -> World {
        World { now: at(seconds), ..World::default() }
    }

    pub fn advance(&mut self, seconds: i64) {
        self.now = at(self.now.as_second() + seconds);
    }

    /// Stores a fixture and gives it back as stored.
    pub fn put<K: Written + DeserializeOwned>(&mut self, object: &K) -> Arc<K> {
        let target = Target::of(object);
        let mut value = serde_json::to_value(object).expect("fixture");
        self.stamp(&mut value);
        self.objects.insert(id(&target), value);
        self.get(&target.namespace, &target.name).expect("just stored")
    }

    pub fn get<K: Written + DeserializeOwned>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let value = self.objects.get(&id(&Target::named::<K>(namespace, name)))?;
        Some(Arc::new(from(value.clone())))
    }

    pub fn list<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<Arc<K>> {
        let plural = resource::<K>();
        self.objects.iter().filter(|(id, _)| id.0 == plural).map(|(_, v)| Arc::new(from(v.clone()))).collect()
    }

    /// Changes an object as a user or another component would; the generation moves with the spec.
    pub fn edit<K: Written + DeserializeOwned + Clone>(
        &mut self,
        namespace: &str,
        name: &str,
        edit: impl FnOnce(&mut K),
    ) {
        let mut object: K = self.get::<K>(namespace, name).expect("there").as_ref().clone();
        edit(&mut object);
        let target = Target::of(&object);
        let new = serde_json::to_value(&object).expect("serializes");
        let old = self.objects[&id(&target)].clone();
        self.replace(&target, old, new);
    }

    /// Deletes as a user would.
    pub fn delete<K: Written + DeserializeOwned>(&mut self, namespace: &str, name: &str) {
        self.remove(&Target::named::<K>(namespace, name), None);
    }

    /// Reconciles and applies until there is nothing to do; panics if that takes too long. Gives back the rounds.
    pub fn settle(&mut self, mut reconcile: impl FnMut(&World) -> Plan) -> usize {
        for round in 0..MOST_ROUNDS {
            let plan = reconcile(self);
            if plan.actions.is_empty() {
                return round;
            }
            self.apply(&plan);
        }
        panic!("does not converge: {:#?}", reconcile(self));
    }

    pub fn apply(&mut self, plan: &Plan) {
        plan.actions.iter().for_each(|a| self.act(a));
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Create { target, object } => {
                self.create(target, object.clone());
            }
            Action::Update { target, subresource, object } => self.update(target, *subresource, object.clone()),
            Action::Patch { target, patch, .. } => self.patch(target, patch),
            Action::Delete { target, uid, .. } => self.remove(target, uid.as_deref()),
            Action::Event { reason, note, .. } => self.events.push(format!("{reason}: {note}")),
            Action::Together(all) => all.iter().for_each(|a| self.act(a)),
            Action::Told { action, done, .. } => {
                let made = match &**action {
                    Action::Create { target, object } => self.create(target, object.clone()),
                    Action::Delete { target, .. } => target.name.clone(),
                    _ => String::new(),
                };
                if !matches!(**action, Action::Create { .. }) {
                    self.act(action);
                }
                self.events.push(format!("{}: {}{made}", done.reason, done.note));
            }
            Action::Post { .. } => {}
        }
    }

    fn stamp(&mut self, value: &mut Value) {
        self.version += 1;
        let meta = value["metadata"].as_object_mut().expect("metadata");
        meta.insert("resourceVersion".into(), json!(self.version.to_string()));
        meta.entry("uid").or_insert_with(|| json!(format!("uid-{}", self.version)));
        meta.entry("generation").or_insert_with(|| json!(1));
        meta.entry("creationTimestamp").or_insert_with(|| json!(self.now.to_string()));
    }

    fn create(&mut self, target: &Target, mut value: Value) -> String {
        let mut target = target.clone();
        if target.name.is_empty() {
            self.names += 1;
            target.name = format!("{}{:05}", value["metadata"]["generateName"].as_str().expect("a name"), self.names);
            value["metadata"]["name"] = json!(target.name);
        }
        assert!(!self.objects.contains_key(&id(&target)), "{} exists", target.name);
        self.stamp(&mut value);
        self.writes += 1;
        self.objects.insert(id(&target), value);
        target.name
    }

    fn update(&mut self, target: &Target, sub: Option<&str>, mut new: Value) {
        let old = self.objects.get(&id(target)).unwrap_or_else(|| panic!("no {} to update", target.name)).clone();
        if let Some(version) = new["metadata"]["resourceVersion"].as_str() {
            assert_eq!(old["metadata"]["resourceVersion"], version, "conflict on {}", target.name);
        }
        match sub {
            Some("status") => {
                let mut kept = old.clone();
                kept["status"] = new["status"].take();
                // Annotations change through the status too.
                if let Some(annotations) = new["metadata"].get_mut("annotations") {
                    kept["metadata"]["annotations"] = annotations.take();
                }
                new = kept;
            }
            _ => {
                new["status"] = old["status"].clone();
                // As the server counts: rollouts copy a deployment's annotations.
                if target.resource.plural == "deployments"
                    && new["metadata"]["annotations"] != old["metadata"]["annotations"]
                {
                    let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
                    new["metadata"]["generation"] = json!(generation + 1);
                }
            }
        }
        assert_ne!(without_version(&old), without_version(&new), "an update of {} that changes nothing", target.name);
        self.replace(target, old, new);
    }

    fn patch(&mut self, target: &Target, patch: &PatchBody) {
        let old = self.objects.get(&id(target)).unwrap_or_else(|| panic!("no {} to patch", target.name)).clone();
        let mut new = old.clone();
        match patch {
            PatchBody::Strategic(body) | PatchBody::Merge(body) | PatchBody::Apply(body) => {
                let uid = &body["metadata"]["uid"];
                assert!(uid.is_null() || *uid == old["metadata"]["uid"], "patch of another {}", target.name);
                merge(&mut new, body, matches!(patch, PatchBody::Strategic(_)));
            }
            PatchBody::Json(_) => panic!("no JSON patches in the model"),
        }
        self.replace(target, old, new);
    }

    fn replace(&mut self, target: &Target, old: Value, mut new: Value) {
        self.version += 1;
        self.writes += 1;
        new["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if new["spec"] != old["spec"] {
            new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
        }
        let gone = new["metadata"]["deletionTimestamp"].is_string() && !has_finalizers(&new) && !self.is_held(target);
        if gone {
            self.objects.remove(&id(target));
        } else {
            self.objects.insert(id(target), new);
        }
    }

    fn is_held(&self, target: &Target) -> bool {
        (self.graceful && target.resource.plural == "pods") || target.resource.plural == "namespaces"
    }

    fn remove(&mut self, target: &Target, uid: Option<&str>) {
        let Some(old) = self.objects.get(&id(target)) else { return };
        assert!(uid.is_none_or(|u| old["metadata"]["uid"] == u), "delete of another {}", target.name);
        self.writes += 1;
        if has_finalizers(old) || self.is_held(target) {
            let now = json!(self.now.to_string());
            let version = json!((self.version + 1).to_string());
            self.version += 1;
            let value = self.objects.get_mut(&id(target)).expect("seen");
            value["metadata"]["deletionTimestamp"] = now;
            value["metadata"]["resourceVersion"] = version;
        } else {
            self.objects.remove(&id(target));
        }
    }

    /// Plays kubelet and scheduler: every pod that waits runs and is ready.
    pub fn run_pods(&mut self) {
        let now = self.now.to_string();
        for pod in self.list::<Pod>() {
            if super::pods::phase(&pod) == "Pending" {
                let (namespace, name) = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
                let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
                self.set_pod(
                    &namespace,
                    &name,
                    "Running",
                    json!([
                        {"type": "Ready", "status": "True", "lastTransitionTime": now}
                    ]),
                );
            }
        }
    }

    pub fn set_pod(&mut self, namespace: &str, name: &str, phase: &str, conditions: Value) {
        self.edit::<Pod>(namespace, name, |pod| {
            let mut status = serde_json::to_value(pod.status.take().unwrap_or_default()).expect("status");
            status["phase"] = json!(phase);
            status["conditions"] = conditions;
            pod.status = Some(from(status));
            pod.spec.get_or_insert_default().node_name.get_or_insert_with(|| "node".into());
        });
    }

    /// Plays the kubelet: terminating pods without finalizers are gone.
    pub fn end_pods(&mut self) {
        self.objects
            .retain(|id, v| id.0 != "pods" || !v["metadata"]["deletionTimestamp"].is_string() || has_finalizers(v));
    }
}

fn resource<K: Resource<DynamicType = ()>>() -> String {
    K::plural(&()).into_owned()
}

fn id(target: &Target) -> Id {
    (target.resource.plural.clone(), target.namespace.clone(), target.name.clone())
}

fn has_finalizers(value: &Value) -> bool {
    value["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

fn without_version(value: &Value) -> Value {
    let mut value = value.clone();
    value["metadata"]["resourceVersion"] = Value::Null;
    value
}

fn merge(into: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (name, value) in fields {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let doomed = value.as_array().expect("a list").clone();
            if let Some(all) = into[list].as_array_mut() {
                all.retain(|v| !doomed.contains(v));
            }
            continue;
        }
        match (value, strategic) {
            (Value::Null, _) => {
                into.as_object_mut().expect("an object").remove(name);
            }
            (Value::Array(items), true) => merge_list(&mut into[name.as_str()], name, items),
            (Value::Object(_), _) => merge(&mut into[name.as_str()], value, strategic),
            _ => into[name.as_str()] = value.clone(),
        }
    }
}

fn merge_list(into: &mut Value, name: &str, items: &[Value]) {
    let key = match name {
        "ownerReferences" => "uid",
        "conditions" => "type",
        "finalizers" => "",
        _ => {
            *into = Value::Array(items.to_vec());
            return;
        }
    };
    if !into.is_array() {
        *into = json!([]);
    }
    let all = into.as_array_mut().expect("a list");
    for item in items {
        if key.is_empty() {
            if !all.contains(item) {
                all.push(item.clone());
            }
            continue;
        }
        let at = all.iter().position(|v| v[key] == item[key]);
        match (at, item["$patch"] == "delete") {
            (Some(n), true) => {
                all.remove(n);
            }
            (Some(n), false) => merge(&mut all[n], item, true),
            (None, true) => {}
            (None, false) => all.push(item.clone()),
        }
    }
}
