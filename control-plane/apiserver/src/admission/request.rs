//! A request as admission sees it: what AdmissionReview shows of it, and what plugins may leave behind beside a changed
//! object. Made by the verbs, by [`Request::new`] alone, once for each try on a state of the object.

use std::any::Any;
use std::fmt::Display;

use kinds::KindRef;
use meta::{Gvr, Status};
use parking_lot::Mutex;
use serde_json::Value;

use crate::authn::UserInfo;
use crate::authz::Attributes;
use crate::notes::{Annotations, Warnings};
use crate::storage::{Guard, Write};

/// What is being done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// The word in AdmissionReview and in messages.
    pub fn word(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// The options of a call. An object is made of them only when somebody wants to see it.
pub trait CallOptions: Sync {
    /// Nothing is stored and nothing else may change either.
    fn dry_run(&self) -> bool;

    /// The `meta.k8s.io/v1` CreateOptions, UpdateOptions or DeleteOptions of an operation. A patch that changes an object
    /// has UpdateOptions, one that makes it has CreateOptions.
    fn object(&self, operation: Operation) -> Value;
}

/// On whose behalf, and where it is told: the same for all that one call does.
#[derive(Clone, Copy)]
pub struct By<'a> {
    pub user: &'a UserInfo,
    pub warnings: &'a Warnings,
    /// `None` when the audit log is told nothing of the call.
    pub annotations: Option<&'a Annotations>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub operation: Operation,
    /// The kind in the version of the request's path.
    pub kind: &'a KindRef,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// Of the path; that of a kind without namespaces counts as none.
    pub namespace: &'a str,
    /// Empty on create with generateName only.
    pub name: &'a str,
    /// `None` for connects, which have none.
    pub options: Option<&'a dyn CallOptions>,
}

/// One request on its way through the chain.
pub struct Request<'a> {
    pub operation: Operation,
    pub kind: &'a KindRef,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub options: Option<&'a dyn CallOptions>,
    /// The new object in the version of `kind`; what was posted to a subresource that takes an object of its own; null
    /// for deletes, empty for connects.
    pub object: &'a mut Value,
    /// The object before, in the same version; `None` on create and connect.
    pub old: Option<&'a Value>,
    /// Whom the caller acts as, with `extra`.
    pub user: &'a UserInfo,
    /// Writes that must happen in the same transaction as the object's own (allocations), with their guards.
    pub extra: Extra,
    by: By<'a>,
}

impl<'a> Request<'a> {
    pub fn new(by: By<'a>, asked: Asked<'a>, object: &'a mut Value, old: Option<&'a Value>) -> Request<'a> {
        Request {
            operation: asked.operation,
            kind: asked.kind,
            subresource: asked.subresource,
            namespace: if asked.kind.namespaced() { asked.namespace } else { "" },
            name: asked.name,
            options: asked.options,
            object,
            old,
            user: by.user,
            extra: Extra::default(),
            by,
        }
    }

    /// Whether this is about `plural` of `group`, main resource only.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.kind.group == group && self.kind.plural == plural
    }

    /// Whether an object is made or changed.
    pub fn writes(&self) -> bool {
        matches!(self.operation, Operation::Create | Operation::Update)
    }

    pub fn dry_run(&self) -> bool {
        self.options.is_some_and(CallOptions::dry_run)
    }

    /// Whether this is an update of nothing but what the garbage collector changes before an object can go.
    pub fn is_garbage_collection(&self) -> bool {
        let Some(old) = self.old else { return false };
        let mut new = self.object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields"] {
            match old["metadata"].get(field) {
                Some(value) => new["metadata"][field] = value.clone(),
                None => drop(new["metadata"].as_object_mut().and_then(|metadata| metadata.remove(field))),
            }
        }
        new == *old
    }

    pub fn gvr(&self) -> Gvr {
        self.kind.gvr()
    }

    /// The 403 of a plugin, in upstream's form.
    pub fn forbidden(&self, why: impl Display) -> Status {
        let generated = self.object["metadata"]["name"].as_str().unwrap_or_default();
        Status::forbidden(&self.gvr(), if self.name.is_empty() { generated } else { self.name }, why)
    }

    /// What to ask the authorisers: may the caller do `verb` to what the request is about?
    pub fn may<'b>(&'b self, verb: &'b str) -> Attributes<'b> {
        Attributes {
            user: self.user,
            verb,
            resource_request: true,
            group: &self.kind.group,
            version: &self.kind.version,
            resource: &self.kind.plural,
            subresource: self.subresource,
            namespace: self.namespace,
            name: self.name,
            path: "",
            field_selector: "",
            label_selector: "",
        }
    }

    /// Adds a `Warning` header to the answer.
    pub fn warn(&self, text: impl Into<String>) {
        self.by.warnings.add(text);
    }

    /// Adds to what the audit log says of the request.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        if let Some(annotations) = self.by.annotations {
            annotations.add(key, value);
        }
    }

    /// What goes into the transaction, when all plugins have spoken.
    pub fn into_extra(self) -> Extra {
        self.extra
    }
}

