//! A small model of the API server for tests: plans are applied to it, so that every controller can be shown to
//! converge (reconcile, apply, reconcile again: nothing left to do). Versions, generations, uids, owner reference
//! merges and finalizers behave as the server's; nothing is validated. It also answers HTTP ([`serve`]), so that the
//! executor can be shown to do to a server what [`World::apply`] says that a plan does.

mod merge;
pub mod serve;

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Action, Op, PatchBody, Plan, Target, Verb};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use merge::merge;

type Id = (String, String, String);

/// A built-in type that can be read and written.
pub trait Object: Resource<DynamicType = ()> + Serialize + DeserializeOwned {}
impl<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned> Object for K {}

/// Why the model's server refuses a request: HTTP code, reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

fn refuse<T>(code: u16, reason: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, reason, message: message.into() })
}

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
    pub fn put<K: Object>(&mut self, object: &K) -> Arc<K> {
        let target = Target::of(object);
        let mut value = serde_json::to_value(object).expect("fixture");
        self.stamp(&mut value);
        self.objects.insert(id(&target), value);
        self.get(&target.namespace, &target.name).expect("just stored")
    }

    pub fn get<K: Object>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let value = self.objects.get(&id(&Target::named::<K>(namespace, name)))?;
        Some(Arc::new(from(value.clone())))
    }

    pub fn list<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<Arc<K>> {
        let plural = resource::<K>();
        self.objects.iter().filter(|(id, _)| id.0 == plural).map(|(_, v)| Arc::new(from(v.clone()))).collect()
    }

    /// Changes an object as a user or another component would; the generation moves with the spec.
    pub fn edit<K: Object + Clone>(&mut self, namespace: &str, name: &str, edit: impl FnOnce(&mut K)) {
        let mut object: K = self.get::<K>(namespace, name).expect("there").as_ref().clone();
        edit(&mut object);
        let target = Target::of(&object);
        let new = serde_json::to_value(&object).expect("serializes");
        let old = self.objects[&id(&target)].clone();
        self.replace(&target, old, new);
    }

    /// Deletes as a user would.
    pub fn delete<K: Object>(&mut self, namespace: &str, name: &str) {
        let _ = self.remove(&Target::named::<K>(namespace, name), None);
    }

    /// Reconciles and applies until there is nothing to do; panics if that takes too long. Gives back the rounds.
    pub fn settle(&mut self, mut reconcile: impl FnMut(&World) -> Plan) -> usize {
        for round in 0..MOST_ROUNDS {
            let plan = reconcile(self);
            if plan.steps.is_empty() {
                return round;
            }
            self.apply(&plan);
        }
        let plan = reconcile(self);
        panic!("does not converge: {plan}\n{plan:#?}");
    }

    /// Does what a plan says, as an executor would; panics where the server would refuse.
    pub fn apply(&mut self, plan: &Plan) {
        plan.actions().for_each(|action| self.act(action));
    }

    fn act(&mut self, action: &Action) {
        let (op, told) = match action {
            Action::Event { reason, note, .. } => return self.events.push(format!("{reason}: {note}")),
            Action::Do(op) => (op, None),
            Action::Recorded { op, done, .. } => (op, Some(done)),
        };
        let answer = match self.request(op) {
            // Gone already counts as done.
            Err(refusal) if refusal.code == 404 && matches!(op.verb, Verb::Delete(_)) => Value::Null,
            answer => answer.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", op.describe())),
        };
        if let Some(done) = told {
            let made = answer["metadata"]["name"].as_str().unwrap_or(&op.target.name);
            self.events.push(format!("{}: {}{made}", done.reason, done.note));
        }
    }

    /// One request, and what the server answers.
    pub fn request(&mut self, op: &Op) -> Result<Value, Refusal> {
        let target = &op.target;
        match &op.verb {
            Verb::Create(object) => self.create(target, object.clone()),
            Verb::Update { subresource, object } => self.update(target, *subresource, object.clone()),
            Verb::Patch { patch, .. } => self.patch(target, patch),
            Verb::Delete(deletion) => self.remove(target, deletion.uid.as_deref()),
            Verb::Post { .. } => self.found(target).cloned(),
        }
    }

    fn found(&self, target: &Target) -> Result<&Value, Refusal> {
        let Some(found) = self.objects.get(&id(target)) else {
            return refuse(404, "NotFound", format!("{} {:?} not found", target.resource.plural, target.name));
        };
        Ok(found)
    }

    fn stamp(&mut self, value: &mut Value) {
        self.version += 1;
        let meta = value["metadata"].as_object_mut().expect("metadata");
        meta.insert("resourceVersion".into(), json!(self.version.to_string()));
        meta.entry("uid").or_insert_with(|| json!(format!("uid-{}", self.version)));
        meta.entry("generation").or_insert_with(|| json!(1));
        meta.entry("creationTimestamp").or_insert_with(|| json!(self.now.to_string()));
    }

    fn create(&mut self, target: &Target, mut value: Value) -> Result<Value, Refusal> {
        let mut target = target.clone();
        if target.name.is_empty() {
            self.names += 1;
            target.name = format!("{}{:05}", value["metadata"]["generateName"].as_str().expect("a name"), self.names);
            value["metadata"]["name"] = json!(target.name);
        }
        if self.objects.contains_key(&id(&target)) {
            return refuse(409, "AlreadyExists", format!("{} exists", target.name));
        }
        self.stamp(&mut value);
        self.writes += 1;
        self.objects.insert(id(&target), value.clone());
        Ok(value)
    }

    fn update(&mut self, target: &Target, sub: Option<&str>, mut new: Value) -> Result<Value, Refusal> {
        let old = self.found(target)?.clone();
        same(&new, &old, target)?;
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
        Ok(self.replace(target, old, new))
    }

    fn patch(&mut self, target: &Target, patch: &PatchBody) -> Result<Value, Refusal> {
        let old = self.found(target)?.clone();
        let mut new = old.clone();
        let (PatchBody::Strategic(body) | PatchBody::Merge(body)) = patch;
        same(body, &old, target)?;
        merge(&mut new, body, matches!(patch, PatchBody::Strategic(_)));
        Ok(self.replace(target, old, new))
    }

    fn replace(&mut self, target: &Target, old: Value, mut new: Value) -> Value {
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
            self.objects.insert(id(target), new.clone());
        }
        new
    }

    fn is_held(&self, target: &Target) -> bool {
        (self.graceful && target.resource.plural == "pods") || target.resource.plural == "namespaces"
    }

    fn remove(&mut self, target: &Target, uid: Option<&str>) -> Result<Value, Refusal> {
        let old = self.found(target)?.clone();
        if uid.is_some_and(|uid| old["metadata"]["uid"] != uid) {
            return refuse(409, "Conflict", format!("delete of another {}", target.name));
        }
        self.writes += 1;
        if !has_finalizers(&old) && !self.is_held(target) {
            self.objects.remove(&id(target));
            return Ok(old);
        }
        let (now, version) = (json!(self.now.to_string()), json!((self.version + 1).to_string()));
        self.version += 1;
        let value = self.objects.entry(id(target)).or_insert(old);
        value["metadata"]["deletionTimestamp"] = now;
        value["metadata"]["resourceVersion"] = version;
        Ok(value.clone())
    }

    /// Plays kubelet and scheduler: every pod that waits runs and is ready.
    pub fn run_pods(&mut self) {
        let now = self.now.to_string();
        for pod in self.list::<Pod>() {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
            if phase == "Pending" {
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

/// The preconditions in what is written: uid and version, where they are said.
fn same(new: &Value, old: &Value, target: &Target) -> Result<(), Refusal> {
    for field in ["uid", "resourceVersion"] {
        let wanted = &new["metadata"][field];
        if !wanted.is_null() && *wanted != old["metadata"][field] {
            return refuse(409, "Conflict", format!("{field} of {} is another", target.name));
        }
    }
    Ok(())
}

fn has_finalizers(value: &Value) -> bool {
    value["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

fn without_version(value: &Value) -> Value {
    let mut value = value.clone();
    value["metadata"]["resourceVersion"] = Value::Null;
    value
}
