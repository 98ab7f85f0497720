//! What a pure decision wants done to the API. Controllers and the scheduler return a [`Plan`]; a [`crate::Executor`]
//! carries it out. Pure.
//!
//! A plan is made of few kinds of thing, and one that would make no sense can't be written:
//!
//! ```text
//!   Plan
//!   ├─ Step::One ───────────── Action          in order; the first that fails ends the plan,
//!   ├─ Step::Together ─┬────── Action          for what follows was decided on its success
//!   │                  └────── Action          at once; all are tried, then a failure ends the plan
//!   │                            ├─ Do(Op)        one request
//!   │                            ├─ Recorded{Op}  one request, and an event of how it went
//!   │                            └─ Event         an event
//!   ├─ requeue_after                           when to look again without being told
//!   └─ why                                     in words, also of what is *not* done
//! ```
//!
//! For example, a replica set that lacks two pods: `[One(Recorded(create pod)), Together([Recorded(create pod)]),
//! One(Do(update replicasets/status))]`: when the quota refuses the first pod, the second is not asked for.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, PropagationPolicy};
use serde_json::Value;

use crate::events::EventType;

/// The object that a request is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Group, version and plural: the place in the API.
    pub resource: ApiResource,
    /// Empty for cluster-scoped resources.
    pub namespace: String,
    /// Empty to create with `metadata.generateName`.
    pub name: String,
}

impl Target {
    /// The target that `object` is, of a built-in type.
    pub fn of<K: kube::Resource<DynamicType = ()>>(object: &K) -> Target {
        let meta = object.meta();
        Target::named::<K>(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }

    /// An object of a built-in type by its names.
    pub fn named<K: kube::Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Target {
        Target { resource: ApiResource::erase::<K>(&()), namespace: namespace.into(), name: name.into() }
    }
}

/// A patch and its kind. Put `metadata.uid` or `metadata.resourceVersion` into the body as a precondition.
#[derive(Debug, Clone, PartialEq)]
pub enum PatchBody {
    /// RFC 7386; every resource knows it.
    Merge(Value),
    /// Upstream's, which knows lists by their keys: built-in kinds only.
    Strategic(Value),
}

/// One request that writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Op {
    /// What it is about.
    pub target: Target,
    /// What is done to it.
    pub verb: Verb,
}

/// What is done to an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// Makes this object.
    Create(Value),
    /// Changes a part of it.
    Patch {
        /// None for the object itself.
        subresource: Option<&'static str>,
        /// The change.
        patch: PatchBody,
    },
    /// Replaces it: the body carries `metadata.resourceVersion`, or overwrites whatever is there.
    Update {
        /// None for the object itself.
        subresource: Option<&'static str>,
        /// The new one, whole.
        object: Value,
    },
    /// Deletes it. That it is gone already counts as done.
    Delete(Deletion),
    /// POST to a subresource: `binding`, `eviction`, `token`.
    Post {
        /// Its name.
        subresource: &'static str,
        /// What is posted.
        object: Value,
    },
}

/// How an object is deleted, and which.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deletion {
    /// Only this one; whatever has its name by then if None.
    pub uid: Option<String>,
    /// Only this version of it.
    pub resource_version: Option<String>,
    /// What becomes of its dependents; None is the kind's default.
    pub propagation: Option<PropagationPolicy>,
    /// Seconds that a pod gets to end; None is what its spec says.
    pub grace_seconds: Option<u32>,
}

impl Op {
    /// Creates `object`.
    pub fn create(target: Target, object: Value) -> Op {
        Op { target, verb: Verb::Create(object) }
    }

    /// Patches the object, or a subresource of it.
    pub fn patch(target: Target, subresource: Option<&'static str>, patch: PatchBody) -> Op {
        Op { target, verb: Verb::Patch { subresource, patch } }
    }

    /// Replaces the object, or a subresource of it.
    pub fn update(target: Target, subresource: Option<&'static str>, object: Value) -> Op {
        Op { target, verb: Verb::Update { subresource, object } }
    }

    /// Deletes the object.
    pub fn delete(target: Target, deletion: Deletion) -> Op {
        Op { target, verb: Verb::Delete(deletion) }
    }

    /// Posts to a subresource of the object.
    pub fn post(target: Target, subresource: &'static str, object: Value) -> Op {
        Op { target, verb: Verb::Post { subresource, object } }
    }

    /// `patch pods/status ns/name`, for log lines and errors. No bodies: they may be secrets.
    pub fn describe(&self) -> String {
        let (verb, subresource) = match &self.verb {
            Verb::Create(_) => ("create", None),
            Verb::Patch { subresource, .. } => ("patch", *subresource),
            Verb::Update { subresource, .. } => ("update", *subresource),
            Verb::Delete(_) => ("delete", None),
            Verb::Post { subresource, .. } => ("create", Some(*subresource)),
        };
        let Target { resource, namespace, name } = &self.target;
        let slash = |part: &str| if part.is_empty() { String::new() } else { format!("{part}/") };
        let below = subresource.map(|s| format!("/{s}")).unwrap_or_default();
        format!("{verb} {}{below} {}{name}", resource.plural, slash(namespace))
    }
}

/// Reason and start of the note of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// One word in CamelCase, by which people and programs find it.
    pub reason: &'static str,
    /// What comes before the name or the refusal.
    pub note: &'static str,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// One request.
    Do(Op),
    /// One request, then an event that tells how it went: the object's name (which a create may have from the server)
    /// or the server's refusal follows the given words.
    Recorded {
        /// The request.
        op: Op,
        /// Whom the event is about: mostly the owner of the target.
        regarding: Box<ObjectReference>,
        /// For when it was done.
        done: Words,
        /// For when it was refused.
        failed: Words,
    },
    /// An event for people to read. Never fails.
    Event {
        /// Whom it is about.
        regarding: Box<ObjectReference>,
        /// How it is shown.
        kind: EventType,
        /// One word in CamelCase.
        reason: String,
        /// A sentence.
        note: String,
    },
}