/// See [`Request::extra`]. Both halves of the chain add to it, and only one of them may change the request.
#[derive(Debug, Default)]
pub struct Extra(Mutex<TxnParts>);

/// What of a transaction goes beside the object.
#[derive(Debug, Default)]
pub struct TxnParts {
    pub guards: Vec<Guard>,
    pub writes: Vec<Write>,
    /// Let go of when the transaction is done: those who compete for one thing wait here and not by losing races.
    pub held: Option<Box<dyn Any + Send + Sync>>,
}

impl Extra {
    /// The transaction fails unless this holds.
    pub fn guard(&self, guard: Guard) {
        self.0.lock().guards.push(guard);
    }

    pub fn write(&self, write: Write) {
        self.0.lock().writes.push(write);
    }

    /// Keeps a turn until the transaction is done.
    pub fn hold(&self, turn: impl Any + Send + Sync) {
        self.0.lock().held = Some(Box::new(turn));
    }

    pub fn is_empty(&self) -> bool {
        let parts = self.0.lock();
        parts.guards.is_empty() && parts.writes.is_empty()
    }

    pub fn into_parts(self) -> TxnParts {
        self.0.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, asked};
    use super::*;
    use serde_json::json;

    #[test]
    fn what_plugins_say_is_heard_once_and_by_both() {
        let world = Fake::default();
        let mut object = json!({});
        for said in ["first", "second"] {
            // A second try, after a lost race.
            let request = world.request(asked(Operation::Create, "/v1/pods", "p"), &mut object, None);
            request.warn("odd");
            request.annotate("policy/verdict", said);
        }
        assert_eq!(world.warnings.texts(), ["odd"]);
        let annotations = world.annotations.all();
        assert_eq!(annotations.get("policy/verdict").map(String::as_str), Some("first"));
    }

    #[test]
    fn a_kind_without_namespaces_is_in_none() {
        let world = Fake::default();
        let (mut pod, mut node) = (json!({}), json!({}));
        assert_eq!(world.request(asked(Operation::Create, "/v1/pods", ""), &mut pod, None).namespace, "ns");
        assert_eq!(world.request(asked(Operation::Create, "/v1/nodes", ""), &mut node, None).namespace, "");
    }

    #[test]
    fn what_the_collector_changes_is_told_from_the_rest() {
        let world = Fake::default();
        let old = json!({"metadata": {"finalizers": ["a"], "labels": {"a": "b"}}});
        let judge = |mut new: Value| {
            let request = world.request(asked(Operation::Update, "/v1/pods", "p"), &mut new, Some(&old));
            request.is_garbage_collection()
        };
        assert!(judge(json!({"metadata": {"labels": {"a": "b"}, "ownerReferences": []}})));
        assert!(!judge(json!({"metadata": {"finalizers": ["a"], "labels": {}}})));
    }
}