impl Action {
    /// The request, if it is one.
    pub fn op(&self) -> Option<&Op> {
        match self {
            Action::Do(op) | Action::Recorded { op, .. } => Some(op),
            Action::Event { .. } => None,
        }
    }

    fn describe(&self) -> String {
        match self {
            Action::Do(op) | Action::Recorded { op, .. } => op.describe(),
            Action::Event { reason, .. } => format!("event {reason}"),
        }
    }
}

impl From<Op> for Action {
    fn from(op: Op) -> Action {
        Action::Do(op)
    }
}

/// What comes before the next step.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// One action.
    One(Box<Action>),
    /// All of these at once. One that fails doesn't stop its siblings, but ends the plan.
    Together(Vec<Action>),
}

impl Step {
    /// The actions of the step.
    pub fn actions(&self) -> &[Action] {
        match self {
            Step::One(action) => std::slice::from_ref(action),
            Step::Together(all) => all,
        }
    }
}

impl<A: Into<Action>> From<A> for Step {
    fn from(action: A) -> Step {
        Step::One(Box::new(action.into()))
    }
}

/// What to do, in order, when to look again without being told, and why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Each begins when the one before it has succeeded.
    pub steps: Vec<Step>,
    /// The longest that the key rests.
    pub requeue_after: Option<Duration>,
    /// Reasons that a person would ask for, first of all for what is not done.
    pub why: Vec<&'static str>,
}

impl Plan {
    /// A plan that does nothing, for this reason.
    pub fn nothing(why: &'static str) -> Plan {
        Plan { why: vec![why], ..Plan::default() }
    }

    /// A plan of these steps.
    pub fn of<S: Into<Step>>(steps: impl IntoIterator<Item = S>) -> Plan {
        let mut plan = Plan::default();
        plan.extend(steps);
        plan
    }

    /// Whether it neither does anything nor asks to be looked at again.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.requeue_after.is_none()
    }

    /// Adds a step after all others.
    pub fn push(&mut self, step: impl Into<Step>) -> &mut Self {
        self.steps.push(step.into());
        self
    }

    /// Adds the step that does all of these at once; none if there are none.
    pub fn together(&mut self, actions: Vec<Action>) -> &mut Self {
        if !actions.is_empty() {
            self.steps.push(Step::Together(actions));
        }
        self
    }

    /// Adds another plan after this one: its steps, its reasons, and the earlier look of both.
    pub fn append(&mut self, after: Plan) -> &mut Self {
        self.steps.extend(after.steps);
        for why in after.why {
            self.because(why);
        }
        if let Some(delay) = after.requeue_after {
            self.requeue(delay);
        }
        self
    }

    /// Looks again after `delay`, or earlier if another reason asks so.
    pub fn requeue(&mut self, delay: Duration) -> &mut Self {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |d| d.min(delay)));
        self
    }

    /// Says why the plan is as it is; shown at debug and where a test fails.
    pub fn because(&mut self, why: &'static str) -> &mut Self {
        if !self.why.contains(&why) {
            self.why.push(why);
        }
        self
    }

    /// Every action, those of one step one after the other.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.steps.iter().flat_map(Step::actions)
    }
}

impl<S: Into<Step>> Extend<S> for Plan {
    fn extend<I: IntoIterator<Item = S>>(&mut self, steps: I) {
        self.steps.extend(steps.into_iter().map(Into::into));
    }
}

/// `create pods ns/; [delete pods ns/a, delete pods ns/b]; again in 5s; because ...`
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.steps.iter().map(Step::describe).collect();
        if parts.is_empty() {
            parts.push("nothing".into());
        }
        parts.extend(self.requeue_after.map(|delay| format!("again in {delay:?}")));
        if !self.why.is_empty() {
            parts.push(format!("because {}", self.why.join(", ")));
        }
        f.write_str(&parts.join("; "))
    }
}

impl Step {
    fn describe(&self) -> String {
        match self {
            Step::One(action) => action.describe(),
            Step::Together(all) => {
                let shown: Vec<String> = all.iter().take(SHOWN).map(Action::describe).collect();
                let more = all.len().saturating_sub(SHOWN);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("[{}{more}]", shown.join(", "))
            }
        }
    }
}

/// Of the actions of one step, so many are shown: a line of the log is for people.
const SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn a_plan_reads_as_a_line_and_says_why() {
        let target = |name: &str| Target::named::<Pod>("ns", name);
        let delete = |name: &str| Action::Do(Op::delete(target(name), Deletion::default()));
        let mut plan = Plan::default();
        plan.push(Op::patch(target("a"), Some("status"), PatchBody::Merge(Value::Null)));
        plan.together(["b", "c", "d", "e", "f"].map(delete).into()).together(Vec::new());
        plan.requeue(Duration::from_secs(9)).requeue(Duration::from_secs(5)).because("of a test").because("of a test");
        assert_eq!(
            plan.to_string(),
            "patch pods/status ns/a; [delete pods ns/b, delete pods ns/c, delete pods ns/d and 2 more]; again in 5s; \
             because of a test"
        );
        assert_eq!(plan.actions().count(), 6);
        let idle = Plan::nothing("it is paused");
        assert!(idle.is_empty());
        assert_eq!(idle.to_string(), "nothing; because it is paused");
    }
}
